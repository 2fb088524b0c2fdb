"""Measures of faces, on drawn ones: they fall when a picture gets worse, and stay within 0 and 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from relens.errors import BadInput
from relens.values import Box
from relens.vision.quality import face_quality, sharpness

AHEAD = ((0.3, 0.35), (0.7, 0.35), (0.5, 0.578), (0.35, 0.78), (0.65, 0.78))


def blurred(pixels, radius):
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def textured(width=200, height=200, low=40, high=220):
    """Blocks of grey, as sharp as can be."""
    rng = np.random.default_rng(3)
    blocks = rng.integers(low, high, (-(-height // 8), -(-width // 8), 1), dtype=np.uint8)
    return np.tile(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width], (1, 1, 3))


def pose(landmarks, pixels=None):
    return face_quality(textured() if pixels is None else pixels, landmarks)["pose"]


def turned(landmarks, degrees):
    by = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    places = [(complex(x, y) - (0.5 + 0.5j)) * by + (0.5 + 0.5j) for x, y in landmarks]
    return [(place.real, place.imag) for place in places]


def test_the_more_a_picture_is_blurred_the_less_sharp_it_is():
    pixels = textured()
    measured = [sharpness(blurred(pixels, radius) if radius else pixels) for radius in (0, 1, 2, 4, 8, 16)]
    assert measured == sorted(measured, reverse=True)
    assert measured[0] > 0.8
    assert measured[4] < 0.15


def test_sharpness_does_not_depend_on_how_large_a_sharp_picture_is():
    small = textured()
    large = np.asarray(Image.fromarray(small).resize((800, 800), Image.Resampling.BICUBIC))
    assert sharpness(large) == pytest.approx(sharpness(small), abs=0.05)


def test_what_was_enlarged_is_not_sharp():
    tiny = Image.fromarray(textured(low=90, high=160)).resize((20, 20), Image.Resampling.BOX)
    assert sharpness(np.asarray(tiny.resize((300, 300), Image.Resampling.BICUBIC))) < 0.3


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (500, 1), (1, 40_000)])
def test_lines_and_single_colours_are_not_sharp(size):
    assert sharpness(np.full((*size, 3), 77, np.uint8)) == 0


def test_a_face_that_looks_ahead_has_the_best_pose():
    assert pose(AHEAD) > 0.95


@pytest.mark.parametrize("beside", [-0.3, -0.15, 0.15, 0.3])
def test_a_turned_head_has_its_nose_beside_the_middle(beside):
    right, left, (x, y), *mouth = AHEAD
    assert pose([right, left, (x + beside, y), *mouth]) < 1 - abs(beside)


@pytest.mark.parametrize("moved", [-0.15, 0.15])
def test_a_nodding_head_has_its_nose_too_high_or_too_low(moved):
    right, left, (x, y), *mouth = AHEAD
    assert pose([right, left, (x, y + moved), *mouth]) < 0.5


def test_the_more_a_head_is_tilted_the_worse_its_pose_either_way():
    tilted = [pose(turned(AHEAD, degrees)) for degrees in (0, 20, 45, 70, 90)]
    assert tilted == sorted(tilted, reverse=True)
    assert tilted[2] == pytest.approx(0.5, abs=0.02)
    assert tilted[-1] == pytest.approx(0, abs=0.02)
    assert pose(turned(AHEAD, -20)) == pytest.approx(tilted[1], abs=0.01)


def test_a_wide_picture_does_not_make_a_face_look_turned():
    upright = turned(AHEAD, 10)
    squeezed = [(x / 2, y) for x, y in upright]
    assert pose(squeezed, textured(400, 200)) == pytest.approx(pose(upright), abs=1e-6)


@pytest.mark.parametrize("landmarks", [[(0.5, 0.5)] * 5, [(0.3, 0.7), (0.7, 0.7), (0.5, 0.5), (0.3, 0.3), (0.7, 0.3)]])
def test_what_cannot_be_a_face_that_looks_at_us_has_no_pose(landmarks):
    assert pose(landmarks) == 0
    assert face_quality(textured(), landmarks)["quality"] == 0


def test_light_is_worse_when_it_is_dark_burnt_out_or_flat():
    good = face_quality(textured(), AHEAD)["light"]
    assert good == 1
    for low, high in ((0, 12), (240, 255), (120, 126)):
        assert face_quality(textured(low=low, high=high), AHEAD)["light"] < 0.5 * good


def test_only_what_is_in_the_box_is_measured():
    pixels = textured()
    pixels[:, 100:] = 128
    assert face_quality(pixels, AHEAD, Box(0, 0, 0.5, 1))["sharpness"] > 0.8
    assert face_quality(pixels, AHEAD, Box(0.55, 0, 0.45, 1))["sharpness"] == 0


def test_quality_is_the_geometric_mean():
    measured = face_quality(blurred(textured(), 2), turned(AHEAD, 30))
    assert set(measured) == {"sharpness", "pose", "light", "quality"}
    product = measured["sharpness"] * measured["pose"] * measured["light"]
    assert measured["quality"] == pytest.approx(product ** (1 / 3))


@pytest.mark.parametrize("landmarks", [[], AHEAD[:4], [*AHEAD[:4], (math.nan, 0.5)]])
def test_landmarks_that_are_no_face_are_refused(landmarks):
    with pytest.raises(BadInput) as caught:
        face_quality(textured(), landmarks)
    assert caught.value.code == "vision.bad-landmarks"


@settings(deadline=None, max_examples=80)
@given(
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    seed=st.integers(0, 99),
    landmarks=st.lists(st.tuples(st.floats(-2, 3), st.floats(-2, 3)), min_size=5, max_size=5),
    corner=st.tuples(st.floats(0, 0.95), st.floats(0, 0.95)),
)
def test_every_measure_is_between_0_and_1(width, height, seed, landmarks, corner):
    x, y = corner
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    measured = face_quality(pixels, landmarks, Box(x, y, 1 - x, 1 - y))
    assert all(0 <= value <= 1 for value in measured.values())
