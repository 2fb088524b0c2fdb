"""A folder of models: what is whole is there, what is still written to is not, and what cannot be says why."""

from __future__ import annotations

import os
import shutil

import pytest

from relens.errors import Broken
from relens.models import Shelf
from relens.models.artifacts import MARKER
from relens.models.drafts import Wish, draft_model
from relens.models.folder import ModelFolder
from relens.testing import networks


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    return root


def put(root, version, data=b"bytes", name="model.onnx", model="m"):
    path = root / model / version / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_bare_file_is_there_when_it_has_rested_from_one_look_to_the_next(root):
    folder = ModelFolder(root)
    path = put(root, "1")
    assert folder.look() == ({}, {("m", 1)})
    path.write_bytes(b"more bytes")
    assert folder.look() == ({}, {("m", 1)})
    whole, unfinished = folder.look()
    assert (whole["m", 1].file, unfinished) == (path, set())
    assert whole["m", 1].problem is None


def test_a_file_beside_it_that_grows_is_waited_for(root):
    folder = ModelFolder(root)
    put(root, "1")
    folder.look()
    put(root, "1", name="model.onnx.data")
    assert folder.look() == ({}, {("m", 1)})
    assert ("m", 1) in folder.look()[0]


def test_what_is_no_version_is_passed_over(root):
    put(root, "1.tmp")
    put(root, ".2")
    put(root, "latest")
    put(root, "3", model=".git")
    (root / "notes.txt").write_text("x")
    (root / "m" / "7").write_text("a file")
    (root / "m" / "8").mkdir()
    folder = ModelFolder(root)
    folder.look()
    assert folder.look() == ({}, {("m", 8)})


@pytest.mark.parametrize(("names", "said"), [(["a.onnx", "b.onnx"], "2 files"), (["model.pb"], "no file")])
def test_without_one_model_file_it_says_what_is_there(root, names, said):
    for name in names:
        put(root, "1", name=name)
    folder = ModelFolder(root)
    folder.look()
    assert said in folder.look()[0]["m", 1].problem


def test_hidden_files_of_copying_programs_do_not_count(root):
    put(root, "1")
    put(root, "1", name=".model.onnx.part")
    folder = ModelFolder(root)
    folder.look()
    put(root, "1", b"longer", name=".model.onnx.part")
    assert ("m", 1) in folder.look()[0]


@pytest.fixture
def published(tmp_path):
    """A version with card, manifest and marker, as a home keeps them."""
    file = tmp_path / "looks.onnx"
    file.write_bytes(networks.classifier())
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\ne\n")
    draft = draft_model(file, Wish(infer=True, labels=names))
    return Shelf(tmp_path / "shelf").publish(draft.card, draft.files).folder


def test_a_version_with_a_marker_is_there_at_once_with_digest_and_labels(root, published):
    shutil.copytree(published, root / "looks" / "4")
    version = ModelFolder(root).look()[0]["looks", 4]
    assert version.whole
    assert version.digest is not None
    assert version.labels.name == "labels.json"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: os.truncate(folder / "model.onnx", 100), "model.onnx"),
        (lambda folder: (folder / "labels.json").unlink(), "labels.json"),
        (lambda folder: (folder / MARKER).write_text("0" * 64), "marker"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "marker"),
    ],
)
def test_one_that_differs_from_its_manifest_says_where(root, published, spoil, said):
    shutil.copytree(published, root / "looks" / "4")
    spoil(root / "looks" / "4")
    assert said in ModelFolder(root).look()[0]["looks", 4].problem


def test_one_whose_marker_has_not_come_yet_is_not_there_while_it_grows(root, published):
    shutil.copytree(published, root / "looks" / "4", ignore=shutil.ignore_patterns(MARKER, "model.onnx"))
    folder = ModelFolder(root)
    assert folder.look() == ({}, {("looks", 4)})
    shutil.copy(published / "model.onnx", root / "looks" / "4")
    for _ in range(3):
        assert folder.look() == ({}, {("looks", 4)})
    shutil.copy(published / MARKER, root / "looks" / "4")
    assert ("looks", 4) in folder.look()[0]


def test_a_folder_that_is_gone_is_said(root):
    folder = ModelFolder(root)
    root.rmdir()
    with pytest.raises(Broken) as caught:
        folder.look()
    assert caught.value.code == "models.folder"
