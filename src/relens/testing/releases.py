"""What releases must do on every catalog: views that succeed each other and lose nothing, aliases that follow."""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from relens import gallery as galleries
from relens import releases
from relens.errors import Conflict, Missing
from relens.gallery import Gallery
from relens.releases import LIVE, PREVIOUS, View
from relens.store import Catalog, Tx
from relens.store.schema import segments, views
from relens.testing.moments import wait_a_moment
from relens.testing.rows import DAY, NOW, SPACE, a_gallery, a_lens, a_plan, taken_back
from relens.values import digest_of
from relens.vectors import Check, Manifest

LENS = a_lens()
OTHER_LENS = a_lens(model=digest_of(b"another model"))
PASSED = (Check("ledger balances", ok=True, detail="it does"),)
FAILED = (Check("counts equal", ok=False, detail="2 objects booked, 1 in segments"),)
THREADS = 8


class ReleaseContract:
    """Galleries with their lens, recipes alone, and aliases. Subclass it as `TestX`, with the fixture `catalog`."""

    def test_a_new_gallery_answers_at_once_with_an_empty_view(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            release = releases.resolve(tx, "album")
            assert release == releases.get(tx, release.name)
        assert (release.gallery, release.lens, release.recipe) == (gallery, LENS.digest, "photos")
        assert release.view is not None
        assert (release.view.sequence, release.view.segments, release.view.parent) == (0, (), None)

    def test_a_gallery_opens_again_with_the_same_lens(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            first = a_gallery(tx)
            assert a_gallery(tx) == first
            assert len(releases.newest_first(tx)) == 1

    def test_a_gallery_refuses_another_lens_and_names_both(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            a_gallery(tx)
            with pytest.raises(Conflict) as caught:
                a_gallery(tx, lens=OTHER_LENS)
            assert releases.live_lens(tx, galleries.get(tx, "album")) == LENS
        assert caught.value.code == "releases.other-lens"
        named = (LENS.digest[:12], OTHER_LENS.digest[:12], *LENS.recipe.models.values())
        assert all(name in caught.value.message for name in named)
        assert "models" in caught.value.message  # what differs

    def test_the_same_models_in_another_recipe_are_another_lens(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            a_gallery(tx)
            with pytest.raises(Conflict):
                a_gallery(tx, lens=a_lens("portraits"))

    def test_a_lens_comes_back_as_it_was(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            for _ in range(2):
                releases.register_lens(tx, LENS, NOW)
            assert releases.get_lens(tx, LENS.digest) == LENS

    def test_two_that_open_the_same_new_gallery_at_once_get_the_same(self, catalog: Catalog) -> None:
        def open_it() -> Gallery:
            with catalog.begin() as tx:
                return a_gallery(tx)

        with ThreadPoolExecutor(1) as pool:
            with catalog.begin() as tx:
                first = a_gallery(tx)
                second = pool.submit(open_it)
                wait_a_moment()
            assert second.result(timeout=10) == first

    def test_two_that_open_the_same_new_recipe_at_once_get_the_same(self, catalog: Catalog) -> None:
        def open_it() -> str:
            with catalog.begin() as tx:
                return releases.open_recipe(tx, LENS, NOW).name

        with ThreadPoolExecutor(1) as pool:
            with catalog.begin() as tx:
                first = releases.open_recipe(tx, LENS, NOW).name
                second = pool.submit(open_it)
                wait_a_moment()
            assert second.result(timeout=10) == first

    def test_a_recipe_alone_has_a_release_without_a_view(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            assert releases.find_recipe_release(tx, LENS) is None
            release = releases.open_recipe(tx, LENS, NOW)
            assert releases.open_recipe(tx, LENS, NOW + 1) == release == releases.find_recipe_release(tx, LENS)
            assert (release.gallery, release.view, release.recipe) == (None, None, "photos")
            assert releases.aliases_of(tx, release) == [LIVE]
            assert releases.newest_first(tx) == [release]

    def test_a_recipe_that_changes_keeps_the_previous_lens_by_name(self, catalog: Catalog) -> None:
        scope = releases.recipe_scope("photos")
        with catalog.begin() as tx:
            before = releases.open_recipe(tx, LENS, NOW)
            assert releases.alias_of(tx, scope, PREVIOUS) is None
            after = releases.open_recipe(tx, OTHER_LENS, NOW)
            assert (releases.alias_of(tx, scope), releases.alias_of(tx, scope, PREVIOUS)) == (after.lens, before.lens)
            assert releases.aliases_of(tx, before) == [PREVIOUS]
            assert releases.find_recipe_release(tx, LENS) is None
            assert releases.open_recipe(tx, LENS, NOW) == before  # and back
            assert (releases.alias_of(tx, scope), releases.alias_of(tx, scope, PREVIOUS)) == (before.lens, after.lens)

    def test_recipes_and_galleries_have_aliases_of_their_own(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            a_gallery(tx, "photos")
            releases.open_recipe(tx, OTHER_LENS, NOW)
            assert releases.resolve(tx, "photos").lens == LENS.digest

    def test_what_is_not_there_is_missing(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            a_gallery(tx)
            with pytest.raises(Missing) as caught:
                releases.get(tx, "album-99")
            assert caught.value.code == "releases.missing"
            with pytest.raises(Missing) as caught:
                releases.resolve(tx, "album", "candidate")
            assert caught.value.code == "releases.no-alias"
            with pytest.raises(Missing) as caught:
                releases.resolve(tx, "attic")
            assert caught.value.code == "gallery.missing"

    def test_a_gallery_made_again_under_the_same_name_starts_empty_with_new_release_names(
        self, catalog: Catalog
    ) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            before = releases.resolve(tx, "album").name
            galleries.remove(tx, gallery.id, NOW)
            with pytest.raises(Missing):
                releases.resolve(tx, "album")
            again = a_gallery(tx, lens=OTHER_LENS)
            release = releases.resolve(tx, "album")
        assert again.id != gallery.id
        assert release.name != before
        assert release.lens == OTHER_LENS.digest


class ViewContract:
    """Views as plans publish or hold them. Subclass it as `TestX`, with the fixture `catalog`."""

    def test_the_alias_follows_new_views_by_itself(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            empty = releases.resolve(tx, "album")
            first = publish(tx, gallery, head(tx, gallery), {"a"})
            second = publish(tx, gallery, head(tx, gallery), {"b"})
            release = releases.resolve(tx, "album")
            assert release.view == second
            assert second.segments == names(gallery, "a", "b")
            assert (second.parent, first.parent) == (first.id, empty.view.id if empty.view else None)
            assert (first.sequence, second.sequence) == (1, 2)
            assert [one.view for one in releases.newest_first(tx)] == [second, first, empty.view]
            assert releases.aliases_of(tx, release) == [LIVE]
            assert releases.aliases_of(tx, empty) == []
            assert [one["name"] for one in second.checks] == ["ledger balances"]

    def test_two_plans_that_began_with_the_same_view_both_count(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            parent = head(tx, gallery)
            first = publish(tx, gallery, parent, {"a"})
            second = publish(tx, gallery, parent, {"b"})
            assert second.segments == names(gallery, "a", "b")
            assert second.parent == first.id

    def test_many_that_publish_at_once_all_count(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            parent = head(tx, gallery)
        start = threading.Barrier(THREADS)

        def work(thread: int) -> None:
            start.wait()
            for number in range(3):
                with catalog.begin() as tx:
                    galleries.lock(tx, gallery.id)
                    publish(tx, gallery, parent, {f"{thread}-{number}"})

        with ThreadPoolExecutor(THREADS) as pool:
            for future in [pool.submit(work, thread) for thread in range(THREADS)]:
                future.result()
        with catalog.read() as tx:
            newest = head(tx, gallery)
            chain = [newest]
            while chain[-1].parent is not None:
                chain.append(releases.get_view(tx, chain[-1].parent))
        assert len(newest.segments) == THREADS * 3
        assert [view.sequence for view in chain] == list(range(THREADS * 3, -1, -1))

    def test_what_is_replaced_is_gone_and_what_came_meanwhile_stays(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            publish(tx, gallery, head(tx, gallery), {"a", "b"})
            parent = head(tx, gallery)
            publish(tx, gallery, parent, {"c"})
            merged = publish(tx, gallery, parent, {"ab"}, replaces={"a", "b"})
            assert merged.segments == names(gallery, "ab", "c")

    def test_what_another_replaced_meanwhile_cannot_be_replaced_again(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            publish(tx, gallery, head(tx, gallery), {"a", "b"})
            parent = head(tx, gallery)
            won = publish(tx, gallery, parent, {"ab"}, replaces={"a", "b"})
        with pytest.raises(Conflict) as caught, catalog.begin() as tx:
            publish(tx, gallery, parent, {"bc"}, replaces={"b"})
        assert caught.value.code == "releases.replaced-meanwhile"
        assert a_manifest(gallery, "b").digest in caught.value.message
        with catalog.read() as tx:
            assert head(tx, gallery) == won
            assert galleries.by_id(tx, gallery.id).sequence == won.sequence

    def test_a_held_view_takes_no_sequence_and_nobody_is_served_from_it(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            live = publish(tx, gallery, head(tx, gallery), {"a"})
            before = releases.newest_first(tx)
            add(tx, gallery, {"b"})
            plan = a_plan(tx, gallery)
            held = releases.hold_view(
                tx,
                gallery,
                LENS.digest,
                plan=plan,
                parent=live,
                adds={a_manifest(gallery, "b").digest},
                checks=FAILED,
                now=NOW,
            )
            assert (held.state, held.sequence) == ("held", None)
            assert held.segments == names(gallery, "a", "b")
            assert held.checks == [{"name": "counts equal", "ok": False, "detail": FAILED[0].detail}]
            assert releases.resolve(tx, "album").view == live
            assert releases.newest_first(tx) == before
            assert galleries.by_id(tx, gallery.id).sequence == 1
            assert a_manifest(gallery, "b").digest not in publish(tx, gallery, head(tx, gallery), {"c"}).segments

    def test_a_view_knows_how_far_single_enrolments_are_folded_in_as_its_parent_did(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            first = publish(tx, gallery, head(tx, gallery), {"a"})
            tx.execute(sa.update(views).where(views.c.id == first.id).values(folded_to=7))
            assert publish(tx, gallery, head(tx, gallery), {"b"}).folded_to == 7  # noqa: PLR2004

    def test_views_of_two_galleries_do_not_meet(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            one, other = a_gallery(tx, "one"), a_gallery(tx, "other")
            publish(tx, one, head(tx, one), {"a"})
            publish(tx, other, head(tx, other), {"b"})
            assert releases.resolve(tx, "one").view == head(tx, one)
            assert head(tx, one).segments == (a_manifest(one, "a").digest,)
            assert head(tx, other).segments == (a_manifest(other, "b").digest,)

    def test_a_segment_is_written_down_once(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            for _ in range(2):
                add(tx, gallery, {"a"})
            row = tx.execute(sa.select(segments)).mappings().one()
            shown = {key: row[key] for key in ("digest", "gallery", "category", "day", "space", "count", "as_of")}
        manifest = a_manifest(gallery, "a")
        assert shown == {key: getattr(manifest, key) for key in shown}

    def test_a_view_of_a_transaction_that_was_taken_back_is_not_there(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = a_gallery(tx)
            before = head(tx, gallery)
        with taken_back(catalog) as tx:
            publish(tx, gallery, before, {"a"})
        with catalog.read() as tx:
            assert head(tx, gallery) == before
            assert galleries.by_id(tx, gallery.id).sequence == 0


def head(tx: Tx, gallery: Gallery) -> View:
    return releases.head_of(tx, gallery.id, LENS.digest)


def a_manifest(gallery: Gallery, seed: str) -> Manifest:
    return Manifest(gallery.id, "all", DAY, SPACE, 4, 1, 0, digest_of(seed.encode()), 100)


def names(gallery: Gallery, *seeds: str) -> tuple[str, ...]:
    return tuple(sorted(a_manifest(gallery, seed).digest for seed in seeds))


def add(tx: Tx, gallery: Gallery, seeds: Collection[str]) -> list[str]:
    manifests = [a_manifest(gallery, seed) for seed in seeds]
    releases.add_segments(tx, manifests, NOW)
    return [manifest.digest for manifest in manifests]


def publish(tx: Tx, gallery: Gallery, parent: View, adds: Collection[str], *, replaces: Collection[str] = ()) -> View:
    """Publish as a plan does, with its one sequence number."""
    return releases.publish(
        tx,
        gallery,
        LENS.digest,
        plan=1,
        parent=parent,
        sequence=galleries.take_sequence(tx, gallery.id),
        adds=add(tx, gallery, adds),
        replaces=[a_manifest(gallery, seed).digest for seed in replaces],
        checks=PASSED,
        now=NOW,
    )
