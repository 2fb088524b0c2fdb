"""A card against its file: each disagreement is a sentence that says what to change."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto

from relens.models.contradictions import contradictions
from relens.models.infer import infer_card


def one(card, data, labels=None):
    found = contradictions(card, data, labels=labels)
    assert len(found) == 1, found
    return found[0]


@pytest.fixture
def embedder(make):
    data = make({"vector": ("n", 16)})
    return infer_card(data, name="made").card, data


@pytest.fixture
def classifier(make):
    data = make({"probs": ("n", 5)}, ends={"probs": ["Softmax"]})
    return infer_card(data, name="made").card, data


@pytest.fixture
def detector(make):
    data = make({"output0": (1, 7, 84)}, ends={"output0": ["Sigmoid"]})
    return infer_card(data, name="made", labels=["a", "b", "c"]).card, data


def test_an_input_of_another_name(embedder):
    card, data = embedder
    assert one(replace(card, input="pixels"), data) == (
        "the card's input is 'pixels', the model's are images: set input to images"
    )


def test_an_input_of_another_size_or_layout(embedder):
    card, data = embedder
    assert "3 x 64 x 64" in one(replace(card, preprocessing=replace(card.preprocessing, size_px=32)), data)
    assert "preprocessing.layout to nchw" in one(
        replace(card, preprocessing=replace(card.preprocessing, layout="nhwc")), data
    )
    assert "no model of pictures" in one(replace(card, shape=(64,)), data)


def test_an_input_that_takes_no_numbers(make, embedder):
    data = make({"vector": ("n", 16)}, kind=TensorProto.BOOL)
    assert "export it with float32" in one(embedder[0], data)


def test_an_output_that_does_not_exist(embedder):
    card, data = embedder
    assert "set outputs.vector to vector" in one(replace(card, outputs={"vector": "vectors"}), data)


def test_a_vector_of_another_length_or_shape(make, embedder):
    card, data = embedder
    assert "set dim to 16" in one(replace(card, dim=512), data)
    assert "no row of numbers" in one(card, make({"vector": ("n", 16, 1, 1)}))


def test_labels_that_are_not_as_many_as_classes(classifier, detector):
    card, data = classifier
    assert "4 labels are given, the model scores 5" in one(card, data, list("abcd"))
    card, data = detector
    assert "2 labels are given" in one(card, data, list("ab"))


def test_an_activation_that_is_done_twice_or_not_at_all(make, classifier):
    card, data = classifier
    assert "set decode.kind to none" in one(replace(card, decode={"kind": "softmax"}), data)
    logits = make({"probs": ("n", 5)}, ends={"probs": ["GlobalAveragePool", "Flatten"]})
    assert "set decode.kind to softmax" in one(card, logits)


def test_findings_of_another_variant(detector):
    card, data = detector
    assert "2 numbers behind its boxes" in one(
        replace(card, decode={"kind": "yolo", "variant": "objectness", "transposed": True}), data, list("abc")
    )
    assert "end-to-end reads 6" in one(replace(card, decode={"kind": "yolo", "variant": "end-to-end"}), data)
    assert "name its tensor" in one(replace(card, decode={"kind": "boxes"}), data)


def test_boxes_and_scores_that_do_not_belong_together(make):
    good = make({"boxes": (1, 100, 4), "scores": (1, 100, 3)})
    card = infer_card(good, name="made").card
    assert "not as many" in one(card, make({"boxes": (1, 100, 4), "scores": (1, 90, 3)}))
    assert "four numbers" in one(card, make({"boxes": (1, 100, 5), "scores": (1, 100, 3)}))
    assert "background included" in one(card, good, ["a", "b"])


def test_another_precision(make, embedder):
    assert "set precision to fp16" in one(embedder[0], make({"vector": ("n", 16)}, weights=np.float16))


def test_every_contradiction_is_told_at_once(make, embedder):
    card = replace(embedder[0], input="pixels", outputs={"vector": "nothing"}, precision="int8")
    assert len(contradictions(card, embedder[1])) == 3
