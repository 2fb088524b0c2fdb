"""Plans that keep a gallery in shape: compact it, build or drop a day, purge what was deleted.

Each begins by folding the tail into segments. Asked for again while unfinished, such a plan goes on. Its packs know
their size when they have looked, not when they are written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from relens import gallery as galleries
from relens import ledger, releases
from relens.errors import Conflict
from relens.gallery import Gallery, tail
from relens.gallery.deleting import count_dead, newest_dead
from relens.jobs import Claim, leases, plans
from relens.jobs.plans import Pack, Plan, Task
from relens.recipes import Lens
from relens.releases import View
from relens.store import Catalog, Tx
from relens.store.schema import packs
from relens.store.schema import plans as plan_rows
from relens.values import digest_of

COMPACT, REBUILD, DROP, PURGE = "compact", "rebuild", "drop", "purge"
KINDS = (COMPACT, REBUILD, DROP, PURGE)
FOLD = "fold"
"""The first task of each, and the stage that does it."""

NOTHING: Mapping[str, Any] = {}


def plan_upkeep(catalog: Catalog, gallery: str, kind: str, *, spec: Mapping[str, Any] = NOTHING) -> tuple[int, bool]:
    """Write the plan of some upkeep: its id, and whether it was there already, unfinished. Missing without a gallery.

    `spec` is what makes two of a kind different, like a day. A purge is of all that is deleted when it is asked for:
    one that is under way takes in what was deleted since.
    """
    with catalog.begin() as tx:
        now = catalog.now(tx)
        here = galleries.get(tx, gallery)
        galleries.lock(tx, here.id)
        key = digest_of({"gallery": here.id, "spec": dict(spec)})
        spec = {**spec, **({"upto": newest_dead(tx, here.id)} if kind == PURGE else {})}
        unfinished = plans.find_unfinished(tx, kind, key)
        if unfinished is not None:
            plans.resume(tx, unfinished)
            tx.execute(sa.update(plan_rows).where(plan_rows.c.id == unfinished).values(spec=spec))
            return unfinished, True
        stages = [FOLD] if kind == COMPACT else [FOLD, kind]
        plan = plans.create(
            tx,
            kind=kind,
            key=key,
            gallery=here.id,
            lens=releases.live_lens(tx, here).digest,
            spec=spec,
            day=dt.datetime.fromtimestamp(now).astimezone().date().isoformat(),
            todo=[Task(stage, stage, "object") for stage in stages],
            work=[Pack(stage, 1, {}, 0, after=FOLD if number else None) for number, stage in enumerate(stages)],
            now=now,
        )
    return plan, False


def is_due(tx: Tx, gallery: Gallery, at: int) -> bool:
    """Whether a gallery is to be compacted: that much was enrolled or deleted since, and no upkeep is under way."""
    lens = releases.live_lens(tx, gallery)
    folded_to = releases.head_of(tx, gallery.id, lens.digest).folded_to
    if gallery.sequence - folded_to < 1:
        return False
    waiting = tail.count(tx, gallery.id, spaces_of(lens), folded_to) + count_dead(tx, gallery.id, folded_to)
    if waiting < at:
        return False
    under_way = sa.select(plan_rows.c.id).where(
        plan_rows.c.gallery == gallery.id, plan_rows.c.ended_at.is_(None), plan_rows.c.kind.in_(KINDS)
    )
    return tx.execute(under_way.limit(1)).one_or_none() is None


def spaces_of(lens: Lens) -> set[str]:
    """The spaces of all vectors that are made through a lens."""
    own = {space.digest for space in lens.spaces.values() if space is not None}
    return own | {lens.space} if lens.space else own


def publish_or_again(tx: Tx, gallery: Gallery, plan: Plan, *, lens: str | None = None, **how: Any) -> View:
    """Publish a view of the plan's lens, or of another, as `releases.publish` does.

    Conflict `gallery.changed` if another has replaced the same meanwhile: then the pack runs again, from what there
    is by then.
    """
    try:
        return releases.publish(tx, gallery, lens or plan.need_lens, plan=plan.id, **how)
    except Conflict as error:
        raise Conflict("gallery.changed", error.message) from error


def finish(tx: Tx, held: Claim, lines: Sequence[ledger.Line], now: float, **ends: Any) -> None:
    """Book what a pack did, and end it; with `ends` its plan, too, which then has these values. Call `fence` first."""
    size = sum(line.entered for line in lines)
    tx.execute(sa.update(packs).where(packs.c.id == held.pack).values(size=size))
    ledger.book(tx, held.plan, held.pack, lines)
    if ends:
        plans.end(tx, held.plan, "done", now, **ends)
    leases.finish(tx, held, now)
