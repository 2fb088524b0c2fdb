"""The truth about objects: galleries, pictures, items, objects with their crops, vectors and labels, tombstones.

Every gallery has a sequence, taken under its row lock, so that it never skips; what a plan staged becomes visible with
the sequence that the plan takes. Ids of objects are increasing and never used again. Searching is not done here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from relens.errors import BadInput, Missing
from relens.store import Tx, insert_if_absent
from relens.store.schema import (
    crops,
    galleries,
    items,
    labels,
    objects,
    orphans,
    pictures,
    plans,
    tombstones,
    vectors,
)
from relens.values import Box, Label, PictureInfo

MAX_IN = 500
"""Values in one `IN (…)`: SQLite's limit on parameters is far above, its planner's patience is not."""

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Gallery:
    """A named set of objects, filled by one recipe, at its newest sequence."""

    id: int
    name: str
    recipe: str
    sequence: int
    created_at: float


@dataclass(frozen=True, slots=True)
class Item:
    """What the user calls a thing. `key` is his id; `data` are his free columns."""

    key: str
    uri: str
    day: str
    title: str | None = None
    price: float | None = None
    shop: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        known = {"title": self.title, "price": self.price, "shop": self.shop}
        present = {name: value for name, value in known.items() if value is not None}
        return {"id": self.key, "uri": self.uri, "day": self.day} | present | dict(self.data)


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to be staged: where it is, what it is, and where its crop and vector lie."""

    box: Box
    score: float
    category: str
    labels: tuple[Label, ...]
    crop: tuple[str, int, int]  # shard, offset, length
    vector: tuple[str, int]  # file, row
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture to be staged with its objects and the item that brought it."""

    sha256: str
    size: int
    width: int
    height: int
    item: Item
    objects: tuple[NewObject, ...]


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


# -- galleries ------------------------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """BadInput unless a name fits for galleries, recipes and models: lower-case letters, digits, `.`, `_`, `-`."""
    if not NAME.fullmatch(name):
        raise BadInput(
            "gallery.bad-name",
            f"{name!r} is no name",
            hint="use lower-case letters, digits, '.', '_' and '-', up to 63",
        )


def create(tx: Tx, name: str, recipe: str, now: float) -> Gallery | None:
    """A new, empty gallery at sequence 0; None if somebody else has just made one of that name."""
    check_name(name)
    inserted = insert_if_absent(tx, galleries, galleries.c.id, name=name, recipe=recipe, sequence=0, created_at=now)
    return None if inserted is None else Gallery(inserted, name, recipe, 0, now)


def find(tx: Tx, name: str) -> Gallery | None:
    """A gallery by name, None if there is none."""
    if not NAME.fullmatch(name):
        return None
    row = tx.execute(_galleries().where(galleries.c.name == name)).mappings().one_or_none()
    return None if row is None else Gallery(**row)


def get(tx: Tx, name: str) -> Gallery:
    """A gallery by name. Missing if there is none."""
    found = find(tx, name)
    if found is None:
        raise Missing("gallery.missing", f"there is no gallery {name!r}", hint="`relens gallery ls` lists them")
    return found


def every(tx: Tx) -> list[Gallery]:
    """All galleries, by name."""
    return [Gallery(**row) for row in tx.execute(_galleries().order_by(galleries.c.name)).mappings()]


def by_id(tx: Tx, gallery: int) -> Gallery:
    """A gallery by id, also a removed one."""
    columns = [galleries.c[name] for name in Gallery.__dataclass_fields__]
    return Gallery(**tx.execute(sa.select(*columns).where(galleries.c.id == gallery)).mappings().one())


def lock(tx: Tx, gallery: int) -> int:
    """Lock the gallery's row until the transaction ends; its sequence. Missing if it was removed meanwhile."""
    query = sa.select(galleries.c.sequence).where(galleries.c.id == gallery, galleries.c.removed_at.is_(None))
    sequence = tx.execute(query.with_for_update()).scalar_one_or_none()
    if sequence is None:
        raise Missing("gallery.removed", "the gallery was removed meanwhile", gone=True)
    return int(sequence)


