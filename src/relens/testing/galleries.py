"""What a gallery must do on every catalog: sequences without gaps, ids never used again, nothing lost or doubled."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from relens import gallery as galleries
from relens import releases
from relens.errors import BadInput, Missing
from relens.gallery import Gallery, Item, NewPicture, Partition, deleting
from relens.gallery import items as items_
from relens.jobs import plans
from relens.store import Catalog, Tx
from relens.store.schema import crops, items, labels, objects, pictures, staged_items, tombstones, vectors
from relens.testing.rows import DAY, MODEL, NOW, SPACE, a_gallery, a_picture, a_plan, an_item
from relens.values import WHOLE, Label, digest_of

THREADS = 8
OTHER_DAY = "2025-06-02"
BAD_NAMES = ["", "A", "a b", "a/b", "../a", ".a", "-a", "_a", "ä", "a\n", "a" * 64, "a:b", "a%2e"]
GOOD_NAMES = ["a", "0", "album", "a.b-c_d", "2025-06", "a" * 63]


class GalleryContract:
    """Names and sequences. Subclass it as `TestX`, with the fixture `catalog`."""

    def test_a_name_that_could_be_mistaken_for_something_else_is_refused(self, catalog: Catalog) -> None:
        for name in BAD_NAMES:
            with pytest.raises(BadInput) as caught, catalog.begin() as tx:
                galleries.create(tx, name, "photos", NOW)
            assert caught.value.code == "gallery.bad-name"

    def test_a_plain_name_is_taken(self, catalog: Catalog) -> None:
        for name in GOOD_NAMES:
            with catalog.begin() as tx:
                made = galleries.create(tx, name, "photos", NOW)
                assert made is not None
                assert galleries.find(tx, name) == galleries.get(tx, name) == galleries.by_id(tx, made.id) == made
                assert made.sequence == 0

    def test_two_galleries_cannot_have_one_name(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            first = a_gallery(tx)
            assert galleries.create(tx, "album", "photos", NOW) is None
            assert galleries.every(tx) == [first]

    def test_galleries_are_listed_by_name_and_a_missing_one_is_named(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            for name in ("zoo", "album"):
                a_gallery(tx, name)
            assert [gallery.name for gallery in galleries.every(tx)] == ["album", "zoo"]
            assert galleries.find(tx, "attic") is None
            with pytest.raises(Missing) as caught:
                galleries.get(tx, "attic")
        assert caught.value.code == "gallery.missing"
        assert "attic" in caught.value.message

    def test_a_removed_gallery_frees_its_name_and_takes_everything_with_it(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            before, published = publish(tx, [a_picture("one")])
            galleries.remove(tx, before.id, NOW)
            assert galleries.find(tx, "album") is None
            assert galleries.every(tx) == []
            with pytest.raises(Missing) as caught:
                galleries.get_object(tx, published["one"][0])
            assert caught.value.gone
            with pytest.raises(Missing) as caught:
                galleries.lock(tx, before.id)
            assert (caught.value.code, caught.value.gone) == ("gallery.removed", True)
            after = a_gallery(tx)
            assert after.id > before.id
            assert galleries.known_pictures(tx, after.id, [a_picture("one").sha256]) == {}
            assert galleries.count_objects(tx, after.id) == {"pictures": 0, "items": 0, "objects": 0}

    def test_a_sequence_never_skips_however_many_take_from_it(self, catalog: Catalog) -> None:
        """Also not when some of them fail after they took a number."""
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
        rounds = 10
        taken: list[int] = []
        noting = threading.Lock()

        def take(thread: int) -> None:
            for number in range(rounds):
                with contextlib.suppress(ZeroDivisionError):
                    with catalog.begin() as tx:
                        locked = galleries.lock(tx, gallery.id)
                        sequence = galleries.take_sequence(tx, gallery.id)
                        assert sequence == locked + 1
                        _ = 1 / ((thread + number) % 3)
                    with noting:
                        taken.append(sequence)

        with ThreadPoolExecutor(THREADS) as pool:
            for future in [pool.submit(take, thread) for thread in range(THREADS)]:
                future.result()
        assert sorted(taken) == list(range(1, len(taken) + 1))
        with catalog.read() as tx:
            assert galleries.by_id(tx, gallery.id).sequence == len(taken) < THREADS * rounds

    def test_galleries_have_sequences_of_their_own(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            one, other = a_gallery(tx, "one"), a_gallery(tx, "other")
            assert [galleries.take_sequence(tx, one.id) for _ in range(3)] == [1, 2, 3]
            assert galleries.take_sequence(tx, other.id) == 1


class StagingContract:
    """Pictures, items and objects as plans bring them. Subclass it as `TestX`, with the fixture `catalog`."""

    def test_what_was_staged_is_known_but_neither_shown_nor_counted(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            staged = stage(tx, gallery, plan, [a_picture("one", objects=2)])
            assert galleries.known_pictures(tx, gallery.id, [a_picture("one").sha256]).keys() == {
                a_picture("one").sha256
            }
            assert galleries.find_picture(tx, gallery.id, a_picture("one").sha256) is not None
            assert galleries.count_objects(tx, gallery.id) == {"pictures": 0, "items": 0, "objects": 0}
            for one in staged["one"]:
                with pytest.raises(Missing) as caught:
                    galleries.get_object(tx, one)
                assert (caught.value.code, caught.value.gone) == ("gallery.no-object", False)

    def test_everything_of_an_object_comes_back_when_its_plan_has_published(self, catalog: Catalog) -> None:
        given = a_picture("one", objects=2)
        with catalog.begin() as tx:
            _, published = publish(tx, [given, a_picture("two")])
            first, second = (galleries.get_object(tx, one) for one in published["one"])
            assert galleries.crop_location(tx, second.id) == given.objects[1].crop
        assert (first.gallery, first.box, first.score, first.category) == ("album", WHOLE, 0.5, "all")
        assert first.labels == (Label("one 0", 0, 0.75),)
        assert second.labels == (Label("one 1", 1, 0.75),)
        assert first.picture.to_json() == {"uri": "file:///one", "sha256": given.sha256, "width": 64, "height": 48}
        assert first.items == (an_item("one"),)
        assert first.sequence == 1

    def test_many_pictures_keep_their_objects_in_order(self, catalog: Catalog) -> None:
        """More than a driver puts into one statement."""
        given = [a_picture(f"p{number}", objects=number % 3) for number in range(1300)]
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            ids = galleries.stage(tx, gallery.id, plan, given, space=SPACE, model=MODEL)
            assert [*ids] == [one.sha256 for one in given]
            assert [*ids.values()] == sorted(ids.values())
            query = (
                sa.select(
                    pictures.c.sha256, objects.c.id, vectors.c.file, vectors.c.row, crops.c.offset, labels.c.labels
                )
                .select_from(objects.join(pictures).join(vectors).join(crops).join(labels))
                .order_by(objects.c.id)
            )
            rows = tx.execute(query).all()
        expected = [(picture, number, found) for picture in given for number, found in enumerate(picture.objects)]
        assert len(rows) == len(expected)
        for row, (picture, number, found) in zip(rows, expected, strict=True):
            assert (row.sha256, (row.file, row.row)) == (picture.sha256, found.vector)
            assert found.crop is not None
            assert (row.offset, row.labels[0]["index"]) == (found.crop[1], number)

    def test_a_gallery_holds_a_picture_once(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            stage(tx, gallery, plan, [a_picture("one")])
        with pytest.raises(sa.exc.IntegrityError), catalog.begin() as tx:
            stage(tx, gallery, plan, [replace(a_picture("one"), item=an_item("another"))])

    def test_another_gallery_knows_nothing_of_it(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            stage(tx, gallery, plan, [a_picture("one")])
            other = a_gallery(tx, "other")
            assert galleries.known_pictures(tx, other.id, [a_picture("one").sha256]) == {}
            assert galleries.count_objects(tx, other.id)["pictures"] == 0

    def test_known_pictures_are_found_among_very_many(self, catalog: Catalog) -> None:
        given = [a_picture(f"p{number}") for number in range(0, 1200, 2)]
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            ids = galleries.stage(tx, gallery.id, plan, given, space=SPACE, model=MODEL)
            asked = [digest_of(f"p{number}".encode()) for number in range(1200)]
            assert galleries.known_pictures(tx, gallery.id, asked) == ids
            assert galleries.known_pictures(tx, gallery.id, []) == {}

    def test_ids_of_objects_increase_and_are_never_used_again(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            first = stage(tx, gallery, plan, [a_picture("one", objects=3)])["one"]
        assert first == sorted(first)
        with catalog.begin() as tx:  # nothing of ours deletes rows; a person or a restore may
            for table in (crops, vectors, labels, staged_items):
                tx.execute(sa.delete(table))
            tx.execute(sa.delete(objects))
            tx.execute(sa.delete(items))
            tx.execute(sa.delete(pictures))
        with catalog.begin() as tx:
            second = stage(tx, gallery, plan, [a_picture("one", objects=3)])["one"]
        assert min(second) > max(first)

    def test_partitions_count_what_was_staged_by_category_and_day(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            given = [
                a_picture("a", category="shoes", objects=2),
                a_picture("b", category="hats", day=OTHER_DAY),
                a_picture("c", category="hats"),
                a_picture("d", category="hats"),
                a_picture("e", objects=0),
            ]
            staged = stage(tx, gallery, plan, given)
            assert galleries.staged_partitions(tx, plan, 0) == [
                Partition("hats", DAY, 2, 2),
                Partition("hats", OTHER_DAY, 1, 1),
                Partition("shoes", DAY, 2, 2),
            ]
            bury(tx, gallery, staged["b"][0], 3)
            assert galleries.staged_partitions(tx, plan, 3)[1] == Partition("hats", OTHER_DAY, 1, 0)

    def test_places_of_vectors_come_by_increasing_id_in_any_batches(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            staged = stage(tx, gallery, plan, [a_picture(f"p{number}", objects=2) for number in range(5)])
            part = Partition("all", DAY, 10, 10)
            parts = list(galleries.staged_vectors(tx, plan, SPACE, part, as_of=0, batch=3))
            assert [len(ids) for ids, _ in parts] == [3, 3, 3, 1]
            ids = [int(one) for some, _ in parts for one in some]
            places = [place for _, some in parts for place in some]
            assert ids == sorted(one for found in staged.values() for one in found)
            assert places == [(f"vectors of p{number}", row) for number in range(5) for row in range(2)]
            assert list(galleries.staged_vectors(tx, plan, "another space", part, as_of=0)) == []
            assert list(galleries.staged_vectors(tx, plan + 1, SPACE, part, as_of=0)) == []

    def test_what_was_deleted_before_it_is_sealed_is_left_out(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            staged = stage(tx, gallery, plan, [a_picture("one", objects=4)])["one"]
            bury(tx, gallery, staged[1], 3)
            bury(tx, gallery, staged[2], 5)
            for as_of, living in ((2, staged), (3, [staged[0], *staged[2:]]), (9, [staged[0], staged[3]])):
                [part] = galleries.staged_partitions(tx, plan, as_of)
                assert part == Partition("all", DAY, 4, len(living))
                [(ids, places)] = galleries.staged_vectors(tx, plan, SPACE, part, as_of=as_of)
                assert ids.tolist() == living
                assert len(places) == len(living)


class ItemContract:
    """What becomes of items and of pictures that lose theirs. Subclass it as `TestX`, with the fixture `catalog`."""

    def test_items_appear_when_their_plan_is_sealed_and_not_before(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            stage(tx, gallery, plan, [a_picture("one")])
            assert read_items(tx) == []
            seal(tx, gallery, plan)
            assert read_items(tx) == [an_item("one")]
            assert tx.execute(sa.select(staged_items)).all() == []

    def test_only_what_differs_is_staged(self, catalog: Catalog) -> None:
        before = an_item("a")
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            ids = picture_ids(tx, gallery, plan, "one", "two")
            items_.put_item(tx, gallery.id, before, ids["one"], NOW)
            same = [before, replace(before, day=OTHER_DAY)]
            show(tx, gallery, plan, (same[0], ids["one"]))
            items_.stage_items(tx, gallery.id, plan, [(same[1], ids["one"])], undated={"a"})
            assert staged_keys(tx) == []
            show(tx, gallery, plan, (before, ids["two"]), (an_item("b"), ids["one"]))
            assert staged_keys(tx) == ["a", "b"]

    def test_an_item_is_written_again_only_when_it_changed(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            picture = picture_ids(tx, gallery, plan, "one")["one"]
            for now in (NOW, NOW + 1):
                apply(tx, gallery, plan, (an_item("a"), picture), now=now)
            assert written(tx) == {"a": NOW}
            for now in (NOW + 2, NOW + 3):
                apply(tx, gallery, plan, (an_item("a", title="new"), picture), (an_item("b"), picture), now=now)
            assert written(tx) == {"a": NOW + 2, "b": NOW + 2}

    def test_every_column_of_an_item_can_change(self, catalog: Catalog) -> None:
        before = an_item("a")
        changed = [
            replace(before, uri="file:///x"),
            replace(before, title="t"),
            replace(before, price=None),
            replace(before, shop="s"),
            replace(before, day=OTHER_DAY),
            replace(before, data={"c": 1}),
            replace(before, off_shelf=True),
        ]
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            picture = picture_ids(tx, gallery, plan, "one")["one"]
            for after in changed:
                for item in (before, after):
                    apply(tx, gallery, plan, (item, picture))
                    assert read_items(tx) == [item]
            assert buried(tx) == {}

    def test_an_undated_item_keeps_the_day_that_it_has(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            picture = picture_ids(tx, gallery, plan, "one")["one"]
            apply(tx, gallery, plan, (an_item("old", day=DAY), picture))
            later = [(an_item(key, day=OTHER_DAY, title="new"), picture) for key in ("old", "new")]
            items_.stage_items(tx, gallery.id, plan, later, undated={"old", "new"})
            items_.apply_items(tx, gallery.id, plan, 2, NOW + 1)
            assert [(item.key, item.day) for item in read_items(tx)] == [("new", OTHER_DAY), ("old", DAY)]
            apply(tx, gallery, plan, *later)
            assert [(item.key, item.day) for item in read_items(tx)] == [("new", OTHER_DAY), ("old", OTHER_DAY)]

    def test_an_item_stays_off_the_shelf_until_something_else_is_said(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            picture = picture_ids(tx, gallery, plan, "one")["one"]
            items_.put_item(tx, gallery.id, replace(an_item("a"), off_shelf=True), picture, NOW)
            said = [(an_item("a", title="new"), picture), (an_item("b"), picture)]
            items_.stage_items(tx, gallery.id, plan, said, unflagged={"a", "b"})
            items_.apply_items(tx, gallery.id, plan, 2, NOW + 1)
            assert [(item.key, item.title, item.off_shelf) for item in read_items(tx)] == [
                ("a", "new", True),
                ("b", None, False),
            ]
            apply(tx, gallery, plan, (replace(an_item("a"), off_shelf=False), picture))
            apply(tx, gallery, plan, (replace(an_item("b"), off_shelf=True), picture))
            assert [(item.key, item.off_shelf) for item in read_items(tx)] == [("a", False), ("b", True)]

    def test_items_of_two_galleries_do_not_meet(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            other, other_plan = start(tx, "other")
            apply(tx, gallery, plan, (an_item("a"), picture_ids(tx, gallery, plan, "one")["one"]))
            apply(tx, other, other_plan, (an_item("a", title="x"), picture_ids(tx, other, other_plan, "one")["one"]))
            assert sorted(item.title or "" for item in read_items(tx)) == ["", "x"]

    def test_a_thousand_items_are_written_and_found_again(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            picture = picture_ids(tx, gallery, plan, "one")["one"]
            shown = [(an_item(f"i{number}"), picture) for number in range(1100)]
            apply(tx, gallery, plan, *shown)
            apply(tx, gallery, plan, *shown, now=NOW + 1)
            assert set(written(tx).values()) == {NOW}
            assert galleries.count_objects(tx, gallery.id)["items"] == len(shown)

    def test_a_picture_that_loses_its_last_item_is_released_with_its_objects(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            staged = stage(tx, gallery, plan, [a_picture("old", objects=2), a_picture("new")])
            publish_plan(tx, gallery, plan)
            second = a_plan(tx, gallery, key="second")
            show(tx, gallery, second, (an_item("old"), picture_id(tx, gallery, "new")))
            assert buried(tx) == {}
            assert seal(tx, gallery, second) == 2  # noqa: PLR2004 - its own sequence
            assert buried(tx) == dict.fromkeys(staged["old"], 2)
            for one in staged["old"]:
                with pytest.raises(Missing) as caught:
                    galleries.get_object(tx, one)
                assert (caught.value.code, caught.value.gone) == ("gallery.object-deleted", True)
            assert {item.key for item in galleries.get_object(tx, staged["new"][0]).items} == {"old", "new"}
            assert galleries.count_objects(tx, gallery.id) == {"pictures": 1, "items": 2, "objects": 1}
            assert galleries.count_released(tx, second) == 2  # noqa: PLR2004

    def test_a_picture_that_another_item_shows_stays(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            ids = picture_ids(tx, gallery, plan, "shared", "new")
            apply(tx, gallery, plan, (an_item("a"), ids["shared"]), (an_item("b"), ids["shared"]))
            apply(tx, gallery, plan, (an_item("a"), ids["new"]))
            assert buried(tx) == {}

    def test_a_picture_to_which_an_open_plan_brings_an_item_stays(self, catalog: Catalog) -> None:
        """And is released when that plan is given up."""
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            old = stage(tx, gallery, plan, [a_picture("old"), a_picture("new")])["old"]
            publish_plan(tx, gallery, plan)
            second, third = (a_plan(tx, gallery, key=key) for key in ("second", "third"))
            show(tx, gallery, third, (an_item("another"), picture_id(tx, gallery, "old")))
            show(tx, gallery, second, (an_item("old"), picture_id(tx, gallery, "new")))
            seal(tx, gallery, second)
            assert buried(tx) == {}
            deleting.discard(tx, gallery.id, third, 3)
            assert buried(tx) == {old[0]: 3}

    def test_items_that_change_places_release_nothing(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            ids = picture_ids(tx, gallery, plan, "one", "two")
            apply(tx, gallery, plan, (an_item("a"), ids["one"]), (an_item("b"), ids["two"]))
            apply(tx, gallery, plan, (an_item("a"), ids["two"]), (an_item("b"), ids["one"]))
            assert buried(tx) == {}

    def test_an_item_whose_picture_was_deleted_since_is_left_as_it_is(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            ids = picture_ids(tx, gallery, plan, "one", "two")
            apply(tx, gallery, plan, (an_item("a"), ids["one"]))
            show(tx, gallery, plan, (an_item("a", title="new"), ids["two"]), (an_item("b"), ids["two"]))
            tx.execute(sa.update(pictures).where(pictures.c.id == ids["two"]).values(released=True))
            items_.apply_items(tx, gallery.id, plan, 2, NOW)
            assert read_items(tx) == [an_item("a")]

    def test_a_released_picture_that_comes_back_is_a_new_one(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            old = stage(tx, gallery, plan, [a_picture("one")])["one"]
            seal(tx, gallery, plan)
            apply(tx, gallery, plan, (an_item("one"), picture_ids(tx, gallery, plan, "two")["two"]))
            assert [*buried(tx)] == old
            assert galleries.known_pictures(tx, gallery.id, [a_picture("one").sha256]) == {}
            new = stage(tx, gallery, plan, [a_picture("one")])["one"]
            assert min(new) > max(old)
            again = galleries.known_pictures(tx, gallery.id, [a_picture("one").sha256])
            assert len(again) == 1

    def test_what_a_plan_staged_can_be_discarded_and_nothing_that_was_visible_changes(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            kept = stage(tx, gallery, plan, [a_picture("kept")])["kept"]
            publish_plan(tx, gallery, plan)
            second = a_plan(tx, gallery, key="second")
            gone = stage(tx, gallery, second, [a_picture("gone", objects=2), a_picture("dead"), a_picture("bare")])
            bury(tx, gallery, gone["dead"][0], 1)
            show(tx, gallery, second, (an_item("kept", title="new"), picture_id(tx, gallery, "gone")))
            assert deleting.discard(tx, gallery.id, second, 2) == len(gone["gone"] + gone["bare"])
            assert galleries.dead_since(tx, gallery.id, 1, 2)[0].tolist() == sorted(gone["gone"] + gone["bare"])
            assert read_items(tx) == [an_item("kept")]
            assert tx.execute(sa.select(staged_items)).all() == []
            assert galleries.known_pictures(tx, gallery.id, [a_picture("gone").sha256]) == {}
            assert galleries.get_object(tx, kept[0]).items == (an_item("kept"),)
            assert deleting.discard(tx, gallery.id, second, 3) == 0
            assert min(stage(tx, gallery, second, [a_picture("gone")])["gone"]) > max(gone["gone"])

    def test_what_another_plan_has_not_published_yet_is_known_as_its(self, catalog: Catalog) -> None:
        digests = {name: a_picture(name).sha256 for name in ("published", "staged", "mine", "released", "elsewhere")}
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            stage(tx, gallery, plan, [a_picture("published")])
            publish_plan(tx, gallery, plan)
            second, third = (a_plan(tx, gallery, key=key) for key in ("second", "third"))
            stage(tx, gallery, second, [a_picture("staged", objects=2), a_picture("released")])
            stage(tx, gallery, third, [a_picture("mine")])
            deleting.release(tx, gallery.id, [picture_id(tx, gallery, "released")], 2)
            other, other_plan = start(tx, "other")
            stage(tx, other, other_plan, [a_picture("elsewhere")])
            found = galleries.staged_elsewhere(tx, gallery.id, third, digests.values())
            assert found == {digests["staged"]: second}
            assert galleries.staged_elsewhere(tx, gallery.id, second, digests.values()) == {digests["mine"]: third}

    def test_the_dead_are_those_of_the_gallery_after_one_sequence_and_up_to_another(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            other, other_plan = start(tx, "other")
            mine = stage(tx, gallery, plan, [a_picture("one", objects=4)])["one"]
            theirs = stage(tx, other, other_plan, [a_picture("one")])["one"]
            for sequence, one in zip((3, 1, 2, 2), mine, strict=True):
                bury(tx, gallery, one, sequence)
            bury(tx, other, theirs[0], 2)
            ids, sequences = galleries.dead_since(tx, gallery.id, 0, 9)
            assert ids.tolist() == [mine[1], *mine[2:], mine[0]]
            assert sequences.tolist() == [1, 2, 2, 3]
            assert galleries.dead_since(tx, gallery.id, 1, 2)[0].tolist() == mine[2:]
            assert galleries.dead_since(tx, gallery.id, 1, 3)[0].tolist() == [*mine[2:], mine[0]]
            assert galleries.dead_since(tx, gallery.id, 3, 9)[0].tolist() == []
            assert ids.dtype == sequences.dtype == "int64"

    def test_unknown_objects_are_missing_or_left_out(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            _, published = publish(tx, [a_picture("one")])
            known = published["one"][0]
            assert galleries.describe(tx, [known, 10**12]).keys() == {known}
            for ask in (galleries.get_object, galleries.crop_location):
                with pytest.raises(Missing) as caught:
                    ask(tx, 10**12)
                assert not caught.value.gone

    def test_names_are_those_of_the_model_that_is_asked_for(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            _, published = publish(tx, [a_picture("one")])
            one = published["one"][0]
            other = [{"name": "other", "index": 5, "score": 1.0}]
            tx.execute(sa.insert(labels).values(object=one, model="another model", labels=other))
            assert galleries.describe(tx, [one], model=MODEL)[one].labels[0].name == "one 0"
            assert galleries.describe(tx, [one], model="another model")[one].labels[0].name == "other"
            assert galleries.describe(tx, [one], model="a third")[one].labels == ()


def start(tx: Tx, name: str = "album") -> tuple[Gallery, int]:
    """A gallery with a plan."""
    gallery = a_gallery(tx, name)
    return gallery, a_plan(tx, gallery, key=f"plan of {name}")


def stage(tx: Tx, gallery: Gallery, plan: int, given: Sequence[NewPicture]) -> dict[str, list[int]]:
    """Stage pictures with their items: ids of the objects by the item's key."""
    ids = galleries.stage(tx, gallery.id, plan, given, space=SPACE, model=MODEL)
    show(tx, gallery, plan, *[(one.item, ids[one.sha256]) for one in given])
    query = sa.select(objects.c.id, objects.c.picture).order_by(objects.c.id)
    rows = tx.execute(query).all()
    return {one.item.key: [row.id for row in rows if row.picture == ids[one.sha256]] for one in given}


