"""dlib's face recogniser as ONNX, out of the file in which dlib keeps its network.

Such a file is a stream of numbers without names; what they mean follows from the network's C++ type. Here every number
is compared with what that type writes, to the last byte, so that no tensor is taken for another. The affine layers are
folded into the convolutions. Faces are aligned and prepared elsewhere.

Network: `anet_type` in dlib's examples/dnn_face_recognition_ex.cpp, a ResNet of 29 convolutions; format: the
`serialize` functions of dlib/serialize.h, dlib/dnn/core.h and dlib/dnn/layers.h. https://github.com/davisking/dlib
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput
from relens.models.graph import Graph
from relens.models.reference import reference_pictures
from relens.values import Floats

SIDE_PX = 150
VECTOR_LENGTH = 128
MEAN: Final = (122.782, 117.001, 104.298)

_STEM = (32, 3, 7)
_LEVELS: Final = ((32, False, 3), (64, True, 4), (128, True, 3), (256, True, 3), (256, True, 1))
"""Width, whether it begins by halving the sides, and how many blocks; from the picture to the vector."""

_LOSS: Final = ("loss_metric_2", (0.04, 0.6))
_INPUT = "input_rgb_image_sized"
_RATES: Final = (1.0, 1.0, 1.0, 0.0)  # by which training went faster or slower, with the usual values
_MARK, _LAYER, _FIRST_LAYER = 1, 2, 3  # versions of the format of layers; a mark is one that computes nothing
_TENSOR = 2  # of the format of tensors
_NEGATIVE, _LONGEST_INTEGER, _DIMENSIONS = 0x80, 8, 4


@dataclass(frozen=True, slots=True)
class Convolution:
    """`kernel` (out, in, side, side) and `bias` (out,), then times `gain` (out,) plus `offset` (out,); float32."""

    kernel: Floats
    bias: Floats
    gain: Floats
    offset: Floats

    def folded(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Kernel and bias of one convolution that does the same."""
        gain = self.gain.astype(np.float64)
        return self.kernel * gain[:, None, None, None], self.bias * gain + self.offset


def read_network(data: bytes) -> tuple[list[Convolution], Floats]:
    """The 29 convolutions, from the picture on, and the matrix (256, 128) float32 behind them.

    BadInput `models.bad-weights` that names the place, if a byte is not what dlib writes for this network, or if a
    parameter is not finite.
    """
    reader = _Reader(data)
    try:
        tensors = _read(reader)
    except (ValueError, OverflowError) as error:
        raise BadInput(
            "models.bad-weights",
            f"{error} at byte {reader.at}",
            hint="is it dlib_face_recognition_resnet_model_v1.dat, as it was published?",
        ) from error
    *filters, matrix = tensors
    shapes = _convolutions()
    pairs = zip(shapes, filters[::2], filters[1::2], strict=True)
    return [_convolution(shape, filter_, affine) for shape, filter_, affine in pairs], matrix.reshape(256, 128)


def build_onnx(data: bytes) -> bytes:
    """The ONNX file of the network in dlib's file: the same bytes for the same file.

    pixels   input, (n, 3, 150, 150) float32, RGB, (value 0..255 - MEAN) / 256
    vector   (n, 128) float32, not normalised; dlib takes two faces for one person when theirs are nearer than 0.6

    BadInput `models.bad-weights` as from `read_network`.
    """
    convolutions, matrix = read_network(data)
    layers = iter(convolutions)
    graph = Graph()
    stem = graph.node("Relu", [graph.conv("pixels", *next(layers).folded(), "stem", stride=2)], "stem.relu")
    x = graph.node("MaxPool", [stem], "stem.pool", kernel_shape=[3, 3], strides=[2, 2])
    side, width = _shrunk(_shrunk(SIDE_PX, _STEM[2]), 3), _STEM[0]
    for level, (into, halves, blocks) in enumerate(_LEVELS):
        for block in range(blocks):
            name, halve = f"level{level}.{block}", halves and block == 0
            y = graph.conv(x, *next(layers).folded(), f"{name}.a", stride=2 if halve else 1, pad=0 if halve else 1)
            y = graph.conv(graph.node("Relu", [y], f"{name}.a.relu"), *next(layers).folded(), f"{name}.b", pad=1)
            if halve:
                x, y = _halved(graph, x, y, name, side=side, channels=into - width)
                side, width = _shrunk(side, 2), into
            x = graph.node("Relu", [graph.node("Add", [y, x], f"{name}.sum")], f"{name}.relu")
    flat = graph.node("Flatten", [graph.node("GlobalAveragePool", [x], "mean")], "flat", axis=1)
    graph.linear(flat, matrix, None, "vector")
    return graph.serialise("dlib-face", inputs={"pixels": (3, SIDE_PX, SIDE_PX)}, outputs={"vector": (VECTOR_LENGTH,)})


