"""Regions of masks beside a plain flood fill, and the tightest rectangle beside a search over angles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relens.vision.regions import outlines, tightest_rectangle, turns

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))


def flood_fill(mask):
    """Sets of (row, column) that touch by sides or corners, in the order of their first cells."""
    regions, left = [], {(int(y), int(x)) for y, x in np.argwhere(mask)}
    for first in sorted(left):
        if first not in left:
            continue
        region, edge = set(), [first]
        left.discard(first)
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        regions.append(region)
    return regions


def corners_of(region):
    return np.array([(x + dx, y + dy) for y, x in region for dx in (0, 1) for dy in (0, 1)], np.float64)


def spiral(side):
    """One winding line of True cells, with False ones between its turns."""
    mask = np.zeros((side, side), bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True
    stuck = 0
    while stuck < 2:
        ahead, beyond = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
        free = all(0 <= v < side for v in ahead) and not mask[ahead]
        open_ = not all(0 <= v < side for v in beyond) or not mask[beyond]
        if free and open_:
            y, x = ahead
            mask[y, x] = True
            stuck = 0
        else:
            dy, dx = dx, -dy
            stuck += 1
    return mask


@settings(deadline=None, max_examples=300)
@given(mask=MASKS)
def test_the_outlines_are_the_convex_hulls_of_the_regions_of_a_plain_flood_fill(mask):
    found = outlines(mask, least_px=1, most=1000)
    expected = flood_fill(mask)
    assert len(found) == len(expected)
    for outline, region in zip(found, expected, strict=True):
        corners = corners_of(region)
        assert {tuple(point) for point in outline} <= {tuple(point) for point in corners}
        assert (turns(outline) > 0).all(), "strictly convex, clockwise in a picture"
        sides = np.roll(outline, -1, axis=0) - outline
        inside = sides[:, 0] * (corners[:, 1:] - outline[:, 1]) - sides[:, 1] * (corners[:, :1] - outline[:, 0])
        assert (inside >= 0).all(), "every corner of every cell is within"


@pytest.mark.parametrize("mask", [np.zeros((5, 7), bool), np.zeros((0, 4), bool), np.zeros((4, 0), bool)])
def test_a_mask_without_anything_has_no_outlines(mask):
    assert outlines(mask, least_px=1, most=10) == []


def test_what_is_too_narrow_or_too_low_is_left_out():
    mask = np.zeros((20, 40), bool)
    mask[2:4, 2:20] = True  # 2 high
    mask[8:18, 2:4] = True  # 2 wide
    mask[8:11, 8:11] = True
    (outline,) = outlines(mask, least_px=3, most=10)
    assert outline.min(axis=0).tolist() == [8, 8]
    assert outline.max(axis=0).tolist() == [11, 11]


def test_of_too_many_the_largest_are_kept_in_the_order_of_their_first_cells():
    mask = np.zeros((40, 10), bool)
    for row, size in ((1, 3), (8, 6), (20, 4), (30, 5)):
        mask[row : row + size, 1 : 1 + size] = True
    assert [outline[:, 1].min() for outline in outlines(mask, least_px=1, most=2)] == [8, 30]


def test_a_spiral_is_one_region():
    mask = spiral(201)
    assert mask.mean() > 0.4
    (outline,) = outlines(mask, least_px=1, most=10)
    assert np.ptp(outline, axis=0).tolist() == [201, 201]


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9])
def test_noise_of_any_density_is_cut_into_regions(share):
    mask = np.random.default_rng(7).random((300, 300)) < share
    found = outlines(mask, least_px=2, most=100_000)
    expected = sum(min(np.ptp(corners_of(region), axis=0)) >= 2 for region in flood_fill(mask))
    assert len(found) == expected


@settings(deadline=None)
@given(
    angle=st.floats(0, np.pi),
    length=st.floats(5, 300),
    breadth=st.floats(2, 60),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
def test_the_rectangle_around_the_corners_of_a_rectangle_is_that_one(angle, length, breadth, x, y):
    right = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    down = np.array([-np.sin(angle), np.cos(angle)]) * breadth / 2
    centre = np.array([x, y])
    corners = np.array([centre - right - down, centre + right - down, centre + right + down, centre - right + down])
    found = tightest_rectangle(corners)
    assert sorted((found.length, found.breadth)) == pytest.approx(sorted((length, breadth)), rel=1e-6)
    assert (found.x, found.y) == (pytest.approx(x, abs=1e-6), pytest.approx(y, abs=1e-6))
    longer = found.direction if found.length >= found.breadth else (-found.direction[1], found.direction[0])
    if abs(length - breadth) > 0.1:
        assert abs(longer[0] * np.sin(angle) - longer[1] * np.cos(angle)) == pytest.approx(
            0 if length > breadth else 1, abs=1e-5
        )


@settings(deadline=None)
@given(mask=MASKS.filter(np.any))
def test_no_other_angle_gives_a_smaller_rectangle(mask):
    for outline in outlines(mask, least_px=1, most=1000):
        found = tightest_rectangle(outline)
        angles = np.deg2rad(np.arange(0, 90, 1.0))
        across = outline @ np.stack([np.cos(angles), np.sin(angles)])
        down = outline @ np.stack([-np.sin(angles), np.cos(angles)])
        assert found.length * found.breadth <= (np.ptp(across, axis=0) * np.ptp(down, axis=0)).min() + 1e-6
        dx, dy = found.direction
        along = (outline - (found.x, found.y)) @ (dx, dy)
        aside = (outline - (found.x, found.y)) @ (-dy, dx)
        assert np.abs(along).max() == pytest.approx(found.length / 2)
        assert np.abs(aside).max() == pytest.approx(found.breadth / 2)
