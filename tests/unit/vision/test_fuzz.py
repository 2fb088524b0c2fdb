"""Damaged files: whatever is done to the bytes, the answer is a picture or a BadInput, and nothing is warned of."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relens.errors import BadInput
from relens.vision import Limits, decode

SMALL = Limits(max_pixels=1_000_000, max_progressive_pixels=1_000_000)

# Heads are small and rule everything behind them: half of the damage goes there.
PLACES = st.integers(0, 160) | st.integers(0, 20_000)
EDITS = st.lists(st.tuples(PLACES, st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255)), max_size=6)
NAMES = [
    "bmp",
    "bmp palette",
    "gif",
    "gif animated",
    "jpeg",
    "jpeg cmyk",
    "jpeg grey",
    "jpeg progressive",
    "png",
    "png 16 bits",
    "png alpha",
    "png animated",
    "png grey alpha",
    "png one bit",
    "png palette",
    "tiff 16 bits",
    "tiff cmyk",
    "tiff fax",
    "tiff jpeg",
    "tiff packbits",
    "tiff palette",
    "tiff raw",
    "tiff tiff_deflate",
    "tiff tiff_lzw",
    "webp",
    "webp animated",
    "webp lossless",
]


def outcome(data, short_side_px=None):
    """`decode`, with every warning made an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            decoded = decode(data, limits=SMALL, short_side_px=short_side_px)
        except BadInput as error:
            assert error.code.startswith("vision.")  # noqa: PT017 - both ends are right
            return
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.ndim == 3
    assert decoded.pixels.shape[2] == 3
    if short_side_px is None:
        assert decoded.pixels.shape == (decoded.height, decoded.width, 3)


def test_every_sample_is_attacked(samples):
    assert sorted(samples) == NAMES


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(edits=EDITS, keep=st.just(1.0) | st.floats(0, 1), short_side_px=st.none() | st.integers(1, 50))
def test_changed_and_cut_files_give_a_picture_or_bad_input(samples, name, edits, keep, short_side_px):
    data = bytearray(samples[name])
    for place, value in edits:
        data[place % len(data)] = value
    outcome(bytes(data[: round(len(data) * keep)]), short_side_px)


@settings(max_examples=300, deadline=None)
@given(
    magic=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8X", b"GIF89a", b"II*\0\x08\0\0\0", b"BM"]
    ),
    rest=st.binary(max_size=300),
)
def test_random_bytes_behind_a_known_beginning_give_a_picture_or_bad_input(magic, rest):
    outcome(magic + rest)
