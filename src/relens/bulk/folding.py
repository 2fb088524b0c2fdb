"""Folding: what was enrolled one by one becomes segments, together with small segments of the same category and day.

One leased pack. Vectors go from the tail into files, which are the truth from then on; segments are built from files
alone. The successor view says how far the tail is folded in; what the view before it had folded is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from relens import gallery as galleries
from relens import ledger, releases
from relens.bulk.building import BATCH, Builder
from relens.bulk.upkeep import COMPACT, FOLD, finish, publish_or_again, spaces_of
from relens.errors import Conflict
from relens.gallery import places, tail
from relens.gallery.places import Place
from relens.gallery.tail import TailRow
from relens.jobs import Claim, Hold, leases, plans
from relens.jobs.plans import Plan
from relens.recipes import Lens
from relens.releases import View
from relens.store import Blob, Blobs, Catalog, Tx
from relens.vectors import Check, Ids, Manifest, open_segment
from relens.vectors.files import write_halves

MOST_PARTS = 8
KEPT_PARTS = 4
"""A category and day with more segments than the one keeps its largest of the other, and the rest become one."""
WORN = 4
"""A segment of which one row in so many is dead is built anew without them."""


@dataclass(frozen=True, slots=True)
class Part:
    """An index part as folding sees it: a segment with its living ids, and how many rows it has."""

    digest: str
    count: int
    living: Ids

    @property
    def is_worn(self) -> bool:
        return (self.count - len(self.living)) * WORN >= max(self.count, 1)


def choose(parts: Sequence[Part], fresh: int) -> list[Part]:
    """Which segments of a category and day are merged with so many new rows.

    Worn ones always; then, from the smallest on, those of up to twice the rows that have come together: each row is
    copied as often as the gallery doubles. Where there are too many all the same, all but the largest few.
    """
    chosen = [part for part in parts if part.is_worn]
    rest = sorted((part for part in parts if not part.is_worn), key=lambda part: (len(part.living), part.digest))
    rows = fresh + sum(len(part.living) for part in chosen)
    merged = 0
    for part in rest:
        if len(part.living) > 2 * rows:
            break
        rows += len(part.living)
        merged += 1
    if len(rest) - merged > MOST_PARTS:
        merged = len(rest) - KEPT_PARTS
    return chosen + rest[:merged]


@dataclass(frozen=True, slots=True)
class _Start:
    """What a gallery was like when its folding began: all of one moment."""

    plan: Plan
    lens: Lens
    parent: View
    upto: int
    rows: int
    dead: Ids
    deleted: int  # objects, since the tail was folded last
    tailed: dict[tuple[str, str], tuple[int, int]]  # category and day -> rows, and those that live
    fresh: list[TailRow] = field(default_factory=list)  # those that live, by object


class Folder:
    """Handles the folding packs of every kind of upkeep."""

    def __init__(self, catalog: Catalog, blobs: Blobs) -> None:
        self._catalog = catalog
        self._blobs = blobs

    def __call__(self, hold: Hold) -> None:
        """Fold, check and publish; nothing is published if nothing has come or gone and nothing is merged."""
        start = self._start(hold.claim)
        builder = Builder(self._catalog, self._blobs, hold, start.plan.need_gallery, start.upto)
        files, placed = self._write(start, hold)
        replaced: set[str] = set()
        built: list[Manifest] = []
        for key, ids, merged in self._partitions(start):
            replaced.update(part.digest for part in merged)
            space = start.lens.space_of(key[0])
            if len(ids) and space is not None:
                built.append(builder.build(*key, space, ids, placed))
        checks = [_counted(start, placed), *builder.check(built)]
        builder.pin(built, files)
        with self._catalog.begin() as tx:
            leases.fence(tx, hold.claim)
            self._commit(tx, hold.claim, start, builder, _Made(files, placed, built, replaced, checks))

    def _start(self, held: Claim) -> _Start:
        with self._catalog.begin() as tx:  # under the gallery's lock: a view and a sequence that belong together
            plan = plans.get(tx, held.plan)
            upto = galleries.lock(tx, plan.need_gallery)
            lens = releases.get_lens(tx, plan.need_lens)
            parent = releases.head_of(tx, plan.need_gallery, plan.need_lens)
        spaces, gallery = spaces_of(lens), plan.need_gallery
        with self._catalog.read() as tx:
            dead, since = galleries.dead_since(tx, gallery, 0, upto)
            rows = tail.between(tx, gallery, spaces, parent.folded_to, upto)
        dead = np.sort(dead)
        alive = ~np.isin(np.array([row.object for row in rows], dtype=np.int64), dead)
        counts: dict[tuple[str, str], tuple[int, int]] = {}
        for row, lives in zip(rows, alive, strict=True):
            before = counts.get((row.category, row.day), (0, 0))
            counts[row.category, row.day] = before[0] + 1, before[1] + int(lives)
        fresh = [row for row, lives in zip(rows, alive, strict=True) if lives]
        deleted = int((since > parent.folded_to).sum())
        return _Start(plan, lens, parent, upto, len(rows), dead, deleted, counts, fresh)

    def _write(self, start: _Start, hold: Hold) -> tuple[list[Blob], dict[int, Place]]:
        """The tail's living vectors in files, and where each object's lies."""
        files: list[Blob] = []
        placed: dict[int, Place] = {}
        for space in sorted({row.space for row in start.fresh}):
            rows = [row for row in start.fresh if row.space == space]
            for some in (rows[at : at + BATCH] for at in range(0, len(rows), BATCH)):
                hold.take_in_hand("vectors")
                halves = np.frombuffer(b"".join(row.vector for row in some), "<f2").reshape(len(some), -1)
                file = write_halves(self._blobs, halves, space=space)
                placed.update({row.object: (file.digest, number) for number, row in enumerate(some)})
                files.append(file)
        return files, placed

    def _partitions(self, start: _Start) -> Iterator[tuple[tuple[str, str], Ids, list[Part]]]:
        """What is to be built: category and day, its ids in order, and the segments that these replace."""
        fresh: dict[tuple[str, str], list[int]] = {}
        for row in start.fresh:
            fresh.setdefault((row.category, row.day), []).append(row.object)
        parts: dict[tuple[str, str], list[Part]] = {}
        for digest in start.parent.segments:
            segment = open_segment(self._blobs, digest, verify=False)
            living = segment.ids[~np.isin(segment.ids, start.dead)]
            key = segment.manifest.category, segment.manifest.day
            parts.setdefault(key, []).append(Part(digest, len(segment.ids), living))
        for key in sorted({*fresh, *parts}):
            new = np.array(fresh.get(key, ()), dtype=np.int64)
            merged = choose(parts.get(key, ()), len(new))
            if len(new) or len(merged) > 1 or any(part.is_worn for part in merged):
                yield key, np.sort(np.concatenate([new, *(part.living for part in merged)])), merged

    def _commit(self, tx: Tx, held: Claim, start: _Start, builder: Builder, made: _Made) -> None:
        gallery = start.plan.need_gallery
        galleries.lock(tx, gallery)
        now = self._catalog.now(tx)
        if tail.count(tx, gallery, spaces_of(start.lens), start.parent.folded_to, start.upto) != start.rows:
            raise Conflict("gallery.changed", "rows of the tail were folded or purged meanwhile")
        ends: dict[str, int | None] = {"sequence": None, "view": None}
        if start.rows or made.replaced or start.deleted:
            ends = _publish(tx, start, builder, made, now)
        lines = [
            ledger.Line(
                FOLD,
                rows,
                living,
                category=category,
                day=day,
                dropped={"deleted": rows - living} if rows > living else {},
                made=sum((one.category, one.day) == (category, day) for one in made.built),
            )
            for (category, day), (rows, living) in sorted(start.tailed.items())
        ]
        finish(tx, held, lines, now, **(ends if start.plan.kind == COMPACT else {}))


@dataclass(frozen=True, slots=True)
class _Made:
    """What a folding has made, and the segments that it replaces."""

    files: Sequence[Blob]
    placed: Mapping[int, Place]
    built: Sequence[Manifest]
    replaced: Collection[str]
    checks: Sequence[Check]


def _counted(start: _Start, placed: Mapping[int, Place]) -> Check:
    """Whether each living row of the tail has come into a file."""
    detail = f"{start.rows} rows in the tail, {len(placed)} of them folded, {start.rows - len(start.fresh)} deleted"
    return Check("counts equal", len(placed) == len(start.fresh), detail)


def _publish(tx: Tx, start: _Start, builder: Builder, made: _Made, now: float) -> dict[str, int | None]:
    """The successor view; what the view before it had folded in is forgotten."""
    gallery = galleries.by_id(tx, start.plan.need_gallery)
    adds = builder.name(tx, made.built, now, made.files)
    spaces = {row.object: row.space for row in start.fresh}
    for space in sorted(set(spaces.values())):
        places.keep(tx, space, {one: place for one, place in made.placed.items() if spaces[one] == space})
    sequence = galleries.take_sequence(tx, gallery.id)
    view = publish_or_again(
        tx,
        gallery,
        start.plan,
        parent=start.parent,
        sequence=sequence,
        adds=adds,
        replaces=made.replaced,
        folded_to=start.upto,
        checks=made.checks,
        now=now,
    )
    tail.forget(tx, gallery.id, min(start.parent.folded_to, releases.folded_to(tx, gallery.id)))
    return {"sequence": sequence, "view": view.id}
