"""Where vectors lie, the truth from which segments are built anew; and where crops do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from relens.gallery.batches import batches
from relens.gallery.deleting import living, published
from relens.store import Tx
from relens.store.schema import crops, objects, plans, vectors

Place = tuple[str, int]
"""A file of vectors, and the row in it."""


NOWHERE: Mapping[int, Place] = {}


def find(tx: Tx, ids: Iterable[int], space: str) -> dict[int, Place]:
    """The places of these objects' vectors in a space; those that have none are left out."""
    found: dict[int, Place] = {}
    for some in batches(ids):
        query = sa.select(vectors.c.object, vectors.c.file, vectors.c.row).where(
            vectors.c.object.in_(some), vectors.c.space == space
        )
        found.update({row.object: (row.file, row.row) for row in tx.execute(query)})
    return found


def keep(tx: Tx, space: str, placed: Mapping[int, Place]) -> None:
    """Write down where vectors lie, of objects that have no place in this space yet."""
    known = find(tx, placed, space)
    rows = [
        {"object": one, "space": space, "file": file, "row": row}
        for one, (file, row) in placed.items()
        if one not in known
    ]
    if rows:
        tx.execute(sa.insert(vectors), rows)


def of_day(
    tx: Tx, gallery: int, day: str, spaces: Collection[str], *, as_of: int, folded_to: int
) -> dict[str, NDArray[np.int64]]:
    """All living objects of a day that have a place in one of these spaces: increasing ids, by category.

    Those that were visible as of a sequence, in views or on a shelf; of single enrolments, those up to `folded_to`.
    """
    placed = sa.exists().where(vectors.c.object == objects.c.id, vectors.c.space.in_(sorted(spaces)))
    query = (
        sa.select(objects.c.id, objects.c.category)
        .outerjoin(plans, plans.c.id == objects.c.plan)
        .where(
            objects.c.gallery == gallery,
            objects.c.day == day,
            living(as_of),
            published(as_of),
            sa.or_(objects.c.sequence.is_(None), objects.c.sequence <= folded_to),
            placed,
        )
        .order_by(objects.c.id)
    )
    found: dict[str, list[int]] = {}
    for row in tx.execute(query):
        found.setdefault(row.category, []).append(row.id)
    return {category: np.array(ids, dtype=np.int64) for category, ids in found.items()}


# -- what lies in a file --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lying:
    """An object whose crop or vector lies in a file: at which offset or row, and whether it lives."""

    object: int
    at: int
    lives: bool


def shards(tx: Tx, gallery: int) -> list[str]:
    """Every shard in which a crop of the gallery lies, of deleted objects too."""
    query = sa.select(crops.c.shard).join(objects, objects.c.id == crops.c.object)
    return sorted(tx.execute(query.where(objects.c.gallery == gallery).distinct()).scalars())


def files(tx: Tx, gallery: int) -> list[tuple[str, str]]:
    """Every file in which a vector of the gallery lies, with its space, of deleted objects too."""
    query = sa.select(vectors.c.file, vectors.c.space).join(objects, objects.c.id == vectors.c.object)
    return sorted(tuple(row) for row in tx.execute(query.where(objects.c.gallery == gallery).distinct()))


def in_shards(tx: Tx, gallery: int, some: Collection[str], as_of: int) -> dict[str, list[Lying]]:
    """What of a gallery lies in these shards, by shard; whether it lived as of a sequence."""
    lives = sa.case((living(as_of), 1), else_=0)
    query = sa.select(crops.c.shard, crops.c.object, crops.c.offset, lives)
    return _lying(tx, query.join(objects, objects.c.id == crops.c.object), gallery, crops.c.shard, some)


def in_files(tx: Tx, gallery: int, some: Collection[str], as_of: int) -> dict[str, list[Lying]]:
    """What of a gallery lies in these files of vectors, by file; whether it lived as of a sequence."""
    lives = sa.case((living(as_of), 1), else_=0)
    query = sa.select(vectors.c.file, vectors.c.object, vectors.c.row, lives)
    return _lying(tx, query.join(objects, objects.c.id == vectors.c.object), gallery, vectors.c.file, some)


def _lying(
    tx: Tx, query: sa.Select[Any], gallery: int, column: sa.Column[str], some: Collection[str]
) -> dict[str, list[Lying]]:
    found: dict[str, list[Lying]] = {one: [] for one in some}
    rows = tx.execute(query.where(objects.c.gallery == gallery, column.in_(some)))
    for file, one, at, lives in rows:
        found[file].append(Lying(one, at, bool(lives)))
    return found


def move_crops(tx: Tx, old: str, new: str, moved: Mapping[int, int]) -> None:
    """Crops lie in another shard now: object to offset."""
    where = (crops.c.object == sa.bindparam("moved"), crops.c.shard == old)
    update = sa.update(crops).where(*where).values(shard=new, offset=sa.bindparam("at"))
    if moved:
        tx.execute(update, [{"moved": one, "at": at} for one, at in moved.items()])


def move_vectors(tx: Tx, old: str, new: str, moved: Mapping[int, int]) -> None:
    """Vectors lie in another file now: object to row."""
    where = (vectors.c.object == sa.bindparam("moved"), vectors.c.file == old)
    update = sa.update(vectors).where(*where).values(file=new, row=sa.bindparam("at"))
    if moved:
        tx.execute(update, [{"moved": one, "at": at} for one, at in moved.items()])
