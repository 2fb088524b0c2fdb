"""What a served model says of a picture, and that a version with a manifest is what it was."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import yaml
from PIL import Image

from relens.errors import BadInput, Broken
from relens.golden import golden_outputs, golden_pictures
from relens.hosted.model import Model
from relens.hosted.pictures import known_of
from relens.models import GOLDEN, GOLDEN_OUTPUTS, Shelf
from relens.models.drafts import Wish, draft_model
from relens.runtimes.graph import Graph
from relens.testing import networks
from relens.testing.pictures import draw

LOOKED = {"names": 3, "min_score": 0.5, "vector": False}
NAMES = ["ankle boot", "bag", "coat", "dress", "eel"]


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def model_in(folder, data, card=None, labels=None):
    file = folder / "model.onnx"
    file.write_bytes(data)
    if card is not None:
        (folder / "card.yaml").write_text(yaml.safe_dump(draft_model(file, Wish(infer=True)).card.to_json() | card))
    if labels is not None:
        (folder / "labels.json").write_text(json.dumps(labels))
    return Model(Graph(file), file)


def run(model, picture):
    batch = np.empty(1, object)
    batch[0] = picture
    asked = model.given({"images": batch}, ())
    return model.graph.run(asked.inputs, asked.wanted)


def recognize(model, picture, looked):
    asked = model.looked_at(picture, looked)
    said, body = asked.finish(model.graph.run(asked.inputs, asked.wanted))
    assert body == b""
    return said["recognized"]


def test_a_classifier_gives_its_best_names_with_the_scores_of_its_tensor(tmp_path):
    model = model_in(tmp_path, networks.classifier(), {}, NAMES)
    picture = draw(1)
    scores = run(model, picture)["scores"][0]
    found = recognize(model, picture, LOOKED)
    [whole] = found["objects"]
    best = np.argsort(-scores)[:3]
    assert [(one["name"], one["index"]) for one in whole["labels"]] == [(NAMES[i], i) for i in best]
    assert [one["score"] for one in whole["labels"]] == pytest.approx(scores[best], abs=1e-5)
    assert whole["box"] == [0, 0, 1, 1]
    assert "vector" not in whole["attributes"]
    assert (found["picture"]["width"], found["picture"]["height"]) == Image.open(io.BytesIO(picture)).size


def test_classes_without_names_are_called_by_their_index(tmp_path):
    model = model_in(tmp_path, networks.classifier())
    assert model.labels == ()
    [whole] = recognize(model, draw(1), LOOKED)["objects"]
    assert [one["name"] for one in whole["labels"]] == [str(one["index"]) for one in whole["labels"]]


def test_names_that_a_card_promises_and_that_are_not_there_are_done_without(tmp_path):
    assert model_in(tmp_path, networks.classifier(), {}).labels == ()


def test_an_embedder_gives_a_vector_of_unit_length(tmp_path):
    model = model_in(tmp_path, networks.embedder())
    picture = draw(2)
    raw = run(model, picture)["vector"][0]
    [whole] = recognize(model, picture, LOOKED)["objects"]
    np.testing.assert_allclose(whole["attributes"]["vector"], raw / np.linalg.norm(raw), atol=1e-5)
    assert whole["labels"] == []


def test_a_detector_gives_boxes_where_things_are_in_the_picture(tmp_path):
    model = model_in(tmp_path, networks.yolo())
    pixels = np.zeros((320, 640, 3), np.uint8)
    pixels[64:192, 64:192] = (255, 0, 0)  # holds two cells of 32 pixels of the letterboxed half
    found = recognize(model, png(pixels), LOOKED)["objects"]
    assert found
    for one in found:
        x, y, w, h = one["box"]
        assert 0.09 <= x <= x + w <= 0.31
        assert 0.19 <= y <= y + h <= 0.61
        assert [name["index"] for name in one["labels"]] == [0]
    assert recognize(model, png(pixels), {**LOOKED, "min_score": 1.0})["objects"] == []


def test_a_regressor_gives_its_number_in_its_unit(tmp_path):
    card = {"task": "regress", "outputs": {"value": "scores"}, "labels": None, "decode": {"scale": 10, "unit": "years"}}
    model = model_in(tmp_path, networks.classifier(classes=1, activation="Sigmoid"), card)
    picture = draw(1)
    raw = run(model, picture)["scores"][0][0]
    [whole] = recognize(model, picture, LOOKED)["objects"]
    assert whole["attributes"] == {"value": pytest.approx(10 * raw, abs=1e-4), "unit": "years"}


@pytest.mark.parametrize(
    ("network", "code"),
    [(networks.scaler(2), "hosted.no-pictures"), (networks.embedder(broken=True), "hosted.not-finite")],
    ids=["numbers", "broken"],
)
def test_what_cannot_say_anything_of_a_picture_says_why(tmp_path, network, code):
    with pytest.raises((BadInput, Broken)) as caught:
        recognize(model_in(tmp_path, network), draw(1), LOOKED)
    assert caught.value.code == code


def test_a_model_whose_boxes_need_more_networks_is_not_read(tmp_path):
    model = model_in(tmp_path, networks.classifier(), {"task": "detect", "decode": {"kind": "db"}, "labels": None})
    with pytest.raises(BadInput) as caught:
        recognize(model, draw(1), LOOKED)
    assert caught.value.code == "hosted.not-recognized"


def test_limits_are_those_that_the_engine_was_given(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(networks.classifier())
    model = Model(Graph(file), file, max_pixels=10)
    with pytest.raises(BadInput, match="pixels"):
        recognize(model, draw(1), LOOKED)


# -- versions with a manifest


def published(tmp_path, *, off=0.0):
    """The file of a version as `relens model add` makes it; its golden scores are off by so much."""
    file = tmp_path / "model.onnx"
    file.write_bytes(networks.classifier())
    graph, card = Graph(file), replace(known_of(file).card, name="looks", version=3)
    pictures = golden_pictures(card.preprocessing.resize_px)
    outputs = golden_outputs(card, list(pictures.values()), lambda inputs: graph.run({card.input: inputs}), {})
    files = {card.file: file.read_bytes(), card.labels: json.dumps(NAMES).encode()}
    files |= {f"{GOLDEN}/{name}": data for name, data in pictures.items()}
    files[GOLDEN_OUTPUTS] = safetensors.numpy.save({role: values + off for role, values in outputs.items()})
    return Shelf(tmp_path / "models").publish(card, files).model_file


def test_a_version_with_a_manifest_that_is_what_it_was_is_loaded(tmp_path):
    file = published(tmp_path)
    model = Model(Graph(file), file)
    assert model.labels == tuple(NAMES)
    assert model.pictures == "images"


def test_a_version_whose_golden_pictures_give_something_else_is_refused(tmp_path):
    file = published(tmp_path, off=0.1)
    with pytest.raises(Broken) as caught:
        Model(Graph(file), file)
    assert caught.value.code == "models.golden-differs"


def test_a_changed_byte_in_any_file_of_a_version_is_noticed(tmp_path):
    file = published(tmp_path)
    labels = file.with_name("labels.json")
    labels.write_bytes(labels.read_bytes().replace(b"boot", b"boat"))
    with pytest.raises(Broken) as caught:
        Model(Graph(file), file)
    assert caught.value.code == "models.corrupt"
    assert "labels.json" in caught.value.message
