"""Homes that an older relens wrote: copied, brought forward, and answering as before. Nothing is lost if that fails."""

from __future__ import annotations

import errno
import gzip
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
import yaml

from relens import wiring
from relens.errors import Broken, Conflict
from relens.store import Catalog, copies
from relens.store.catalog import SCHEMA_REVISION, revision_of
from relens.store.dumps import _counters, _set_counters, _tables, write_dump
from relens.store.upgrading import make_schema
from relens.telemetry import start_logging
from relens.testing.homes import fill
from relens.testing.upkeep import OpenedHome, answers, problems
from relens.wiring.restoring import restore_copy

FILES = {f"{letter}.jpg": seed for seed, letter in enumerate("abcde", 1)}
OPENING = "import sys, relens; relens.open(sys.argv[1]).close()"


def aged(source, url):
    """The rows of a catalog as a relens of the first revision would have written them: without what came later."""
    old = Catalog(url)
    with source.read() as rows, old.begin() as tx:
        make_schema(tx, "0001")
        now = {table.name: table for table in _tables(rows)}
        for table in _tables(tx):
            found = rows.execute(sa.select(*[now[table.name].c[column.name] for column in table.columns])).mappings()
            if values := [dict(row) for row in found]:
                tx.execute(sa.insert(table), values)
        given = {table.name for table in _tables(tx)}
        _set_counters(tx, {name: last for name, last in _counters(rows, now.values()).items() if name in given})
    return old


@pytest.fixture
def old(home, folder, databases):
    """A home of the first revision with a gallery in it, not opened yet, and what it answered."""
    home.run(fill(folder, FILES))
    home.run(fill(folder, {"e.jpg": 6, "f.jpg": 7}))
    expected = answers(home)
    url = databases.empty()
    aged(home.local().parts.catalog, url).close()
    home.close()
    point_to(home, url)
    made = OpenedHome(home.path)
    yield made, expected
    made.close()


def point_to(home, url):
    given = yaml.safe_load((home.path / "relens.yaml").read_text())
    (home.path / "relens.yaml").write_text(yaml.safe_dump(given | {"catalog": url}))


def copies_of(home):
    return sorted([*home.path.glob("*.bak"), *home.path.glob("catalog-*.jsonl.gz")])


def catalog_of(home):
    return Catalog(yaml.safe_load((home.path / "relens.yaml").read_text())["catalog"])


def revision(catalog):
    with catalog.read() as tx:
        return revision_of(tx)


def test_an_old_home_is_copied_and_brought_forward_and_answers_as_before(old, folder, capsys):
    home, expected = old
    start_logging("info", "json")
    assert answers(home) == expected
    assert problems(home) == []
    (copy,) = copies_of(home)
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "copy" in line]
    assert (line["copy"], line["revision"]) == (str(copy), "0001")
    assert revision(home.local().parts.catalog) == SCHEMA_REVISION
    before = set(home.found())
    assert home.run(fill(folder, {"g.jpg": 8}))["state"] == "done"
    assert set(home.found()) > before
    assert copies_of(home) == [copy]


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_the_copy_of_sqlite_takes_the_place_of_the_catalog(old, tmp_path):
    home, expected = old
    home.local().close()
    (copy,) = copies_of(home)
    assert copy.name.endswith(".sqlite3.0001.bak")
    assert not list(home.path.glob(f"{copy.name}-*"))
    back = Catalog(copy)
    assert revision(back) == "0001"
    back.close()
    copy.rename(tmp_path / "back.sqlite3")
    point_to(home, f"sqlite:///{tmp_path / 'back.sqlite3'}")
    assert answers(home) == expected


@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
def test_the_copy_of_a_server_s_catalog_is_restored_into_an_empty_one(old, databases):
    home, expected = old
    home.local().close()
    (copy,) = copies_of(home)
    with pytest.raises(Conflict, match="not empty"):
        restore_copy(copy, home.path)
    point_to(home, databases.empty())
    restore_copy(copy, home.path)
    assert answers(home) == expected
    assert problems(home) == []