def take_sequence(tx: Tx, gallery: int) -> int:
    """The next number of the gallery's sequence. Call `lock` first."""
    update = sa.update(galleries).where(galleries.c.id == gallery).values(sequence=galleries.c.sequence + 1)
    return int(tx.execute(update.returning(galleries.c.sequence)).scalar_one())


def remove(tx: Tx, gallery: int, now: float) -> None:
    """Remove a gallery: its name is free again, its objects are gone from answers."""
    tx.execute(sa.update(galleries).where(galleries.c.id == gallery).values(removed_at=now))


def count_objects(tx: Tx, gallery: int) -> dict[str, int]:
    """How many pictures, items and objects a gallery holds, those that are staged included, deleted ones not."""
    alive = ~sa.exists().where(tombstones.c.object == objects.c.id)
    counted = {
        "pictures": sa.select(sa.func.count()).where(pictures.c.gallery == gallery, ~pictures.c.released),
        "items": sa.select(sa.func.count()).select_from(items).where(items.c.gallery == gallery),
        "objects": sa.select(sa.func.count()).select_from(objects).where(objects.c.gallery == gallery, alive),
    }
    return {name: int(tx.execute(query).scalar_one()) for name, query in counted.items()}


# -- staging --------------------------------------------------------------------------------------------------------


def known_pictures(tx: Tx, gallery: int, sha256s: Iterable[str]) -> dict[str, int]:
    """Which of these pictures the gallery holds, staged ones included: SHA-256 to picture id."""
    found: dict[str, int] = {}
    for some in _batches(sha256s):
        query = sa.select(pictures.c.sha256, pictures.c.id).where(
            pictures.c.gallery == gallery, pictures.c.sha256.in_(some), ~pictures.c.released
        )
        found.update({row.sha256: row.id for row in tx.execute(query)})
    return found


def stage(tx: Tx, gallery: int, plan: int, new: Sequence[NewPicture], *, space: str, model: str) -> dict[str, int]:
    """Insert pictures with their objects for a plan. SHA-256 to picture id.

    `space` is that of the vectors, `model` the digest of the model that gave the labels. Call `lock` first, and make
    sure that the gallery knows none of the pictures.
    """
    if not new:
        return {}
    inserted = tx.execute(
        sa.insert(pictures).returning(pictures.c.id, sort_by_parameter_order=True),
        [_picture_row(gallery, picture) for picture in new],
    )
    ids = {picture.sha256: int(picture_id) for picture, (picture_id,) in zip(new, inserted, strict=True)}
    staged = [(ids[picture.sha256], picture.item.day, found) for picture in new for found in picture.objects]
    _stage_objects(tx, gallery, plan, staged, space=space, model=model)
    return ids


def upsert_items(
    tx: Tx, gallery: int, plan: int, shown: Sequence[tuple[Item, int]], *, undated: Collection[str] = (), now: float
) -> None:
    """Write items with the pictures that they show; what is unchanged is not written.

    Items whose key is in `undated` keep the day that they have. A picture that an item leaves is noted as a possible
    orphan.
    """
    left: set[int] = set()
    for some in _batches(shown):
        query = sa.select(items).where(items.c.gallery == gallery, items.c.key.in_([item.key for item, _ in some]))
        before = {row["key"]: row for row in tx.execute(query).mappings()}
        fresh = []
        for item, picture in some:
            row = _item_row(gallery, item, picture, now)
            old = before.get(item.key)
            if old is not None and item.key in undated:
                row["day"] = old["day"]
            if old is None:
                fresh.append(row)
            elif any(old[name] != value for name, value in row.items() if name != "updated_at"):
                tx.execute(sa.update(items).where(items.c.id == old["id"]).values(**row))
                if old["picture"] != picture:
                    left.add(old["picture"])
        if fresh:
            tx.execute(sa.insert(items), fresh)
    known = set(tx.execute(sa.select(orphans.c.picture).where(orphans.c.plan == plan)).scalars())
    if left - known:
        tx.execute(sa.insert(orphans), [{"plan": plan, "picture": picture} for picture in sorted(left - known)])


