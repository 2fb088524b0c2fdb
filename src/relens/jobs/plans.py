"""Plans: one run with an id, its tasks and its packs, written in one transaction and worked off by leases.

The same request while a plan is unfinished finds that plan. States: running, failed (packs rest after too many errors),
held (sealed, but a check refused the view), done, cancelled; the first three go on with `resume`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relens.errors import Conflict, Missing
from relens.store import Tx
from relens.store.schema import galleries, packs, plans, quarantine, tasks


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a plan. Tasks of one stage run fused in that stage's packs and are counted apart, in their unit."""

    name: str
    stage: str
    unit: str


@dataclass(frozen=True, slots=True)
class Pack:
    """A unit of work to be: free when no pack of the stage `after` is unfinished."""

    stage: str
    number: int
    spec: Mapping[str, Any]
    size: int
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as it stands."""

    id: int
    kind: str
    gallery: int | None
    lens: str | None
    state: str
    cancelling: bool
    spec: Mapping[str, Any]
    day: str
    sequence: int | None
    view: int | None
    created_at: float
    ended_at: float | None

    @property
    def need_gallery(self) -> int:
        """The gallery of a plan that has one."""
        assert self.gallery is not None
        return self.gallery

    @property
    def need_lens(self) -> str:
        """The lens of a plan that has one."""
        assert self.lens is not None
        return self.lens

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen any more unless somebody resumes it."""
        return self.state != "running"


def create(
    tx: Tx,
    *,
    kind: str,
    key: str,
    gallery: int,
    lens: str,
    spec: Mapping[str, Any],
    day: str,
    todo: Sequence[Task],
    work: Sequence[Pack],
    now: float,
) -> int:
    """Write a plan with its tasks and packs. Its id."""
    values = {"kind": kind, "key": key, "gallery": gallery, "lens": lens, "spec": dict(spec), "day": day}
    plan = tx.execute(
        sa.insert(plans).values(**values, state="running", created_at=now).returning(plans.c.id)
    ).scalar_one()
    tx.execute(
        sa.insert(tasks),
        [
            {"plan": plan, "name": task.name, "position": position, "stage": task.stage, "unit": task.unit}
            for position, task in enumerate(todo)
        ],
    )
    tx.execute(
        sa.insert(packs),
        [
            {
                "plan": plan,
                "stage": pack.stage,
                "after": pack.after,
                "number": pack.number,
                "spec": dict(pack.spec),
                "size": pack.size,
                "state": "open",
            }
            for pack in work
        ],
    )
    return int(plan)


def find_unfinished(tx: Tx, kind: str, key: str) -> int | None:
    """The plan that was asked for with the same words and is not over, if there is one."""
    query = sa.select(plans.c.id).where(plans.c.kind == kind, plans.c.key == key, plans.c.ended_at.is_(None))
    return tx.execute(query).scalar_one_or_none()


def get(tx: Tx, plan: int, *, lock: bool = False) -> Plan:
    """A plan by id. Missing if there is none."""
    query = sa.select(*[plans.c[name] for name in Plan.__dataclass_fields__]).where(plans.c.id == plan)
    row = tx.execute(query.with_for_update(key_share=True) if lock else query).mappings().one_or_none()
    if row is None:
        raise Missing("jobs.no-plan", f"there is no plan {plan}", hint="`relens plan ls` lists them")
    return Plan(**row)


def lock(tx: Tx, plan: int) -> Plan:
    """Lock a plan against everybody who commits into it: its packs first, in order, then itself; as it stands then."""
    tx.execute(sa.select(packs.c.id).where(packs.c.plan == plan).order_by(packs.c.id).with_for_update())
    return get(tx, plan, lock=True)


def newest_first(tx: Tx, limit: int = 100, *, only_unfinished: bool = False) -> list[tuple[Plan, str | None]]:
    """Plans with the names of their galleries."""
    columns = [plans.c[name] for name in Plan.__dataclass_fields__]
    query = sa.select(*columns, galleries.c.name.label("gallery_name")).outerjoin(
        galleries, galleries.c.id == plans.c.gallery
    )
    if only_unfinished:
        query = query.where(plans.c.ended_at.is_(None))
    rows = tx.execute(query.order_by(plans.c.id.desc()).limit(limit)).mappings()
    return [(Plan(**{k: v for k, v in row.items() if k != "gallery_name"}), row["gallery_name"]) for row in rows]


def unfinished(tx: Tx, gallery: int | None = None) -> list[int]:
    """Ids of plans that are not over, oldest first."""
    query = sa.select(plans.c.id).where(plans.c.ended_at.is_(None)).order_by(plans.c.id)
    return list(tx.execute(query if gallery is None else query.where(plans.c.gallery == gallery)).scalars())


def work_waits(tx: Tx) -> bool:
    """Whether a worker could find a pack to work on, now or after its back-off."""
    query = (
        sa.select(packs.c.id)
        .join(plans, plans.c.id == packs.c.plan)
        .where(packs.c.state.in_(["open", "running"]), plans.c.ended_at.is_(None), plans.c.state == "running")
        .limit(1)
    )
    return tx.execute(query).one_or_none() is not None


