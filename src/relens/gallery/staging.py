"""What plans write: pictures with their objects, items, and what becomes of pictures that lose their items."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from relens.gallery.batches import batches
from relens.store import Tx
from relens.store.schema import crops, items, labels, objects, orphans, pictures, plans, tombstones, vectors
from relens.values import Box, Label


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
        ours = {"id": self.key, "uri": self.uri, "day": self.day} | present
        return ours | dict(self.data) | ours  # a free column never speaks for one of ours


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to be staged: where it is, what it is, and where its crop and vector lie.

    crop       shard, offset and length; None if no crop is kept
    vector     file and row; None if it has none
    cut        what of the picture the crop shows; None if that is the box
    landmarks  points of the picture, as shares of its width and height
    space      of the vector, where it is not the one that all have
    model      digest of the model that gave the labels, where it is not the one that gave all; "" if none did
    """

    box: Box
    score: float
    category: str
    labels: tuple[Label, ...]
    crop: tuple[str, int, int] | None
    vector: tuple[str, int] | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    cut: Box | None = None
    landmarks: tuple[tuple[float, float], ...] = ()
    text: str | None = None
    space: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture to be staged with its objects and the item that brought it."""

    sha256: str
    size: int
    width: int
    height: int
    item: Item
    objects: tuple[NewObject, ...]


def known_pictures(tx: Tx, gallery: int, sha256s: Iterable[str]) -> dict[str, int]:
    """Which of these pictures the gallery holds, staged ones included: SHA-256 to picture id."""
    found: dict[str, int] = {}
    for some in batches(sha256s):
        query = sa.select(pictures.c.sha256, pictures.c.id).where(
            pictures.c.gallery == gallery, pictures.c.sha256.in_(some), ~pictures.c.released
        )
        found.update({row.sha256: row.id for row in tx.execute(query)})
    return found


def staged_elsewhere(tx: Tx, gallery: int, plan: int, sha256s: Iterable[str]) -> dict[str, int]:
    """Which of these pictures another plan has staged and not published yet: SHA-256 to that plan."""
    found: dict[str, int] = {}
    for some in batches(sha256s):
        query = (
            sa.select(pictures.c.sha256, objects.c.plan)
            .join(objects, objects.c.picture == pictures.c.id)
            .join(plans, plans.c.id == objects.c.plan)
            .where(
                pictures.c.gallery == gallery,
                pictures.c.sha256.in_(some),
                ~pictures.c.released,
                plans.c.id != plan,
                plans.c.sequence.is_(None),
            )
        )
        found.update({row.sha256: row.plan for row in tx.execute(query)})
    return found


def discard(tx: Tx, gallery: int, plan: int, sequence: int) -> list[int]:
    """Delete, as of `sequence`, all that a plan staged, with the items that show its pictures. Ids of the objects.

    Call `lock` first. A later import of such a picture makes new objects.
    """
    deleted = sa.exists().where(tombstones.c.object == objects.c.id)
    query = sa.select(objects.c.id, objects.c.picture).where(objects.c.plan == plan, ~deleted).order_by(objects.c.id)
    rows = tx.execute(query).all()
    for some in batches(sorted({row.picture for row in rows})):
        tx.execute(sa.delete(items).where(items.c.picture.in_(some)))
        tx.execute(sa.update(pictures).where(pictures.c.id.in_(some)).values(released=True))
    if rows:
        dead = [{"object": row.id, "gallery": gallery, "plan": plan, "sequence": sequence} for row in rows]
        tx.execute(sa.insert(tombstones), dead)
    return [row.id for row in rows]


def count_released(tx: Tx, plan: int) -> int:
    """How many objects a plan has deleted because the items that showed them show other pictures now."""
    query = sa.select(sa.func.count()).select_from(tombstones).where(tombstones.c.plan == plan)
    return int(tx.execute(query).scalar_one())


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
    for some in batches(shown):
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
    for some in batches(pictures_lost):
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
    for some in batches(sorted(among)):
        query = sa.select(sa.func.count()).where(
            objects.c.id.in_(some), objects.c.plan == plan, objects.c.category == category, objects.c.day == day
        )
        counted += int(tx.execute(query).scalar_one())
    return counted


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
    describe_new(tx, gallery, rows, space=space, model=model)


def describe_new(tx: Tx, gallery: int, rows: Sequence[tuple[int, NewObject]], *, space: str, model: str) -> None:
    """Insert what belongs to new objects, by id: crops, vectors, labels, texts."""
    cropped = [_crop_row(i, o) for i, o in rows if o.crop is not None]
    embedded = [
        {"object": i, "space": o.space or space, "file": o.vector[0], "row": o.vector[1]}
        for i, o in rows
        if o.vector is not None
    ]
    named = [
        {"object": i, "model": by, "labels": [label.to_json() for label in o.labels]}
        for i, o in rows
        if (by := model if o.model is None else o.model)
    ]
    for table, some in ((crops, cropped), (vectors, embedded), (labels, named)):
        if some:
            tx.execute(sa.insert(table), some)
    if texts := [(i, o.text) for i, o in rows if o.text]:
        from relens.gallery.texts import add_texts  # noqa: PLC0415

        add_texts(tx, gallery, texts)


def _crop_row(object_id: int, found: NewObject) -> dict[str, Any]:
    assert found.crop is not None
    shard, offset, length = found.crop
    cut = found.cut
    sides = {side: None if cut is None else getattr(cut, side) for side in "xywh"}
    return {"object": object_id, "shard": shard, "offset": offset, "length": length, **sides}


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
        "landmarks": [list(point) for point in found.landmarks] or None,
        "score": found.score,
        "category": found.category,
        "day": day,
        "attributes": dict(found.attributes),
    }
