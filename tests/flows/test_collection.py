"""Garbage collection: what is orphaned and old goes, every answer stays, and nothing that is named later is lost."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens import collection, releases, wiring
from relens.backup import BackupFolder, making
from relens.collection import Rules
from relens.errors import Broken, Conflict, Missing
from relens.gallery import lock
from relens.jobs import Worker, leases, pins, this_host, this_worker
from relens.store import Catalog, LocalBlobs
from relens.store.blobs import _LocalWriter
from relens.store.schema import blobs as blob_rows
from relens.store.schema import crops, galleries, objects, packs, pictures, plans, segments, thresholds, views
from relens.store.schema import pins as pin_rows
from relens.testing.homes import DummyHome, fill
from relens.testing.upkeep import answers, problems, untold

NOW = Rules(keep_views=0, view_age_s=0.0, older_than_s=0.0)
"""Nothing is kept for its age, and no view for its number."""

FILES = {f"{letter}.jpg": seed for seed, letter in enumerate("abcdefgh", 1)}
NOBODY = 2**22 + 1  # no process has this pid


class Killed(BaseException):
    """What ends a process as a kill does: nothing of ours catches it."""


def collect(home, rules=NOW, **options):
    parts = home.local().parts
    return collection.collect(parts.catalog, parts.blobs, rules, untold, **options)


def stored(home):
    return set(home.local().parts.blobs.digests())


def rows(home, *columns):
    with home.local().parts.catalog.read() as tx:
        return tx.execute(sa.select(*columns)).all()


def known(home):
    return {row.digest for row in rows(home, blob_rows.c.digest)}


@pytest.fixture
def full(home, folder):
    """A home with a gallery that was imported into four times."""
    for number in range(4):
        home.run(fill(folder, {name: seed + number for name, seed in FILES.items() if seed % 3 != number}))
    return home


# -- what goes, and what stays --------------------------------------------------------------------------------------


def test_superseded_views_go_with_their_releases_and_every_answer_stays(full):
    before, plan = answers(full), full.local().plans()["plans"][-1]["id"]
    names = [release["name"] for release in full.local().releases()["releases"] if "gallery" in release]
    assert len(names) == 5
    first = collect(full, Rules(keep_views=2, view_age_s=0, older_than_s=3600))
    assert (first.views, first.blobs) == (2, 0)
    assert [one["name"] for one in full.local().releases()["releases"]] == names[:3]
    collect(full)
    assert [one["name"] for one in full.local().releases()["releases"]] == names[:1]
    assert answers(full) == before
    assert problems(full) == []
    assert "checks" not in full.local().plan(plan)
    with pytest.raises(Missing):
        full.local().release(names[-1])
    assert collect(full).views == 0


def test_a_view_that_was_superseded_a_short_time_ago_stays(full):
    assert collect(full, Rules(keep_views=0)).views == 0
    with full.local().parts.catalog.begin() as tx:
        tx.execute(sa.update(views).where(views.c.sequence < 3).values(created_at=1.0))
    assert collect(full, Rules(keep_views=0)).views == 2  # the third is young, and so is since when the second is old


def test_segments_that_no_view_names_go_with_their_blobs(full):
    parts = full.local().parts
    with parts.catalog.begin() as tx:
        gallery = releases.resolve(tx, "album").gallery
        lock(tx, gallery.id)
        lens = releases.live_lens(tx, gallery)
        head = releases.head_of(tx, gallery.id, lens.digest)
        gone, kept = head.segments[0], head.segments[1:]
        options = {"plan": 1, "parent": head, "sequence": head.sequence, "adds": [], "checks": [], "now": time.time()}
        releases.publish(tx, gallery, lens.digest, replaces=[gone], **options)
    assert collect(full, Rules(keep_views=1, view_age_s=0, older_than_s=0)).segments == 0
    assert collect(full).segments == 1
    assert {row.digest for row in rows(full, segments.c.digest)} == set(kept)
    assert gone not in stored(full)
    assert stored(full) == known(full)
    assert problems(full) == []


def test_of_a_removed_gallery_nothing_is_left_but_that_its_ids_are_gone(full, folder):
    full.run(folder, gallery="zoo")
    before, shared = answers(full), full.contents("zoo")
    one = shared[0]["id"]
    full.local().set_threshold("zoo", 0.5)
    full.local().remove_gallery("zoo")
    assert collect(full, Rules()).galleries == 0
    result = collect(full)
    assert (result.galleries, result.objects) == (1, len(shared))
    with full.local().parts.catalog.read() as tx:
        gallery = tx.execute(sa.select(galleries.c.id).where(galleries.c.name == "zoo")).scalar_one()
        for table in (pictures, objects, views, segments, thresholds):
            assert not tx.execute(sa.select(table).where(table.c.gallery == gallery)).all()
    assert {row.shard for row in rows(full, crops.c.shard)} < known(full)
    with pytest.raises(Missing) as caught:
        full.local().object(one)
    assert caught.value.gone
    assert answers(full) == before
    assert problems(full) == []
    assert [plan["state"] for plan in full.local().plans()["plans"] if plan.get("gallery") == "zoo"] == ["done"]
    again = full.run(folder, gallery="zoo")
    assert again["state"] == "done"
    assert min(found["id"] for found in full.contents("zoo")) > max(found["id"] for found in shared)
    assert collect(full).galleries == 0


def test_listings_of_plans_that_are_over_go_when_they_are_old(full, folder, monkeypatch):
    spec = {row.spec["listing"] for row in rows(full, plans.c.spec)}
    with monkeypatch.context() as patched:
        patched.setattr(wiring.Local, "work", lambda *_args: None)
        waiting = full.run(fill(folder, {"z.jpg": 99}))
    collect(full, Rules())
    assert spec <= stored(full)
    collect(full)
    assert not spec & stored(full)
    full.local().work(waiting["id"])
    assert full.local().plan(waiting["id"])["state"] == "done"


def test_what_is_young_or_of_a_kind_that_is_not_known_stays(full):
    parts = full.local().parts
    orphan, foreign, noted = (parts.blobs.put(data).digest for data in (b"orphan", b"foreign", b"noted"))
    with parts.catalog.begin() as tx:
        for digest, kind in ((foreign, "of another day"), (noted, "shard")):
            tx.execute(sa.insert(blob_rows).values(digest=digest, size=7, kind=kind, created_at=1.0))
    first = collect(full, Rules(view_age_s=0, older_than_s=3600))
    assert (first.blobs, first.young) == (0, 2)
    old = time.time() - 7200
    for digest in (orphan, foreign, noted):
        os.utime(parts.blobs.path(digest), (old, old))
    assert collect(full, Rules(view_age_s=0, older_than_s=3600)).blobs == 2
    assert {orphan, foreign, noted} & stored(full) == {foreign}
    assert foreign in known(full)
    assert noted not in known(full)


def test_a_dry_run_says_what_goes_and_changes_nothing(full, folder):
    full.run(folder, gallery="zoo")
    full.local().remove_gallery("zoo")
    full.local().parts.blobs.put(b"orphan")
    before = (stored(full), known(full), rows(full, views), rows(full, objects.c.id), rows(full, segments))
    said = collect(full, dry_run=True)
    assert (stored(full), known(full), rows(full, views), rows(full, objects.c.id), rows(full, segments)) == before
    assert said.galleries == 1
    assert said.blobs > 5
    assert collect(full) == said
    assert collect(full).blobs == 0


def test_rows_of_blobs_that_are_not_there_go_too(full):
    row = {"digest": "f" * 64, "size": 1, "kind": "shard", "created_at": 1.0}
    with full.local().parts.catalog.begin() as tx:
        tx.execute(sa.insert(blob_rows).values(row))
    assert problems(full)
    collect(full)
    assert problems(full) == []


def test_when_a_manifest_cannot_be_read_nothing_is_collected(full):
    parts = full.local().parts
    orphan = parts.blobs.put(b"orphan").digest
    manifest = rows(full, segments.c.digest)[0].digest
    data = parts.blobs.read(manifest)
    for damage in (lambda path: path.write_bytes(data + b" "), lambda path: path.unlink()):
        damage(parts.blobs.path(manifest))
        with pytest.raises(Broken) as caught:
            collect(full)
        assert caught.value.code == "collection.cannot-tell"
        assert orphan in stored(full)
    parts.blobs.put(data)
    collect(full)
    assert orphan not in stored(full)
    assert problems(full) == []


# -- packs in flight ------------------------------------------------------------------------------------------------


@pytest.fixture
def claimed(new_home, folder, monkeypatch):
    """A home whose import waits, and the claim of its first pack."""
    home = new_home(pack_size=4)
    with monkeypatch.context() as patched:
        patched.setattr(wiring.Local, "work", lambda *_args: None)
        home.run(fill(folder, FILES))
    catalog = home.local().parts.catalog
    with catalog.begin() as tx:
        return home, leases.claim(tx, this_worker(), catalog.now(tx), 60)


def test_what_is_newer_than_the_oldest_claim_stays_while_that_claim_lives(claimed):
    home, claim = claimed
    blobs = home.local().parts.blobs
    orphan = blobs.put(b"of the pack").digest
    assert collect(home).young == 1
    with home.local().parts.catalog.begin() as tx:
        tx.execute(sa.update(packs).where(packs.c.id == claim.pack).values(pid=NOBODY))  # its worker dies
    assert collect(home, dry_run=True).blobs == 0  # a dry run frees nobody's pack
    collect(home)
    assert orphan not in stored(home)


def test_what_a_pack_has_pinned_stays_however_old_it_is(claimed):
    home, claim = claimed
    parts = home.local().parts
    kept = parts.blobs.put(b"pinned").digest
    pins.pin(parts.catalog, parts.blobs, claim, [kept, kept])
    with parts.catalog.begin() as tx:
        tx.execute(sa.update(packs).where(packs.c.id == claim.pack).values(claimed_at=4e9))
    assert collect(home).young == 1
    assert collect(home, dry_run=True).young == 1
    assert kept in stored(home)
    with parts.catalog.begin() as tx:
        leases.give_back(tx, claim)
    collect(home)
    assert kept not in stored(home)
    assert rows(home, pin_rows) == []


def test_pins_are_gone_with_the_commit_and_a_lost_claim_pins_nothing(claimed, folder):
    home, claim = claimed
    parts = home.local().parts
    with parts.catalog.begin() as tx:
        leases.give_back(tx, claim)
    with pytest.raises(Conflict, match="another worker"):
        pins.pin(parts.catalog, parts.blobs, claim, [])
    assert home.run(folder)["state"] == "done"
    assert rows(home, pin_rows) == []


def test_a_blob_that_is_collected_between_storing_and_pinning_is_made_again(claimed, folder, monkeypatch):
    home, claim = claimed
    pin, lost = pins.pin, []

    def collected_first(catalog, blobs, held, digests):
        if not lost:
            lost.extend(digests)
            blobs.remove(lost[0])
        pin(catalog, blobs, held, digests)

    with home.local().parts.catalog.begin() as tx:
        leases.give_back(tx, claim)
    monkeypatch.setattr(pins, "pin", collected_first)
    assert home.run(folder)["state"] == "done"
    assert lost
    assert problems(home) == []


# -- beside others --------------------------------------------------------------------------------------------------


def test_while_a_backup_runs_nothing_is_collected(full, tmp_path, monkeypatch):
    refused = []

    def copying(*args, **options):
        with pytest.raises(Conflict) as caught:
            collect(full)
        refused.append(caught.value.code)
        return copy(*args, **options)

    copy = making.copy_blobs
    monkeypatch.setattr(making, "copy_blobs", copying)
    full.local().back_up(tmp_path / "shelf")
    assert refused == ["collection.backup-runs"]
    assert collect(full).views
    assert BackupFolder(tmp_path / "shelf").names()


def test_a_collection_that_is_killed_again_and_again_goes_on_where_it_was(full, folder, monkeypatch):
    full.run(folder, gallery="zoo")
    full.local().remove_gallery("zoo")
    before, deaths = answers(full), 0
    while True:
        full.close()
        left = [deaths % 5 + 1]

        def moment(left=left):
            left[0] -= 1
            if not left[0]:
                raise Killed

        with monkeypatch.context() as patched:
            _strike(patched, moment)
            try:
                collect(full)
            except Killed:
                deaths += 1
            else:
                break
        if deaths % 5 == 4:
            collect(full, dry_run=True)
            assert problems(full) == []
        if deaths > 12:
            collect(full)
            break
    assert deaths > 5
    assert stored(full) == known(full)
    assert problems(full) == []
    assert answers(full) == before


def _strike(patched, moment):
    """A process can be killed around every commit and every removal."""
    begin, remove = Catalog.begin, LocalBlobs.remove

    @contextlib.contextmanager
    def dying_begin(catalog):
        with begin(catalog) as tx:
            yield tx
            moment()
        moment()

    def dying_remove(blobs, digest):
        remove(blobs, digest)
        moment()

    patched.setattr(Catalog, "begin", dying_begin)
    patched.setattr(LocalBlobs, "remove", dying_remove)


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_blobs_on_s3_are_collected_by_the_store_s_own_clock(new_home, folder, s3):
    home = new_home(blobs=s3.url(), blob_store=s3.settings)
    home.run(fill(folder, FILES))
    before = answers(home)
    old, young = (home.local().parts.blobs.put(data).digest for data in (b"old", b"young"))
    s3.age(home.local().parts.settings.blobs, f"{old[:2]}/{old}", 7200)
    result = collect(home, Rules())
    assert (result.blobs, result.young, result.bytes) == (1, 1, 3)
    assert stored(home) - known(home) == {young}
    assert answers(home) == before
    home.close()


def import_until_begun(home, folder):
    while True:
        try:
            return home.run(folder)
        except Conflict as error:  # no pack has the listing yet
            if error.code != "jobs.blob-collected":
                raise


def test_importing_beside_collections_that_spare_nothing_young_loses_nothing(new_home, folder, monkeypatch):
    """Pins, and looking again, are all that protects a pack here."""
    monkeypatch.setattr("relens.collection.doomed.SKEW_S", -1e9)
    monkeypatch.setattr(leases, "MAX_BACKOFF_S", 0.02)
    home = new_home(pack_size=2)
    over, errors = threading.Event(), []

    def clean():
        parts = home.local().parts
        try:
            while not over.is_set():
                collection.collect(parts.catalog, parts.blobs, NOW, untold)
                time.sleep(0.05)
        except Exception as error:  # noqa: BLE001 - told to the thread that tests
            errors.append(error)

    thread = threading.Thread(target=clean)
    thread.start()
    try:
        for number in range(2):
            fill(folder, {f"{seed}.jpg": seed for seed in range(number * 4, number * 4 + 6)})
            plan = import_until_begun(home, folder)
            while plan["state"] != "done":  # a pack was put aside because its blobs were collected
                plan = home.local().resume(plan["id"])
                home.local().work(plan["id"])
                plan = home.local().plan(plan["id"])
    finally:
        over.set()
        thread.join()
    assert not errors
    assert problems(home) == []
    assert len(home.found()) == 10
    collect(home)
    assert stored(home) == known(home)
    assert problems(home) == []


# -- all of it, in any order ----------------------------------------------------------------------------------------

RANDOM = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
GALLERIES = st.sampled_from(["album", "zoo"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("import"), GALLERIES, st.integers(1, 12), st.integers(1, 60)),
        st.tuples(st.just("collect"), st.integers(0, 2), st.integers(1, 40)),
        st.tuples(st.just("remove"), GALLERIES),
    ),
    min_size=2,
    max_size=6,
)


class Story:
    """A home that is imported into, removed from and collected, with kills in between; and what it must hold."""

    def __init__(self, home, folder, patched):
        self._home = home
        self._folder = folder
        self._patched = patched
        self._expected = {}

    def import_(self, gallery, first, moment):
        """Import some pictures, killed once at some moment, collected, and asked for again."""
        files = {f"{seed}.jpg": seed for seed in range(first, first + 4)}
        for path in self._folder.iterdir():
            path.unlink()
        fill(self._folder, files)
        with self._mortal(moment):
            self._home.run(self._folder, gallery=gallery)
        collect(self._home)
        self._home.run(self._folder, gallery=gallery)
        self._expected.setdefault(gallery, set()).update(files)

    def collect(self, keep, moment):
        with self._mortal(moment):
            collect(self._home, Rules(keep_views=keep, view_age_s=0, older_than_s=0))

    def remove(self, gallery):
        if self._expected.pop(gallery, None) is not None:
            self._home.local().remove_gallery(gallery)

    def end(self):
        before = {gallery: answers(self._home, gallery) for gallery in self._expected}
        for gallery, keys in self._expected.items():
            assert sorted(item["key"] for one in before[gallery]["contents"] for item in one["items"]) == sorted(keys)
            assert self._home.found(gallery) == sorted(one["id"] for one in before[gallery]["contents"])
        collect(self._home)
        assert {gallery: answers(self._home, gallery) for gallery in self._expected} == before
        assert stored(self._home) == known(self._home)
        assert problems(self._home) == []
        self._home.close()

    @contextlib.contextmanager
    def _mortal(self, moment):
        left = [moment]

        def strike():
            left[0] -= 1
            if not left[0]:
                raise Killed

        with self._patched.context() as patched:
            _strike(patched, strike)
            finish = _LocalWriter.finish

            def dying_finish(writer):
                blob = finish(writer)
                strike()
                return blob

            patched.setattr(_LocalWriter, "finish", dying_finish)
            # Like a process that is not there: the next life frees at once what a dead one held.
            patched.setattr(wiring, "this_worker", lambda: Worker(this_host(), NOBODY, "then"))
            with contextlib.suppress(Killed):
                yield
        self._home.close()


@pytest.fixture
def story(databases, tmp_path, monkeypatch):
    """Begins stories, each in a home of its own."""
    begun = []

    def begin():
        number = len(begun)
        folder = tmp_path / f"pictures-{number}"
        folder.mkdir()
        begun.append(DummyHome(tmp_path / f"home-{number}", databases.ready(), pack_size=2))
        return Story(begun[-1], folder, monkeypatch)

    yield begin
    for home in begun:
        home.close()


def _tell(story, steps):
    for name, *rest in steps:
        {"import": story.import_, "collect": story.collect, "remove": story.remove}[name](*rest)
    story.end()


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
@settings(max_examples=10, **RANDOM)
@given(steps=STEPS)
def test_nothing_that_is_named_is_ever_lost_and_what_is_orphaned_goes(story, steps):
    _tell(story(), steps)


@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
@settings(max_examples=3, **RANDOM)
@given(steps=STEPS)
def test_the_same_on_a_server(story, steps):
    _tell(story(), steps)
