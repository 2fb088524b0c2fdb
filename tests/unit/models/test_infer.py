"""Cards from files: what common exporters write is taken over, the rest is guessed and said."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from relens.errors import BadInput
from relens.models.card import read_card
from relens.models.contradictions import contradictions
from relens.models.infer import infer_card
from relens.models.onnxfile import read_onnx

ULTRALYTICS = {
    "author": "Ultralytics",
    "task": "detect",
    "imgsz": "[320, 320]",
    "stride": "32",
    "names": "{0: 'person', 1: 'bicycle', 2: 'car'}",
}


def inferred(data, **given):
    """The card; it can be read back, and it does not contradict the file that it comes from."""
    found = infer_card(data, name="made", **given)
    assert read_card(found.card.to_yaml()) == found.card
    assert contradictions(found.card, data, labels=found.labels) == []
    return found


def said(found, certainty):
    return " / ".join(note.text for note in found.notes if note.certainty == certainty)


def test_a_yolov8_of_ultralytics_says_nearly_all_by_itself(make):
    data = make({"output0": (1, 7, 2100)}, size=(1, 3, 320, 320), ends={"output0": ["Sigmoid"]}, metadata=ULTRALYTICS)
    found = inferred(data)
    card = found.card
    assert (card.task, card.outputs, card.decode) == (
        "detect",
        {"detections": "output0"},
        {"kind": "yolo", "variant": "classes"},
    )
    assert (card.preprocessing.size_px, card.preprocessing.fit, card.preprocessing.std) == (
        320,
        "letterbox",
        (255,) * 3,
    )
    assert found.labels == ("person", "bicycle", "car")
    assert card.labels == "labels.json"
    assert "3 class names" in said(found, "read")


def test_the_size_of_a_free_input_is_that_of_the_metadata(make):
    data = make({"output0": (1, 7, None)}, size=("n", 3, "h", "w"), metadata=ULTRALYTICS)
    assert inferred(data).card.input_shape == (3, 320, 320)


def test_masks_behind_the_scores_are_not_read(make):
    data = make({"output0": (1, 4 + 3 + 32, 2100), "output1": (1, 32, 80, 80)}, metadata=ULTRALYTICS)
    assert inferred(data).card.decode["classes"] == 3


def test_landmarks_are_those_of_the_metadata(make):
    metadata = {**ULTRALYTICS, "names": "{0: 'face'}", "kpt_shape": "[5, 3]"}
    decode = inferred(make({"output0": (1, 4 + 1 + 15, 2100)}, metadata=metadata)).card.decode
    assert (decode["landmarks"], decode["landmark_size"]) == (5, 3)


def test_rows_with_objectness_are_told_from_rows_without_by_the_labels(make):
    data = make({"output": (1, 25200, 8)}, size=(1, 3, 640, 640))
    assert inferred(data, labels=["a", "b", "c"]).card.decode["variant"] == "objectness"
    assert inferred(data, labels=["a", "b", "c", "d"]).card.decode["transposed"] is True
    assert inferred(data).card.decode["variant"] == "objectness"


def test_one_row_for_each_cell_is_relative_to_its_grid(make):
    found = inferred(make({"output": (1, 8400, 85)}, size=(1, 3, 640, 640)))
    assert found.card.decode["strides"] == [8, 16, 32]
    assert "YOLOX" in said(found, "guessed")


def test_findings_of_six_numbers_are_ready(make):
    decode = inferred(make({"output0": (1, 300, 6)}, metadata=ULTRALYTICS)).card.decode
    assert decode == {"kind": "yolo", "variant": "end-to-end"}


def test_a_detr_answers_questions_whose_scores_are_logits(make):
    found = inferred(make({"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, ends={"pred_boxes": ["Sigmoid"]}))
    assert found.card.outputs == {"boxes": "pred_boxes", "scores": "logits"}
    assert found.card.decode == {
        "kind": "boxes",
        "box": "cxcywh",
        "units": "share",
        "scores": "sigmoid",
        "nms": "none",
    }


def test_an_ssd_with_two_classes_has_a_background(make):
    data = make({"scores": (1, 4420, 2), "boxes": (1, 4420, 4)}, ends={"scores": ["Softmax"]}, size=(1, 3, 240, 320))
    found = inferred(data, labels=["face"])
    assert found.card.decode["background"] == 0
    assert found.labels == ("background", "face")
    assert found.card.input_shape == (3, 240, 320)


def test_a_detector_of_tensorflow_has_classes_of_their_own(make):
    outputs = {"detection_boxes": (1, 100, 4), "detection_classes": (1, 100), "detection_scores": (1, 100), "n": (1,)}
    found = inferred(make(outputs, size=(1, None, None, 3), kind=TensorProto.UINT8))
    assert found.card.outputs == {
        "boxes": "detection_boxes",
        "scores": "detection_scores",
        "classes": "detection_classes",
    }
    assert (found.card.preprocessing.layout, found.card.preprocessing.std) == ("nhwc", (1,) * 3)


@pytest.mark.parametrize(("end", "kind"), [("Softmax", "none"), ("Sigmoid", "none")])
def test_a_classifier_with_its_activation_is_taken_as_it_is(make, end, kind):
    found = inferred(make({"probs": ("n", 5)}, ends={"probs": [end]}))
    assert (found.card.task, found.card.kind) == ("classify", kind)
    assert found.labels == tuple(f"class {index}" for index in range(5))
    assert "--labels" in said(found, "guessed")


def test_logits_are_scores_when_labels_say_so_and_a_vector_when_nothing_does(make):
    data = make({"y": ("n", 5)}, size=(1, 3, 224, 224))
    found = inferred(data, labels=list("abcde"))
    assert (found.card.task, found.card.kind) == ("classify", "softmax")
    assert found.card.preprocessing.resize_px == 256
    vector = inferred(data)
    assert (vector.card.task, vector.card.dim, vector.labels) == ("embed", 5, None)
    assert "--labels" in said(vector, "guessed")


def test_scores_and_a_vector_come_from_one_forward(make):
    outputs = {"probs": ("n", 5), "pooled": ("n", 16), "map": ("n", 16, 4, 4)}
    card = inferred(make(outputs, ends={"probs": ["Softmax"]})).card
    assert (card.task, card.dim) == ("classify+embed", 16)
    assert card.outputs == {"scores": "probs", "vector": "pooled", "features": "map"}


def test_one_number_is_a_regressor(make):
    card = inferred(make({"age": ("n", 1)})).card
    assert (card.task, card.outputs) == ("regress", {"value": "age"})


@pytest.mark.parametrize(
    ("given", "mean", "std"),
    [
        ({"before": [("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])]}, 0, 255),
        ({"before": [("Sub", 127.5), ("Div", 127.5)]}, 0, 1),
        ({"before": [("Mul", 1 / 127.5), ("Add", -1.0)]}, 0, 1),
        ({"before": [("Mul", 1 / 255)]}, 0, 1),
        ({"kind": TensorProto.UINT8}, 0, 1),
        ({}, 127.5, 127.5),
    ],
)
def test_what_the_graph_does_to_its_input_is_not_done_twice(make, given, mean, std):
    prep = inferred(make({"vector": ("n", 16)}, **given)).card.preprocessing
    assert (prep.mean[0], prep.std[0]) == (mean, std)


def test_an_input_of_one_channel_is_grey_and_one_that_is_not_square_is_stretched(make):
    prep = inferred(make({"vector": ("n", 16)}, size=("n", 1, 32, 100))).card.preprocessing
    assert (prep.colour, prep.fit, prep.height, prep.size_px, prep.mean) == ("grey", "stretch", 32, 100, (127.5,))


def test_halves_are_named_as_the_precision(make):
    assert inferred(make({"vector": ("n", 16)}, weights=np.float16)).card.precision == "fp16"
    assert inferred(make({"vector": ("n", 16)}, weights=np.int8)).card.precision == "int8"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"outputs": {"y": (1, 2, 3, 4, 5)}}, "outputs are y"),
        ({"outputs": {"y": (1, 40, 6625)}, "ends": {"y": ["Softmax"]}}, "outputs are y"),
        ({"outputs": {"y": ("n", 3)}, "size": ("n", 10)}, "input is images"),
        ({"outputs": {"y": ("n", 3)}, "size": ("n", 7, 32, 32)}, "1 or 3 channels"),
    ],
)
def test_what_no_picture_can_be_put_into_or_nobody_can_read_is_refused(make, given, text):
    with pytest.raises(BadInput) as caught:
        infer_card(make(given.pop("outputs"), **given), name="made")
    assert caught.value.code == "models.cannot-infer"
    assert text in caught.value.message
    assert caught.value.hint


def test_two_inputs_are_named():
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "ab"]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "two", values, [out])
    with pytest.raises(BadInput, match="2 inputs: a"):
        infer_card(helper.make_model(graph).SerializeToString(), name="two")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"this is no model at all\n" * 30, "it is text"),
        (b"<!doctype html><title>Sign in</title>", "it is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "Git LFS"),
        (b"\x00\x01\x02" * 400, "do not follow the format"),
        (b"\x08\x07", "no operations"),
    ],
)
def test_a_file_that_is_no_model_is_called_what_it_is(data, said):
    with pytest.raises(BadInput) as caught:
        read_onnx(data)
    assert caught.value.code == "models.not-onnx"
    assert said in caught.value.message


def test_half_a_file_is_no_model(make):
    data = make({"vector": ("n", 16)})
    with pytest.raises(BadInput):
        infer_card(data[: len(data) // 2], name="half")


def test_weights_in_other_files_are_refused_with_the_way_out(make):
    model = onnx.load_model_from_string(make({"vector": ("n", 16)}))
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    with pytest.raises(BadInput) as caught:
        read_onnx(model.SerializeToString())
    assert caught.value.code == "models.external-weights"
    assert "weights.bin" in caught.value.message