def publish(tx: Tx, given: Sequence[NewPicture]) -> tuple[Gallery, dict[str, list[int]]]:
    gallery, plan = start(tx)
    staged = stage(tx, gallery, plan, given)
    publish_plan(tx, gallery, plan)
    return gallery, staged


def publish_plan(tx: Tx, gallery: Gallery, plan: int) -> None:
    view = releases.head_of(tx, gallery.id, releases.live_lens(tx, gallery).digest)
    plans.end(tx, plan, "done", NOW, sequence=seal(tx, gallery, plan), view=view.id)


def seal(tx: Tx, gallery: Gallery, plan: int, *, now: float = NOW) -> int:
    """What a plan staged of items becomes so. The sequence that it took."""
    sequence = galleries.take_sequence(tx, gallery.id)
    items_.apply_items(tx, gallery.id, plan, sequence, now)
    return sequence


def picture_ids(tx: Tx, gallery: Gallery, plan: int, *names: str) -> dict[str, int]:
    """Pictures without items, staged: id by name."""
    given = [a_picture(name) for name in names]
    ids = galleries.stage(tx, gallery.id, plan, given, space=SPACE, model=MODEL)
    return {name: ids[one.sha256] for name, one in zip(names, given, strict=True)}


def picture_id(tx: Tx, gallery: Gallery, name: str) -> int:
    """A picture that the gallery knows."""
    sha256 = a_picture(name).sha256
    return galleries.known_pictures(tx, gallery.id, [sha256])[sha256]


