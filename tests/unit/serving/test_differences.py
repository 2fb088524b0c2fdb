"""Answers to one request are compared: by form, by numbers, by their best classes."""

from __future__ import annotations

import numpy as np
import pytest

from relens.serving.differences import Difference, difference
from relens.serving.served import Inferred, Recognized

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], np.float32)
OBJECT = {
    "box": [0.0, 0.0, 1.0, 1.0],
    "score": 1.0,
    "labels": [{"name": "boot", "index": 1, "score": 0.9}, {"name": "bag", "index": 2, "score": 0.1}],
    "attributes": {"unit": "cm", "value": 40.0, "vector": [0.6, 0.8]},
}


def tensors(**outputs):
    return Inferred("boots", 1, outputs, {})


def seen(*objects):
    return Recognized("boots", 1, {"picture": {}, "objects": list(objects)}, {})


def test_what_is_the_same_within_the_tolerance_is_the_same():
    found = difference(tensors(scores=SCORES), tensors(scores=SCORES * np.float32(1.0005)))
    assert found.outcome == "same"
    assert (found.same, found.other) == (2, 0)
    assert 0 < found.off < 1e-3


def test_the_difference_is_a_share_of_the_largest_number():
    found = difference(tensors(y=np.array([[10.0, -100.0]])), tensors(y=np.array([[20.0, -100.0]])))
    assert found == Difference(off=0.1, same=1, other=0)
    assert found.outcome == "different"


def test_rows_with_another_best_class_are_counted_however_near_they_are():
    one, other = np.array([[0.5, 0.5001], [1, 0]], np.float32), np.array([[0.5001, 0.5], [1, 0]], np.float32)
    found = difference(tensors(scores=one), tensors(scores=other))
    assert (found.outcome, found.same, found.other) == ("different", 1, 1)


@pytest.mark.parametrize(
    "other",
    [
        tensors(other=SCORES),
        tensors(scores=SCORES[:1]),
        tensors(scores=SCORES.astype(np.float64)),
        tensors(scores=SCORES, more=SCORES),
        seen(OBJECT),
    ],
    ids=["name", "shape", "type", "more", "kind"],
)
def test_another_form_is_told_and_nothing_else(other):
    assert difference(tensors(scores=SCORES), other) == Difference(form=True)
    assert difference(tensors(scores=SCORES), other).outcome == "other_form"


def test_texts_are_the_same_or_they_are_not():
    one, other = np.array([b"red", b"blue"], object), np.array([b"red", b"green"], object)
    assert difference(tensors(t=one), tensors(t=one.copy())).outcome == "same"
    assert difference(tensors(t=one), tensors(t=other)).off == 1


@pytest.mark.parametrize(
    ("one", "other", "off"),
    [([0, 0], [0, 0], 0), ([1, np.nan], [1, np.nan], 0), ([1, np.inf], [1, np.inf], 0), ([1, 2], [1, np.nan], np.inf)],
    ids=["zeros", "no numbers", "infinite", "no number"],
)
def test_numbers_that_are_none_are_compared_as_well(one, other, off):
    assert difference(tensors(y=np.array([one], float)), tensors(y=np.array([other], float))).off == off


def test_nothing_is_like_nothing():
    empty = np.zeros((0, 3), np.float32)
    assert difference(tensors(scores=empty), tensors(scores=empty)) == Difference()
    assert difference(seen(), seen()) == Difference()


def test_objects_are_compared_by_their_names_and_numbers():
    assert difference(seen(OBJECT), seen(OBJECT)) == Difference(same=1)
    bag = OBJECT | {"labels": OBJECT["labels"][::-1]}
    assert difference(seen(OBJECT, OBJECT), seen(OBJECT, bag)).other == 1
    taller = OBJECT | {"attributes": OBJECT["attributes"] | {"value": 44.0}}
    assert difference(seen(OBJECT), seen(taller)) == Difference(off=0.1, same=1)
    for other in (seen(), seen(OBJECT, OBJECT), seen(OBJECT | {"labels": []})):
        assert difference(seen(OBJECT), other).outcome == "other_form"
