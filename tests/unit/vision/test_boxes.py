"""Overlaps and the choice among overlapping boxes, against what is written down plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relens.vision.boxes import iou, nms

BOX = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 30), st.integers(0, 30))
SHARE = st.sampled_from(["union", "smaller"])


def as_array(sizes):
    return np.array([(x, y, x + w, y + h) for x, y, w, h in sizes], np.float64).reshape(-1, 4)


def overlap(a, b, of):
    across = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    first, second = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    whole = first + second - across * down if of == "union" else min(first, second)
    return across * down / whole if whole else 0.0


def greedy(boxes, scores, most, of):
    order = sorted(range(len(boxes)), key=lambda at: (-scores[at], at))
    kept = []
    for at in order:
        if all(overlap(boxes[at], boxes[other], of) <= most for other in kept):
            kept.append(at)
    return kept


def test_a_box_overlaps_itself_wholly_and_a_neighbour_not_at_all():
    boxes = as_array([(0, 0, 10, 10), (10, 0, 10, 10), (5, 0, 10, 10)])
    assert iou(boxes, boxes).tolist() == [
        [1, 0, pytest.approx(1 / 3)],
        [0, 1, pytest.approx(1 / 3)],
        [pytest.approx(1 / 3), pytest.approx(1 / 3), 1],
    ]


def test_of_the_smaller_a_box_inside_another_overlaps_wholly():
    outer, inner = as_array([(0, 0, 20, 20)]), as_array([(5, 5, 4, 4)])
    assert iou(outer, inner, of="smaller").item() == 1
    assert iou(outer, inner).item() == pytest.approx(16 / 400)


@pytest.mark.parametrize("of", ["union", "smaller"])
def test_boxes_without_area_overlap_nothing(of):
    flat = as_array([(3, 3, 0, 5), (3, 3, 5, 5)])
    assert iou(flat, flat, of=of)[0].tolist() == [0, 0]
    assert nms(flat, np.ones(2, np.float32), 0.5, of=of).tolist() == [0, 1]


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_no_boxes_are_fine(n, m):
    boxes = as_array([(0, 0, 5, 5)] * 3)
    assert iou(boxes[:n], boxes[:m]).shape == (n, m)
    assert nms(boxes[:0], np.zeros(0, np.float32), 0.5).shape == (0,)


def test_an_overlap_of_exactly_the_limit_stays():
    boxes = as_array([(0, 0, 10, 10), (0, 0, 10, 5)])
    assert nms(boxes, np.array([2, 1], np.float32), 0.5).tolist() == [0, 1]
    assert nms(boxes, np.array([2, 1], np.float32), 0.49).tolist() == [0]


def test_of_equal_scores_the_first_is_better():
    boxes = as_array([(0, 0, 10, 10), (1, 0, 10, 10), (2, 0, 10, 10)])
    assert nms(boxes, np.ones(3, np.float32), 0.5).tolist() == [0]


@settings(deadline=None, max_examples=200)
@given(sizes=st.lists(BOX, max_size=40), seed=st.integers(0, 99), most=st.floats(0.05, 0.95), of=SHARE)
def test_what_stays_is_what_a_plain_greedy_choice_keeps(sizes, seed, most, of):
    boxes = as_array(sizes)
    scores = np.random.default_rng(seed).integers(0, 5, len(boxes)).astype(np.float32)
    shares = iou(boxes, boxes, of=of)
    if np.isclose(shares, most, atol=1e-5).any():
        return  # on the edge float32 may decide otherwise
    assert nms(boxes, scores, most, of=of).tolist() == greedy(boxes, scores, most, of)


@settings(deadline=None)
@given(sizes=st.lists(BOX, min_size=1, max_size=8), others=st.lists(BOX, min_size=1, max_size=8), of=SHARE)
def test_overlaps_are_those_that_are_computed_plainly_and_the_same_both_ways(sizes, others, of):
    a, b = as_array(sizes), as_array(others)
    shares = iou(a, b, of=of)
    np.testing.assert_allclose(shares, [[overlap(one, other, of) for other in b] for one in a], atol=1e-6)
    np.testing.assert_array_equal(shares, iou(b, a, of=of).T)


def test_thousands_of_boxes_are_chosen_from_in_blocks():
    rng = np.random.default_rng(5)
    corner = rng.integers(0, 300, (2000, 2))
    boxes = np.concatenate([corner, corner + 20], axis=1).astype(np.float64)
    scores = rng.random(2000).astype(np.float32)
    kept = nms(boxes, scores, 0.3)
    assert (np.diff(scores[kept]) <= 0).all()
    assert (iou(boxes[kept], boxes[kept]) > 0.3).sum() == len(kept), "none that stays overlaps another that stays"
    assert (iou(boxes[kept], boxes) > 0.3).any(axis=0).all(), "what was left out overlaps one that stays"