def end(tx: Tx, plan: int, state: str, now: float, **values: Any) -> None:
    """Close a plan as done or cancelled."""
    tx.execute(sa.update(plans).where(plans.c.id == plan).values(state=state, ended_at=now, **values))


def cannot_be_sealed(tx: Tx, plan: Plan, stage: str) -> bool:
    """Whether the last pack of a plan, that of `stage`, was refused by its checks or failed too often."""
    query = sa.select(packs.c.id).where(packs.c.plan == plan.id, packs.c.stage == stage, packs.c.state == "failed")
    return plan.state == "held" or tx.execute(query).one_or_none() is not None


def pack_of(tx: Tx, plan: int, stage: str) -> int:
    """The only pack of a stage that has one."""
    return int(tx.execute(sa.select(packs.c.id).where(packs.c.plan == plan, packs.c.stage == stage)).scalar_one())


def abandon(tx: Tx, plan: int, now: float, **values: Any) -> None:
    """Close a plan as cancelled: nothing of it runs or commits any more. Call `lock` first, and book what is open."""
    where = (packs.c.plan == plan, packs.c.state.in_(["open", "running", "failed"]))
    tx.execute(sa.update(packs).where(*where).values(state="cancelled", epoch=packs.c.epoch + 1, ended_at=now))
    end(tx, plan, "cancelled", now, **values)


def hold(tx: Tx, plan: int, view: int) -> None:
    """Mark a plan as sealed with a view that its checks refused."""
    tx.execute(sa.update(plans).where(plans.c.id == plan).values(state="held", view=view))


def require_unfinished(plan: Plan) -> None:
    """Conflict if a plan is over for good."""
    if plan.ended_at is not None:
        raise Conflict("jobs.plan-over", f"plan {plan.id} is {plan.state}; there is nothing left to do in it")


def resume(tx: Tx, plan: int) -> Plan:
    """Let resting packs run again; a held plan is sealed again. Conflict if it is over for good."""
    found = lock(tx, plan)
    require_unfinished(found)
    again = ["failed", "done"] if found.state == "held" else ["failed"]
    where = [packs.c.plan == plan, packs.c.state.in_(again)]
    if found.state == "held":
        where.append(packs.c.after.is_not(None))
    reset = {"state": "open", "attempts": 0, "not_before": 0.0, "error": None}
    tx.execute(sa.update(packs).where(*where).values(**reset))
    waiting = [packs.c.plan == plan, packs.c.state == "open"]
    tx.execute(sa.update(packs).where(*waiting).values(attempts=0, not_before=0.0))
    tx.execute(sa.update(plans).where(plans.c.id == plan).values(state="running"))
    return get(tx, plan)


def cancel_open(tx: Tx, plan: int, stage: str, now: float) -> list[tuple[int, Mapping[str, Any]]]:
    """Take every unfinished pack of a stage from its worker for good: (id, spec) of each.

    The epoch moves on, so that a worker that still runs one cannot commit it.
    """
    where = (packs.c.plan == plan, packs.c.stage == stage, packs.c.state.in_(["open", "running", "failed"]))
    rows = tx.execute(sa.select(packs.c.id, packs.c.spec).where(*where).with_for_update()).all()
    tx.execute(
        sa.update(packs).where(*where).values(state="cancelled", epoch=packs.c.epoch + 1, ended_at=now, in_hand=None)
    )
    tx.execute(sa.update(plans).where(plans.c.id == plan).values(cancelling=True))
    return [(row.id, row.spec) for row in rows]


def quarantined(tx: Tx, plan: int) -> list[dict[str, Any]]:
    """Entries that failed for good, each with its cause."""
    rows = tx.execute(sa.select(quarantine).where(quarantine.c.plan == plan).order_by(quarantine.c.number)).mappings()
    return [{name: row[name] for name in ("entry", "uri", "task", "code", "message")} for row in rows]


def progress(tx: Tx, plan: int) -> dict[str, Any]:
    """How far a plan is: entries done (packs in work included) and in all, entries per second, the last error."""
    rows = tx.execute(sa.select(packs).where(packs.c.plan == plan, packs.c.after.is_(None))).mappings().all()
    done = sum(row["size"] if row["state"] in {"done", "cancelled"} else row["progress"] for row in rows)
    errors = [row["error"] for row in rows if row["error"]]
    sealing = tx.execute(
        sa.select(packs.c.error).where(packs.c.plan == plan, packs.c.after.is_not(None), packs.c.error.is_not(None))
    ).scalars()
    return {
        "done": done,
        "total": sum(row["size"] for row in rows),
        "rate": _rate(rows),
        "error": next(iter([*errors, *sealing]), None),
    }


def _rate(rows: Sequence[sa.RowMapping]) -> float | None:
    """Entries per second of the whole run: the rate of one worker, from packs that ended, times the workers at work."""
    timed = [row for row in rows if row["state"] == "done" and row["claimed_at"] and row["ended_at"]]
    busy_s = sum(max(row["ended_at"] - row["claimed_at"], 1e-3) for row in timed)
    if not timed:
        return None
    running = sum(row["state"] == "running" for row in rows)
    if running:
        return float(sum(row["size"] for row in timed) / busy_s * running)
    span = max(row["ended_at"] for row in timed) - min(row["claimed_at"] for row in timed)
    return float(sum(row["size"] for row in timed) / max(span, 1e-3))
