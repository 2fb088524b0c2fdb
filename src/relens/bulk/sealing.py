"""Sealing: what a plan has staged becomes segments, the segments are checked, and a successor view is published.

One leased pack, free when no other pack of the plan is unfinished. The plan takes its one sequence number in the
transaction that publishes; if a check fails the view is written down as held, and nobody is served from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from relens import gallery as galleries
from relens import ledger, releases
from relens.bulk.doubles import find_doubles, least_cosine
from relens.bulk.importing import EMBED, SEAL, add_blob
from relens.bulk.upkeep import spaces_of
from relens.gallery import Partition, tail
from relens.gallery.deleting import bury_living
from relens.gallery.items import apply_items
from relens.gallery.tail import TailRow
from relens.jobs import Claim, Hold, leases, pins, plans
from relens.jobs.plans import Plan
from relens.recipes import Lens, Space
from relens.releases import View
from relens.store import Blob, Blobs, Catalog, Tx
from relens.values import Floats
from relens.vectors import Check, Ids, Manifest, build_segment, check_vectors, open_segment, read_vectors
from relens.vectors.files import unit_rows

SAMPLE = 32
"""Vectors of each segment that must find themselves."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Staged:
    """What a plan had staged when its sealing began."""

    plan: Plan
    lens: Lens
    as_of: int
    parent: View
    partitions: list[Partition]
    tail: Sequence[TailRow]
    doubles: Mapping[tuple[str, str], Ids] = field(default_factory=dict)

    def living(self, part: Partition) -> int:
        """How many objects of a partition go into its segment."""
        return part.living - len(self.doubles.get((part.category, part.day), ()))

    def space_of(self, part: Partition) -> Space | None:
        """The space of a partition's vectors; None if its objects have none."""
        return self.lens.space_of(part.category)


