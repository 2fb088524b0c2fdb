"""Values of the domain survive the JSON in which they travel."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from relens.errors import BadInput
from relens.values import Box


@st.composite
def boxes(draw):
    """Boxes within a picture, those of whole pixels among them, that often reach to its border."""
    sides = []
    for _ in "xy":
        size = draw(st.integers(1, 10_000))
        start = draw(st.floats(0, 1, exclude_max=True) | st.integers(0, size - 1).map(lambda at, size=size: at / size))
        end = draw(st.just(1.0) | st.floats(start, 1) | st.integers(0, size).map(lambda at, size=size: at / size))
        assume(end - start > 0)
        sides.append((start, end - start))
    (x, w), (y, h) = sides
    return Box(x, y, w, h)


@given(boxes())
@example(Box(213 / 640, 0.0, 427 / 640, 1.0))  # both are rounded up
@example(Box(0.9999999, 0.5, 1e-7, 1e-9))
def test_a_box_survives_its_json(box):
    sent = json.loads(json.dumps(box.to_json()))
    received = Box.from_json(sent)
    assert received.to_json() == sent
    for side in ("x", "y", "w", "h"):
        assert getattr(received, side) == pytest.approx(getattr(box, side), abs=1e-6)


@pytest.mark.parametrize(
    "sides",
    [
        (0, 0, 1.1, 1),
        (0.5, 0, 0.6, 1),
        (-0.1, 0, 1, 1),
        (0, 0, 0, 1),
        (0, 0, 1, -1),
        (float("nan"), 0, 1, 1),
        (0, 0, 1, float("inf")),
    ],
)
def test_what_lies_outside_the_picture_is_no_box(sides):
    with pytest.raises(BadInput):
        Box(*sides)
