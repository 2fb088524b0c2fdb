"""Backups of living homes, restored: the same ids, sequences and answers, on every pair of databases."""

from __future__ import annotations

import sys
import threading

import pytest
import sqlalchemy as sa
import yaml

from relens import config, wiring
from relens.backup import BackupFolder, verify
from relens.cli.app import main
from relens.cli.output import INTERRUPTED
from relens.errors import BadInput, Broken, Conflict, Missing
from relens.jobs import leases, this_worker
from relens.store import LocalBlobs
from relens.store.blobs import _LocalWriter
from relens.store.dumps import Dumped, write_dump
from relens.store.schema import backups, galleries, objects, packs, pins
from relens.testing import upkeep
from relens.testing.homes import DummyHome, fill
from relens.testing.pictures import draw
from relens.testing.upkeep import OpenedHome, untold
from relens.wiring.restoring import restore_home

FILES = {f"{letter}.jpg": seed for seed, letter in enumerate("abcdefgh", 1)}
FILES |= {"copy of a.jpg": 1, "broken.jpg": draw(20)[:300]}


class Killed(BaseException):
    """What ends a process as a kill does: nothing of ours catches it."""


@pytest.fixture
def shelf(tmp_path):
    """The folder of backups."""
    return tmp_path / "shelf"


@pytest.fixture
def full(home, folder):
    """A home with a gallery that was imported into twice."""
    home.run(fill(folder, FILES))
    home.run(fill(folder, {"h.jpg": 9, "i.jpg": 10}))
    home.local().set_threshold("album", 0.5)
    return home


@pytest.fixture
def restore(databases, tmp_path, shelf):
    """Restores into a new home, whose catalog is at a URL of its own."""
    made = []

    def restored(*, url=None, backup=None, path=None, **others):
        path = path or tmp_path / f"restored-{len(made)}"
        path.mkdir(exist_ok=True)
        settings = {"catalog": url or databases.empty(), "imports": {"pack_size": 8}, **others}
        (path / "relens.yaml").write_text(yaml.safe_dump(settings))
        restore_home(shelf, path, backup, untold)
        made.append(OpenedHome(path))
        return made[-1]

    yield restored
    for one in made:
        one.close()


def answers(home):
    """What people see: galleries with their objects, releases, plans with their books, models."""
    local = home.local()
    return upkeep.answers(home) | {
        "galleries": local.galleries(),
        "releases": local.releases(),
        "plans": local.plans(),
        "models": [(one["name"], one["digest"]) for one in local.models()["models"]],
    }


def is_sound(home):
    return upkeep.problems(home) == []


def problems(shelf):
    opened = BackupFolder(shelf)
    return {one.name: one.problems for one in verify(opened, opened.names(), untold)}


# -- the same answers -----------------------------------------------------------------------------------------------


def test_a_restored_home_answers_the_same_and_goes_on_numbering(full, shelf, restore, folder):
    made = full.local().back_up(shelf)
    assert made["sequences"] == {"album": 2}
    again = restore()
    assert answers(again) == answers(full)
    assert is_sound(again)
    before = set(again.found())
    again.run(fill(folder, {"new.jpg": 50}))
    assert min(set(again.found()) - before) > max(before)
    assert again.local().gallery("album")["sequence"] == 3


def test_filters_of_ones_own_are_restored_with_their_gallery(home, shelf, restore, folder):
    mine = home.path / "recipes" / "mine.py"
    mine.write_text("def keep(pixels, about): return True\n")
    home.recipe.write_text(home.recipe.read_text() + "filters:\n  - own: {file: mine.py, function: keep}\n")
    home.run(fill(folder, FILES))
    mine.write_text("def keep(pixels, about): return False\n")  # galleries go on with what they were made with
    home.local().back_up(shelf)
    again = restore()
    assert answers(again) == answers(home)
    assert (again.path / "recipes" / "mine.py").read_bytes() == mine.read_bytes()


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_a_backup_of_sqlite_is_restored_into_postgresql_and_back(full, shelf, restore, postgres_server):
    full.local().back_up(shelf)
    server = restore(url=postgres_server.empty())
    assert answers(server) == answers(full)
    server.local().back_up(shelf)
    back = restore()
    assert answers(back) == answers(full)
    assert is_sound(back)
    for one in (server, back):
        one.close()
    postgres_server.drop()


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_a_backup_of_a_home_on_s3_is_restored_into_a_folder_and_back(new_home, folder, shelf, restore, s3):
    home = new_home(blobs=s3.url(), blob_store=s3.settings)
    home.run(fill(folder, FILES))
    made = home.local().back_up(shelf)
    assert made["left_out"] == ["blob_store.key", "blob_store.secret"]
    in_folder = restore()
    assert answers(in_folder) == answers(home)
    in_folder.local().back_up(shelf)
    back = restore(blobs=s3.url(), blob_store=s3.settings)
    assert answers(back) == answers(home)
    assert is_sound(back)
    assert not list((back.path / "blobs").iterdir())
    with pytest.raises(Conflict, match="store of blobs"):
        restore(blobs=yaml.safe_load((back.path / "relens.yaml").read_text())["blobs"], blob_store=s3.settings)
    for one in (home, back):
        one.close()


