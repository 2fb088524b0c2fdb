"""A folder of backups: what has a manifest is there, and nothing leads out of it."""

from __future__ import annotations

import pytest

from relens.backup import Backup, BackupFolder
from relens.backup.restoring import _inside
from relens.config import Home
from relens.errors import BadInput, Broken, Missing
from relens.store import Blob


def made(at, **values):
    sequences = {"album": 1}
    given = {"relens": "1", "revision": "0002", "catalog": Blob("c" * 64, 3), "sequences": sequences} | values
    return Backup(name="", made_at=at, blobs={"b" * 64: 5}, files={"relens.yaml": Blob("f" * 64, 7)}, **given)


@pytest.fixture
def folder(tmp_path):
    folder = BackupFolder(tmp_path / "a" / "shelf")
    folder.make()
    return folder


def test_what_is_added_is_read_back_by_name_or_as_the_newest(folder):
    sooner, later = folder.add(made(1e9)), folder.add(made(2e9, left_out=("secret",)))
    assert folder.names() == [sooner.name, later.name]
    assert folder.open() == folder.open(later.name) == folder.open(f"{later.name}.json") == later
    assert folder.open(sooner.name).made_at == 1e9
    assert later.left_out == ("secret",)
    assert later.contents() == {"b" * 64: 5, "c" * 64: 3, "f" * 64: 7}
    assert folder.open(later.name).digest == later.digest
    folder.make()
    assert len(folder.names()) == 2


def test_the_newest_is_the_last_made_within_a_second_and_when_the_clock_was_set_back(folder):
    added = [folder.add(made(at)).name for at in (2e9, 2e9, 2e9 + 1e-5, 1e9, 2e9 + 1)]
    assert folder.names() == added
    assert folder.open().name == added[-1]
    assert folder.open(added[3]).made_at == 1e9
    (folder.path / "backups" / "mine.json").write_text("{}")
    assert folder.add(made(2e9 + 2)).name == folder.names()[-2]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data.replace(b'"album":1', b'"album":2')])
def test_a_damaged_manifest_is_broken(folder, damage):
    added = folder.add(made(1e9))
    path = folder.path / "backups" / f"{added.name}.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Broken, match="damaged"):
        folder.open()


def test_what_is_not_there_is_missing(folder, tmp_path):
    with pytest.raises(Missing, match="no backup in"):
        folder.open()
    folder.add(made(1e9))
    with pytest.raises(Missing, match="no backup other"):
        folder.open("other")
    with pytest.raises(Missing):
        folder.open("../backups/x")
    assert BackupFolder(tmp_path / "nowhere").names() == []


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "models/../../x"])
def test_a_file_of_a_backup_never_leaves_the_home(path, tmp_path):
    with pytest.raises(BadInput, match="leads out"):
        _inside(Home(tmp_path), path)
