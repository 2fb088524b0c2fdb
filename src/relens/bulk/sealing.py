"""Sealing: what a plan has staged becomes segments, the segments are checked, and a successor view is published.

One leased pack, free when no other pack of the plan is unfinished. The plan takes its one sequence number in the
transaction that publishes; if a check fails the view is written down as held, and nobody is served from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from relens import gallery as galleries
from relens import ledger, releases
from relens.bulk.importing import EMBED, SEAL, add_blob
from relens.gallery import Partition
from relens.gallery.items import apply_items
from relens.jobs import Claim, Hold, leases, pins, plans
from relens.jobs.plans import Plan
from relens.recipes import Lens, Space
from relens.releases import View
from relens.store import Blob, Blobs, Catalog, Tx
from relens.values import Floats
from relens.vectors import Check, Manifest, build_segment, check_vectors, open_segment, read_vectors

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
        built = [
            self._build(staged, hold, part, space)
            for part in staged.partitions
            if part.living and (space := staged.space_of(part)) is not None
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
            return _Staged(
                plan=plan,
                lens=lens,
                as_of=as_of,
                parent=releases.head_of(tx, plan.need_gallery, plan.need_lens),
                partitions=galleries.staged_partitions(tx, plan.id, as_of),
            )

    def _build(self, staged: _Staged, hold: Hold, part: Partition, space: Space) -> Manifest:
        return build_segment(
            self._blobs,
            gallery=staged.plan.need_gallery,
            category=part.category,
            day=part.day,
            space=space.digest,
            as_of=staged.as_of,
            parts=self._vectors(staged, hold, part, space),
            count=part.living,
            dim=space.dim,
        )

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
        released = sum(part.staged - part.living for part in staged.partitions)
        checks = [
            Check("ledger balances", not problems, "; ".join(problems) or "in = out + dropped + failed in every task"),
            Check(
                "counts equal",
                made == count + released,
                f"{made} objects booked, {count} in segments or without vectors, {released} released since",
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
            view = releases.publish(tx, gallery, plan.need_lens, sequence=sequence, **common)
            ledger.book(tx, plan.id, claim.pack, _lines(tx, staged, sequence))
            ends_as = "cancelled" if plans.get(tx, plan.id).cancelling else "done"
            plans.end(tx, plan.id, ends_as, now, sequence=sequence, view=view.id)
        leases.finish(tx, claim, now)


def _lines(tx: Tx, staged: _Staged, sequence: int) -> list[ledger.Line]:
    """The books of the sealing. Objects are released whose picture was deleted, by this plan or by anybody since."""
    built = {(part.category, part.day) for part in staged.partitions if part.living}
    return [
        ledger.Line(
            SEAL,
            part.staged,
            part.living,
            category=part.category,
            day=part.day,
            dropped={"released": part.staged - part.living} if part.staged > part.living else {},
            made=int((part.category, part.day) in built),
        )
        for part in galleries.staged_partitions(tx, staged.plan.id, sequence)
    ]