def test_ids_of_rows_that_are_gone_are_not_given_again(home, shelf, restore):
    with home.local().parts.catalog.begin() as tx:
        row = {"name": "old", "recipe": "photos", "sequence": 0, "created_at": 1.0}
        last = tx.execute(sa.insert(galleries).values(row).returning(galleries.c.id)).scalar_one()
        tx.execute(sa.delete(galleries))
    home.local().back_up(shelf)
    with restore().local().parts.catalog.begin() as tx:
        assert tx.execute(sa.insert(galleries).values(row).returning(galleries.c.id)).scalar_one() > last


def test_a_backup_taken_while_others_import_and_ask_is_of_one_moment(new_home, shelf, restore, folder):
    home = new_home(pack_size=2)
    home.run(fill(folder, {"first.jpg": 1}))
    fill(folder, {f"{seed}.jpg": seed for seed in range(2, 22)})
    over = threading.Event()
    errors = []

    def ask():
        local = home.local()
        try:
            while not over.is_set():
                assert local.search(draw(1), gallery="album", k=3).objects[0].matches[0].score > 0.99
        except Exception as error:  # noqa: BLE001 - told to the thread that tests
            errors.append(error)

    work = [threading.Thread(target=home.run, args=(folder,)), threading.Thread(target=ask)]
    for thread in work:
        thread.start()
    try:
        names = [home.local().back_up(shelf)["backup"] for _ in range(3)]
    finally:
        work[0].join()
        over.set()
        work[1].join()
    assert not errors
    for name in dict.fromkeys(names):
        again = restore(backup=name)
        assert is_sound(again)
        unfinished = [plan["id"] for plan in again.local().plans()["plans"] if plan["state"] == "running"]
        for plan in unfinished:
            again.local().work(plan)
        again.run(folder)
        assert sorted(again.items()) == sorted(home.items())
        assert is_sound(again)


def test_packs_that_were_running_are_free_in_the_restored_home(new_home, shelf, restore, folder, monkeypatch):
    home = new_home(pack_size=4)
    monkeypatch.setattr(wiring.Local, "work", lambda *_args: None)
    home.run(fill(folder, FILES))
    catalog = home.local().parts.catalog
    with catalog.begin() as tx:
        claim = leases.claim(tx, this_worker(), catalog.now(tx), 60)
        tx.execute(sa.insert(pins).values(pack=claim.pack, epoch=claim.epoch, digest="d", at=1.0))
    home.local().back_up(shelf)
    with restore().local().parts.catalog.read() as tx:
        assert set(tx.execute(sa.select(packs.c.state)).scalars()) == {"open"}
        assert not tx.execute(sa.select(pins)).all()


# -- what is kept ---------------------------------------------------------------------------------------------------


def test_a_second_backup_copies_only_what_is_new(full, shelf, folder):
    first = full.local().back_up(shelf)
    assert first["copied"]["blobs"] == first["blobs"] > 0
    same = full.local().back_up(shelf)
    assert same["copied"] == {"blobs": 0, "bytes": 0}
    full.run(fill(folder, {"one more.jpg": 77}))
    before = set(LocalBlobs(shelf / "blobs").digests())
    third = full.local().back_up(shelf)
    assert third["copied"]["blobs"] == third["blobs"] - first["blobs"]
    assert before < set(LocalBlobs(shelf / "blobs").digests())
    assert list(problems(shelf).values()) == [(), (), ()]


def test_each_backup_can_be_had_and_the_newest_without_a_name(full, shelf, restore, folder):
    first, then = full.local().back_up(shelf)["backup"], answers(full)
    full.run(fill(folder, {"later.jpg": 60}))
    full.local().back_up(shelf)
    now = answers(full)
    assert answers(restore(backup=first)) == then
    assert answers(restore()) == now
    with pytest.raises(Missing, match="no backup nothing"):
        restore(backup="nothing")


