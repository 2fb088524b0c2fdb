"""Ending a plan before its time, with books that balance.

What did not run is dropped as `cancelled`; what is committed is sealed by the plan's last pack. A plan whose sealing
was refused or cannot be done is given up instead: what it staged is deleted, so that it stands in nobody's way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relens import gallery as galleries
from relens import ledger
from relens.bulk.importing import PACK_STAGE, READ, SEAL, SEAL_STAGE
from relens.bulk.upkeep import KINDS
from relens.gallery.deleting import discard
from relens.gallery.items import forget_items
from relens.jobs import plans
from relens.jobs.plans import Plan
from relens.store import Catalog, Tx


def cancel(catalog: Catalog, plan_id: int) -> Plan:
    """Cancel a plan. Conflict if it is over."""
    with catalog.begin() as tx:
        plan = plans.lock(tx, plan_id)
        plans.require_unfinished(plan)
        now = catalog.now(tx)
        if plan.kind in KINDS:  # nothing of it was visible, and what it stored is garbage
            plans.abandon(tx, plan_id, now)
            return plans.get(tx, plan_id)
        _cancel_open(tx, plan, now)
        if plans.cannot_be_sealed(tx, plan, SEAL_STAGE):
            _discard(tx, plan, now)
            return plans.get(tx, plan_id)
        return plans.resume(tx, plan_id)


def give_up(tx: Tx, plan_id: int, now: float) -> None:
    """End a plan whose gallery goes away, in the transaction that removes it: nothing of it is sealed."""
    plan = plans.lock(tx, plan_id)
    if plan.ended_at is None:
        _cancel_open(tx, plan, now)
        forget_items(tx, plan_id)
        plans.abandon(tx, plan_id, now)


def _cancel_open(tx: Tx, plan: Plan, now: float) -> None:
    for pack, spec in plans.cancel_open(tx, plan.id, PACK_STAGE, now):
        ledger.book(tx, plan.id, pack, _cancelled(spec["days"], plan.day))


def _cancelled(days: Mapping[str, int], plan_day: str) -> list[ledger.Line]:
    counts: dict[str, int] = {}
    for day, count in days.items():
        counts[day or plan_day] = counts.get(day or plan_day, 0) + count
    return [ledger.Line(READ, count, 0, day=day, dropped={"cancelled": count}) for day, count in counts.items()]


def _discard(tx: Tx, plan: Plan, now: float) -> None:
    """Delete what a plan staged. It was never visible; what is, stays as it is."""
    galleries.lock(tx, plan.need_gallery)
    parts = galleries.staged_partitions(tx, plan.id, galleries.by_id(tx, plan.need_gallery).sequence)
    sequence = galleries.take_sequence(tx, plan.need_gallery)
    discard(tx, plan.need_gallery, plan.id, sequence)
    lines = [
        ledger.Line(SEAL, part.staged, 0, part.category, part.day, _reasons(part)) for part in parts if part.staged
    ]
    ledger.book(tx, plan.id, plans.pack_of(tx, plan.id, SEAL_STAGE), lines)
    plans.abandon(tx, plan.id, now, sequence=sequence)


def _reasons(part: galleries.Partition) -> dict[str, Any]:
    reasons = {"discarded": part.living, "released": part.staged - part.living}
    return {reason: count for reason, count in reasons.items() if count}
