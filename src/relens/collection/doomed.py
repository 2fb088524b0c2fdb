"""What may go from the catalog: superseded views with their releases, the segments and indexes that only they named,
and the contents of removed galleries.

The newest view of a lens always stays, because an alias may mean it at any moment; so do those that are young, and a
number of older ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from relens.store import Tx
from relens.store.schema import (
    galleries,
    heads,
    indexes,
    packs,
    plans,
    quantizers,
    releases,
    segments,
    shelved,
    view_indexes,
    view_segments,
    views,
)

SKEW_S = 300.0
"""By how much clocks of hosts and stores may differ."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept although nothing needs it: superseded views of each gallery and lens, and what is young."""

    keep_views: int = 10
    view_age_s: float = 3600.0
    older_than_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Moments by the catalog's clock: what was superseded, or stored, since then stays."""

    views: float
    blobs: float


@dataclass(frozen=True, slots=True)
class Doomed:
    """What goes from the catalog. `galleries` are removed ones, whose plans are over.

    `idle` are segments, indexes and quantizers that nothing uses either and that are too young to go.
    """

    galleries: frozenset[int]
    views: frozenset[int]
    segments: frozenset[str]
    indexes: frozenset[str]
    quantizers: frozenset[str]
    idle: frozenset[str]

    def deleted(self) -> Doomed:
        """What is left of it when its rows are deleted: those that are there still were taken up again."""
        none: frozenset[Any] = frozenset()
        return Doomed(none, none, none, none, none, self.idle)


def limits(tx: Tx, rules: Rules, now: float, *, lapsed: bool) -> Limits:
    """Nothing newer than the oldest claim is touched: a pack in flight may have stored it, or may be reading it.

    `lapsed` counts claims, too, whose lease ran out and whose packs nobody has freed yet.
    """
    oldest = sa.select(sa.func.min(packs.c.claimed_at)).where(packs.c.state == "running")
    claimed = tx.execute(oldest if lapsed else oldest.where(packs.c.lease_until >= now)).scalar_one()
    since = now if claimed is None else min(now, claimed - SKEW_S)
    return Limits(min(since, now - rules.view_age_s), min(since, now - rules.older_than_s))


def find_doomed(tx: Tx, rules: Rules, limit: Limits) -> Doomed:
    """What may go now, in one snapshot."""
    gone = _removed_galleries(tx, limit.views)
    old = _superseded(tx, rules.keep_views, limit.views, gone)
    unused = _unused(tx, indexes, _named_by(tx, view_indexes, "index", old), gone)
    index = frozenset(digest for digest, at in unused.items() if at < limit.views)
    needed = _named_by(tx, view_segments, "segment", old) | _shelved(tx, gone) | _covered(tx, index)
    segment, quantizer = _unused(tx, segments, needed, gone), _unused(tx, quantizers, _in_use(tx, index), gone)
    every = [*unused.items(), *segment.items(), *quantizer.items()]
    return Doomed(
        galleries=gone,
        views=old,
        segments=frozenset(digest for digest, at in segment.items() if at < limit.views),
        indexes=index,
        quantizers=frozenset(digest for digest, at in quantizer.items() if at < limit.views),
        idle=frozenset(digest for digest, at in every if at >= limit.views),
    )


def _removed_galleries(tx: Tx, limit: float) -> frozenset[int]:
    """Galleries whose rows are to be deleted: removed, no plan is unfinished, and not all of them are gone yet."""
    unfinished = sa.exists().where(plans.c.gallery == galleries.c.id, plans.c.ended_at.is_(None))
    something = sa.exists().where(views.c.gallery == galleries.c.id)  # views go last
    query = sa.select(galleries.c.id).where(galleries.c.removed_at < limit, ~unfinished, something)
    return frozenset(tx.execute(query).scalars())


def _superseded(tx: Tx, keep: int, limit: float, gone: Iterable[int]) -> frozenset[int]:
    """Views that are older than the newest few and were superseded long enough ago; all views of galleries gone.

    Those that were retired, because what they held was purged, go at once.
    """
    columns = [views.c.id, views.c.gallery, views.c.lens, views.c.state, views.c.created_at]
    rows = tx.execute(sa.select(*columns).order_by(views.c.gallery, views.c.lens, views.c.id.desc())).all()
    unfinished = sa.select(plans.c.view).where(plans.c.view.is_not(None), plans.c.ended_at.is_(None))
    needed = set(tx.execute(sa.select(heads.c.view)).scalars()) | set(tx.execute(unfinished).scalars())
    removed = set(gone)
    old: set[int] = set(tx.execute(sa.select(releases.c.view).where(releases.c.retired_at.is_not(None))).scalars())
    old -= needed
    for (gallery, _), some in groupby(rows, key=lambda row: (row.gallery, row.lens)):
        found = list(some)
        if gallery in removed:
            old.update(row.id for row in found)
        else:
            old.update(view for view in _beyond(found, keep, limit) if view not in needed)
    return frozenset(old)


def _beyond(newest_first: Sequence[Any], keep: int, limit: float) -> list[int]:
    """Views of one gallery and lens beyond the number kept. A held one never answered: only its age counts."""
    beyond = []
    superseded_at, rank = float("inf"), 0
    for row in newest_first:
        if row.state == "held":
            if row.created_at < limit:
                beyond.append(row.id)
            continue
        if rank > keep and superseded_at < limit:
            beyond.append(row.id)
        superseded_at, rank = row.created_at, rank + 1
    return beyond


def _unused(tx: Tx, table: sa.Table, used: set[str], gone: frozenset[int]) -> dict[str, float]:
    """Rows that nothing uses, by digest, with when they were made; all those of galleries gone, as made long ago."""
    rows = tx.execute(sa.select(table.c.digest, table.c.gallery, table.c.created_at))
    return {
        row.digest: 0.0 if row.gallery in gone else row.created_at
        for row in rows
        if row.gallery in gone or row.digest not in used
    }


def _named_by(tx: Tx, table: sa.Table, column: str, old: frozenset[int]) -> set[str]:
    """What views name that stay."""
    return {
        digest for view, digest in tx.execute(sa.select(table.c.view, table.c[column]).distinct()) if view not in old
    }


def _shelved(tx: Tx, gone: frozenset[int]) -> set[str]:
    return {
        row.segment for row in tx.execute(sa.select(shelved.c.gallery, shelved.c.segment)) if row.gallery not in gone
    }


def _covered(tx: Tx, gone: frozenset[str]) -> set[str]:
    """Segments that an index covers which stays."""
    rows = tx.execute(sa.select(indexes.c.digest, indexes.c.covers))
    return {digest for row in rows if row.digest not in gone for digest in row.covers}


def _in_use(tx: Tx, gone: frozenset[str]) -> set[str]:
    """Quantizers of indexes that stay, and the newest of each gallery and space: the next index is built with it."""
    rows = tx.execute(sa.select(indexes.c.digest, indexes.c.quantizer))
    query = sa.select(quantizers).order_by(quantizers.c.created_at, quantizers.c.digest)
    newest = {(row.gallery, row.space): row.digest for row in tx.execute(query)}
    return {row.quantizer for row in rows if row.digest not in gone} | set(newest.values())
