"""Tensors to meaning: every way to write the same boxes gives the same boxes; scores and numbers as by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from relens.errors import Broken
from relens.values import Preprocessing
from relens.vision import placement
from relens.vision.heads import detections_of, scores_of, value_of

LABELS = ["cat", "dog", "bird"]
WIDTH, HEIGHT = 64, 32

# left, top, right, bottom in pixels of the input; class; score
FOUND = [(8, 4, 24, 20, 1, 0.9), (40, 8, 60, 30, 0, 0.75), (8, 4, 24, 20, 2, 0.6), (9, 4, 24, 20, 1, 0.55)]
KEPT = [(1, 0.9), (0, 0.75), (2, 0.6)]  # the last one is the first again


def corners():
    return np.array([row[:4] for row in FOUND], np.float32)


def classes():
    scores = np.zeros((len(FOUND), 3), np.float32)
    for number, row in enumerate(FOUND):
        scores[number, row[4]] = row[5]
    return scores


def written(form, units="pixels"):
    left, top, right, bottom = corners().T
    given = {
        "xyxy": [left, top, right, bottom],
        "yxyx": [top, left, bottom, right],
        "xywh": [left, top, right - left, bottom - top],
        "cxcywh": [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top],
    }[form]
    boxes = np.stack(given, axis=1)
    side = np.array([HEIGHT, WIDTH] * 2 if form == "yxyx" else [WIDTH, HEIGHT] * 2, np.float32)
    return boxes / side if units == "share" else boxes


def read(outputs, decode, **changed):
    usual = {"input_size": (WIDTH, HEIGHT), "placed": (0, 0, WIDTH, HEIGHT), "min_score": 0.5, "iou": 0.5}
    return detections_of(outputs, decode, **{**usual, "max_objects": 100, "labels": LABELS, **changed})


def logit(share):
    return np.log(np.clip(share, 1e-6, 1 - 1e-6) / (1 - np.clip(share, 1e-6, 1 - 1e-6)))


def v8(boxes, scores):
    return {"detections": np.concatenate([boxes, scores], axis=1).T[None].astype(np.float32)}


def v5(boxes, objectness, scores):
    return {"detections": np.concatenate([boxes, objectness, scores], axis=1)[None].astype(np.float32)}


def end_to_end(boxes):
    tail = [[row[5], row[4]] for row in FOUND[:3]]
    return {"detections": np.concatenate([boxes[:3], tail], axis=1)[None].astype(np.float32)}


def ways():
    half = np.full((len(FOUND), 1), 0.5)
    plain = written("cxcywh")
    yield "v8", v8(plain, classes()), {"kind": "yolo", "variant": "classes"}
    yield (
        "v8 with rows first",
        {"detections": v8(plain, classes())["detections"].swapaxes(1, 2)},
        {"kind": "yolo", "variant": "classes", "transposed": True},
    )
    yield "v8 with logits", v8(plain, logit(classes())), {"kind": "yolo", "scores": "sigmoid"}
    yield "v8 in shares", v8(written("cxcywh", "share"), classes()), {"kind": "yolo", "units": "share"}
    yield (
        "v5",
        v5(plain, half + 0.5, classes()),
        {"kind": "yolo", "variant": "objectness"},
    )
    yield (
        "v5 with logits",
        v5(plain, half * 40, logit(classes())),
        {"kind": "yolo", "variant": "objectness", "scores": "sigmoid"},
    )
    yield "v10", end_to_end(written("xyxy")), {"kind": "yolo", "variant": "end-to-end"}
    for form in ("xyxy", "yxyx", "xywh", "cxcywh"):
        for units in ("pixels", "share"):
            outputs = {"boxes": written(form, units)[None], "scores": classes()[None]}
            yield f"boxes {form} {units}", outputs, {"kind": "boxes", "box": form, "units": units}
    outputs = {"boxes": written("cxcywh", "share")[None, :, None], "scores": logit(classes())[None]}
    yield "boxes with logits", outputs, {"kind": "boxes", "scores": "sigmoid"}
    outputs = {
        "boxes": written("yxyx", "share")[None],
        "scores": np.array([[row[5] for row in FOUND]], np.float32),
        "classes": np.array([[row[4] for row in FOUND]], np.float32),
    }
    yield "boxes with classes of their own", outputs, {"kind": "boxes", "box": "yxyx"}


@pytest.mark.parametrize(("outputs", "decode"), [way[1:] for way in ways()], ids=[way[0] for way in ways()])
def test_the_same_findings_come_out_however_they_are_written(outputs, decode):
    found = read(outputs, decode)
    assert [(one.index, round(one.score, 3)) for one in found] == KEPT
    assert [one.label for one in found] == ["dog", "cat", "bird"]
    for one, place in zip(found, (0, 1, 2), strict=True):
        box = one.box
        wanted = corners()[place] / [WIDTH, HEIGHT, WIDTH, HEIGHT]
        assert np.allclose([box.x, box.y, box.x + box.w, box.y + box.h], wanted, atol=1e-5)


def test_boxes_relative_to_a_grid_are_put_into_their_cells():
    """YOLOX: 64 x 32 with strides 8 and 16 makes 8 * 4 + 4 * 2 cells."""
    rows = np.zeros((40, 4 + 1 + 3), np.float32)
    rows[8 * 2 + 3] = [0.5, 0.5, math.log(2), math.log(1), 1, 0, 1, 0]  # cell (3, 2) of stride 8
    rows[32 + 4 + 1] = [0, 0, 0, 0, 1, 1, 0, 0]  # cell (1, 1) of stride 16
    decode = {"kind": "yolo", "variant": "objectness", "strides": [8, 16]}
    dog, cat = sorted(read({"detections": rows[None]}, decode), key=lambda one: -one.index)
    assert dog.box.to_json() == pytest.approx([(28 - 8) / 64, (20 - 4) / 32, 16 / 64, 8 / 32])
    assert cat.box.to_json() == pytest.approx([8 / 64, 8 / 32, 16 / 64, 16 / 32])
    with pytest.raises(Broken, match="10 cells"):
        read({"detections": rows[None]}, {**decode, "strides": [16, 32]})


@given(st.integers(20, 3000), st.integers(20, 3000), st.sampled_from(["letterbox", "stretch", "cut"]))
def test_a_box_lies_in_the_picture_where_the_model_saw_it_however_the_picture_was_fitted(width, height, fit):
    prep = Preprocessing(64, 72, "bilinear", "rgb", "nchw", (0,) * 3, (255,) * 3, fit=fit)
    placed = placement(width, height, prep)
    wanted = np.array([0.4, 0.4, 0.6, 0.6])
    start, length = np.array(placed[:2] * 2), np.array(placed[2:] * 2)
    boxes = (wanted * length + start).astype(np.float32)
    outputs = {"boxes": boxes[None, None], "scores": np.ones((1, 1, 1), np.float32)}
    decode = {"kind": "boxes", "box": "xyxy", "units": "pixels"}
    (found,) = read(outputs, decode, input_size=(64, 64), placed=placed)
    box = found.box
    assert np.allclose([box.x, box.y, box.x + box.w, box.y + box.h], wanted, atol=1e-3)


def test_landmarks_come_with_their_box_in_shares_of_the_picture():
    points = np.array([[16, 8, 0.9, 32, 16, 0.8]], np.float32)
    boxes, scores = written("cxcywh")[:1], classes()[:1]
    outputs = {"detections": np.concatenate([boxes, scores, points], axis=1).T[None].astype(np.float32)}
    (found,) = read(outputs, {"kind": "yolo", "landmarks": 2})
    assert found.landmarks == ((0.25, 0.25), (0.5, 0.5))
    rows = np.concatenate([boxes, [[1]], points[:, [0, 1, 3, 4]], scores], axis=1)[None].astype(np.float32)
    decode = {"kind": "yolo", "variant": "objectness", "landmarks": 2, "landmark_size": 2}
    (found,) = read({"detections": rows}, decode)
    assert (found.label, found.landmarks) == ("dog", ((0.25, 0.25), (0.5, 0.5)))


def test_numbers_behind_the_scores_are_not_read_when_the_card_says_how_many_classes_there_are():
    masks = np.full((len(FOUND), 8), 9.0)
    outputs = v8(written("cxcywh"), np.concatenate([classes(), masks], axis=1))
    assert len(read(outputs, {"kind": "yolo", "classes": 3})) == 3
    with pytest.raises(Broken, match="20 classes"):
        read(outputs, {"kind": "yolo", "classes": 20})


def test_the_background_class_is_never_found():
    scores = np.array([[[0.9, 0.05, 0.05], [0.2, 0.1, 0.7], [0.9, 0.6, 0], [0, 0, 0]]], np.float32)
    outputs = {"boxes": written("cxcywh", "share")[None], "scores": scores}
    found = read(outputs, {"kind": "boxes", "background": 0})
    assert [(one.index, round(one.score, 2)) for one in found] == [(2, 0.7), (1, 0.6)]


def test_of_one_place_all_classes_or_one_may_be_wanted_or_everything():
    outputs, decode = v8(written("cxcywh"), classes()), {"kind": "yolo"}
    assert len(read(outputs, {**decode, "nms": "class"})) == 3
    assert len(read(outputs, {**decode, "nms": "all"})) == 2
    assert len(read(outputs, {**decode, "nms": "none"})) == 4
    assert len(read(outputs, {**decode, "nms": "none"}, max_objects=2)) == 2


def test_what_is_weak_outside_or_not_finite_is_left_out():
    boxes = np.array([[8, 8, 4, 4], [8, 8, 4, 4], [-50, 8, 4, 4], [np.nan, 8, 4, 4], [8, np.inf, 4, 4]], np.float32)
    scores = np.array([[0.4], [np.nan], [1], [1], [1]], np.float32)
    assert read(v8(boxes, scores), {"kind": "yolo"}) == []


@given(
    arrays.arrays(np.float32, st.tuples(st.just(1), st.just(7), st.integers(0, 30)), elements=st.floats(width=32)),
    st.sampled_from(["none", "sigmoid", "softmax"]),
)
def test_any_numbers_give_valid_findings_or_none(tensor, scores):
    for one in read({"detections": tensor}, {"kind": "yolo", "scores": scores}):
        assert 0.5 <= one.score <= 1


@pytest.mark.parametrize(
    ("outputs", "decode", "said"),
    [
        ({"boxes": np.zeros((1, 3, 4))}, {"kind": "yolo"}, "`detections`"),
        ({"detections": np.zeros((1, 84))}, {"kind": "yolo"}, "2 dimensions"),
        ({"detections": np.zeros((2, 84, 10))}, {"kind": "yolo"}, "(2, 84, 10)"),
        ({"detections": np.zeros((1, 10, 5))}, {"kind": "yolo", "variant": "objectness"}, "5 for each of 10"),
        ({"boxes": np.zeros((1, 3, 4)), "scores": np.zeros((1, 4, 2))}, {"kind": "boxes"}, "4 rows"),
        ({"detections": np.zeros((1, 7, 10))}, {"kind": "yolo", "variant": "v12"}, "'v12'"),
        ({"detections": np.ones((1, 7, 10))}, {"kind": "yolo", "box": "circle"}, "'circle'"),
        ({"detections": np.ones((1, 7, 10))}, {"kind": "yolo", "units": "inch"}, "'inch'"),
        ({"detections": np.ones((1, 7, 10))}, {"kind": "yolo", "nms": "soft"}, "'soft'"),
        ({"detections": np.ones((1, 7, 10))}, {"kind": "yolo", "scores": "relu"}, "'relu'"),
    ],
)
def test_tensors_that_do_not_fit_the_card_are_broken_and_say_what_they_are(outputs, decode, said):
    with pytest.raises(Broken) as caught:
        read({role: tensor.astype(np.float32) for role, tensor in outputs.items()}, decode)
    assert said in caught.value.message
    assert caught.value.hint


def test_scores_are_shares_of_one_right_class_or_of_many():
    logits = np.array([[0, math.log(3)], [1000, -1000]], np.float32)
    assert scores_of(logits, {"kind": "softmax"}) == pytest.approx(np.array([[0.25, 0.75], [1, 0]]))
    assert scores_of(logits, {"kind": "sigmoid"}) == pytest.approx(np.array([[0.5, 0.75], [1, 0]]))
    assert scores_of(logits, {}) is not None
    assert np.array_equal(scores_of(logits[:, :, None, None], {"kind": "none"}), logits)
    with pytest.raises(Broken, match="relu"):
        scores_of(logits, {"kind": "relu"})


def test_a_regressor_gives_a_number_in_its_unit():
    assert value_of(np.array([[0.5], [2]], np.float32), {"scale": 100, "offset": -1}).tolist() == [49, 199]
    bins = np.array([[0, 0, 1, 0], [0.5, 0, 0, 0.5]], np.float32)
    assert value_of(bins, {"kind": "expectation", "first": 10, "step": 2}).tolist() == [14, 13]
    logits = np.where(bins > 0, np.float32(50), np.float32(0))
    softly = value_of(logits, {"kind": "expectation", "scores": "softmax", "first": 10, "step": 2})
    assert softly == pytest.approx([14, 13])
    with pytest.raises(Broken, match="one number"):
        value_of(bins, {"kind": "value"})


def test_as_many_are_kept_as_are_asked_for():
    count = 6000
    left = np.arange(count, dtype=np.float32) * 2
    boxes = np.stack([left, 0 * left, left + 1, 0 * left + 8], axis=1)
    outputs = {"boxes": boxes[None], "scores": np.full((1, count), 0.9, np.float32)}
    decode = {"kind": "boxes", "box": "xyxy", "units": "pixels"}
    size = (2 * count, 8)
    found = read(outputs, decode, input_size=size, placed=(0, 0, *size), max_objects=5500)
    assert len(found) == 5500