def release_orphans(tx: Tx, gallery: int, plan: int, sequence: int) -> list[int]:
    """Delete, as of `sequence`, the objects of pictures that lost their last item in this plan. Their ids.

    Call `lock` first. A later import of such a picture makes new objects.
    """
    has_item = sa.exists().where(items.c.picture == pictures.c.id)
    lost = sa.select(pictures.c.id).where(
        pictures.c.id.in_(sa.select(orphans.c.picture).where(orphans.c.plan == plan)), ~pictures.c.released, ~has_item
    )
    pictures_lost = list(tx.execute(lost).scalars())
    dead: list[int] = []
    for some in _batches(pictures_lost):
        dead += tx.execute(sa.select(objects.c.id).where(objects.c.picture.in_(some))).scalars()
        tx.execute(sa.update(pictures).where(pictures.c.id.in_(some)).values(released=True))
    rows = [{"object": one, "gallery": gallery, "plan": plan, "sequence": sequence} for one in sorted(dead)]
    if rows:
        tx.execute(sa.insert(tombstones), rows)
    return sorted(dead)


@dataclass(frozen=True, slots=True)
class Partition:
    """What a plan has staged in a category and day: how many objects, and how many of them lived then."""

    category: str
    day: str
    staged: int
    living: int


def staged_partitions(tx: Tx, plan: int, as_of: int) -> list[Partition]:
    """What a plan has staged, in order. Another plan may have deleted some of it already, up to `as_of`."""
    living = sa.func.sum(sa.case((_deleted_by(as_of), 0), else_=1))
    query = (
        sa.select(objects.c.category, objects.c.day, sa.func.count(), living)
        .where(objects.c.plan == plan)
        .group_by(objects.c.category, objects.c.day)
        .order_by(objects.c.category, objects.c.day)
    )
    return [Partition(category, day, int(staged), int(alive)) for category, day, staged, alive in tx.execute(query)]


def _deleted_by(sequence: int) -> sa.ColumnElement[bool]:
    return sa.exists().where(tombstones.c.object == objects.c.id, tombstones.c.sequence <= sequence)


def staged_vectors(
    tx: Tx, plan: int, space: str, part: Partition, *, as_of: int, batch: int = 4096
) -> Iterator[tuple[NDArray[np.int64], list[tuple[str, int]]]]:
    """Where the vectors of a partition's living objects lie: arrays of increasing ids, with (file, row) of each."""
    after = 0
    while True:
        rows = tx.execute(
            sa.select(objects.c.id, vectors.c.file, vectors.c.row)
            .join(vectors, sa.and_(vectors.c.object == objects.c.id, vectors.c.space == space))
            .where(
                objects.c.plan == plan,
                objects.c.category == part.category,
                objects.c.day == part.day,
                objects.c.id > after,
                ~_deleted_by(as_of),
            )
            .order_by(objects.c.id)
            .limit(batch)
        ).all()
        if not rows:
            return
        yield np.array([row.id for row in rows], dtype=np.int64), [(row.file, row.row) for row in rows]
        after = rows[-1].id


def count_staged(tx: Tx, plan: int, category: str, day: str, among: Collection[int]) -> int:
    """How many of these objects a plan has staged in a category and day."""
    counted = 0
    for some in _batches(sorted(among)):
        query = sa.select(sa.func.count()).where(
            objects.c.id.in_(some), objects.c.plan == plan, objects.c.category == category, objects.c.day == day
        )
        counted += int(tx.execute(query).scalar_one())
    return counted


# -- reading --------------------------------------------------------------------------------------------------------


def dead_since(tx: Tx, gallery: int, after: int, upto: int) -> NDArray[np.int64]:
    """Ids of objects deleted after one sequence and up to another, increasing."""
    query = sa.select(tombstones.c.object).where(
        tombstones.c.gallery == gallery, tombstones.c.sequence > after, tombstones.c.sequence <= upto
    )
    return np.array(sorted(tx.execute(query).scalars()), dtype=np.int64)


