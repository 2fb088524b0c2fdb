"""Deletion: objects get tombstones with a sequence, pictures without a living object or an item are released.

Nothing is taken out of answers in any other way, and an id that was deleted never comes back. The bytes stay until a
purge. Call `lock` before anything here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from relens.errors import Missing
from relens.gallery.batches import batches
from relens.gallery.items import forget_items, unshown
from relens.store import Tx
from relens.store.schema import items, objects, pictures, plans, staged_items, tombstones


def dead_since(tx: Tx, gallery: int, after: int, upto: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What was deleted after one sequence and up to another, in this order: (n,) ids and (n,) sequences."""
    query = (
        sa.select(tombstones.c.object, tombstones.c.sequence)
        .where(tombstones.c.gallery == gallery, tombstones.c.sequence > after, tombstones.c.sequence <= upto)
        .order_by(tombstones.c.sequence, tombstones.c.object)
    )
    rows = np.array([tuple(row) for row in tx.execute(query)], dtype=np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def count_dead(tx: Tx, gallery: int, after: int) -> int:
    """How many objects were deleted after a sequence."""
    where = (tombstones.c.gallery == gallery, tombstones.c.sequence > after)
    return int(tx.execute(sa.select(sa.func.count()).where(*where)).scalar_one())


def newest_dead(tx: Tx, gallery: int) -> int:
    """The sequence of the newest deletion; 0 if nothing was deleted."""
    query = sa.select(sa.func.max(tombstones.c.sequence)).where(tombstones.c.gallery == gallery)
    return tx.execute(query).scalar_one() or 0


def living(by: int | None = None) -> sa.ColumnElement[bool]:
    """Of an object: it has no tombstone; with `by`, none of that sequence or before."""
    buried = tombstones.c.object == objects.c.id
    return ~sa.exists().where(buried if by is None else sa.and_(buried, tombstones.c.sequence <= by))


def held() -> sa.TextClause:
    """Of a picture: it is not released, in the words of its index by SHA-256; in others SQLite would not use that."""
    return sa.text("NOT pictures.released")


def published(by: int | None = None) -> sa.ColumnElement[bool]:
    """Of an object joined to its plan (outer): it is visible; with `by`, as of that sequence."""
    sequence = sa.func.coalesce(objects.c.sequence, plans.c.sequence)
    return sequence.is_not(None) if by is None else sequence <= by


def require_living(tx: Tx, gallery: int, ids: Sequence[int]) -> None:
    """Missing, with `gone` if it was deleted, unless the gallery shows each of these objects now."""
    for one in ids:
        query = sa.select(published(), ~living()).outerjoin(plans, plans.c.id == objects.c.plan)
        row = tx.execute(query.where(objects.c.id == one, objects.c.gallery == gallery)).one_or_none()
        if row is None or not row[0]:
            raise Missing("gallery.no-object", f"there is no object {one} in this gallery")
        if row[1]:
            raise Missing("gallery.object-deleted", f"object {one} was deleted", gone=True)


def delete_objects(tx: Tx, gallery: int, ids: Sequence[int], sequence: int) -> None:
    """Delete living objects. A picture that has none left is released, and the items that show it are deleted."""
    bury(tx, gallery, ids, sequence)
    for some in batches(ids):
        of = sa.select(objects.c.picture).where(objects.c.id.in_(some))
        alive = sa.exists().where(objects.c.picture == pictures.c.id, living())
        bare = tx.execute(sa.select(pictures.c.id).where(pictures.c.id.in_(of), ~pictures.c.released, ~alive)).scalars()
        release(tx, gallery, list(bare), sequence)


def release(tx: Tx, gallery: int, picture_ids: Iterable[int], sequence: int) -> None:
    """Delete pictures with their objects, with the items that show them, and with what open plans say of these."""
    for some in batches(picture_ids):
        tx.execute(sa.delete(items).where(items.c.picture.in_(some)))
        tx.execute(sa.delete(staged_items).where(staged_items.c.picture.in_(some)))
        _let_go(tx, gallery, some, sequence)


def release_unshown(tx: Tx, gallery: int, picture_ids: Iterable[int], sequence: int) -> None:
    """Delete those of these pictures that no item shows any more, with their objects.

    A picture to which an open plan brings an item stays.
    """
    for some in batches(picture_ids):
        query = sa.select(pictures.c.id).where(pictures.c.id.in_(some), unshown())
        _let_go(tx, gallery, list(tx.execute(query).scalars()), sequence)


def set_aside(tx: Tx, picture: int) -> None:
    """Make room for another row of the same picture, in the transaction that goes on with `replace_picture`."""
    tx.execute(sa.update(pictures).where(pictures.c.id == picture).values(released=True))


def replace_picture(tx: Tx, gallery: int, old: int, new: int, sequence: int) -> None:
    """Another row takes the place of a picture: what showed it shows the new one; its objects are deleted."""
    for table in (items, staged_items):
        tx.execute(sa.update(table).where(table.c.picture == old).values(picture=new))
    _let_go(tx, gallery, [old], sequence)


def discard(tx: Tx, gallery: int, plan: int, sequence: int) -> int:
    """Delete, as of `sequence`, all that a plan staged, with the items that show its pictures. How many objects.

    A later import of such a picture makes new objects.
    """
    shown = list(tx.execute(sa.select(staged_items.c.picture).where(staged_items.c.plan == plan).distinct()).scalars())
    forget_items(tx, plan)
    rows = tx.execute(sa.select(objects.c.id, objects.c.picture).where(objects.c.plan == plan, living())).all()
    release(tx, gallery, sorted({row.picture for row in rows}), sequence)
    release_unshown(tx, gallery, shown, sequence)
    return len(rows)


def bury(tx: Tx, gallery: int, ids: Iterable[int], sequence: int, *, plan: int | None = None) -> None:
    """Write tombstones of objects that have none."""
    rows = [{"object": one, "gallery": gallery, "plan": plan, "sequence": sequence} for one in ids]
    if rows:
        tx.execute(sa.insert(tombstones), rows)


def bury_living(tx: Tx, gallery: int, ids: Sequence[int], sequence: int, *, plan: int) -> int:
    """Write tombstones of those of these objects that have none. How many that were."""
    count = 0
    for some in batches(ids):
        alive = sorted(tx.execute(sa.select(objects.c.id).where(objects.c.id.in_(some), living())).scalars())
        bury(tx, gallery, alive, sequence, plan=plan)
        count += len(alive)
    return count


def _let_go(tx: Tx, gallery: int, some: list[int], sequence: int) -> None:
    tx.execute(sa.update(pictures).where(pictures.c.id.in_(some)).values(released=True))
    dead = tx.execute(sa.select(objects.c.id).where(objects.c.picture.in_(some), living())).scalars()
    bury(tx, gallery, sorted(dead), sequence)
