"""Drafts: small rules of how files and wishes become cards."""

import onnx
import pytest
import yaml
from onnx import numpy_helper

from relens.errors import BadInput
from relens.models.drafts import Wish, default_name, draft_model
from relens.testing import networks


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("YOLO v8n (best).onnx", "yolo-v8n-best"),
        ("model.int8.onnx", "model"),
        ("хорошо.onnx", "model"),
        ("a/b/Face_Net.onnx", "face_net"),
    ],
)
def test_a_model_is_named_like_its_file(called, name):
    assert default_name(called) == name


def draft(folder, *changes, **wish):
    (folder / "model.onnx").write_bytes(networks.embedder())
    return draft_model(folder / "model.onnx", Wish(infer=True, changes=changes, **wish))


def test_changes_are_yaml_and_reach_inside(tmp_path):
    card = draft(tmp_path, "preprocessing.mean=[0, 0, 0]", "preprocessing.colour=bgr", "licence=MIT").card
    assert (card.preprocessing.mean, card.preprocessing.colour, card.licence) == ((0, 0, 0), "bgr", "MIT")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("licence", "no change"),
        ("=x", "no change"),
        ("licence.name=x", "no keys inside"),
        ("licence=[", "no YAML"),
        ("colour=bgr", "unknown in the card: colour"),
        ("preprocessing.size=3", "size"),
        ("task=paint", "'paint'"),
        ("licence=MIT: really", "licence: {'MIT': 'really'} is no text"),
        ("outputs.vector=3", "outputs.vector: 3 is no text"),
        ("outputs=[vector]", "is no text"),
        ("dim=many", "dim is a whole number"),
        ("decode=[softmax]", "decode"),
        ("task=3", "task: 3 is no text"),
    ],
)
def test_a_change_that_is_none_is_refused(tmp_path, change, said):
    with pytest.raises(BadInput) as caught:
        draft(tmp_path, change)
    assert said in caught.value.message


def test_what_was_set_is_no_longer_told_as_a_guess(tmp_path):
    notes = " ".join(draft(tmp_path).notes)
    assert "set licence" in notes
    assert "preprocessing.colour" in notes
    notes = " ".join(draft(tmp_path, "licence=MIT", "preprocessing.colour=bgr").notes)
    assert "set licence" not in notes
    assert "preprocessing.colour" not in notes


def test_the_name_and_version_that_are_wished_for_go_before_those_of_the_card(tmp_path):
    given = yaml.safe_load(draft(tmp_path).card.to_yaml())
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(given))
    made = draft_model(tmp_path / "model.onnx", Wish(card=tmp_path / "card.yaml", name="other", version=7))
    assert (made.card.name, made.card.version, made.numbered) == ("other", 7, True)
    (tmp_path / "card.yaml").write_text(
        yaml.safe_dump({k: v for k, v in given.items() if k not in {"name", "version"}})
    )
    made = draft_model(tmp_path / "model.onnx", Wish(card=tmp_path / "card.yaml"), called="looks.onnx")
    assert (made.card.name, made.numbered) == ("looks", False)


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "\x00"])
def test_a_card_that_is_no_yaml_is_refused(tmp_path, text):
    (tmp_path / "card.yaml").write_text(text)
    (tmp_path / "model.onnx").write_bytes(networks.embedder())
    with pytest.raises(BadInput) as caught:
        draft_model(tmp_path / "model.onnx", Wish(card=tmp_path / "card.yaml"))
    assert caught.value.code == "models.bad-card"


# -- weights in files of their own ------------------------------------------------------------------------------------


@pytest.fixture
def apart(tmp_path):
    """A model as exporters write large ones: the graph in one file, its weights in another."""
    folder = tmp_path / "apart"
    folder.mkdir()
    model = onnx.load_model_from_string(networks.embedder())
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return folder


def test_weights_that_lie_beside_a_model_are_taken_into_it(apart):
    whole = draft_model(apart / "model.onnx", Wish(infer=True)).files["model.onnx"]
    expected = {one.name: numpy_helper.to_array(one) for one in _weights(networks.embedder())}
    found = {one.name: numpy_helper.to_array(one) for one in _weights(whole)}
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in found)


def test_of_a_folder_they_are_not_kept_twice(apart):
    card = draft_model(apart / "model.onnx", Wish(infer=True)).card
    (apart / "card.yaml").write_text(yaml.safe_dump(card.to_json()))
    files = draft_model(apart, Wish()).files
    assert set(files) == {"model.onnx"}
    assert draft_model(apart / "model.onnx", Wish(card=apart / "card.yaml")).files == files


def _lead_out(folder):
    (folder / "model.onnx.data").rename(folder.parent / "secret")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = "../secret"
    (folder / "model.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "model.onnx.data").unlink(), "model.onnx.data, which is not there"),
        (lambda folder: (folder / "model.onnx.data").write_bytes(b"short"), "cannot be read"),
        (_lead_out, "outside of its folder"),
    ],
)
def test_weights_that_are_lost_cut_off_or_elsewhere_are_named(apart, spoil, said):
    spoil(apart)
    with pytest.raises(BadInput) as caught:
        draft_model(apart / "model.onnx", Wish(infer=True))
    assert caught.value.code == "models.external-weights"
    assert said in caught.value.message


def _weights(data):
    return onnx.load_model_from_string(data).graph.initializer
