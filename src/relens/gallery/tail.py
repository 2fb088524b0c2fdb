"""The tail: vectors of single enrolments, in the order of their sequences, until compaction has folded them into views.

Its truth is here; every engine keeps a copy of what it has seen. Rows that all newest views have folded in are
forgotten one compaction later, and the gallery remembers up to where.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relens.gallery.batches import batches
from relens.gallery.deleting import living
from relens.store import Tx
from relens.store.schema import galleries, objects, tail


@dataclass(frozen=True, slots=True)
class TailRow:
    """A vector that no view holds yet: (d,) float16, little-endian, as bytes."""

    object: int
    space: str
    sequence: int
    category: str
    day: str
    vector: bytes


def append(tx: Tx, gallery: int, rows: Iterable[TailRow]) -> None:
    """Add rows, in the transaction that takes their sequence."""
    values = [{name: getattr(row, name) for name in TailRow.__dataclass_fields__} for row in rows]
    if values:
        tx.execute(sa.insert(tail), [{"gallery": gallery, **row} for row in values])


# Asked after every single enrolment or deletion: built once.
_BETWEEN = (
    sa.select(*[tail.c[name] for name in TailRow.__dataclass_fields__])
    .where(
        tail.c.gallery == sa.bindparam("gallery"),
        tail.c.space.in_(sa.bindparam("spaces", expanding=True)),
        tail.c.sequence > sa.bindparam("after"),
        tail.c.sequence <= sa.bindparam("upto"),
    )
    .order_by(tail.c.object)
)


def between(tx: Tx, gallery: int, spaces: Collection[str], after: int, upto: int) -> list[TailRow]:
    """Rows after one sequence and up to another, of deleted objects too, by increasing object and sequence."""
    given = {"gallery": gallery, "spaces": sorted(spaces), "after": after, "upto": upto}
    return [TailRow(*row) for row in tx.execute(_BETWEEN, given)]


def count(tx: Tx, gallery: int, spaces: Collection[str], after: int, upto: int | None = None) -> int:
    """How many rows there are after a sequence (and up to another), those of deleted objects included."""
    where = _where(gallery, spaces, after)
    if upto is not None:
        where.append(tail.c.sequence <= upto)
    return int(tx.execute(sa.select(sa.func.count()).select_from(tail).where(*where)).scalar_one())


def partitions(tx: Tx, gallery: int, spaces: Collection[str], after: int, upto: int) -> list[tuple[str, str, int, int]]:
    """Category, day, rows, and rows of objects living as of `upto`, of the rows in between."""
    alive = sa.func.sum(sa.case((living(upto), 1), else_=0))
    query = (
        sa.select(tail.c.category, tail.c.day, sa.func.count(), alive)
        .join(objects, objects.c.id == tail.c.object)
        .where(*_where(gallery, spaces, after), tail.c.sequence <= upto)
        .group_by(tail.c.category, tail.c.day)
        .order_by(tail.c.category, tail.c.day)
    )
    return [(category, day, int(rows), int(live)) for category, day, rows, live in tx.execute(query)]


def forget(tx: Tx, gallery: int, upto: int) -> None:
    """Delete the rows of all spaces up to a sequence, and remember that they are gone. Call `lock` first."""
    tx.execute(sa.delete(tail).where(tail.c.gallery == gallery, tail.c.sequence <= upto))
    behind = galleries.c.tail_from < upto
    tx.execute(sa.update(galleries).where(galleries.c.id == gallery, behind).values(tail_from=upto))


def extent(tx: Tx, gallery: int) -> tuple[int, int]:
    """The gallery's sequence, and the one up to which rows may have been forgotten."""
    row = tx.execute(sa.select(galleries.c.sequence, galleries.c.tail_from).where(galleries.c.id == gallery)).one()
    return row.sequence, row.tail_from


def drop(tx: Tx, ids: Sequence[int]) -> None:
    """Delete the rows of some objects, which nobody can find any more."""
    for some in batches(ids):
        tx.execute(sa.delete(tail).where(tail.c.object.in_(some)))


def _where(gallery: int, spaces: Collection[str], after: int) -> list[Any]:
    return [tail.c.gallery == gallery, tail.c.space.in_(sorted(spaces)), tail.c.sequence > after]