def show(tx: Tx, gallery: Gallery, plan: int, *shown: tuple[Item, int]) -> None:
    items_.stage_items(tx, gallery.id, plan, shown)


def apply(tx: Tx, gallery: Gallery, plan: int, *shown: tuple[Item, int], now: float = NOW) -> None:
    """What a plan says of items, said and sealed at once."""
    show(tx, gallery, plan, *shown)
    seal(tx, gallery, plan, now=now)


def read_items(tx: Tx) -> list[Item]:
    return [items_.item_of(row) for row in tx.execute(sa.select(items).order_by(items.c.key)).mappings()]


def staged_keys(tx: Tx) -> list[str]:
    return list(tx.execute(sa.select(staged_items.c.key).order_by(staged_items.c.key)).scalars())


def written(tx: Tx) -> dict[str, float]:
    return {row.key: row.updated_at for row in tx.execute(sa.select(items))}


def buried(tx: Tx) -> dict[int, int]:
    """Sequence of every tombstone, by object."""
    query = sa.select(tombstones.c.object, tombstones.c.sequence).order_by(tombstones.c.object)
    return {row.object: row.sequence for row in tx.execute(query)}


def bury(tx: Tx, gallery: Gallery, one: int, sequence: int) -> None:
    tx.execute(sa.insert(tombstones).values(object=one, gallery=gallery.id, sequence=sequence))
