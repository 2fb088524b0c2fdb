"""A file as dlib writes it, with random weights: read strictly, and run beside a plain computation of the network."""

from __future__ import annotations

import io
import math

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relens.errors import BadInput, Broken
from relens.models import dlib
from relens.models.dlib import build_onnx, read_network, reference_pixels
from relens.models.reference import check_conversion, reference_pictures
from relens.values import digest_of


class Writer:
    """dlib's own way to write; `tensors` remembers where parameters lie."""

    def __init__(self):
        self.out = io.BytesIO()
        self.tensors = []

    def whole(self, *numbers):
        for number in numbers:
            length = max(1, (abs(number).bit_length() + 7) // 8)
            self.out.write(bytes([length | (0x80 if number < 0 else 0)]) + abs(number).to_bytes(length, "little"))

    def real(self, *numbers):
        for number in numbers:
            mantissa, exponent = math.frexp(number)
            self.whole(int(mantissa * 2**24), exponent - 24 if number else 0)

    def word(self, word):
        self.whole(len(word))
        self.out.write(word.encode())

    def tensor(self, values, shape):
        self.whole(2, *shape)
        start = self.out.tell()
        self.out.write(values.astype("<f4").tobytes())
        self.tensors.append((start, self.out.tell()))


def random_parameters(seed=0):
    """Of each convolution: kernel, bias, gain and offset; and the last matrix."""
    rng = np.random.default_rng(seed)
    layers = []
    for at, (out, into, side) in enumerate(dlib._convolutions()):
        calm = 0.3 if at and at % 2 == 0 else 1.0  # what is added to a shortcut: or it would grow from block to block
        kernel = rng.normal(0, math.sqrt(2 / (into * side * side)), (out, into, side, side))
        gain = rng.uniform(0.6, 1.2, out) * calm
        layers.append([kernel, rng.normal(0, 0.1, out), gain, rng.normal(0, 0.1, out)])
    return [[part.astype(np.float32) for part in layer] for layer in layers], rng.normal(0, 0.1, (256, 128)).astype(
        "f4"
    )


def write(layers, matrix):
    writer = Writer()
    records = list(dlib._records())
    parameters = [part for kernel, bias, gain, offset in layers for part in (_flat(kernel, bias), _flat(gain, offset))]
    parameters = iter([*parameters, matrix.ravel()])
    writer.whole(1)
    writer.word("loss_metric_2")
    writer.real(0.04, 0.6)
    writer.whole(*(2 if record.kind else 1 for record in reversed(records[1:])), 3)
    writer.word("input_rgb_image_sized")
    writer.real(122.782, 117.001, 104.298)
    writer.whole(150, 150)
    for at, record in enumerate(record for record in records if record.kind):
        writer.word(record.kind)
        writer.whole(*record.before)
        if record.tensor:
            writer.tensor(next(parameters), record.tensor)
        writer.whole(*record.after)
        writer.real(*((1.0, 1.0, 1.0, 0.0) if record.trained else ()))
        writer.out.write(b"111" if at % 2 else b"110")
        writer.whole(*([2, 0, 0, 0, 0] * 3))
        if at == 0:
            writer.whole(1)
    return writer


def _flat(*parts):
    return np.concatenate([part.ravel() for part in parts])


@pytest.fixture(scope="module")
def parameters():
    return random_parameters()


@pytest.fixture(scope="module")
def writer(parameters):
    return write(*parameters)


@pytest.fixture(scope="module")
def file(writer):
    return writer.out.getvalue()


def convolve(x, kernel, bias, stride, pad):
    side = kernel.shape[-1]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    return np.tensordot(kernel, windows, axes=([1, 2, 3], [0, 3, 4])) + bias[:, None, None]


def largest(x):
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(-1, -2))


def mean(x):
    return np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2))[:, ::2, ::2].mean(axis=(-1, -2))


def added(a, b):
    """As dlib adds: what one of them lacks is zero."""
    total = np.zeros(np.maximum(a.shape, b.shape))
    for one in (a, b):
        total[tuple(slice(length) for length in one.shape)] += one
    return total


def compute(pixels, layers, matrix):
    """(3, 150, 150) to (128,), layer by layer."""
    left = iter(layers)

    def layer(x, stride=1, pad=1):
        kernel, bias, gain, offset = (part.astype(np.float64) for part in next(left))
        return convolve(x, kernel, bias, stride, pad) * gain[:, None, None] + offset[:, None, None]

    x = largest(np.maximum(layer(pixels, stride=2, pad=0), 0))
    for halves, blocks in ((False, 3), (True, 4), (True, 3), (True, 3), (True, 1)):
        for block in range(blocks):
            if halves and block == 0:
                y = layer(np.maximum(layer(x, stride=2, pad=0), 0))
                x = np.maximum(added(y, mean(x)), 0)
            else:
                y = layer(np.maximum(layer(x), 0))
                x = np.maximum(added(y, x), 0)
    return x.mean(axis=(1, 2)) @ matrix


