"""Single enrolments and deletions: visible when the call returns, in every engine, old and new."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from relens import bulk, wiring
from relens.enrolment import adding
from relens.errors import BadInput, Conflict, Missing
from relens.serving import Question
from relens.store.schema import objects, staged_items, tail
from relens.testing.homes import as_png, books, fill
from relens.testing.moments import once, raising, work
from relens.testing.pictures import draw
from relens.values import digest_of


@pytest.fixture
def album(home, folder):
    """A home whose gallery holds pictures 1 and 2."""
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    return home


@pytest.fixture
def local(album):
    """An engine that has answered before anything is enrolled, and goes on."""
    local = album.local()
    assert len(found(local)) == 2
    return local


def found(local, picture=None, gallery="album"):
    """Score of every object that a search finds, by id."""
    matches = local.search(picture or draw(0), gallery=gallery, k=1000).objects[0].matches
    return {match.id: match.score for match in matches}


def shown(local):
    """The object that a search finds for each item."""
    matches = local.search(draw(0), gallery="album", k=1000).objects[0].matches
    return {item["id"]: match.id for match in matches for item in match.items}


def best(local, picture):
    return local.search(picture, gallery="album", k=1).objects[0].matches[0]


def enrol(local, seed, **item):
    return local.enrol(draw(seed), gallery="album", item=item)


def test_what_is_enrolled_is_found_when_the_call_returns_in_engines_old_and_new(album, local):
    done = enrol(local, 3, id="c", title="third", price=3.5, shop="north", day="2025-03-03", data={"size": "M"})
    (one,) = done.objects
    assert (done.picture, done.item, done.sequence, done.changed) == (digest_of(draw(3)), "c", 2, True)
    for asked in (local, album.local()):
        answer = asked.search(draw(3), gallery="album")
        match = answer.objects[0].matches[0]
        assert (answer.sequence, match.id) == (2, one)
        assert match.score > 0.999
        (item,) = match.items
        assert item["id"] == "c"
        assert (item["title"], item["price"], item["shop"], item["day"]) == ("third", 3.5, "north", "2025-03-03")
        assert item["size"] == "M"
    assert local.object(one).to_json()["sequence"] == 2
    assert local.gallery("album")["counts"] == {"pictures": 3, "items": 3, "objects": 3}


def test_an_enrolment_is_what_an_import_would_have_made_of_the_picture(album, local, new_home, tmp_path):
    enrol(local, 3, id="c.jpg", day="2025-03-03")
    other = new_home()
    other.run(fill(tmp_path / "other", {"c.jpg": 3}))
    mine, theirs = local.object(shown(local)["c.jpg"]), other.local().object(other.object_of("c.jpg"))
    assert [mine.box, mine.score, mine.category] == [theirs.box, theirs.score, theirs.category]
    assert [mine.labels, mine.attributes] == [theirs.labels, theirs.attributes]
    assert local.crop(mine.id) == other.local().crop(theirs.id)
    assert found(local, draw(7))[mine.id] == found(other.local(), draw(7))[theirs.id]


def test_the_same_again_changes_nothing_and_takes_no_sequence(local):
    first = enrol(local, 3, id="c", title="third")
    again = enrol(local, 3, id="c", title="third")
    assert (again.changed, again.sequence) == (False, first.sequence)
    assert again.objects == first.objects
    assert "describe" not in again.timings_ms
    assert local.gallery("album")["sequence"] == first.sequence


def test_an_item_without_an_id_is_called_by_its_picture(local):
    done = enrol(local, 3)
    assert done.item == digest_of(draw(3))
    assert local.item("album", done.item)["uri"] == f"urn:sha256:{done.item}"
    assert not enrol(local, 3).changed


def test_a_known_picture_gets_another_item_and_is_not_looked_at_again(album, local):
    before = shown(local)
    done = enrol(local, 1, id="new", title="the same picture")
    assert done.objects == (before["a.jpg"],)
    assert "describe" not in done.timings_ms
    assert {item["id"] for item in best(local, draw(1)).items} == {"a.jpg", "new"}
    assert local.gallery("album")["counts"]["pictures"] == 2


def test_an_item_that_is_enrolled_with_another_picture_leaves_the_old_one_which_goes(album, local):
    old = shown(local)["a.jpg"]
    done = enrol(local, 3, id="a.jpg")
    assert set(done.objects) <= set(found(local))
    assert old not in found(local)
    with pytest.raises(Missing) as caught:
        local.object(old)
    assert caught.value.gone
    with pytest.raises(Missing):
        local.crop(old)
    back = enrol(local, 1, id="back")
    assert back.objects[0] > done.objects[0]  # ids are never used again


def test_a_picture_that_another_item_shows_stays_when_one_leaves_it(album, local):
    shared = shown(local)["a.jpg"]
    enrol(local, 1, id="also")
    enrol(local, 3, id="a.jpg")
    assert shown(local)["also"] == shared


def test_an_item_keeps_its_day_and_its_place_off_the_shelf_unless_it_is_said(local):
    enrol(local, 3, id="c", day="2025-03-03", off_shelf=True)
    enrol(local, 3, id="c", title="again")
    assert local.item("album", "c")["day"] == "2025-03-03"
    assert local.item("album", "c")["off_shelf"] is True
    assert "off_shelf" not in enrol(local, 3, id="c", off_shelf=False).to_json()
    assert "off_shelf" not in local.item("album", "c")


def test_what_is_no_item_is_refused_by_name_and_nothing_is_written(local):
    bad = [
        {"colour": "red"},
        {"id": ""},
        {"id": "x" * 2001},
        {"title": "a\0b"},
        {"title": "\ud800"},
        {"price": "dear"},
        {"price": float("nan")},
        {"day": "yesterday"},
        {"day": "2025-02-30"},
        {"off_shelf": "yes"},
        {"data": [1]},
        {"data": {"x": float("inf")}},
        {"data": {"x": "\0"}},
        {"uri": ""},
    ]
    for given in bad:
        with pytest.raises(BadInput) as caught:
            enrol(local, 3, **given)
        assert next(iter(given)) in caught.value.message
    assert local.gallery("album")["sequence"] == 1


def test_what_is_no_picture_is_refused_and_nothing_is_written(local):
    for data in (b"", b"no picture", draw(3)[:300]):
        with pytest.raises(BadInput):
            local.enrol(data, gallery="album")
    with pytest.raises(Missing):
        local.enrol(draw(3), gallery="nowhere")
    assert local.gallery("album")["sequence"] == 1


def test_many_enrol_at_once_and_all_are_found(album, local):
    def run(number):
        other = wiring.open_local(album.path)
        done = [other.enrol(draw(seed), gallery="album", item={"id": str(seed)}) for seed in range(number, 40, 4)]
        other.close()
        return done

    with ThreadPoolExecutor(4) as pool:
        done = [one for some in pool.map(run, range(10, 14)) for one in some]
    assert sorted(one.sequence for one in done) == list(range(2, 32))
    assert {one.objects[0] for one in done} <= set(found(local))
    assert len(album.found()) == 32


def test_many_enrol_the_same_at_once_and_it_is_there_once(album, local):
    def run(_):
        other = wiring.open_local(album.path)
        done = other.enrol(draw(3), gallery="album", item={"id": "c"})
        other.close()
        return done

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(run, range(4)))
    assert len({one.objects for one in done}) == 1
    assert [one.changed for one in done].count(True) == 1
    assert len(album.found()) == 3


# -- beside imports


def test_a_picture_that_an_import_has_staged_is_found_at_once_when_it_is_enrolled(album, local, tmp_path):
    """And the import is sealed without it."""
    plan = local.start_import(fill(tmp_path / "more", {"c.jpg": 3, "d.jpg": 4}), gallery="album").plan
    work(local, plan, packs_done=1)
    assert len(found(local)) == 2
    done = enrol(local, 3, id="mine")
    assert best(local, draw(3)).id == done.objects[0]
    local.work(plan)
    shown = local.plan(plan)
    assert shown["state"] == "done"
    assert books(shown)["seal"] == (2, 1, {"released": 1}, 0, 1)
    assert all(check["ok"] for check in shown["checks"])
    assert [match.id for match in album.search(draw(3), k=1)] == list(done.objects)
    assert {item["id"] for item in best(local, draw(3)).items} == {"mine", "c.jpg"}
    assert len(album.found()) == 4


def test_a_picture_that_is_enrolled_while_a_pack_looks_at_it_is_held_by_the_pack(album, local, tmp_path, monkeypatch):
    plan = local.start_import(fill(tmp_path / "more", {"c.jpg": 3}), gallery="album").plan
    once(monkeypatch, bulk.packs, "write_vectors", lambda: enrol(album.local(), 3, id="mine"))
    local.work(plan)
    assert books(local.plan(plan))["read"] == (1, 0, {"already-in-gallery": 1}, 0, 0)
    assert {item["id"] for item in best(local, draw(3)).items} == {"mine", "c.jpg"}
    assert len(album.found()) == 3


def test_an_import_that_is_given_up_takes_nothing_of_what_was_enrolled_meanwhile(album, local, tmp_path):
    plan = local.start_import(fill(tmp_path / "more", {"c.jpg": 3, "a.jpg": 5}), gallery="album").plan
    work(local, plan, packs_done=1)
    done = enrol(local, 3, id="mine")
    with local.parts.catalog.begin() as tx:
        bulk.cancelling._discard(tx, bulk.cancelling.plans.lock(tx, plan), 0.0)
    assert set(done.objects) <= set(found(local))
    assert len(album.found()) == 3
    with local.parts.catalog.read() as tx:
        assert not tx.execute(sa.select(staged_items)).all()


def test_enrolments_go_on_through_imports_that_publish_views(album, local, tmp_path):
    one = enrol(local, 3, id="c")
    album.run(fill(tmp_path / "more", {"d.jpg": 4}))
    two = enrol(local, 5, id="e")
    assert {*one.objects, *two.objects} <= set(found(local))
    assert len(album.found()) == 5


# -- changes and deletions


def test_an_item_changes_at_once_and_keeps_what_is_not_named(local):
    enrol(local, 3, id="c", title="third", price=3.5, data={"size": "M"})
    changed = local.change_item("album", "c", {"price": 2.5, "title": None, "data": {"size": "L"}})
    assert (changed["price"], changed["size"]) == (2.5, "L")
    assert "title" not in changed
    assert best(local, draw(3)).items[0]["price"] == 2.5
    sequence = local.gallery("album")["sequence"]
    assert local.change_item("album", "c", {"price": 2.5}) == changed
    assert local.gallery("album")["sequence"] == sequence
    for given in ({"id": "d"}, {"price": "dear"}, {"size": "S"}):
        with pytest.raises(BadInput):
            local.change_item("album", "c", given)
    with pytest.raises(Missing) as caught:
        local.change_item("album", "nobody", {"price": 1})
    assert caught.value.code == "gallery.no-item"


def test_a_deleted_object_is_gone_at_once_in_engines_old_and_new(album, local):
    tail_one, imported = enrol(local, 3, id="c").objects[0], shown(local)["a.jpg"]
    for one in (tail_one, imported):
        assert local.delete_object(one)["deleted"] == 1
        for asked in (local, album.local()):
            assert one not in found(asked)
            for use in (asked.object, asked.crop, asked.delete_object):
                with pytest.raises(Missing) as caught:
                    use(one)
                assert caught.value.gone
    assert local.gallery("album")["counts"] == {"pictures": 1, "items": 1, "objects": 1}
    with pytest.raises(Missing):
        local.item("album", "a.jpg")  # nothing was left of its picture


def test_a_picture_is_deleted_with_its_items_and_comes_back_as_a_new_one(local):
    old = shown(local)["a.jpg"]
    enrol(local, 1, id="also")
    assert local.delete("album", pictures=[digest_of(draw(1))])["deleted"] == 1
    for key in ("a.jpg", "also"):
        with pytest.raises(Missing):
            local.item("album", key)
    assert old not in found(local)
    with pytest.raises(Missing) as caught:
        local.delete("album", pictures=[digest_of(draw(1))])
    assert caught.value.code == "gallery.no-picture"
    assert enrol(local, 1, id="back").objects[0] > old


def test_an_item_is_deleted_and_with_the_last_one_its_picture(local):
    one = shown(local)["a.jpg"]
    enrol(local, 1, id="also")
    assert local.delete("album", items=["a.jpg"])["deleted"] == 0
    assert shown(local)["also"] == one
    assert local.delete("album", items=["also"])["deleted"] == 1
    assert one not in found(local)


def test_one_call_deletes_all_or_nothing_under_one_sequence(local):
    enrol(local, 3, id="c")
    before = shown(local)
    with pytest.raises(Missing):
        local.delete("album", items=["c", "nobody"], objects=[before["a.jpg"]])
    with pytest.raises(BadInput):
        local.delete("album")
    assert shown(local) == before
    done = local.delete("album", items=["c", "c"], objects=[before["a.jpg"]] * 2, pictures=[digest_of(draw(2))])
    assert (done["deleted"], done["sequence"]) == (3, 3)
    assert found(local) == {}


def test_what_an_import_has_staged_cannot_be_deleted_yet(local, tmp_path):
    plan = local.start_import(fill(tmp_path / "more", {"c.jpg": 3}), gallery="album").plan
    work(local, plan, packs_done=1)
    with local.parts.catalog.read() as tx:
        staged = tx.execute(sa.select(objects.c.id).where(objects.c.plan == plan)).scalar_one()
    with pytest.raises(Missing):
        local.delete_object(staged)
    with pytest.raises(Missing):
        local.delete("album", pictures=[digest_of(draw(3))])


def test_a_picture_to_which_an_open_import_brings_an_item_outlives_its_last_item(local, tmp_path):
    one = shown(local)["a.jpg"]
    plan = local.start_import(fill(tmp_path / "more", {"copy.jpg": 1}), gallery="album").plan
    work(local, plan, packs_done=1)
    local.delete("album", items=["a.jpg"])
    assert one in found(local)
    local.work(plan)
    assert shown(local)["copy.jpg"] == one


# -- questions that began earlier, and trouble


def test_a_question_gets_what_it_must_have_seen_and_no_more(local):
    first = enrol(local, 3, id="c")
    second = enrol(local, 4, id="d")
    local.delete("album", items=["c"])
    with local.parts.catalog.read() as tx:
        live = wiring.releases.point(tx, "album")

    def seen(must_see):
        question = Question("search", live.release, draw(0), k=10, must_see=must_see)
        answer = local._answers.ask(live.lens, question)
        assert answer.sequence == must_see
        return {match.id for match in answer.objects[0].matches} & {*first.objects, *second.objects}

    assert seen(4) == {*second.objects}
    assert seen(2) == {*first.objects}
    assert seen(3) == {*first.objects, *second.objects}
    assert seen(1) == set()
    with pytest.raises(Conflict) as caught:
        seen(5)
    assert caught.value.code == "serving.too-old"


def test_a_lens_that_changes_while_a_picture_is_described_makes_it_described_anew(local, monkeypatch):
    enroller = adding.Enroller(local.parts.catalog, local.parts.blobs, None)
    asked = []

    def describe(lens, release, data):
        asked.append(lens)
        answer = local._describe(lens, release, data)
        return dataclasses.replace(answer, lens="another") if len(asked) == 1 else answer

    enroller._describe = describe
    assert enroller.enrol("album", draw(3), {}).changed
    assert len(asked) == 2
    enroller._describe = lambda *given: dataclasses.replace(describe(*given), lens="another")
    with pytest.raises(Conflict) as caught:
        enroller.enrol("album", draw(4), {})
    assert caught.value.code == "enrolment.changed"


def test_an_enrolment_that_dies_before_its_end_leaves_no_trace_in_the_catalog(album, local, monkeypatch):
    with monkeypatch.context() as patched:
        once(patched, adding.shelf, "put_item", raising(MemoryError()))
        with pytest.raises(MemoryError):
            enrol(local, 3, id="c")
    assert len(album.found()) == 2
    with local.parts.catalog.read() as tx:
        assert not tx.execute(sa.select(tail)).all()
    assert local.gallery("album")["sequence"] == 1
    assert enrol(local, 3, id="c").sequence == 2


def test_a_picture_of_another_format_is_another_picture(local):
    enrol(local, 3, id="c")
    assert local.enrol(as_png(draw(3)), gallery="album", item={"id": "d"}).objects != enrol(local, 3, id="c").objects
