"""Where vectors lie: the truth from which segments are built anew, by object and space."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from relens.gallery.batches import batches
from relens.gallery.deleting import living, published
from relens.store import Tx
from relens.store.schema import objects, plans, vectors

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
    """Write down where vectors lie, of objects that had no place in this space."""
    rows = [{"object": one, "space": space, "file": file, "row": row} for one, (file, row) in placed.items()]
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