def test_every_parameter_is_read_to_its_place(file, parameters):
    layers, matrix = parameters
    convolutions, last = read_network(file)
    assert len(convolutions) == len(layers) == 29
    for one, (kernel, bias, gain, offset) in zip(convolutions, layers, strict=True):
        for read, written in ((one.kernel, kernel), (one.bias, bias), (one.gain, gain), (one.offset, offset)):
            np.testing.assert_array_equal(read, written)
    np.testing.assert_array_equal(last, matrix)


def test_the_network_has_as_many_parameters_as_dlibs(parameters):
    layers, matrix = parameters
    assert sum(part.size for layer in layers for part in layer) + matrix.size == 5_614_592


def test_the_onnx_file_computes_what_dlib_would(file, parameters):
    session = onnxruntime.InferenceSession(build_onnx(file), providers=["CPUExecutionProvider"])
    pixels = reference_pixels()
    [vectors] = session.run(["vector"], {"pixels": pixels})
    assert vectors.shape == (3, 128)
    wanted = compute(pixels[0].astype(np.float64), *parameters)
    assert np.abs(wanted).max() > 0.05
    np.testing.assert_allclose(vectors[0], wanted, atol=1e-4 * np.abs(wanted).max())
    with pytest.raises(Broken, match="dlib-face deviates"):
        check_conversion("dlib-face", {"vector": vectors})


def test_the_same_file_gives_the_same_bytes(file):
    assert build_onnx(file) == build_onnx(file)


@pytest.mark.parametrize("more", [b"\0", b"more"])
def test_bytes_behind_the_end_are_refused(file, more):
    with pytest.raises(BadInput, match="more than expected") as caught:
        read_network(file + more)
    assert caught.value.code == "models.bad-weights"


@settings(deadline=None, max_examples=20)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_ends_early_is_refused(file, share):
    with pytest.raises(BadInput, match="at byte") as caught:
        read_network(file[: int(len(file) * share)])
    assert caught.value.code == "models.bad-weights"


def test_a_change_of_any_kind_of_byte_is_refused_with_its_place(file, writer):
    """Between the tensors nothing is skipped: each byte is of a number, a name or a flag that must be as it is."""
    ends = [0, *(end for _, end in writer.tensors)]
    places = [
        range(start, min(end, start + 90)) for start, end in zip(ends, [s for s, _ in writer.tensors], strict=False)
    ]
    numbers = np.random.default_rng(2).choice(np.concatenate(places[:4]), 40)
    taken = [at for at in numbers.tolist() if not refused(file[:at] + bytes([file[at] ^ 0x40]) + file[at + 1 :])]
    assert len(taken) < 4, "only a zero may have any exponent"


def refused(data):
    try:
        read_network(data)
    except BadInput as error:
        return error.code == "models.bad-weights"
    return False


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_refused(file, writer, value):
    changed = bytearray(file)
    start, _ = writer.tensors[7]
    changed[start : start + 4] = np.float32(value).tobytes()
    with pytest.raises(BadInput, match="not finite"):
        read_network(bytes(changed))


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\0\0", b"\x08" + b"\xff" * 8, b"PK\x03\x04", b"\x01\x01\x08" + b"\xff" * 8]
)
def test_what_is_no_network_of_dlib_is_refused(data):
    with pytest.raises(BadInput) as caught:
        read_network(data)
    assert caught.value.code == "models.bad-weights"


def test_numbers_too_large_for_any_machine_are_refused(file):
    """An exponent of 2^60 where the loss says 0.04."""
    start = 1 + 1 + 2 + len("loss_metric_2")
    with pytest.raises(BadInput):
        read_network(file[:start] + b"\x01\x01\x08" + b"\x10" * 8 + file[start:])


def test_reference_pictures_are_the_same_on_every_machine():
    pictures = reference_pictures(150, 150)
    assert pictures.shape == (3, 150, 150, 3)
    assert pictures.dtype == np.uint8
    assert digest_of(pictures.tobytes()) == "73e87c445bb660c0632f11797ea099dcae372e787bd9dff371424f8286e9a883"
    assert reference_pixels().shape == (3, 3, 150, 150)