def test_a_backup_is_written_down_in_the_catalog(full, shelf):
    made = full.local().back_up(shelf)
    with full.local().parts.catalog.read() as tx:
        row = tx.execute(sa.select(backups)).one()
    assert row.folder == str(shelf)
    assert row.digest == BackupFolder(shelf).open(made["backup"]).digest
    assert row.sequences == {"album": 2}


def test_a_backup_that_is_killed_harms_no_other_and_the_next_one_goes_on(full, shelf, restore, monkeypatch, folder):
    first = full.local().back_up(shelf)["backup"]
    then = answers(full)
    full.run(fill(folder, {f"new {seed}.jpg": seed for seed in range(100, 106)}))
    finish = _LocalWriter.finish
    deaths, moment = 0, 1
    while True:
        left = [moment]

        def dying(writer, left=left):
            left[0] -= 1
            if not left[0]:
                raise Killed
            return finish(writer)

        with monkeypatch.context() as patched:
            patched.setattr(_LocalWriter, "finish", dying)
            try:
                made = full.local().back_up(shelf)
            except Killed:
                deaths += 1
                moment += 2
                assert BackupFolder(shelf).names() == [first]
            else:
                break
    assert deaths > 2
    assert made["copied"]["blobs"] < made["blobs"]
    assert all(not wrong for wrong in problems(shelf).values())
    assert answers(restore(backup=first)) == then
    assert answers(restore()) == answers(full)


def test_a_backup_that_is_interrupted_says_so_and_the_same_command_goes_on(full, shelf, monkeypatch, capsys):
    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["relens", "backup", str(shelf), "--home", str(full.path)])
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr("relens.backup.copying._copy", interrupted)
        main()
    assert ended.value.code == INTERRUPTED
    assert BackupFolder(shelf).names() == []
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "copied" in capsys.readouterr().out
    assert all(not wrong for wrong in problems(shelf).values())


def test_secrets_of_the_settings_are_in_no_backup(full, shelf, restore):
    text = full.path.joinpath("relens.yaml").read_text()
    given = yaml.safe_load(text) | {"server": {"port": 9001}}
    url = sa.make_url(given["catalog"])
    if url.get_backend_name() != "sqlite":
        given["catalog"] = url.set(username=url.username or "x", password="s3cret").render_as_string(
            hide_password=False
        )
    (full.path / "relens.yaml").write_text(yaml.safe_dump(given | {"blob_store": {"secret": "hush", "region": "r"}}))
    (full.path / "relens.yaml").write_text(yaml.safe_dump(given))
    made = full.local().back_up(shelf)
    kept = BackupFolder(shelf)
    blob = kept.open(made["backup"]).files["relens.yaml"]
    stored = kept.blobs.read(blob.digest).decode()
    assert "s3cret" not in stored
    assert "9001" in stored
    assert bool(made["left_out"]) == (url.get_backend_name() != "sqlite")


# -- what is wrong --------------------------------------------------------------------------------------------------


