"""Purging: of what was deleted no byte is left, of what lives every byte, whatever happens meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa

from relens import bulk, ledger, releases
from relens.enrolment.shards import ShardWriter
from relens.errors import BadInput, Missing
from relens.jobs import this_worker
from relens.serving import Question
from relens.store.schema import crops, labels, objects, pictures, pins, tail, vectors
from relens.testing.deaths import Killed, deadly
from relens.testing.homes import as_png, books, fill
from relens.testing.moments import once, work
from relens.testing.pictures import draw
from relens.values import digest_of
from relens.vectors import write_vectors

DAY = "2025-06-01"


@pytest.fixture
def album(home, folder):
    """A gallery that keeps originals: pictures 1 to 6 in segments of two imports, 7 and 8 in the tail."""
    local = home.local()
    local.create_gallery("album", recipe="photos", retention="originals")
    home.run(fill(folder, {f"{seed}.jpg": seed for seed in (1, 2, 3)}))
    home.run(fill(folder, {f"{seed}.jpg": seed for seed in (4, 5, 6)}))
    for seed in (7, 8):
        local.enrol(draw(seed), gallery="album", item={"id": f"{seed}.jpg", "day": DAY})
    return home


@pytest.fixture
def local(album):
    """An engine that has answered before anything is deleted."""
    local = album.local()
    assert len(found(local)) == 8
    return local


def found(local, gallery="album"):
    """Score of every object that a search finds, by id."""
    matches = local.search(draw(0), gallery=gallery, k=1000).objects[0].matches
    return {match.id: match.score for match in matches}


def ids(local):
    """The object of each item."""
    matches = local.search(draw(0), gallery="album", k=1000).objects[0].matches
    return {item["id"]: match.id for match in matches for item in match.items}


class Traces:
    """What a picture leaves behind: its bytes, its crop, its vector in half and in single precision."""

    def __init__(self, local, seed):
        pipeline = local.parts.pipeline(local.parts.book.lens("photos"))
        (crop,) = pipeline.crop(pipeline.decode(draw(seed)))
        halves = pipeline.describe(crop).vector.values.astype(np.float16)
        single = halves.astype(np.float32)
        single /= np.sqrt(np.vecdot(single, single))
        self.needles = [draw(seed)[100:], crop.jpeg[100:], halves.tobytes(), single.tobytes()[:16]]

    def left(self, local):
        """Blobs that hold any of it, temporary files too."""
        root = local.parts.blobs.location("00").parent.parent
        return [
            path for path in root.rglob("*") if path.is_file() and any(n in path.read_bytes() for n in self.needles)
        ]


def rows_of(local, table, one):
    column = table.c.object if "object" in table.c else table.c.id
    with local.parts.catalog.read() as tx:
        return tx.execute(sa.select(table).where(column == one)).mappings().all()


def purge(local):
    plan = local.run(local.purge("album"))
    assert plan["state"] == "done", plan
    return plan


def test_nothing_is_left_of_what_was_deleted_and_all_of_what_lives(album, local):
    traces = {seed: Traces(local, seed) for seed in range(1, 9)}
    before, of = found(local), ids(local)
    dead = [of["2.jpg"], of["5.jpg"], of["7.jpg"]]
    vectors_before = {one["id"]: one["vector"] for one in album.contents()}
    local.delete("album", objects=dead[:1], items=["5.jpg"], pictures=[digest_of(draw(7))])
    assert all(traces[seed].left(local) for seed in (2, 5, 7))
    plan = purge(local)
    assert (plan["kind"], books(plan)["purge"]) == ("purge", (3, 3, {}, 0, 0))
    for seed in (2, 5, 7):
        assert traces[seed].left(local) == []
    for seed in (1, 3, 4, 6, 8):
        assert traces[seed].left(local)
    for asked in (local, album.local()):
        assert found(asked) == pytest.approx({k: v for k, v in before.items() if k not in dead}, abs=1e-6)
    for one in album.contents():
        assert vectors_before.get(one["id"], one["vector"]) == one["vector"]  # bit for bit
        assert local.crop(one["id"]) == one["crop"]
    for one in dead:
        with pytest.raises(Missing) as caught:
            local.object(one)
        assert caught.value.gone
        assert [rows_of(local, table, one) for table in (crops, vectors, tail, labels)] == [[], [], [], []]
        (row,) = rows_of(local, objects, one)
        assert (row["attributes"], row["score"]) == ({}, 0.0)
    with local.parts.catalog.read() as tx:
        uris = tx.execute(sa.select(pictures.c.uri).where(pictures.c.released)).scalars().all()
        assert uris == [""] * 3
        assert ledger.unbalanced(tx, plan["id"]) == []


def test_releases_that_held_it_are_gone_by_name_and_the_gallery_answers(album, local):
    with local.parts.catalog.read() as tx:
        live = releases.point(tx, "album")
    local.delete_object(ids(local)["2.jpg"])
    purge(local)
    assert len(found(local)) == 7
    for asked in (local, album.local()):
        with pytest.raises(Missing) as caught:
            asked._answers.ask(live.lens, Question("search", live.release, draw(0), must_see=live.sequence))
        assert (caught.value.code, caught.value.gone) == ("releases.retired", True)
    assert local.release(live.release)["name"] == live.release  # what it was can still be read


def test_a_purge_of_nothing_changes_nothing(local):
    local.run(local.compact("album"))
    before = local.gallery("album"), sorted(local.parts.blobs.digests())
    assert books(purge(local))["purge"] == (0, 0, {}, 0, 0)
    assert (local.gallery("album"), sorted(local.parts.blobs.digests())) == before


def test_what_is_deleted_before_a_purge_is_asked_for_again_is_purged_with_it(local):
    """Also if the purge has looked already."""
    traces = {seed: Traces(local, seed) for seed in (1, 2)}
    local.delete("album", items=["1.jpg"])
    first = local.purge("album")
    with local.parts.catalog.begin() as tx:
        held = bulk.purging.leases.claim(tx, this_worker(), local.parts.catalog.now(tx), 60.0, plan=first.plan)
    local.delete("album", items=["2.jpg"])
    again = local.purge("album")
    assert (again.plan, again.continued) == (first.plan, True)
    with local.parts.catalog.begin() as tx:
        bulk.purging.leases.give_back(tx, held)
    assert books(local.run(again))["purge"] == (2, 2, {}, 0, 0)
    assert [traces[seed].left(local) for seed in (1, 2)] == [[], []]


def test_what_is_deleted_while_a_purge_ends_is_purged_if_it_was_asked_for(album, local, monkeypatch):
    traces = Traces(local, 3)
    local.delete("album", items=["2.jpg"])

    def meanwhile():
        other = album.local()
        other.delete("album", items=["3.jpg"])
        assert other.purge("album").continued

    once(monkeypatch, bulk.purging.Purger, "_is_remembered", meanwhile)
    assert books(purge(local))["purge"] == (2, 2, {}, 0, 0)
    assert traces.left(local) == []


@pytest.mark.parametrize("moment", range(3, 60, 8))
def test_killed_at_any_moment_and_asked_for_again_it_ends_the_same(album, local, moment):
    traces = {seed: Traces(local, seed) for seed in (2, 5, 7)}
    local.delete("album", items=["2.jpg", "5.jpg", "7.jpg"])
    with deadly([moment, moment]):
        for _ in range(3):
            try:
                plan = local.run(local.purge("album"))
                break
            except Killed:
                continue
    assert plan["state"] == "done"
    every = [one for one in local.plans()["plans"] if one["kind"] == "purge"]  # killed when it was done, it is another
    assert {one["state"] for one in every} == {"done"}
    assert sum(books(one)["purge"][1] for one in every) == 3
    assert [traces[seed].left(local) for seed in traces] == [[], [], []]
    assert len(found(album.local())) == len(found(local)) == 5
    for one in found(local):
        assert local.crop(one)


def test_what_a_crash_has_left_in_the_store_goes_too(album, local):
    """Blobs that were stored and never written down, by packs and enrolments that died."""
    blobs, traces = local.parts.blobs, Traces(local, 2)
    pipeline = local.parts.pipeline(local.parts.book.lens("photos"))
    (crop,) = pipeline.crop(pipeline.decode(draw(2)))
    with ShardWriter(blobs) as shard:
        shard.add(digest_of(draw(2)), 7, crop)
        shard.finish()
    vector = pipeline.describe(crop).vector
    write_vectors(blobs, np.stack([vector.values] * 3), space=vector.space)
    strangers = [blobs.put(data).digest for data in (b"a listing", b"{}", draw(40), b"{broken")]
    local.delete("album", items=["2.jpg"])
    purge(local)
    assert traces.left(local) == []
    assert all(blobs.size(one) for one in strangers)  # what is not ours to judge stays


def test_a_picture_that_another_gallery_shows_stays_there(album, local, folder):
    other = album.local()
    other.create_gallery("other", recipe="photos", retention="originals")
    album.run(folder, gallery="other")
    local.delete("album", items=["2.jpg"])
    purge(local)
    assert len(found(other, "other")) == 6
    for one in found(other, "other"):
        assert other.crop(one)
    assert other.parts.blobs.read(digest_of(draw(2))) == draw(2)


def test_a_dropped_day_is_purged_on_its_shelf(album, local):
    traces = Traces(local, 7)
    local.run(local.drop_day("album", DAY))
    local.delete("album", items=["7.jpg"])
    purge(local)
    assert traces.left(local) == []
    assert [one["count"] for one in local.segments("album")["segments"] if one["shelved"]] == [1]
    local.run(local.rebuild_day("album", DAY))
    assert len(found(local)) == 7


def test_a_tighter_retention_takes_originals_and_crops_away_and_leaves_answers(album, local):
    before = found(local)
    local.set_retention("album", "crops")
    purge(local)
    for seed in range(1, 9):
        with pytest.raises(Missing):
            local.parts.blobs.size(digest_of(draw(seed)))
    assert all(local.crop(one) for one in found(local))
    local.set_retention("album", "none")
    purge(local)
    with local.parts.catalog.read() as tx:
        assert not tx.execute(sa.select(crops)).all()
    pipeline = local.parts.pipeline(local.parts.book.lens("photos"))
    needles = [pipeline.crop(pipeline.decode(draw(seed)))[0].jpeg[100:] for seed in range(1, 9)]
    root = local.parts.blobs.location("00").parent.parent
    assert not [p for p in root.rglob("*") if p.is_file() and any(n in p.read_bytes() for n in needles)]
    assert found(local) == pytest.approx(before, abs=1e-6)


def test_what_comes_and_goes_while_it_runs_is_not_harmed(album, local, tmp_path, monkeypatch):
    """An import, an enrolment and a deletion in the middle."""
    local.delete("album", items=["2.jpg"])
    later = ids(local)["4.jpg"]

    def meanwhile():
        other = album.local()
        album.run(fill(tmp_path / "more", {"9.jpg": 9}))
        other.enrol(draw(2), gallery="album", item={"id": "again"})
        other.delete_object(later)

    once(monkeypatch, bulk.holding.Holders, "all", meanwhile)
    purge(local)
    assert len(found(local)) == 8
    assert {"again", "9.jpg"} <= set(ids(local))
    assert all(local.crop(one) for one in found(local))
    traces = Traces(local, 4)
    assert traces.left(local)
    purge(local)
    assert traces.left(local) == []


def test_what_a_pack_in_flight_has_pinned_is_waited_for(album, local, monkeypatch):
    traces = Traces(local, 2)
    (shard,) = {row["shard"] for row in rows_of(local, crops, ids(local)["2.jpg"])}
    plan = local.start_import(fill(album.path.parent / "pictures", {"png.png": as_png(draw(9))}), gallery="album").plan
    with local.parts.catalog.begin() as tx:
        held = bulk.purging.leases.claim(tx, this_worker(), local.parts.catalog.now(tx), 60.0, plan=plan)
        tx.execute(sa.insert(pins).values(pack=held.pack, epoch=held.epoch, digest=shard, at=0.0))
    local.delete("album", items=["2.jpg"])
    waited = []

    def second_round():
        waited.append(traces.left(local))
        with local.parts.catalog.begin() as tx:
            bulk.purging.leases.give_back(tx, held)

    once(monkeypatch, bulk.purging.Purger, "_start", second_round, at=2)
    purge(local)
    assert waited[0]
    assert traces.left(local) == []
    work(local, plan)
    assert local.plan(plan)["state"] == "done"


def test_a_gallery_that_is_not_there_cannot_be_purged(local):
    with pytest.raises(Missing):
        local.purge("nowhere")
    with pytest.raises(BadInput):
        local.set_retention("album", "everything")


def test_an_index_over_what_was_deleted_goes_with_it(new_home, folder):
    home = new_home()
    settings = home.path / "relens.yaml"
    settings.write_text(settings.read_text() + "search: {exact_rows: 60}\n")
    home.run(fill(folder, {f"{seed}.jpg": seed for seed in range(100, 180)}))
    local = home.local()
    assert local.run(local.start_window("album"))["state"] == "done"
    view = releases_view(local)
    assert view.indexes
    best = [match.id for match in home.search(draw(105), k=10)]
    local.delete("album", objects=best[::2])
    purge(local)
    assert [match.id for match in home.search(draw(105), k=5)] == best[1::2]
    assert releases_view(local).indexes == ()
    for digest in view.indexes:
        with pytest.raises(Missing):
            local.parts.blobs.size(digest)


def releases_view(local):
    with local.parts.catalog.read() as tx:
        return releases.resolve(tx, "album").view
