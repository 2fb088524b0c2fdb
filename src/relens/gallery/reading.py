"""What answers read: objects by id with picture, items and labels, and where crops lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relens.errors import Missing
from relens.gallery.batches import batches
from relens.gallery.deleting import held, living, published
from relens.gallery.items import Item, item_of
from relens.store import Tx
from relens.store.catalog import last_id
from relens.store.schema import blobs, crops, galleries, items, labels, objects, pictures, plans, tombstones
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
    landmarks: Sequence[Sequence[float]] | None = None

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
    collected = found is None and 0 < object_id <= last_id(tx, objects.name)
    if (found is None or found.sequence is None) and not collected:
        raise Missing("gallery.no-object", f"there is no object {object_id}")
    if found is None or _is_dead(tx, object_id):
        raise Missing("gallery.object-deleted", f"object {object_id} was deleted", gone=True)
    return found


@dataclass(frozen=True, slots=True)
class KnownPicture:
    """A picture that a gallery holds. `staged` says that the plan which brought it has not published it yet.

    `objects` are ids of its living objects, in order.
    """

    id: int
    objects: tuple[int, ...]
    staged: bool


def find_picture(tx: Tx, gallery: int, sha256: str) -> KnownPicture | None:
    """A picture that is not released, by its SHA-256; None if the gallery holds none."""
    where = (pictures.c.gallery == gallery, pictures.c.sha256 == sha256, held())
    picture = tx.execute(sa.select(pictures.c.id).where(*where)).scalar_one_or_none()
    if picture is None:
        return None
    query = (
        sa.select(objects.c.id, published().label("published"))
        .outerjoin(plans, plans.c.id == objects.c.plan)
        .where(objects.c.picture == picture, living())
        .order_by(objects.c.id)
    )
    rows = tx.execute(query).all()
    return KnownPicture(picture, tuple(row.id for row in rows), any(not row.published for row in rows))


def picture_of(tx: Tx, picture: int) -> tuple[PictureInfo, list[int]]:
    """A picture by id, and the ids of the objects in it that the gallery shows, in order."""
    row = tx.execute(sa.select(pictures).where(pictures.c.id == picture)).mappings().one()
    query = (
        sa.select(objects.c.id)
        .outerjoin(plans, plans.c.id == objects.c.plan)
        .where(objects.c.picture == picture, living(), published())
        .order_by(objects.c.id)
    )
    info = PictureInfo(row["sha256"], row["width"], row["height"], row["uri"])
    return info, list(tx.execute(query).scalars())


def crop_location(tx: Tx, object_id: int) -> tuple[str, int, int]:
    """Where an object's crop lies: shard, offset, length. Missing if it has none."""
    query = sa.select(crops.c.shard, crops.c.offset, crops.c.length).where(crops.c.object == object_id)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise Missing("gallery.no-crop", f"object {object_id} has no stored crop")
    return row.shard, row.offset, row.length


def original_of(tx: Tx, stored: StoredObject) -> str:
    """The blob with the picture of an object as it came. Missing if the object's gallery keeps none."""
    keeps = sa.select(galleries.c.id).where(
        galleries.c.name == stored.gallery, galleries.c.removed_at.is_(None), galleries.c.retention == "originals"
    )
    known = sa.select(blobs.c.digest).where(blobs.c.digest == stored.picture.sha256, blobs.c.kind == "original")
    if tx.execute(keeps).first() is None or tx.execute(known).first() is None:
        raise Missing(
            "gallery.no-original",
            f"the picture of object {stored.id} was not kept",
            hint="`relens gallery set NAME --retention originals` keeps those that come from then on",
        )
    return stored.picture.sha256


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
        landmarks=row["landmarks"],
    )


def _items_of(tx: Tx, picture_ids: set[int]) -> dict[int, tuple[Item, ...]]:
    shown: dict[int, list[Item]] = {}
    for row in tx.execute(_ITEMS, {"ids": sorted(picture_ids)}).mappings():
        shown.setdefault(row["picture"], []).append(item_of(row))
    return {picture: tuple(found) for picture, found in shown.items()}


def _is_dead(tx: Tx, object_id: int) -> bool:
    deleted = sa.select(tombstones.c.object).where(tombstones.c.object == object_id)
    removed = (
        sa.select(objects.c.id)
        .join(galleries, galleries.c.id == objects.c.gallery)
        .where(objects.c.id == object_id, galleries.c.removed_at.is_not(None))
    )
    return any(tx.execute(query).one_or_none() is not None for query in (deleted, removed))