def test_a_flipped_byte_is_found_and_not_restored(full, shelf, restore):
    name = full.local().back_up(shelf)["backup"]
    kept = BackupFolder(shelf)
    digest = next(iter(kept.open().blobs))
    path = kept.blobs.path(digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert digest in problems(shelf)[name][0]
    with pytest.raises(Broken, match=digest):
        restore()


def test_a_damaged_manifest_and_a_lost_model_file_are_found(full, shelf):
    name = full.local().back_up(shelf)["backup"]
    kept = BackupFolder(shelf)
    card = kept.open().files["models/dummy/1/card.yaml"]
    kept.blobs.path(card.digest).unlink()
    assert "models/dummy/1/card.yaml" in problems(shelf)[name][0]
    manifest = shelf / "backups" / f"{name}.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"album":2', b'"album":3'))
    assert "damaged" in problems(shelf)[name][0]
    with pytest.raises(Broken, match="damaged"):
        kept.open()


def test_a_home_with_a_damaged_blob_makes_no_backup_and_names_it(full, shelf):
    blobs = full.local().parts.blobs
    digest = next(iter(blobs.digests()))
    data = bytearray(blobs.read(digest))
    data[0] ^= 1
    blobs.path(digest).write_bytes(data)
    with pytest.raises(Broken, match=digest):
        full.local().back_up(shelf)
    assert BackupFolder(shelf).names() == []
    blobs.path(digest).unlink()
    with pytest.raises(Missing, match=digest):
        full.local().back_up(shelf)


def test_a_home_with_a_damaged_model_makes_no_backup(full, shelf):
    model = full.path / "models" / "dummy" / "1" / "model.json"
    model.write_bytes(model.read_bytes().replace(b"1", b"2"))
    with pytest.raises(Broken, match=r"model\.json"):
        full.local().back_up(shelf)


def test_a_folder_with_something_else_is_no_folder_of_backups(full, folder, shelf):
    with pytest.raises(BadInput, match="something else"):
        full.local().back_up(folder)
    with pytest.raises(BadInput):
        full.local().back_up(full.path)
    with pytest.raises(Missing, match="no backup"):
        BackupFolder(shelf).open()


# -- where it goes --------------------------------------------------------------------------------------------------


def test_nothing_is_restored_over_something(full, shelf, restore, new_home, tmp_path):
    full.local().back_up(shelf)
    for url in (full.local().parts.catalog.url, new_home().local().parts.catalog.url):
        with pytest.raises(Conflict, match="not empty"):
            restore(url=url.render_as_string(hide_password=False))
    other = tmp_path / "other"
    (other / "blobs").mkdir(parents=True)
    LocalBlobs(other / "blobs").put(b"of another home")
    with pytest.raises(Conflict, match="store of blobs"):
        restore(path=other)
    with pytest.raises(BadInput, match="neither empty nor a home"):
        restore_home(shelf, shelf, None, untold)
    assert is_sound(full)


def test_a_home_that_was_just_made_is_empty(full, shelf, restore, databases, tmp_path):
    full.local().back_up(shelf)
    path, url = tmp_path / "made", databases.ready()
    path.mkdir()
    (path / "relens.yaml").write_text(yaml.safe_dump({"catalog": url}))
    wiring.make_home(path)
    assert answers(restore(path=path, url=url)) == answers(full)


def test_a_home_without_settings_gets_those_of_the_backup(tmp_path, shelf, folder):
    """As on a new machine: one command."""
    home = DummyHome(tmp_path / "home", "")
    home.run(fill(folder, FILES))
    home.local().back_up(shelf)
    new, _ = restore_home(shelf, tmp_path / "new", None, untold)
    assert new.file.read_bytes() == (home.path / "relens.yaml").read_bytes()
    assert config.load(new).imports.pack_size == 8
    opened = OpenedHome(new.path)
    assert answers(opened) == answers(home)
    for one in (home, opened):
        one.close()


def test_a_restore_that_is_killed_goes_on_when_it_is_asked_for_again(full, shelf, restore, tmp_path, monkeypatch):
    full.local().back_up(shelf)
    path = tmp_path / "restored"
    url = None
    finish = _LocalWriter.finish
    for deaths in range(2):
        stored = [0]

        def dying(writer, stored=stored):
            stored[0] += 1
            if stored[0] == 1:
                raise Killed
            return finish(writer)

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(_LocalWriter, "finish", dying)
            restore(path=path, url=url)
        url = yaml.safe_load((path / "relens.yaml").read_text())["catalog"]
        assert (path / "blobs").exists(), deaths
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("relens.backup.restoring._end", _die)
        restore(path=path, url=url)
    again = restore(path=path, url=url)
    assert answers(again) == answers(full)
    with pytest.raises(Conflict, match="not empty"):
        restore(path=path, url=url)


def _die(*_args):
    raise Killed


def test_a_backup_of_a_newer_relens_is_refused(full, shelf, restore, monkeypatch):
    monkeypatch.setattr("relens.backup.making.write_dump", _as_newer)
    full.local().back_up(shelf)
    with pytest.raises(Broken) as caught:
        restore()
    assert caught.value.code == "store.newer-schema"


def _as_newer(tx, sink):
    return Dumped("9999", write_dump(tx, sink).rows)


def test_objects_of_all_galleries_are_there(full, shelf, restore, folder):
    full.run(folder, gallery="zoo")
    full.local().remove_gallery("zoo")
    full.local().back_up(shelf)
    with restore().local().parts.catalog.read() as tx, full.local().parts.catalog.read() as source:
        query = sa.select(objects).order_by(objects.c.id)
        assert tx.execute(query).all() == source.execute(query).all()
