"""Days of a gallery: built anew from the truth, or dropped from answers and put on the shelf.

Both replace the segments of one day in the newest view. What is enrolled or imported into the day later is found; what
was dropped comes back when the day is built anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from relens import gallery as galleries
from relens import ledger, releases
from relens.bulk.building import Builder
from relens.bulk.upkeep import DROP, REBUILD, finish, publish_or_again, spaces_of
from relens.gallery import Gallery, places
from relens.jobs import Claim, Hold, leases, plans
from relens.jobs.plans import Plan
from relens.recipes import Lens
from relens.releases import View
from relens.store import Blobs, Catalog, Tx
from relens.store.schema import segments, shelved
from relens.vectors import Check, Manifest


@dataclass(frozen=True, slots=True)
class _Start:
    """A gallery's newest view when a pack began, with the sequence of that moment."""

    plan: Plan
    lens: Lens
    parent: View
    as_of: int

    @property
    def day(self) -> str:
        return str(self.plan.spec["day"])

    @staticmethod
    def now(catalog: Catalog, held: Claim) -> _Start:
        with catalog.begin() as tx:  # under the gallery's lock: a view and a sequence that belong together
            plan = plans.get(tx, held.plan)
            as_of = galleries.lock(tx, plan.need_gallery)
            parent = releases.head_of(tx, plan.need_gallery, plan.need_lens)
            return _Start(plan, releases.get_lens(tx, plan.need_lens), parent, as_of)


@dataclass(frozen=True, slots=True)
class _Made:
    """Segments that were built, and what they were asked."""

    builder: Builder
    built: list[Manifest]
    checks: list[Check]


class Rebuilder:
    """Handles the packs that build a day's segments anew, of all living objects of the day that views may hold."""

    def __init__(self, catalog: Catalog, blobs: Blobs) -> None:
        self._catalog = catalog
        self._blobs = blobs

    def __call__(self, hold: Hold) -> None:
        """Build, check and publish."""
        start = _Start.now(self._catalog, hold.claim)
        builder = Builder(self._catalog, self._blobs, hold, start.plan.need_gallery, start.as_of)
        with self._catalog.read() as tx:
            found = places.of_day(
                tx,
                start.plan.need_gallery,
                start.day,
                spaces_of(start.lens),
                as_of=start.as_of,
                folded_to=start.parent.folded_to,
            )
        built = [
            builder.build(category, start.day, space, ids)
            for category, ids in sorted(found.items())
            if (space := start.lens.space_of(category)) is not None
        ]
        made = _Made(builder, built, builder.check(built))
        builder.pin(built)
        with self._catalog.begin() as tx:
            leases.fence(tx, hold.claim)
            self._commit(tx, hold.claim, start, made)

    def _commit(self, tx: Tx, held: Claim, start: _Start, made: _Made) -> None:
        gallery = galleries.by_id(tx, start.plan.need_gallery)
        galleries.lock(tx, gallery.id)
        now = self._catalog.now(tx)
        replaced = of_day(tx, start.parent, start.day)
        if not (made.built or replaced):
            finish(tx, held, [], now, sequence=None, view=None)
            return
        sequence = galleries.take_sequence(tx, gallery.id)
        view = publish_or_again(
            tx,
            gallery,
            start.plan,
            parent=start.parent,
            sequence=sequence,
            adds=made.builder.name(tx, made.built, now),
            replaces=replaced,
            checks=made.checks,
            now=now,
        )
        _take_from_shelf(tx, gallery, start)
        lines = [
            ledger.Line(REBUILD, one.count, one.count, category=one.category, day=one.day, made=1) for one in made.built
        ]
        finish(tx, held, lines, now, sequence=sequence, view=view.id)


class Dropper:
    """Handles the packs that take a day's segments out of the newest view."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, hold: Hold) -> None:
        """Publish the view without them, in one transaction."""
        with self._catalog.begin() as tx:
            leases.fence(tx, hold.claim)
            plan = plans.get(tx, hold.claim.plan)
            gallery = galleries.by_id(tx, plan.need_gallery)
            galleries.lock(tx, gallery.id)
            self._commit(tx, hold.claim, plan, gallery)

    def _commit(self, tx: Tx, held: Claim, plan: Plan, gallery: Gallery) -> None:
        now = self._catalog.now(tx)
        head = releases.head_of(tx, gallery.id, plan.need_lens)
        day = str(plan.spec["day"])
        dropped = of_day(tx, head, day)
        if not dropped:
            finish(tx, held, [], now, sequence=None, view=None)
            return
        sequence = galleries.take_sequence(tx, gallery.id)
        view = publish_or_again(
            tx, gallery, plan, parent=head, sequence=sequence, adds=(), replaces=dropped, checks=(), now=now
        )
        rows = [{"gallery": gallery.id, "lens": plan.need_lens, "segment": digest} for digest in dropped]
        tx.execute(sa.insert(shelved), rows)
        finish(tx, held, _counts(tx, dropped, day), now, sequence=sequence, view=view.id)


def of_day(tx: Tx, view: View, day: str) -> list[str]:
    """The segments of a day in a view."""
    days = sa.select(segments.c.digest).where(segments.c.gallery == view.gallery, segments.c.day == day)
    return sorted(set(tx.execute(days).scalars()) & set(view.segments))


def _take_from_shelf(tx: Tx, gallery: Gallery, start: _Start) -> None:
    days = sa.select(segments.c.digest).where(segments.c.gallery == gallery.id, segments.c.day == start.day)
    where = (shelved.c.gallery == gallery.id, shelved.c.lens == start.plan.need_lens, shelved.c.segment.in_(days))
    tx.execute(sa.delete(shelved).where(*where))


def _counts(tx: Tx, dropped: list[str], day: str) -> list[ledger.Line]:
    """The books of a drop: rows of segments, those of objects that were deleted since included."""
    query = (
        sa.select(segments.c.category, sa.func.sum(segments.c.count))
        .where(segments.c.digest.in_(dropped))
        .group_by(segments.c.category)
        .order_by(segments.c.category)
    )
    return [ledger.Line(DROP, int(rows), int(rows), category, day) for category, rows in tx.execute(query)]