def test_a_dump_of_an_older_schema_is_restored_and_brought_forward(old, databases, tmp_path):
    home, expected = old
    catalog = catalog_of(home)
    with (tmp_path / "dump").open("wb") as file, catalog.snapshot() as tx:
        assert write_dump(tx, file).revision == "0001"
    catalog.close()
    point_to(home, databases.empty())
    restore_copy(tmp_path / "dump", home.path)
    assert answers(home) == expected
    assert copies_of(home) == []


def test_a_dump_that_is_cut_short_or_no_dump_is_refused_and_nothing_is_written(old, databases, tmp_path):
    home, _ = old
    catalog = catalog_of(home)
    with (tmp_path / "dump").open("wb") as file, catalog.snapshot() as tx:
        write_dump(tx, file)
    catalog.close()
    whole = (tmp_path / "dump").read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    point_to(home, databases.empty())
    for broken in (whole[:-30], gzip.compress(b"".join(lines[:-2])), gzip.compress(b"[1]\n"), b"no dump", b""):
        (tmp_path / "dump").write_bytes(broken)
        with pytest.raises(Broken) as caught:
            restore_copy(tmp_path / "dump", home.path)
        assert caught.value.code == "store.damaged-dump"
        empty = catalog_of(home)
        assert revision(empty) is None
        empty.close()


def test_a_home_without_anything_in_it_is_not_copied(new_home, databases):
    home = new_home()
    assert copies_of(home) == []
    url = databases.empty()
    empty = Catalog(url)
    with empty.begin() as tx:
        make_schema(tx, "0001")
    empty.close()
    point_to(home, url)
    home.local()
    assert copies_of(home) == []


def test_the_newest_three_copies_are_kept(old):
    home, _ = old
    catalog = catalog_of(home)
    made = []
    for number in range(5):
        with catalog.begin() as tx:
            made.append(copies.copy_catalog(tx, home.path, f"2025060{number}T000000Z"))
            if catalog.is_sqlite:  # another revision, another name
                made[-1] = made[-1].rename(made[-1].with_name(made[-1].name.replace("0001", f"000{number}x")))
    catalog.close()
    assert len(copies_of(home)) <= copies.KEPT + 1
    assert made[-1] in copies_of(home)
    assert made[0] not in copies_of(home)


def test_without_room_for_the_copy_nothing_is_changed_and_the_error_says_what_to_do(old, monkeypatch):
    home, expected = old

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(copies, "write_dump", full)
        patched.setattr(copies.shutil, "disk_usage", lambda _folder: type("Usage", (), {"free": 1000}))
        with pytest.raises(Broken) as caught:
            wiring.open_parts(home.path)
    assert caught.value.code == "store.no-copy"
    assert "make room" in caught.value.hint
    assert list(home.path.glob(".*")) == copies_of(home) == []
    catalog = catalog_of(home)
    assert revision(catalog) == "0001"
    catalog.close()
    assert answers(home) == expected


def test_a_newer_schema_is_refused_before_anything_is_copied(old):
    home, _ = old
    catalog = catalog_of(home)
    with catalog.begin() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Broken) as caught:
        wiring.open_parts(home.path)
    assert caught.value.code == "store.newer-schema"
    assert copies_of(home) == []
    assert revision(catalog) == "9999"
    catalog.close()


def test_when_a_migration_fails_the_old_schema_and_the_copy_are_there(old, monkeypatch):
    home, expected = old
    with monkeypatch.context() as patched:
        patched.setattr("alembic.operations.Operations.create_index", _fail)
        with pytest.raises(ZeroDivisionError):
            wiring.open_parts(home.path)
    catalog = catalog_of(home)
    assert revision(catalog) == "0001"
    catalog.close()
    assert copies_of(home)
    assert answers(home) == expected


def _fail(*_args, **_options):
    raise ZeroDivisionError


def test_processes_that_start_at_once_copy_and_upgrade_once(old):
    home, expected = old

    def open_home(_number):
        command = [sys.executable, "-c", OPENING, str(home.path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(open_home, range(3)))
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    assert sum("a copy is kept" in one.stderr for one in done) == 1
    assert not any(one.stdout for one in done)
    assert len(copies_of(home)) == 1
    assert answers(home) == expected
