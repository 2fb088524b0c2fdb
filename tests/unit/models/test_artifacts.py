"""Model versions on disk: complete and unchanged, or not there."""

from __future__ import annotations

import pytest

from relens.errors import BadInput, Broken, Conflict, Missing
from relens.models import Card, Shelf, read_card
from relens.values import Preprocessing


def a_card(**changes) -> Card:
    given = {
        "name": "tiny",
        "version": 1,
        "task": "classify+embed",
        "format": "dummy",
        "file": "model.json",
        "input": "pixels",
        "preprocessing": Preprocessing(64, 64, "bilinear", "rgb", "nchw", (127.0,) * 3, (128.0,) * 3),
        "outputs": {"scores": "scores", "vector": "vector"},
        "dim": 8,
        "labels": "labels.json",
        "licence": "CC0",
        "source": "test",
    }
    return Card(**(given | changes))


FILES = {"model.json": b'{"seed": 1}', "labels.json": b'["a", "b"]'}


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(tmp_path / "models")


def test_what_is_published_is_opened_with_every_byte(shelf):
    made = shelf.publish(a_card(), FILES)
    opened = shelf.open("tiny", 1, verify=True)
    assert opened == made
    assert opened.card == a_card()
    assert opened.labels() == ["a", "b"]
    assert shelf.versions() == [("tiny", 1)]


def test_publishing_the_same_again_changes_nothing_and_other_content_is_refused(shelf):
    first = shelf.publish(a_card(), FILES)
    assert shelf.publish(a_card(), FILES) == first
    with pytest.raises(Conflict, match="exists with other content"):
        shelf.publish(a_card(), {**FILES, "model.json": b"other"})


def test_a_folder_without_its_marker_is_not_there_and_can_be_published_over(shelf):
    shelf.publish(a_card(), FILES)
    (shelf.folder("tiny", 1) / "COMPLETE").unlink()
    assert shelf.versions() == []
    with pytest.raises(Missing):
        shelf.open("tiny", 1)
    shelf.publish(a_card(), FILES)
    assert shelf.open("tiny", 1, verify=True)


@pytest.mark.parametrize("name", ["model.json", "card.yaml", "labels.json", "manifest.json"])
def test_a_changed_byte_is_found(shelf, name):
    shelf.publish(a_card(), FILES)
    path = shelf.folder("tiny", 1) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Broken) as caught:
        shelf.open("tiny", 1, verify=True)
    assert caught.value.code == "models.corrupt"
    assert name in caught.value.message


@pytest.mark.parametrize("name", ["model.json", "labels.json"])
def test_a_missing_or_shorter_file_is_found_without_reading_all(shelf, name):
    shelf.publish(a_card(), FILES)
    path = shelf.folder("tiny", 1) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Broken):
        shelf.open("tiny", 1)
    path.unlink()
    with pytest.raises(Broken):
        shelf.open("tiny", 1)


def test_a_card_survives_its_yaml():
    assert read_card(a_card().to_yaml()) == a_card()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour_order": "rgb"}, "colour_order"),
        ({"outputs": {"boxes": "x"}}, "boxes"),
        ({"preprocessing": {"size_px": 3}}, "mean"),
    ],
)
def test_a_bad_card_names_what_is_wrong(change, named):
    with pytest.raises(BadInput) as caught:
        read_card(a_card().to_json() | change)
    assert caught.value.code == "models.bad-card"
    assert named in str(caught.value)


def test_a_card_without_a_needed_key_is_refused():
    given = a_card().to_json()
    del given["licence"]
    with pytest.raises(BadInput, match="licence"):
        read_card(given)


def test_a_space_changes_with_weights_preprocessing_and_precision_and_with_nothing_else(shelf):
    card = a_card()
    spaces = {
        str(card.space("w1")),
        str(card.space("w2")),
        str(a_card(precision="int8").space("w1")),
        str(
            a_card(preprocessing=Preprocessing(64, 72, "bilinear", "rgb", "nchw", (127.0,) * 3, (128.0,) * 3)).space(
                "w1"
            )
        ),
    }
    assert len(spaces) == 4
    assert a_card(licence="MIT", version=7, labels="x.json").space("w1") == card.space("w1")
