"""Purging: of what was deleted, no byte is left in the store and no datum in the catalog but that it was.

One leased pack that can be killed at any moment: files are rewritten, segments rebuilt, rows forgotten, blobs taken
away, each step as often as needed, until a scan of all that is left finds nothing. Only then it is done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
import structlog

from relens import gallery as galleries
from relens import ledger, releases
from relens.bulk.building import Builder
from relens.bulk.holding import Holders
from relens.bulk.rewriting import Rewriter
from relens.bulk.upkeep import PURGE, finish, publish_or_again, spaces_of
from relens.gallery import Gallery, forgetting
from relens.jobs import Hold, leases, plans
from relens.jobs.plans import Plan
from relens.recipes import Space
from relens.releases import View
from relens.store import Blobs, Catalog, Tx
from relens.store.schema import heads, packs, pins, shelved
from relens.vectors import Ids, Manifest, open_segment

BATCH = 1000
"""Objects that one transaction forgets."""
STALE_S = 3600.0
"""Age of a temporary file whose writer has died."""
PAUSE_S = 0.5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Start:
    """A gallery as a purge finds it: what was deleted up to a sequence, and the newest view of each lens."""

    plan: Plan
    gallery: Gallery
    upto: int
    dead: Ids
    views: tuple[View, ...]
    spaces: frozenset[str]


class Purger:
    """Handles the packs of purges."""

    def __init__(self, catalog: Catalog, blobs: Blobs) -> None:
        self._catalog = catalog
        self._blobs = blobs

    def __call__(self, hold: Hold) -> None:
        """Go round until a scan finds nothing, then say that it is done."""
        while True:
            start = self._start(hold)
            rewriter = Rewriter(self._catalog, self._blobs, hold, start.gallery.id, start.upto)
            holders = Holders(self._catalog, self._blobs, start.gallery.id, start.spaces, start.dead)
            if start.gallery.retention == "none":
                self._forget_crops(hold, start)
            rewriter.files()
            rewriter.shards()
            self._rebuild(hold, start, holders)
            self._forget(hold, start)
            self._blobs.sweep(STALE_S)
            left = holders.take_away(holders.all(), hold)
            # The scan: every file that rows name is read through, and every blob that none names.
            unclean = rewriter.files() + rewriter.shards()
            if not (left or unclean or holders.all() or self._is_remembered(start)) and self._finish(hold, start):
                return
            log.info("purge goes round", left=left, unclean=unclean)
            time.sleep(PAUSE_S)  # a pack in flight may have pinned what is to go

    def _start(self, hold: Hold) -> _Start:
        with self._catalog.begin() as tx:  # under the gallery's lock: views and a sequence that belong together
            leases.fence(tx, hold.claim)
            tx.execute(sa.delete(pins).where(pins.c.pack == hold.claim.pack))  # of the last round: all that is named
            plan = plans.get(tx, hold.claim.plan)
            upto = galleries.lock(tx, plan.need_gallery)
            query = sa.select(heads.c.lens).where(heads.c.gallery == plan.need_gallery).order_by(heads.c.lens)
            lenses = list(tx.execute(query).scalars())
            views = tuple(releases.head_of(tx, plan.need_gallery, lens) for lens in lenses)
            spaces = frozenset().union(*(spaces_of(releases.get_lens(tx, lens)) for lens in lenses))
            gallery = galleries.by_id(tx, plan.need_gallery)
        with self._catalog.read() as tx:
            dead, _ = galleries.dead_since(tx, plan.need_gallery, 0, upto)
        return _Start(plan, gallery, upto, np.sort(dead), views, spaces)

    # -- segments

    def _rebuild(self, hold: Hold, start: _Start, holders: Holders) -> None:
        """Segments without rows of what was deleted, in the successors of all newest views and on the shelf."""
        condemned = set(holders.condemned())
        if not condemned:
            return
        builder = Builder(self._catalog, self._blobs, hold, start.gallery.id, start.upto)
        with self._catalog.read() as tx:
            on_shelf = set(_on_shelf(tx, start.gallery.id))
        needed = {digest for view in start.views for digest in view.segments} | on_shelf
        built = {digest: self._without_dead(builder, digest, start.dead) for digest in sorted(condemned & needed)}
        manifests = [manifest for manifest in built.values() if manifest is not None]
        checks = builder.check(manifests)
        builder.pin(manifests)
        over = holders.covering(condemned)
        with self._catalog.begin() as tx:
            leases.fence(tx, hold.claim)
            galleries.lock(tx, start.gallery.id)
            now = self._catalog.now(tx)
            builder.name(tx, manifests, now)
            sequence = galleries.take_sequence(tx, start.gallery.id)
            for view in start.views:
                replaced = condemned & set(view.segments)
                if replaced:
                    adds = [new.digest for digest in replaced if (new := built[digest]) is not None]
                    publish_or_again(
                        tx,
                        start.gallery,
                        start.plan,
                        lens=view.lens,
                        parent=view,
                        sequence=sequence,
                        adds=adds,
                        replaces=replaced,
                        without_indexes=over,
                        checks=checks,
                        now=now,
                    )
            _put_on_shelf(tx, start.gallery.id, {one: built[one] for one in on_shelf & condemned})
            releases.retire(tx, start.gallery.id, condemned, now)

    def _without_dead(self, builder: Builder, digest: str, dead: Ids) -> Manifest | None:
        """A segment built anew of what lives in it; None if nothing does."""
        old = open_segment(self._blobs, digest, verify=False)
        living = np.array(old.ids[~np.isin(old.ids, dead)])
        if not len(living):
            return None
        about = old.manifest
        return builder.build(about.category, about.day, Space(about.space, about.dim), living)

    # -- rows

    def _forget_crops(self, hold: Hold, start: _Start) -> None:
        more = True
        while more:
            hold.take_in_hand("crops")
            with self._catalog.begin() as tx:
                leases.fence(tx, hold.claim)
                galleries.lock(tx, start.gallery.id)
                more = forgetting.forget_crops(tx, start.gallery.id, BATCH) > 0

    def _forget(self, hold: Hold, start: _Start) -> None:
        """Forget the deleted objects, some at a time; how many, the pack's own row remembers through every death."""
        some: list[tuple[int, str, str]] = []
        while True:
            hold.take_in_hand("objects")
            with self._catalog.begin() as tx:
                leases.fence(tx, hold.claim)
                galleries.lock(tx, start.gallery.id)
                after = some[-1][0] if some else 0
                some = forgetting.remembered(tx, start.gallery.id, start.upto, BATCH, after)
                if not some:
                    return
                forgetting.forget(tx, [one for one, _, _ in some])
                _count(tx, hold.claim.pack, some)

    def _is_remembered(self, start: _Start) -> bool:
        with self._catalog.read() as tx:
            return bool(forgetting.remembered(tx, start.gallery.id, start.upto, 1))

    def _finish(self, hold: Hold, start: _Start) -> bool:
        """End the plan. False if it was asked for again meanwhile, after more was deleted or less is to be kept."""
        with self._catalog.begin() as tx:
            leases.fence(tx, hold.claim)
            galleries.lock(tx, start.gallery.id)
            here = galleries.by_id(tx, start.gallery.id)
            plan = plans.get(tx, hold.claim.plan)
            if plan.spec["upto"] > start.upto or here.retention != start.gallery.retention:
                return False
            now = self._catalog.now(tx)
            lines = [
                ledger.Line(PURGE, count, count, category, day)
                for category, days in sorted(_counted(tx, hold.claim.pack).items())
                for day, count in sorted(days.items())
            ]
            forgetting.forget_pictures(tx, start.gallery.id)
            head = releases.head_of(tx, start.gallery.id, plan.need_lens)
            finish(tx, hold.claim, lines, now, sequence=head.sequence, view=None)
            return True


def _count(tx: Tx, pack: int, some: Sequence[tuple[int, str, str]]) -> None:
    counted = _counted(tx, pack)
    for _, category, day in some:
        days = counted.setdefault(category, {})
        days[day] = days.get(day, 0) + 1
    tx.execute(sa.update(packs).where(packs.c.id == pack).values(spec={"purged": counted}))


def _counted(tx: Tx, pack: int) -> dict[str, dict[str, int]]:
    spec = tx.execute(sa.select(packs.c.spec).where(packs.c.id == pack)).scalar_one()
    return {category: dict(days) for category, days in spec.get("purged", {}).items()}


def _on_shelf(tx: Tx, gallery: int) -> list[str]:
    return sorted(set(tx.execute(sa.select(shelved.c.segment).where(shelved.c.gallery == gallery)).scalars()))


def _put_on_shelf(tx: Tx, gallery: int, built: dict[str, Manifest | None]) -> None:
    """Segments on the shelf are replaced by what was built of them."""
    for old, new in built.items():
        where = (shelved.c.gallery == gallery, shelved.c.segment == old)
        if new is None:
            tx.execute(sa.delete(shelved).where(*where))
        else:
            tx.execute(sa.update(shelved).where(*where).values(segment=new.digest))
