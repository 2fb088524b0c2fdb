import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relens.errors import BadInput
from relens.values import WHOLE, Box
from relens.vision import class_activation_map, overlay, subject_box
from relens.vision.cam import _largest_region

MAPS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    elements=st.floats(-10, 10, width=32) | st.sampled_from([0.0, 1.0]),
)


@st.composite
def boxes(draw):
    x, y = draw(st.floats(0, 0.98)), draw(st.floats(0, 0.98))
    return Box(x, y, draw(st.floats(0.01, 1 - x)), draw(st.floats(0.01, 1 - y)))


def bump(height, width, at, size=1):
    cam = np.zeros((height, width), np.float32)
    cam[at[0] : at[0] + size, at[1] : at[1] + size] = 1
    return cam


def test_the_map_is_the_weighted_sum_of_the_features_without_what_speaks_against():
    features = np.array([[[1, 0], [0, 2]], [[0, 3], [0, 1]]], np.float32)
    cam = class_activation_map(features, np.array([2, -1], np.float32))
    assert cam.tolist() == [[pytest.approx(2 / 3), 0], [0, 1]]
    assert cam.dtype == np.float32


def test_the_mean_of_the_unscaled_map_is_the_score_of_the_class():
    rng = np.random.default_rng(0)
    features, weights = rng.random((16, 7, 7), np.float32), rng.random(16, np.float32)
    cam = class_activation_map(features, weights)
    most = np.tensordot(weights, features, axes=1).max()
    assert cam.mean() * most == pytest.approx(weights @ features.mean(axis=(1, 2)), rel=1e-4)


def test_a_class_for_which_nothing_speaks_has_a_map_of_zeros():
    cam = class_activation_map(np.ones((4, 3, 3), np.float32), -np.ones(4, np.float32))
    assert not cam.any()
    assert not np.signbit(cam).any()


@pytest.mark.parametrize(
    ("features", "weights"),
    [
        (np.ones((4, 3, 3), np.float32), np.ones(5, np.float32)),
        (np.ones((4, 3), np.float32), np.ones(4, np.float32)),
        (np.full((4, 3, 3), np.inf, np.float32), np.ones(4, np.float32)),
        (np.full((4, 3, 3), np.nan, np.float32), np.ones(4, np.float32)),
    ],
)
def test_features_that_give_no_map_are_refused(features, weights):
    with pytest.raises(BadInput) as caught:
        class_activation_map(features, weights)
    assert caught.value.code == "vision.bad-map"


def test_the_box_surrounds_the_peak():
    box = subject_box(bump(7, 7, (2, 4)), WHOLE)
    assert box.x < 4.5 / 7 < box.x + box.w
    assert box.y < 2.5 / 7 < box.y + box.h
    assert 1 / 7 < box.w < 2 / 7


def test_a_higher_threshold_gives_a_smaller_box():
    y, x = np.mgrid[0:7, 0:7]
    hill = np.exp(-((y - 3) ** 2 + (x - 3) ** 2) / 4).astype(np.float32)
    areas = [b.w * b.h for b in (subject_box(hill, WHOLE, threshold=t) for t in (0.2, 0.35, 0.5, 0.8))]
    assert areas == sorted(areas, reverse=True)
    assert len(set(areas)) == 4


def test_the_larger_of_two_regions_is_the_subject_even_if_the_other_is_stronger():
    cam = bump(12, 12, (1, 1)) + 0.8 * bump(12, 12, (7, 7), size=4)
    box = subject_box(cam, WHOLE)
    assert box.x > 0.5
    assert box.y > 0.5


def test_the_box_is_mapped_from_the_seen_part_to_the_picture():
    seen = Box(0.25, 0.1, 0.5, 0.8)
    inner, outer = subject_box(bump(7, 7, (1, 5)), WHOLE), subject_box(bump(7, 7, (1, 5)), seen)
    assert outer.x == pytest.approx(0.25 + 0.5 * inner.x)
    assert outer.y == pytest.approx(0.1 + 0.8 * inner.y)
    assert (outer.w, outer.h) == (pytest.approx(0.5 * inner.w), pytest.approx(0.8 * inner.h))


@pytest.mark.parametrize(
    "cam", [np.zeros((7, 7)), np.full((7, 7), 0.4), np.full((3, 3), -1.0), np.full((2, 2), np.nan)]
)
def test_a_map_without_a_peak_gives_what_was_seen(cam):
    seen = Box(0.1, 0, 0.8, 1)
    assert subject_box(cam.astype(np.float32), seen) == seen


@settings(deadline=None)
@given(cam=MAPS, seen=boxes(), threshold=st.floats(0, 1))
def test_any_map_gives_a_box_within_what_was_seen(cam, seen, threshold):
    box = subject_box(cam, seen, threshold=threshold)
    assert box.x >= seen.x
    assert box.y >= seen.y
    assert box.x + box.w <= seen.x + seen.w + 1e-9
    assert box.y + box.h <= seen.y + seen.h + 1e-9


@settings(deadline=None)
@given(mask=hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(np.any))
def test_the_largest_region_is_that_of_a_plain_flood_fill(mask):
    best = {}
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            edge.extend(near)
        ys, xs = [y for y, _ in region], [x for _, x in region]
        best.setdefault(len(region), []).append((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    assert _largest_region(mask) in best[max(best)]


def test_the_overlay_colours_what_was_seen_and_nothing_else(photo):
    pixels = photo(80, 60)
    seen = Box(0.25, 0, 0.5, 1)
    painted = overlay(pixels, bump(7, 7, (3, 3)), seen)
    assert painted.shape == pixels.shape
    assert painted.dtype == np.uint8
    assert np.array_equal(painted[:, :20], pixels[:, :20])
    assert np.array_equal(painted[:, 60:], pixels[:, 60:])
    assert np.array_equal(painted[0], pixels[0]), "where nothing speaks for the class the picture stays clear"
    red, green, blue = painted[30, 40].astype(int)
    assert red > 200
    assert green > 150
    assert blue < 130
    assert np.array_equal(pixels, photo(80, 60)), "the picture that was given is not changed"


def test_the_colour_ramp_grows_lighter_evenly():
    field = np.linspace(0, 1, 256, dtype=np.float32)[np.newaxis]
    painted = overlay(np.zeros((1, 256, 3), np.uint8), field, WHOLE)
    light = painted[0].astype(float) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(light) > -1.5).all()


@settings(deadline=None)
@given(cam=MAPS, seen=boxes(), width=st.integers(1, 30), height=st.integers(1, 30))
def test_any_map_can_be_laid_over_any_picture(photo, cam, seen, width, height):
    assert overlay(photo(width, height), cam, seen).shape == (height, width, 3)
