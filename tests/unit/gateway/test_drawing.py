"""What was recognised, drawn: every object is marked where it is, however many there are and wherever they lie."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from relens.errors import BadInput
from relens.gateway import drawing
from relens.gateway.drawing import LABELLED, draw_answer, mark_of
from relens.values import WHOLE, Box, FoundObject, Label, PictureInfo, Recognition
from relens.vision import Limits

LIMITS = Limits()
GREY = 120


def png(width=160, height=120):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (GREY,) * 3).save(out, "PNG")
    return out.getvalue()


def answer(*objects):
    return Recognition("street-1", "street", PictureInfo("ab" * 32, 160, 120), objects, {})


def found(box=WHOLE, labels=(), category="all", score=0.87, landmarks=(), **attributes):
    return FoundObject(box, score, category, labels, attributes, landmarks)


def drawn(*objects, data=None):
    return np.asarray(Image.open(io.BytesIO(draw_answer(data or png(), answer(*objects), LIMITS)))).astype(int)


SHOE = (Label("running shoe", 770, 0.914),)


@pytest.mark.parametrize(
    ("one", "text", "short", "key"),
    [
        (found(labels=SHOE), "running shoe 91%", "running shoe 91%", "running shoe"),
        (found(), "87%", "87%", "all"),
        (found(category="face", age=31.4), "face 87%, age 31", "face 87%", "face"),
        (found(category="face", age=0.4), "face 87%, age 0.40", "face 87%", "face"),
        (found(category="cars", label="bus"), "bus 87%", "bus 87%", "bus"),
        (found(category="face", gender={"name": "female", "score": 0.9}), "face 87%, female", "face 87%", "face"),
        (found(category="face", nsfw=0.031), "face 87%, nsfw 0.03", "face 87%", "face"),
        (found(category="face", quality=0.5, pose=0.2, light=0.1, sharpness=0.4), "face 87%", "face 87%", "face"),
        (found(category="line", text="no parking", text_score=0.9), "3", "3", "line"),
        (
            found(labels=SHOE, vector=[0.1], heatmap={}, subject=None),
            "running shoe 91%",
            "running shoe 91%",
            "running shoe",
        ),
    ],
)
def test_a_mark_says_what_it_is_and_what_was_measured(one, text, short, key):
    mark = mark_of(one, 3)
    assert (mark.text, mark.short, mark.key) == (text, short, key)


def test_a_mark_lies_on_the_subject_the_polygon_and_the_landmarks():
    mark = mark_of(found(subject=[0.1, 0.2, 0.3, 0.4], polygon=[[0, 0], [1, 0], [1, 1]], landmarks=((0.5, 0.5),)), 1)
    assert mark.box == Box(0.1, 0.2, 0.3, 0.4)
    assert mark.polygon == ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    assert mark.landmarks == ((0.5, 0.5),)


def test_a_box_is_drawn_where_it_is_and_the_rest_stays():
    after = drawn(found(Box(0.5, 0.5, 0.25, 0.25)))
    changed = np.abs(after - GREY).max(axis=2) > 30
    assert changed[60, 85:115].mean() > 0.9
    assert not changed[:30].any()
    assert not changed[:, :50].any()


def test_a_picture_without_objects_is_the_picture():
    assert np.abs(drawn() - GREY).max() < 3


def test_a_heat_map_is_laid_over_its_part_alone_and_boxes_over_it():
    heat = {"box": [0.25, 0.25, 0.5, 0.5], "values": [[0.0, 1.0], [0.0, 1.0]]}
    after = drawn(found(Box(0.25, 0.25, 0.5, 0.5), heatmap=heat))
    assert np.abs(after[100:] - GREY).max() < 20
    assert np.abs(after[:, 125:] - GREY).max() < 20
    middle = after[50:70]
    assert np.abs(middle[:, 105:112] - GREY).max(axis=2).mean() > 60
    assert np.abs(middle[:, 50:55] - GREY).max(axis=2).mean() < 20


def test_heat_maps_of_a_crowd_are_each_laid_over_their_own_part():
    boxes = [Box(x / 20, y / 20, 0.05, 0.05) for x in range(20) for y in range(20)]
    crowd = [found(box, heatmap={"box": box.to_json(), "values": [[1.0]]}) for box in boxes]
    after = drawn(*crowd, data=png(800, 800))
    assert (np.abs(after - GREY).max(axis=2) > 30).mean() > 0.9


def test_of_a_very_large_crowd_only_so_many_have_labels(monkeypatch):
    shown = []
    monkeypatch.setattr(drawing, "draw", lambda pixels, marks: (shown.extend(marks), pixels)[1])
    drawn(*(found(Box(0.1, 0.1, 0.1, 0.1)) for _ in range(LABELLED + 5)))
    assert len(shown) == LABELLED + 5
    assert [mark.text for mark in shown[LABELLED:]] == [""] * 5
    assert all(mark.text for mark in shown[:LABELLED])


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (3, 3)])
def test_a_picture_of_a_few_pixels_can_be_drawn_on(size):
    heat = {"box": WHOLE.to_json(), "values": [[0.0, 1.0]]}
    one = found(Box(0.999, 0.999, 0.001, 0.001), SHOE, heatmap=heat, polygon=[[1, 1], [1, 1], [0.9, 1]], text="a")
    assert drawn(one, data=png(*size)).shape == (size[1], size[0], 3)


UNIT = st.floats(0, 1)
POINTS = st.lists(st.tuples(UNIT, UNIT), max_size=6)


@st.composite
def objects(draw):
    """Anything that a detector can find, with all that can be said of it."""
    (x, y), (w, h) = draw(st.tuples(UNIT, UNIT)), draw(st.tuples(UNIT, UNIT))
    assume(x < 1 - 1e-4 and y < 1 - 1e-4)
    box = Box(x, y, min(max(w, 1e-5), 1 - x), min(max(h, 1e-5), 1 - y))
    name = draw(st.text(max_size=20))
    return found(
        box,
        (Label(name, 0, 0.5),) if name else (),
        landmarks=tuple(draw(POINTS)),
        polygon=[list(point) for point in draw(POINTS)],
        heatmap={"box": box.to_json(), "values": [[0.0, 1.0], [1.0, 0.5]]},
    )


@given(some=st.lists(objects(), max_size=4), width=st.integers(1, 60), height=st.integers(1, 60))
def test_whatever_was_found_can_be_drawn(some, width, height):
    sent = Recognition.from_json(answer(*some).to_json())
    assert Image.open(io.BytesIO(draw_answer(png(width, height), sent, LIMITS))).size == (width, height)


def test_what_is_no_picture_is_not_drawn_on():
    with pytest.raises(BadInput):
        draw_answer(b"none", answer(found()), LIMITS)
    with pytest.raises(BadInput):
        draw_answer(png(), answer(found()), Limits(max_bytes=10, max_pixels=10, max_progressive_pixels=10))
