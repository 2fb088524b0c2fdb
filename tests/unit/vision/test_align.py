"""Faces turned to a template: drawn points come to lie where they belong, and templates never change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from PIL import Image

from relens.errors import BadInput
from relens.values import digest_of
from relens.vision.align import TEMPLATES, align

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))


def placed(template, *, size, angle=0.0, at=(0.0, 0.0)):
    """The template's points in pixels, of this size, turned by degrees around their corner, then moved."""
    turn = complex(math.cos(math.radians(angle)), math.sin(math.radians(angle))) * size
    points = [complex(*at) + turn * complex(x, y) for x, y in TEMPLATES[template]]
    return [(point.real, point.imag) for point in points]


def dotted(width, height, points, radius):
    pixels = np.full((height, width, 3), 60, np.uint8)
    down, across = np.mgrid[0:height, 0:width] + 0.5
    for (x, y), colour in zip(points, COLOURS, strict=True):
        pixels[np.hypot(across - x, down - y) < radius] = colour
    return pixels


def centre_of(pixels, colour):
    near = np.abs(pixels.astype(int) - colour).sum(axis=2) < 150
    down, across = np.nonzero(near)
    return across.mean() + 0.5, down.mean() + 0.5


def test_the_numbers_under_a_name_never_change():
    """They are a part of the space of vectors in galleries: put other numbers under another name."""
    rounded = {name: [[round(v, 9) for v in point] for point in points] for name, points in TEMPLATES.items()}
    assert {name: digest_of(points) for name, points in rounded.items()} == {
        "dlib-25": "20f98a75d33ef7735a96d95f5e7af4c16cad07e37891b45420d2e974aaf75530",
        "dlib-20": "02cd5498feca1d3cae653042f26508d4f146104a89a45e7d98429bf7e3509f27",
    }


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_eyes_are_level_over_the_nose_over_the_mouth(template):
    right_eye, left_eye, nose, right_mouth, left_mouth = TEMPLATES[template]
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < nose[0] < left_mouth[0]
    assert right_eye[1] == left_eye[1] < nose[1] < right_mouth[1] == left_mouth[1]
    assert all(0 < x < 1 and 0 < y < 1 for x, y in TEMPLATES[template])


@pytest.mark.parametrize("size", [60, 150, 290])
@pytest.mark.parametrize("angle", [0, 20, -75, 180])
@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_points_come_to_lie_on_the_template(template, angle, size):
    points = placed(template, size=size, angle=angle, at=(350, 350))
    face = align(dotted(700, 700, points, size / 25), points, template=template, size_px=150)
    assert face.shape == (150, 150, 3)
    assert face.dtype == np.uint8
    for (x, y), colour in zip(TEMPLATES[template], COLOURS, strict=True):
        assert centre_of(face, colour) == (pytest.approx(x * 150, abs=0.8), pytest.approx(y * 150, abs=0.8))


def test_a_face_that_lies_right_already_stays_as_it_is(photo):
    pixels = photo(150, 150)
    face = align(pixels, placed("dlib-25", size=150), template="dlib-25", size_px=150)
    np.testing.assert_allclose(face.astype(int), pixels, atol=1)


def test_points_that_do_not_fit_are_met_in_the_middle():
    points = np.array(placed("dlib-25", size=150, at=(20, 20)))
    moved = points + np.array([(3, 0), (-3, 0), (0, 4), (0, -2), (0, -2)])
    face = align(dotted(190, 190, points, 4), moved.tolist(), template="dlib-25", size_px=150)
    wanted = np.array(TEMPLATES["dlib-25"]) * 150
    off = [centre_of(face, colour) for colour in COLOURS] - wanted
    np.testing.assert_allclose(off.mean(axis=0), 0, atol=0.3)
    assert np.abs(off).max() > 0.5


def test_the_same_face_turned_and_enlarged_looks_the_same(photo, psnr):
    source = Image.fromarray(photo(400, 400))
    points = placed("dlib-25", size=200, at=(100, 100))
    face = align(np.asarray(source), points, template="dlib-25", size_px=100)
    turned = source.rotate(-90)  # clockwise
    others = [(400 - y, x) for x, y in points]
    assert psnr(align(np.asarray(turned), others, template="dlib-25", size_px=100), face) > 35
    larger = source.resize((800, 800), Image.Resampling.BICUBIC)
    twice = [(2 * x, 2 * y) for x, y in points]
    assert psnr(align(np.asarray(larger), twice, template="dlib-25", size_px=100), face) > 30


def test_what_lies_outside_of_the_picture_is_grey():
    white = np.full((100, 100, 3), 255, np.uint8)
    half = align(white, placed("dlib-25", size=100, at=(50, 0)), template="dlib-25", size_px=100)
    assert (half[:, :48] == 255).all()
    assert (half[:, 52:] == 128).all()
    away = align(white, placed("dlib-25", size=100, at=(500, 0)), template="dlib-25", size_px=100)
    assert (away == 128).all()


def test_making_it_smaller_does_not_alias():
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    face = align(stripes, placed("dlib-25", size=500, angle=3, at=(50, 40)), template="dlib-25", size_px=60)
    assert np.abs(face[3:-3, 3:-3].astype(int) - 127).max() <= 6


def test_an_unknown_template_is_refused_with_those_there_are():
    with pytest.raises(BadInput) as caught:
        align(np.zeros((9, 9, 3), np.uint8), placed("dlib-25", size=9), template="mine", size_px=9)
    assert caught.value.code == "vision.unknown-template"
    assert "dlib-25" in caught.value.hint


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1, 1)] * 4,
        [(5.0, 5.0)] * 5,
        [(1, 1), (2, 2), (3, math.nan), (4, 4), (5, 5)],
        [(1, 1), (2, 2), (3, math.inf), (4, 4), (5, 5)],
        [(1, 1), (2, 2), (3, 1e30), (4, 4), (5, 5)],
    ],
)
def test_points_that_are_no_face_are_refused(points):
    with pytest.raises(BadInput) as caught:
        align(np.zeros((9, 9, 3), np.uint8), points, template="dlib-25", size_px=9)
    assert caught.value.code == "vision.bad-landmarks"


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    points=st.lists(st.tuples(st.floats(-60, 90), st.floats(-60, 90)), min_size=5, max_size=5, unique=True),
    size_px=st.integers(1, 70),
)
def test_any_five_points_of_any_picture_give_a_face_of_the_size_asked_for(photo, width, height, points, size_px):
    pixels = photo(width, height)
    try:
        face = align(pixels, points, template="dlib-20", size_px=size_px)
    except BadInput:
        reject()  # not turned either way: as likely as points in one place
    assert face.shape == (size_px, size_px, 3)
    np.testing.assert_array_equal(pixels, photo(width, height))
