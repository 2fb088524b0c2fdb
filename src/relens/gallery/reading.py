"""What answers read: objects by id with picture, items and labels, where crops lie, and what was deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from relens.errors import Missing
from relens.gallery.batches import batches
from relens.gallery.staging import Item
from relens.store import Tx
from relens.store.schema import crops, galleries, items, labels, objects, pictures, plans, tombstones
from relens.values import Box, Label, PictureInfo


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object by id, as answers show it. `sequence` is None while its plan has not published it."""

    id: int
    gallery: str
    box: Box
    score: float
    category: str
    labels: tuple[Label, ...]
    attributes: Mapping[str, Any]
    picture: PictureInfo
    items: tuple[Item, ...]
    sequence: int | None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "gallery": self.gallery,
            "box": self.box.to_json(),
            "score": round(self.score, 6),
            "category": self.category,
            "labels": [label.to_json() for label in self.labels],
            "attributes": dict(self.attributes),
            "picture": self.picture.to_json(),
            "items": [item.to_json() for item in self.items],
            "sequence": self.sequence,
        }


# Asked for every search: built once.
_OBJECTS = (
    sa.select(
        objects,
        galleries.c.name.label("gallery_name"),
        pictures.c.sha256,
        pictures.c.uri,
        pictures.c.width,
        pictures.c.height,
        sa.func.coalesce(objects.c.sequence, plans.c.sequence).label("visible"),
    )
    .join(galleries, galleries.c.id == objects.c.gallery)
    .join(pictures, pictures.c.id == objects.c.picture)
    .outerjoin(plans, plans.c.id == objects.c.plan)
    .where(objects.c.id.in_(sa.bindparam("ids", expanding=True)))
)
_WITH_LABELS = _OBJECTS.add_columns(labels.c.labels.label("given")).outerjoin(
    labels, sa.and_(labels.c.object == objects.c.id, labels.c.model == sa.bindparam("model"))
)
_LABELS = sa.select(labels.c.object, labels.c.labels).where(labels.c.object.in_(sa.bindparam("ids", expanding=True)))
_ITEMS = sa.select(items).where(items.c.picture.in_(sa.bindparam("ids", expanding=True))).order_by(items.c.key)


def dead_since(tx: Tx, gallery: int, after: int, upto: int) -> NDArray[np.int64]:
    """Ids of objects deleted after one sequence and up to another, increasing."""
    query = sa.select(tombstones.c.object).where(
        tombstones.c.gallery == gallery, tombstones.c.sequence > after, tombstones.c.sequence <= upto
    )
    return np.array(sorted(tx.execute(query).scalars()), dtype=np.int64)


def describe(tx: Tx, ids: Sequence[int], *, model: str | None = None) -> dict[int, StoredObject]:
    """Objects by id with picture, items and labels (those of `model`, or of any). Unknown ids are left out."""
    found: dict[int, StoredObject] = {}
    for some in batches(ids):
        if model is None:
            rows = tx.execute(_OBJECTS, {"ids": some}).mappings().all()
            names = {row.object: row.labels for row in tx.execute(_LABELS, {"ids": some})}
        else:
            rows = tx.execute(_WITH_LABELS, {"ids": some, "model": model}).mappings().all()
            names = {row["id"]: row["given"] for row in rows}
        shown = _items_of(tx, {row["picture"] for row in rows})
        for row in rows:
            given = tuple(Label(**label) for label in names.get(row["id"]) or ())
            found[row["id"]] = _stored(row, given, shown.get(row["picture"], ()))
    return found


def get_object(tx: Tx, object_id: int) -> StoredObject:
    """An object by id. Missing if there is none or its plan has not published it; gone if it was deleted."""
    found = describe(tx, [object_id]).get(object_id)
    if found is None or found.sequence is None:
        raise Missing("gallery.no-object", f"there is no object {object_id}")
    if _is_dead(tx, object_id):
        raise Missing("gallery.object-deleted", f"object {object_id} was deleted", gone=True)
    return found


def crop_location(tx: Tx, object_id: int) -> tuple[str, int, int]:
    """Where an object's crop lies: shard, offset, length. Missing if it has none."""
    query = sa.select(crops.c.shard, crops.c.offset, crops.c.length).where(crops.c.object == object_id)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise Missing("gallery.no-crop", f"object {object_id} has no stored crop")
    return row.shard, row.offset, row.length


def _stored(row: sa.RowMapping, names: tuple[Label, ...], shown: tuple[Item, ...]) -> StoredObject:
    return StoredObject(
        id=row["id"],
        gallery=row["gallery_name"],
        box=Box(row["x"], row["y"], row["w"], row["h"]),
        score=row["score"],
        category=row["category"],
        labels=names,
        attributes=row["attributes"],
        # Files change places: an item that shows the picture now knows where it is now.
        picture=PictureInfo(row["sha256"], row["width"], row["height"], shown[0].uri if shown else row["uri"]),
        items=shown,
        sequence=row["visible"],
    )


def _items_of(tx: Tx, picture_ids: set[int]) -> dict[int, tuple[Item, ...]]:
    shown: dict[int, list[Item]] = {}
    for row in tx.execute(_ITEMS, {"ids": sorted(picture_ids)}).mappings():
        fields = {name: row[name] for name in Item.__dataclass_fields__}
        shown.setdefault(row["picture"], []).append(Item(**fields))
    return {picture: tuple(found) for picture, found in shown.items()}


def _is_dead(tx: Tx, object_id: int) -> bool:
    deleted = sa.select(tombstones.c.object).where(tombstones.c.object == object_id)
    removed = (
        sa.select(objects.c.id)
        .join(galleries, galleries.c.id == objects.c.gallery)
        .where(objects.c.id == object_id, galleries.c.removed_at.is_not(None))
    )
    return any(tx.execute(query).one_or_none() is not None for query in (deleted, removed))