def describe(tx: Tx, ids: Sequence[int], *, model: str | None = None) -> dict[int, StoredObject]:
    """Objects by id with picture, items and labels (those of `model`, or of the newest). Unknown ids are left out."""
    found: dict[int, StoredObject] = {}
    for some in _batches(ids):
        rows = tx.execute(_OBJECTS, {"ids": some}).mappings().all()
        names = _labels_of(tx, [row["id"] for row in rows], model)
        shown = _items_of(tx, {row["picture"] for row in rows})
        for row in rows:
            found[row["id"]] = _stored(row, names.get(row["id"], ()), shown.get(row["picture"], ()))
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


# -- rows -----------------------------------------------------------------------------------------------------------


def _galleries() -> sa.Select[Any]:
    columns = [galleries.c[name] for name in Gallery.__dataclass_fields__]
    return sa.select(*columns).where(galleries.c.removed_at.is_(None))


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
_LABELS = sa.select(labels.c.object, labels.c.labels).where(labels.c.object.in_(sa.bindparam("ids", expanding=True)))
_LABELS_OF_MODEL = _LABELS.where(labels.c.model == sa.bindparam("model"))
_ITEMS = sa.select(items).where(items.c.picture.in_(sa.bindparam("ids", expanding=True))).order_by(items.c.key)


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


def _labels_of(tx: Tx, ids: Sequence[int], model: str | None) -> dict[int, tuple[Label, ...]]:
    if model is None:
        rows = tx.execute(_LABELS, {"ids": ids})
    else:
        rows = tx.execute(_LABELS_OF_MODEL, {"ids": ids, "model": model})
    return {row.object: tuple(Label(**label) for label in row.labels) for row in rows}


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


def _picture_row(gallery: int, picture: NewPicture) -> dict[str, Any]:
    return {
        "gallery": gallery,
        "sha256": picture.sha256,
        "uri": picture.item.uri,
        "bytes": picture.size,
        "width": picture.width,
        "height": picture.height,
        "day": picture.item.day,
        "released": False,
    }


def _item_row(gallery: int, item: Item, picture: int, now: float) -> dict[str, Any]:
    fields = {name: getattr(item, name) for name in Item.__dataclass_fields__}
    return fields | {"data": dict(item.data), "gallery": gallery, "picture": picture, "updated_at": now}


def _stage_objects(
    tx: Tx, gallery: int, plan: int, staged: Sequence[tuple[int, str, NewObject]], *, space: str, model: str
) -> None:
    if not staged:
        return
    inserted = tx.execute(
        sa.insert(objects).returning(objects.c.id, sort_by_parameter_order=True),
        [_object_row(gallery, plan, picture, day, found) for picture, day, found in staged],
    )
    ids = [int(object_id) for (object_id,) in inserted]
    rows = [(object_id, found) for object_id, (_, _, found) in zip(ids, staged, strict=True)]
    tx.execute(
        sa.insert(crops),
        [{"object": i, "shard": o.crop[0], "offset": o.crop[1], "length": o.crop[2]} for i, o in rows],
    )
    tx.execute(
        sa.insert(vectors), [{"object": i, "space": space, "file": o.vector[0], "row": o.vector[1]} for i, o in rows]
    )
    tx.execute(
        sa.insert(labels),
        [{"object": i, "model": model, "labels": [label.to_json() for label in o.labels]} for i, o in rows],
    )


def _object_row(gallery: int, plan: int, picture: int, day: str, found: NewObject) -> dict[str, Any]:
    box = found.box
    return {
        "gallery": gallery,
        "picture": picture,
        "plan": plan,
        "sequence": None,
        "x": box.x,
        "y": box.y,
        "w": box.w,
        "h": box.h,
        "score": found.score,
        "category": found.category,
        "day": day,
        "attributes": dict(found.attributes),
    }


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    for value in values:
        some.append(value)
        if len(some) == MAX_IN:
            yield some
            some = []
    if some:
        yield some
