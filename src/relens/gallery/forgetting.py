"""Forgetting: what the catalog still knows of deleted objects goes; an id, its gallery and its tombstone stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from relens.gallery.batches import batches
from relens.gallery.deleting import living
from relens.store import Tx
from relens.store.schema import crops, galleries, labels, objects, pictures, tail, texts, tombstones, vectors

TABLES = (crops, vectors, tail, labels, texts)
NOTHING: dict[str, Any] = {"x": 0.0, "y": 0.0, "w": 1.0, "h": 1.0, "landmarks": None, "score": 0.0, "attributes": {}}


def remembered(tx: Tx, gallery: int, upto: int, limit: int, after: int = 0) -> list[tuple[int, str, str]]:
    """Some objects that were deleted up to a sequence and of which something is still known: id, category and day.

    By increasing id, those after one.
    """
    dead = tombstones.c.object
    known = [sa.exists().where(table.c.object == dead) for table in TABLES]
    query = (
        sa.select(dead, objects.c.category, objects.c.day)
        .join(objects, objects.c.id == dead)
        .where(tombstones.c.gallery == gallery, tombstones.c.sequence <= upto, dead > after, sa.or_(*known))
        .order_by(dead)
        .limit(limit)
    )
    return [(one, category, day) for one, category, day in tx.execute(query)]


def forget(tx: Tx, ids: Sequence[int]) -> None:
    """Delete all that is known of deleted objects but that they were."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql("PRAGMA secure_delete=ON")  # freed pages keep no vectors
    for some in batches(ids):
        for table in TABLES:
            tx.execute(sa.delete(table).where(table.c.object.in_(some)))
        tx.execute(sa.update(objects).where(objects.c.id.in_(some)).values(NOTHING))


def forget_pictures(tx: Tx, gallery: int) -> None:
    """Delete all that is known of released pictures but their SHA-256, by which their bytes would be known again."""
    bare = ~sa.exists().where(objects.c.picture == pictures.c.id, living())
    known = (pictures.c.gallery == gallery, pictures.c.released, pictures.c.uri != "")
    tx.execute(sa.update(pictures).where(*known, bare).values(uri="", bytes=0, width=0, height=0))


def forget_crops(tx: Tx, gallery: int, limit: int) -> int:
    """Delete where some crops of a gallery lie, of living objects too. How many."""
    query = sa.select(crops.c.object).join(objects, objects.c.id == crops.c.object)
    ids = list(tx.execute(query.where(objects.c.gallery == gallery).limit(limit)).scalars())
    for some in batches(ids):
        tx.execute(sa.delete(crops).where(crops.c.object.in_(some)))
    return len(ids)


def kept_originals(tx: Tx, some: Sequence[str]) -> set[str]:
    """Those of these digests that name a picture which a gallery shows and keeps as it came."""
    found: set[str] = set()
    for few in batches(some):
        query = (
            sa.select(pictures.c.sha256)
            .join(galleries, galleries.c.id == pictures.c.gallery)
            .where(
                pictures.c.sha256.in_(few),
                ~pictures.c.released,
                galleries.c.retention == "originals",
                galleries.c.removed_at.is_(None),
            )
        )
        found.update(tx.execute(query).scalars())
    return found


def pictures_among(tx: Tx, gallery: int, some: Sequence[str], *, released: bool = False) -> set[str]:
    """Those of these digests that are of pictures which the gallery holds or held; only `released` ones, if asked."""
    found: set[str] = set()
    for few in batches(some):
        where = [pictures.c.gallery == gallery, pictures.c.sha256.in_(few)]
        where += [pictures.c.released] if released else []
        found.update(tx.execute(sa.select(pictures.c.sha256).where(*where)).scalars())
    return found