def reference_pixels() -> Floats:
    """The pictures of the kept outputs, which are of dlib itself (20.0.1), as an input: (3, 3, 150, 150) float32."""
    pictures = reference_pictures(SIDE_PX, SIDE_PX).astype(np.float32)
    scaled: Floats = (pictures - np.array(MEAN, np.float32)) / np.float32(256)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _shrunk(side: int, window: int) -> int:
    """The side after a window went over it in steps of two."""
    return (side - window) // 2 + 1


def _halved(graph: Graph, x: str, y: str, name: str, *, side: int, channels: int) -> tuple[str, str]:
    """What is added at a halving: x averaged, and both filled up with zeros, as dlib does, until they fit.

    The convolution leaves out the last row and column of an even side, the average does not.
    """
    averaged = graph.node("AveragePool", [x], f"{name}.mean", kernel_shape=[2, 2], strides=[2, 2])
    lacking = _shrunk(side, 2) - _shrunk(side, 3)
    return _filled(graph, averaged, (channels, 0, 0)), _filled(graph, y, (0, lacking, lacking))


def _filled(graph: Graph, x: str, more: tuple[int, int, int]) -> str:
    """Zeros after the last channel, row and column."""
    if not any(more):
        return x
    ends = graph.constant(f"{x}.more", np.array([0, 0, 0, 0, 0, *more]), np.int64)
    return graph.node("Pad", [x, ends], f"{x}.filled")


def _convolutions() -> list[tuple[int, int, int]]:
    """(out, in, side) of each, in the order of the file."""
    shapes, width = [_STEM], _STEM[0]
    for into, _, blocks in _LEVELS:
        for _ in range(blocks):
            shapes += [(into, width, 3), (into, into, 3)]
            width = into
    return shapes


def _convolution(shape: tuple[int, int, int], filters: Floats, affine: Floats) -> Convolution:
    out, into, side = shape
    kernel, bias = np.split(filters, [out * into * side * side])
    return Convolution(kernel.reshape(out, into, side, side), bias, *np.split(affine, 2))


# -- the file ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Record:
    """What the file says of a layer: `kind`, the whole numbers `before` its tensor, the shape of the tensor, the whole
    numbers `after` it, and the rates of training. No kind is a mark, which other layers refer to.
    """

    kind: str = ""
    before: tuple[int, ...] = ()
    tensor: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    trained: bool = False


_RELU = _Record("relu_")
_SUM = _Record("add_prev_")
_MAX_POOL = _Record("max_pool_2", after=(3, 3, 2, 2, 0, 0))
_AVERAGE_POOL = _Record("avg_pool_2", after=(2, 2, 2, 2, 0, 0))
_AVERAGE_ALL = _Record("avg_pool_2", after=(0, 0, 1, 1, 0, 0))
_VECTOR = _Record(
    "fc_2",
    before=(VECTOR_LENGTH, 256),
    tensor=(256, VECTOR_LENGTH, 1, 1),
    after=(1, 256, VECTOR_LENGTH, 1, 1, 1, 0, 0, 0, 0, 1),
    trained=True,
)


