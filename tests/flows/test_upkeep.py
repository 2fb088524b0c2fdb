"""Compaction, days built anew and dropped: answers stay, and what is behind them is put in order."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from relens import bulk, releases
from relens.errors import BadInput, Broken, Missing
from relens.serving import Question
from relens.store.schema import segments, tail, vectors
from relens.testing.homes import books, fill
from relens.testing.moments import once, put_aside, work
from relens.testing.pictures import draw
from relens.vectors import open_segment

DAYS = ("2025-06-01", "2025-06-02")


@pytest.fixture
def album(home, folder):
    """A gallery of pictures 1 and 2."""
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    return home


@pytest.fixture
def local(album):
    """An engine that has answered before anything is done, and goes on."""
    local = album.local()
    assert len(found(local)) == 2
    return local


def found(local):
    """Score of every object that a search finds, by id."""
    matches = local.search(draw(0), gallery="album", k=1000).objects[0].matches
    return {match.id: match.score for match in matches}


def enrol(local, *seeds, day=DAYS[0]):
    return [local.enrol(draw(seed), gallery="album", item={"id": str(seed), "day": day}).objects[0] for seed in seeds]


def rows_of(local, table):
    with local.parts.catalog.read() as tx:
        return tx.execute(sa.select(table)).mappings().all()


def held(local):
    """Day and rows of each segment that answers."""
    return sorted((one["day"], one["count"]) for one in local.segments("album")["segments"] if not one["shelved"])


def test_what_was_enrolled_is_folded_into_segments_and_answers_stay_as_they_were(album, local):
    enrol(local, 3, 4)
    enrol(local, 5, day=DAYS[1])
    gone = enrol(local, 6)[0]
    local.delete_object(gone)
    before = found(local)
    plan = local.run(local.compact("album"))
    assert (plan["state"], plan["kind"], plan["gallery"]) == ("done", "compact", "album")
    assert books(plan) == {"fold": (4, 3, {"deleted": 1}, 0, 2)}
    assert all(check["ok"] for check in plan["checks"])
    for asked in (local, album.local()):
        assert found(asked) == pytest.approx(before, abs=1e-6)
    shown = local.segments("album")
    assert (shown["tail"], shown["folded_to"]) == (0, 6)
    assert [count for day, count in held(local) if day in DAYS] == [2, 1]
    assert plan["sequence"] == local.gallery("album")["sequence"] == 7
    assert {row["object"] for row in rows_of(local, vectors)} == set(before)


def test_nothing_to_fold_changes_nothing(local):
    before = local.gallery("album")
    for _ in range(2):
        plan = local.run(local.compact("album"))
        assert (plan["state"], books(plan)) == ("done", {"fold": (0, 0, {}, 0, 0)})
    assert local.gallery("album") == before


def test_rows_of_the_tail_go_one_compaction_later(local):
    for number in range(3):
        enrol(local, 10 + number)
        local.run(local.compact("album"))
        assert [row["sequence"] for row in rows_of(local, tail)] == [2 * number + 2]
    assert len(found(local)) == 5


def test_a_question_under_way_is_answered_through_a_compaction_and_one_that_is_older_is_told(album, local):
    enrol(local, 3)
    with local.parts.catalog.read() as tx:
        live = releases.point(tx, "album")

    def ask(engine):
        question = Question("search", live.release, draw(0), k=10, must_see=live.sequence)
        return {match.id for match in engine._answers.ask(live.lens, question).objects[0].matches}

    before = set(found(local))
    local.run(local.compact("album"))
    enrol(local, 4)
    assert ask(album.local()) == ask(local) == before
    local.run(local.compact("album"))
    with pytest.raises(Missing) as caught:
        ask(album.local())
    assert (caught.value.code, caught.value.gone) == ("releases.retired", True)
    assert len(found(local)) == 4  # by its name, the gallery always answers


def test_small_segments_of_a_day_become_one_without_what_was_deleted(local):
    first = enrol(local, *range(10, 16))
    local.run(local.compact("album"))
    for one in first[:2]:
        local.delete_object(one)
    enrol(local, 20, 21, 22)
    before = found(local)
    plan = local.run(local.compact("album"))
    assert books(plan)["fold"] == (3, 3, {}, 0, 1)
    assert (DAYS[0], 7) in held(local)
    assert found(local) == pytest.approx(before, abs=1e-6)


def test_a_segment_that_is_mostly_dead_is_built_anew_without_anything_new(album, local, folder):
    album.run(fill(folder, {f"{seed}.jpg": seed for seed in range(30, 38)}))
    for one in sorted(found(local))[-4:]:
        local.delete_object(one)
    before = found(local)
    plan = local.run(local.compact("album"))
    assert books(plan) == {"fold": (0, 0, {}, 0, 0)}
    assert sum(count for _, count in held(local)) == len(before) == 6
    assert found(local) == pytest.approx(before, abs=1e-6)


def test_what_comes_while_a_compaction_runs_is_kept_and_found(album, local, tmp_path, monkeypatch):
    """An enrolment, a deletion and an import between what it read and what it publishes."""
    one, two = enrol(local, 3, 4)

    def meanwhile():
        other = album.local()
        enrol(other, 5)
        other.delete_object(one)
        album.run(fill(tmp_path / "more", {"e.jpg": 6}))

    once(monkeypatch, bulk.building, "check_vectors", meanwhile)
    plan = local.run(local.compact("album"))
    assert plan["state"] == "done"
    assert books(plan)["fold"] == (2, 2, {}, 0, 1)
    assert one not in found(local)
    assert {two, *found(local)} == set(found(album.local()))
    assert len(found(local)) == 5
    local.run(local.compact("album"))
    assert len(found(local)) == 5
    assert local.segments("album")["tail"] == 0


def test_two_that_fold_the_same_fold_it_once(album, local, monkeypatch):
    enrol(local, 3, 4)
    before = found(local)
    other = album.local()
    once(monkeypatch, bulk.building, "check_vectors", lambda: other.run(other.drop_day("album", DAYS[1])))
    plan = local.run(local.compact("album"))
    assert plan["state"] == "done"
    assert found(local) == pytest.approx(before, abs=1e-6)
    assert sum(count for _, count in held(local)) == 4


def test_the_same_upkeep_asked_for_twice_is_one_plan(local):
    first = local.compact("album")
    assert local.compact("album").plan == first.plan
    assert local.compact("album").continued
    assert local.drop_day("album", DAYS[0]).plan not in {first.plan, local.drop_day("album", DAYS[1]).plan}
    local.run(first)
    assert local.compact("album").plan != first.plan
    for bad in ("yesterday", "2025-13-01", ""):
        with pytest.raises(BadInput):
            local.rebuild_day("album", bad)
    with pytest.raises(Missing):
        local.compact("nowhere")


def test_upkeep_that_is_cancelled_leaves_everything_as_it_was(local):
    enrol(local, 3)
    before = found(local)
    waiting = local.compact("album")
    shown = local.cancel(waiting.plan)
    assert (shown["state"], books(shown)) == ("cancelled", {"fold": (0, 0, {}, 0, 0)})
    assert found(local) == before
    assert local.segments("album")["tail"] == 1
    local.run(local.compact("album"))
    assert local.segments("album")["tail"] == 0


def test_a_gallery_that_goes_away_takes_its_upkeep_with_it(local):
    enrol(local, 3)
    waiting = local.compact("album")
    assert local.remove_gallery("album")["cancelled_plans"] == [waiting.plan]
    assert local.plan(waiting.plan)["state"] == "cancelled"


def test_a_segment_that_fails_its_check_is_not_published(local, monkeypatch):
    enrol(local, 3)
    before = local.gallery("album")
    bad = bulk.building.Check("finite", ok=False, detail="1 of 1 rows are not finite")
    waiting = local.compact("album")
    with monkeypatch.context() as patched:
        patched.setattr(bulk.building, "check_vectors", lambda *_given, **_more: [bad])
        work(local, waiting.plan, until=put_aside(local, waiting.plan))
    assert "finite" in local.plan(waiting.plan)["error"]
    assert local.gallery("album") == before
    local.cancel(waiting.plan)
    assert local.run(local.compact("album"))["state"] == "done"


def test_galleries_are_compacted_when_much_has_come_or_gone(album, local, monkeypatch):
    settings = local.parts.settings
    few = settings.model_copy(update={"galleries": settings.galleries.model_copy(update={"compact_at": 3})})
    monkeypatch.setattr(local, "_settings", few)
    assert local.compact_due() == []
    one, _ = enrol(local, 3, 4)
    assert local.compact_due() == []
    local.delete_object(one)
    (plan,) = local.compact_due()
    assert local.compact_due() == []  # it is under way
    local.work(plan)
    assert local.compact_due() == []
    assert local.segments("album")["tail"] == 0


# -- days


def test_a_dropped_day_is_out_of_answers_and_comes_back_when_it_is_built_anew(album, local):
    folded = enrol(local, 3, 4)
    local.run(local.compact("album"))
    fresh = enrol(local, 5)
    kept = enrol(local, 6, day=DAYS[1])
    before = found(local)
    plan = local.run(local.drop_day("album", DAYS[0]))
    assert (plan["state"], plan["kind"], plan["day"]) == ("done", "drop", DAYS[0])
    assert books(plan) == {"fold": (2, 2, {}, 0, 2), "drop": (3, 3, {}, 0, 0)}
    for asked in (local, album.local()):
        assert set(found(asked)) == set(before) - {*folded, *fresh}
    assert kept[0] in found(local)
    assert local.object(folded[0]).id == folded[0]  # it is there, by its id
    assert {one["day"] for one in local.segments("album")["segments"] if one["shelved"]} == {DAYS[0]}
    assert enrol(local, 7)[0] in found(local)  # what comes later is found
    local.delete_object(fresh[0])
    plan = local.run(local.rebuild_day("album", DAYS[0]))
    assert books(plan)["rebuild"] == (3, 3, {}, 0, 1)
    for asked in (local, album.local()):
        assert set(found(asked)) == (set(before) | set(found(local))) - {fresh[0]}
        assert {*folded, *kept} <= set(found(asked))
    assert not [one for one in local.segments("album")["segments"] if one["shelved"]]


def test_a_day_without_anything_is_dropped_and_built_without_a_trace(local):
    before = local.gallery("album")
    for start in (local.drop_day, local.rebuild_day):
        assert local.run(start("album", "1999-01-01"))["state"] == "done"
    assert local.gallery("album") == before


def test_a_damaged_segment_is_built_anew_from_the_vectors(album, local):
    enrol(local, 3, 4)
    local.run(local.compact("album"))
    before = found(local)
    (digest,) = [row["digest"] for row in rows_of(local, segments) if row["day"] == DAYS[0]]
    path = local.parts.blobs.path(open_segment(local.parts.blobs, digest, verify=True).manifest.data)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(Broken):
        found(album.local())
    other = album.local()
    other.delete_object(enrol(other, 5)[0])  # else it would be the same bytes under the same name
    assert other.run(other.rebuild_day("album", DAYS[0]))["state"] == "done"
    assert found(album.local()) == pytest.approx(before, abs=1e-6)


def test_what_an_import_brings_while_a_day_is_built_is_kept_beside(album, local, tmp_path, monkeypatch):
    enrol(local, 3)
    local.run(local.compact("album"))
    (tmp_path / "more").mkdir()
    fill(tmp_path / "more", {"e.jpg": 6})
    (tmp_path / "more" / "listing.jsonl").write_text(f'{{"uri": "e.jpg", "day": "{DAYS[0]}"}}\n')
    once(monkeypatch, bulk.building, "check_vectors", lambda: album.run(tmp_path / "more" / "listing.jsonl"))
    assert local.run(local.rebuild_day("album", DAYS[0]))["state"] == "done"
    assert len(found(local)) == 4
    assert sum(count for _, count in held(local)) == 4


def test_an_index_goes_on_over_what_a_compaction_leaves_and_answers_stay(new_home, folder, tmp_path):
    home = new_home()
    settings = home.path / "relens.yaml"
    settings.write_text(settings.read_text() + "search: {exact_rows: 60}\n")
    home.run(fill(folder, {f"{seed}.jpg": seed for seed in range(100, 180)}))
    home.run(fill(tmp_path / "few", {f"few-{seed}.jpg": seed for seed in range(200, 206)}))
    local = home.local()
    assert local.run(local.start_window("album"))["state"] == "done"
    today = local.object(home.found()[0]).items[0].day
    enrol(local, *range(300, 306), day=today)
    for one in home.found()[-3:]:
        local.delete_object(one)

    def best(asked):
        return [
            [(match.id, match.score) for match in asked.search(draw(seed), gallery="album", k=10).objects[0].matches]
            for seed in range(100, 110)
        ]

    before = best(local)
    assert local.run(local.compact("album"))["state"] == "done"
    assert [count for _, count in held(local)] == [9, 80]
    assert best(local) == best(home.local()) == before
