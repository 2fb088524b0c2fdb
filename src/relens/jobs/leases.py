"""Leased work: a pack is worked off by one worker at a time, and by another when that one dies.

A claim carries an epoch, which every later write checks under the pack's row lock: who lost his lease cannot commit.
Leases are kept by heartbeat; on the same host a dead process frees its pack at once. What a pack means, its handler
knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relens.errors import Conflict
from relens.jobs.hosts import Worker, is_alive
from relens.store import Tx
from relens.store.schema import packs, pins, plans, suspects

MAX_ATTEMPTS = 10
"""Errors of disk, catalog or engine in a row after which a pack rests until somebody resumes its plan."""
MAX_BACKOFF_S = 60.0
MAX_LOSSES = 3
"""Leases lost with the same entry in hand after which that entry is quarantined."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A pack in one worker's hands, under an epoch. `losses` counts leases that were lost with an entry in hand."""

    pack: int
    plan: int
    kind: str
    stage: str
    number: int
    spec: Mapping[str, Any]
    epoch: int
    careful: bool
    losses: Mapping[str, int]


def claim(tx: Tx, worker: Worker, now: float, lease_s: float, *, plan: int | None = None) -> Claim | None:
    """The next pack that can be worked on, now ours; None if there is none.

    Packs without entries first: they seal and keep in shape what answers, and wait for nobody's import. Then the oldest
    plan, in order. A pack of a later stage is free only when no pack of the stage before is unfinished.
    """
    free_lost(tx, worker.host, now)
    row = tx.execute(_next_pack(now, plan)).mappings().one_or_none()
    if row is None:
        return None
    tx.execute(
        sa.update(packs)
        .where(packs.c.id == row["id"])
        .values(
            state="running",
            epoch=row["epoch"] + 1,
            host=worker.host,
            pid=worker.pid,
            started=worker.started,
            lease_until=now + lease_s,
            in_hand=None,
            progress=0,
            claimed_at=now,
        )
    )
    lost = tx.execute(sa.select(suspects.c.entry, suspects.c.losses).where(suspects.c.pack == row["id"]))
    return Claim(
        pack=row["id"],
        plan=row["plan"],
        kind=row["kind"],
        stage=row["stage"],
        number=row["number"],
        spec=row["spec"],
        epoch=row["epoch"] + 1,
        careful=row["losses"] > 0,
        losses={row.entry: row.losses for row in lost},
    )


def heartbeat(tx: Tx, held: Claim, now: float, lease_s: float, *, progress: int) -> bool:
    """Keep a lease; False if it is lost."""
    update = sa.update(packs).where(*_held(held)).values(lease_until=now + lease_s, progress=progress)
    return tx.execute(update).rowcount == 1


def take_in_hand(tx: Tx, held: Claim, entry: str) -> None:
    """Record which entry is worked on, so that a crash counts against it alone. Conflict if the lease is lost."""
    if tx.execute(sa.update(packs).where(*_held(held)).values(in_hand=entry)).rowcount != 1:
        raise lease_lost(held)


def put_down(tx: Tx, held: Claim) -> None:
    """Nothing is in hand any more: what happens now is no entry's fault."""
    tx.execute(sa.update(packs).where(*_held(held)).values(in_hand=None))


def fence(tx: Tx, held: Claim) -> None:
    """Lock the pack for a commit. Conflict if the lease is lost."""
    if tx.execute(sa.select(packs.c.id).where(*_held(held)).with_for_update()).one_or_none() is None:
        raise lease_lost(held)


def finish(tx: Tx, held: Claim, now: float) -> None:
    """The pack is done, in the transaction that holds its results. Call `fence` first. Conflict if it is lost.

    Its pins go with it: what it has stored is named by now.
    """
    done = {"state": "done", "ended_at": now, "in_hand": None, "error": None, "lease_until": None}
    if tx.execute(sa.update(packs).where(*_held(held)).values(**done)).rowcount != 1:
        raise lease_lost(held)
    tx.execute(sa.delete(pins).where(pins.c.pack == held.pack))


def give_back(tx: Tx, held: Claim) -> None:
    """Stop working on a pack without blame, so that another worker can have it at once."""
    tx.execute(sa.update(packs).where(*_held(held)).values(**_FREE))


def back_off(tx: Tx, held: Claim, now: float, error: str) -> None:
    """Put a pack aside after an error that is nobody's picture's: longer each time, `failed` in the end."""
    row = tx.execute(sa.select(packs.c.attempts).where(*_held(held)).with_for_update()).one_or_none()
    if row is None:
        return
    attempts = row.attempts + 1
    rests = attempts >= MAX_ATTEMPTS
    tx.execute(
        sa.update(packs)
        .where(*_held(held))
        .values(
            **_FREE
            | {
                "state": "failed" if rests else "open",
                "attempts": attempts,
                "not_before": now + min(MAX_BACKOFF_S, 2.0 ** (attempts - 1)),
                "error": error,
            }
        )
    )
    if rests:
        tx.execute(sa.update(plans).where(plans.c.id == held.plan).values(state="failed"))


def free_lost(tx: Tx, host: str, now: float) -> int:
    """Free the packs whose lease ran out or whose worker on this host is dead. The number freed."""
    running = tx.execute(
        sa.select(packs.c.id, packs.c.host, packs.c.pid, packs.c.started, packs.c.lease_until, packs.c.in_hand)
        .where(packs.c.state == "running")
        .with_for_update(skip_locked=True)
    ).mappings()
    lost = [
        row
        for row in running
        if row["lease_until"] < now or (row["host"] == host and not is_alive(row["pid"], row["started"]))
    ]
    for row in lost:
        tx.execute(sa.update(packs).where(packs.c.id == row["id"]).values(**_FREE, losses=packs.c.losses + 1))
        if row["in_hand"] is not None:
            _suspect(tx, row["id"], row["in_hand"])
    return len(lost)


_FREE: dict[str, Any] = {
    "state": "open",
    "host": None,
    "pid": None,
    "started": None,
    "lease_until": None,
    "in_hand": None,
    "progress": 0,
}


def _next_pack(now: float, plan: int | None) -> sa.Select[Any]:
    before = packs.alias("before")
    upstream_unfinished = sa.exists().where(
        before.c.plan == packs.c.plan,
        before.c.stage == packs.c.after,
        before.c.state.not_in(["done", "cancelled"]),
    )
    query = (
        sa.select(packs, plans.c.kind)
        .join(plans, plans.c.id == packs.c.plan)
        .where(
            packs.c.state == "open",
            packs.c.not_before <= now,
            plans.c.ended_at.is_(None),
            plans.c.state != "held",
            sa.or_(packs.c.after.is_(None), ~upstream_unfinished),
        )
        .order_by(packs.c.size > 0, packs.c.plan, packs.c.id)
        .limit(1)
        .with_for_update(of=packs, skip_locked=True)
    )
    return query if plan is None else query.where(packs.c.plan == plan)


def _held(held: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return packs.c.id == held.pack, packs.c.epoch == held.epoch, packs.c.state == "running"


def _suspect(tx: Tx, pack: int, entry: str) -> None:
    where = (suspects.c.pack == pack, suspects.c.entry == entry)
    if tx.execute(sa.update(suspects).where(*where).values(losses=suspects.c.losses + 1)).rowcount == 0:
        tx.execute(sa.insert(suspects).values(pack=pack, entry=entry, losses=1))


def lease_lost(held: Claim) -> Conflict:
    return Conflict("jobs.lease-lost", f"pack {held.number} of plan {held.plan} was given to another worker meanwhile")