def _records() -> Iterator[_Record]:
    """Of every layer, from the picture to the vector."""
    shapes = iter(_convolutions())
    yield from (*_filter(next(shapes), stride=2), _RELU, _MAX_POOL)
    for _, halves, blocks in _LEVELS:
        for block in range(blocks):
            halve = halves and block == 0
            yield from (_Record(), *_filter(next(shapes), stride=2 if halve else 1), _RELU, *_filter(next(shapes)))
            yield from (_Record(), _Record(), _AVERAGE_POOL) if halve else ()
            yield from (_SUM, _RELU)
    yield from (_AVERAGE_ALL, _VECTOR)


def _filter(shape: tuple[int, int, int], stride: int = 1) -> tuple[_Record, _Record]:
    """A convolution and its affine layer. Where their parts lie in the tensors is written after these."""
    out, into, side = shape
    pad = side // 2 if stride == 1 else 0
    channels = (1, 1, out, 1, 1)
    steps, kernel = (out, side, side, stride, stride, pad, pad), (1, out, into, side, side)
    size = out * into * side * side + out
    return (
        _Record("con_4", tensor=(size, 1, 1, 1), after=(*steps, *kernel, *channels), trained=True),
        _Record("affine_", tensor=(2 * out, 1, 1, 1), after=(*channels, *channels, 0)),
    )


def _read(reader: _Reader) -> list[Floats]:
    """The tensors. Layers nest: from the outside in each says its version, from the inside out each says the rest."""
    records = list(_records())
    name, numbers = _LOSS
    reader.whole(1)
    reader.word(name)
    reader.real(*numbers)
    for record in reversed(records[1:]):
        reader.whole(_LAYER if record.kind else _MARK)
    reader.whole(_FIRST_LAYER)
    reader.word(_INPUT)
    reader.real(*MEAN)
    reader.whole(SIDE_PX, SIDE_PX)
    tensors = []
    for at, record in enumerate(records):
        if not record.kind:
            continue
        reader.word(record.kind)
        reader.whole(*record.before)
        if record.tensor:
            tensors.append(reader.tensor(record.tensor))
        reader.whole(*record.after)
        reader.real(*(_RATES if record.trained else ()))
        reader.state()
        if at == 0:
            reader.whole(1)  # tensors that the input makes of a picture
    reader.end()
    return tensors


class _Reader:
    """Reads on from `at` and compares. ValueError that says what was expected."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def whole(self, *wanted: int) -> None:
        for number in wanted:
            if (found := self._integer()) != number:
                raise ValueError(f"{found} where {number} is expected")

    def real(self, *wanted: float) -> None:
        """A number is written as mantissa and exponent; what was float32 before is not exactly what it stood for."""
        for number in wanted:
            found = math.ldexp(self._integer(), self._integer())
            if not math.isclose(found, number, rel_tol=1e-6):
                raise ValueError(f"{found:g} where {number:g} is expected")

    def word(self, wanted: str) -> None:
        if (found := self._take(self._integer())) != wanted.encode():
            raise ValueError(f"{found[:40]!r} where {wanted} is expected")

    def tensor(self, shape: tuple[int, ...]) -> Floats:
        """Flat."""
        self.whole(_TENSOR, *shape)
        values = np.frombuffer(self._take(4 * math.prod(shape)), "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("a tensor with values that are not finite")
        return values

    def state(self) -> None:
        """Two flags that are set, one that may be, and three tensors of training that are empty."""
        if (flags := self._take(3)) not in (b"110", b"111"):
            raise ValueError(f"{flags!r} where flags are expected")
        for _ in range(3):
            self.tensor((0,) * _DIMENSIONS)

    def end(self) -> None:
        if self.at != len(self._data):
            raise ValueError(f"{len(self._data) - self.at} bytes more than expected")

    def _integer(self) -> int:
        """A byte with the sign and how many bytes follow; the lowest comes first."""
        (control,) = self._take(1)
        length = control & ~_NEGATIVE
        if not 1 <= length <= _LONGEST_INTEGER:
            raise ValueError(f"an integer of {length} bytes")
        number = int.from_bytes(self._take(length), "little")
        return -number if control & _NEGATIVE else number

    def _take(self, count: int) -> bytes:
        taken = self._data[self.at : self.at + count] if count >= 0 else b""
        if len(taken) != count:
            raise ValueError(f"it ends where {count} bytes are expected")
        self.at += count
        return taken
