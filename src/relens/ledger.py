"""The funnel: what went into each task of a plan, what came out, and why the rest did not.

Every line balances, `in = out + dropped + failed`, in the task's own input unit; a line that does not cannot be made.
Lines are booked per pack in the transaction that ends the pack, so a pack that ran twice is counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from relens.errors import Broken
from relens.store import Tx
from relens.store.schema import ledger, packs, tasks

ALL = "all"
"""The category of what has none."""


@dataclass(frozen=True, slots=True)
class Line:
    """Counts of one task, category and day, in the task's input unit; `made` counts what came of it."""

    task: str
    entered: int
    out: int
    category: str = ALL
    day: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    failed: int = 0
    made: int = 0

    def __post_init__(self) -> None:
        if self.entered != self.out + sum(self.dropped.values()) + self.failed:
            raise Broken(
                "ledger.unbalanced",
                f"task {self.task}: {self.entered} in, but {self.out} out, {dict(self.dropped)} dropped, "
                f"{self.failed} failed",
                hint="this is a fault of relens: please report it",
            )


class Tally:
    """Counts while a pack runs, then gives its lines. One per pack."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], Counter[str]] = {}
        self._drops: dict[tuple[str, str, str], Counter[str]] = {}

    def passed(self, task: str, day: str, *, made: int = 0, category: str = ALL) -> None:
        self._count(task, category, day).update({"out": 1, "made": made})

    def dropped(self, task: str, day: str, reason: str, *, category: str = ALL) -> None:
        self._count(task, category, day)
        self._drops.setdefault((task, category, day), Counter())[reason] += 1

    def failed(self, task: str, day: str, *, category: str = ALL) -> None:
        self._count(task, category, day)["failed"] += 1

    def lines(self) -> list[Line]:
        return [self._line(*key) for key in sorted(self._counts)]

    def _count(self, task: str, category: str, day: str) -> Counter[str]:
        counts = self._counts.setdefault((task, category, day), Counter())
        counts["in"] += 1
        return counts

    def _line(self, task: str, category: str, day: str) -> Line:
        counts = self._counts[task, category, day]
        return Line(
            task=task,
            category=category,
            day=day,
            entered=counts["in"],
            out=counts["out"],
            dropped=dict(self._drops.get((task, category, day), {})),
            failed=counts["failed"],
            made=counts["made"],
        )


def book(tx: Tx, plan: int, pack: int, lines: Iterable[Line]) -> None:
    """Write a pack's lines. A second booking of the same pack is refused by the catalog."""
    rows = [
        {
            "plan": plan,
            "pack": pack,
            "task": line.task,
            "category": line.category,
            "day": line.day,
            "in": line.entered,
            "out": line.out,
            "dropped": dict(line.dropped),
            "failed": line.failed,
            "made": line.made,
        }
        for line in lines
    ]
    if rows:
        tx.execute(sa.insert(ledger), rows)


def lines_of(tx: Tx, plan: int) -> list[Line]:
    """The plan's lines summed over its packs, by task, category and day."""
    summed: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in tx.execute(sa.select(ledger).where(ledger.c.plan == plan)).mappings():
        total = summed.setdefault(
            (row["task"], row["category"], row["day"]), {"counts": Counter(), "dropped": Counter()}
        )
        total["counts"].update({name: row[name] for name in ("in", "out", "failed", "made")})
        total["dropped"].update(row["dropped"])
    return [
        Line(
            task=task,
            category=category,
            day=day,
            entered=total["counts"]["in"],
            out=total["counts"]["out"],
            dropped=dict(total["dropped"]),
            failed=total["counts"]["failed"],
            made=total["counts"]["made"],
        )
        for (task, category, day), total in sorted(summed.items())
    ]


def funnel(tx: Tx, plan: int) -> list[dict[str, Any]]:
    """One JSON object per task, in order: name, stage, unit, in, out, dropped by reason, failed, made, packs."""
    by_task: dict[str, list[Line]] = {}
    for line in lines_of(tx, plan):
        by_task.setdefault(line.task, []).append(line)
    stages = _pack_states(tx, plan)
    rows = tx.execute(sa.select(tasks).where(tasks.c.plan == plan).order_by(tasks.c.position)).mappings()
    return [_task_json(row, by_task.get(row["name"], []), stages[row["stage"]]) for row in rows]


def unbalanced(tx: Tx, plan: int) -> list[str]:
    """What is wrong with a plan's books, as sentences; empty if all balances.

    Each line balances by itself; here the first task must also have taken in all entries of the packs that are over,
    and each other task what the task before gave it, in its unit.
    """
    problems = []
    expected = _entries_over(tx, plan)
    before: dict[str, Any] | None = None
    for task in funnel(tx, plan):
        if before is None and task["in"] != expected:
            problems.append(f"the packs had {expected} entries, {task['name']} took {task['in']}")
        if before is not None and before["stage"] == task["stage"]:
            given = before["made"] if before["unit"] != task["unit"] else before["out"]
            if given != task["in"]:
                problems.append(f"{before['name']} gave {given}, {task['name']} took {task['in']}")
        before = task
    return problems


def _entries_over(tx: Tx, plan: int) -> int:
    """Entries of the first stage's packs that are done or cancelled."""
    over = (packs.c.plan == plan, packs.c.after.is_(None), packs.c.state.in_(["done", "cancelled"]))
    return int(tx.execute(sa.select(sa.func.coalesce(sa.func.sum(packs.c.size), 0)).where(*over)).scalar_one())


def _pack_states(tx: Tx, plan: int) -> dict[str, Counter[str]]:
    states: dict[str, Counter[str]] = {}
    query = (
        sa.select(packs.c.stage, packs.c.state, sa.func.count())
        .where(packs.c.plan == plan)
        .group_by(packs.c.stage, packs.c.state)
    )
    for stage, state, count in tx.execute(query):
        states.setdefault(stage, Counter())[state] = count
    return states


def _task_json(row: sa.RowMapping, lines: list[Line], states: Counter[str]) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    for line in lines:
        dropped.update(line.dropped)
    return {
        "name": row["name"],
        "stage": row["stage"],
        "unit": row["unit"],
        "in": sum(line.entered for line in lines),
        "out": sum(line.out for line in lines),
        "dropped": dict(sorted(dropped.items())),
        "failed": sum(line.failed for line in lines),
        "made": sum(line.made for line in lines),
        "packs": {"total": states.total(), "done": states["done"], "failed": states["failed"]},
    }