class Sealer:
    """Handles the sealing packs of imports."""

    def __init__(self, catalog: Catalog, blobs: Blobs) -> None:
        self._catalog = catalog
        self._blobs = blobs

    def __call__(self, hold: Hold) -> None:
        """Build, check and publish, or hold."""
        staged = self._staged(hold.claim)
        least = least_cosine(staged.lens)
        if least is not None:
            staged = replace(staged, doubles=self._doubles(staged, hold, least))
        built = [
            self._build(staged, hold, part, space)
            for part in staged.partitions
            if staged.living(part) and (space := staged.space_of(part)) is not None
        ]
        checks = self._check(staged, built)
        # What is read is named by the staged rows; what was written is named by nothing yet.
        stored = [digest for manifest in built for digest in (manifest.digest, manifest.data)]
        pins.pin(self._catalog, self._blobs, hold.claim, stored)
        with self._catalog.begin() as tx:
            leases.fence(tx, hold.claim)
            self._commit(tx, hold.claim, staged, built, checks)

    def _staged(self, claim: Claim) -> _Staged:
        with self._catalog.read() as tx:
            plan = plans.get(tx, claim.plan)
            lens = releases.get_lens(tx, plan.need_lens)
            as_of = galleries.by_id(tx, plan.need_gallery).sequence
            parent = releases.head_of(tx, plan.need_gallery, plan.need_lens)
            return _Staged(
                plan=plan,
                lens=lens,
                as_of=as_of,
                parent=parent,
                partitions=galleries.staged_partitions(tx, plan.id, as_of),
                tail=tail.between(tx, plan.need_gallery, spaces_of(lens), parent.folded_to, as_of),
            )

    def _doubles(self, staged: _Staged, hold: Hold, least: float) -> dict[tuple[str, str], Ids]:
        """Near-identical objects by category and day: the gallery, or this plan before them, has their like."""
        gallery = staged.plan.need_gallery
        held = [open_segment(self._blobs, digest, verify=False) for digest in staged.parent.segments]
        since = min((one.manifest.as_of for one in held), default=staged.parent.folded_to)
        with self._catalog.read() as tx:
            dead = galleries.dead_since(tx, gallery, min(since, staged.parent.folded_to), staged.as_of)[0]
        found: dict[tuple[str, str], Ids] = {}
        for category in sorted({part.category for part in staged.partitions}):
            parts = [part for part in staged.partitions if part.category == category]
            space = staged.space_of(parts[0])
            if space is None:
                continue
            before = [(one.ids, one.vectors) for one in held if one.manifest.category == category]
            before += _in_tail(staged.tail, category, space)
            of_day: dict[str, list[Ids]] = {}

            def batches(
                parts: Sequence[Partition] = parts, space: Space = space, of_day: dict[str, list[Ids]] = of_day
            ) -> Iterator[tuple[Ids, Floats]]:
                for part in parts:
                    for ids, vectors in self._vectors(staged, hold, part, space):
                        of_day.setdefault(part.day, []).append(ids)
                        yield ids, vectors

            doubles = find_doubles(batches(), before, dead, least)
            found |= {(category, day): np.intersect1d(np.concatenate(ids), doubles) for day, ids in of_day.items()}
        return found

    def _build(self, staged: _Staged, hold: Hold, part: Partition, space: Space) -> Manifest:
        return build_segment(
            self._blobs,
            gallery=staged.plan.need_gallery,
            category=part.category,
            day=part.day,
            space=space.digest,
            as_of=staged.as_of,
            parts=self._kept(staged, hold, part, space),
            count=staged.living(part),
            dim=space.dim,
        )

    def _kept(
        self, staged: _Staged, hold: Hold, part: Partition, space: Space
    ) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """What of a partition goes into its segment."""
        doubles = staged.doubles.get((part.category, part.day), ())
        for ids, vectors in self._vectors(staged, hold, part, space):
            stay = ~np.isin(ids, doubles)
            yield ids[stay], vectors[stay]

    def _vectors(
        self, staged: _Staged, hold: Hold, part: Partition, space: Space
    ) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Ids and vectors of a partition by increasing id, read back from where the packs stored them."""
        with self._catalog.read() as tx:
            for ids, places in galleries.staged_vectors(tx, staged.plan.id, space.digest, part, as_of=staged.as_of):
                hold.take_in_hand("segment")
                found = np.empty((len(ids), space.dim), dtype=np.float32)
                files = np.array([file for file, _ in places])
                rows = np.array([row for _, row in places], dtype=np.int64)
                for file in sorted(set(files)):
                    of_file = files == file
                    found[of_file] = read_vectors(self._blobs, file, rows[of_file], space=space.digest)
                yield ids, found

    def _check(self, staged: _Staged, built: list[Manifest]) -> list[Check]:
        """What must hold before a view goes live, whether it holds or not."""
        with self._catalog.read() as tx:
            problems = ledger.unbalanced(tx, staged.plan.id)
            made = sum(task["out"] for task in ledger.funnel(tx, staged.plan.id) if task["name"] == EMBED)
        count = sum(manifest.count for manifest in built)
        count += sum(part.living for part in staged.partitions if staged.space_of(part) is None)
        count += sum(map(len, staged.doubles.values()))
        released = sum(part.staged - part.living for part in staged.partitions)
        checks = [
            Check("ledger balances", not problems, "; ".join(problems) or "in = out + dropped + failed in every task"),
            Check(
                "counts equal",
                made == count + released,
                f"{made} objects booked, {count} in segments, without vectors or doubles, {released} released since",
            ),
        ]
        for manifest in built:
            segment = open_segment(self._blobs, manifest.digest, verify=True)
            checks += check_vectors(segment, sample=SAMPLE, seed=staged.plan.id)
        return checks

    def _commit(self, tx: Tx, claim: Claim, staged: _Staged, built: list[Manifest], checks: list[Check]) -> None:
        plan = staged.plan
        galleries.lock(tx, plan.need_gallery)
        now = self._catalog.now(tx)
        releases.add_segments(tx, built, now)
        for manifest in built:
            add_blob(tx, Blob(manifest.digest, self._blobs.size(manifest.digest)), "segment", now)
            add_blob(tx, Blob(manifest.data, manifest.data_bytes), "segment-data", now)
        gallery = galleries.by_id(tx, plan.need_gallery)
        common: dict[str, Any] = {
            "plan": plan.id,
            "parent": staged.parent,
            "adds": [manifest.digest for manifest in built],
            "checks": checks,
            "now": now,
        }
        if not all(check.ok for check in checks):
            view = releases.hold_view(tx, gallery, plan.need_lens, **common)
            plans.hold(tx, plan.id, view.id)
            log.error("view held", plan=plan.id, failed=[check.name for check in checks if not check.ok])
        else:
            sequence = galleries.take_sequence(tx, plan.need_gallery)
            apply_items(tx, plan.need_gallery, plan.id, sequence, now)
            buried = {
                place: bury_living(tx, plan.need_gallery, [int(one) for one in ids], sequence, plan=plan.id)
                for place, ids in staged.doubles.items()
            }
            view = releases.publish(tx, gallery, plan.need_lens, sequence=sequence, **common)
            ledger.book(tx, plan.id, claim.pack, _lines(tx, staged, sequence, buried))
            ends_as = "cancelled" if plans.get(tx, plan.id).cancelling else "done"
            plans.end(tx, plan.id, ends_as, now, sequence=sequence, view=view.id)
        leases.finish(tx, claim, now)


def _in_tail(rows: Sequence[TailRow], category: str, space: Space) -> list[tuple[Ids, Floats]]:
    """Ids and vectors of single enrolments that no view holds yet."""
    found = [row for row in rows if (row.category, row.space) == (category, space.digest)]
    halves = np.frombuffer(b"".join(row.vector for row in found), "<f2").reshape(len(found), space.dim)
    return [(np.array([row.object for row in found], np.int64), unit_rows(halves))]


def _lines(tx: Tx, staged: _Staged, sequence: int, buried: Mapping[tuple[str, str], int]) -> list[ledger.Line]:
    """The books of the sealing. Objects are released whose picture was deleted, by this plan or by anybody since.

    buried  how many doubles were left out, by category and day
    """
    built = {(part.category, part.day) for part in staged.partitions if staged.living(part) and staged.space_of(part)}
    lines = []
    for part in galleries.staged_partitions(tx, staged.plan.id, sequence):
        place = (part.category, part.day)
        doubles = buried.get(place, 0)
        dropped = {"duplicate": doubles, "released": part.staged - part.living - doubles}
        lines.append(
            ledger.Line(
                SEAL,
                part.staged,
                part.living,
                category=part.category,
                day=part.day,
                dropped={reason: count for reason, count in dropped.items() if count},
                made=int(place in built),
            )
        )
    return lines
