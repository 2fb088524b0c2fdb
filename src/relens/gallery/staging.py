"""What plans and single enrolments write: pictures with their objects, and where crops and vectors of these lie.

What a plan stages is known at once, so that nobody brings it twice, and shown when the plan has taken its sequence. A
single enrolment is shown with a sequence of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from relens.gallery.batches import batches
from relens.gallery.deleting import held, living
from relens.gallery.items import Item
from relens.gallery.texts import add_texts
from relens.store import Tx
from relens.store.schema import crops, labels, objects, pictures, plans, tombstones, vectors
from relens.values import Box, Label


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to be written: where it is, what it is, and where its crop and vector lie.

    crop       shard, offset and length; None if no crop is kept
    vector     file and row; None if it has none, or has it in the tail
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
            pictures.c.gallery == gallery, pictures.c.sha256.in_(some), held()
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
                held(),
                plans.c.id != plan,
                plans.c.sequence.is_(None),
            )
        )
        found.update({row.sha256: row.plan for row in tx.execute(query)})
    return found


def count_released(tx: Tx, plan: int) -> int:
    """How many objects a plan has deleted because the items that showed them show other pictures now."""
    query = sa.select(sa.func.count()).select_from(tombstones).where(tombstones.c.plan == plan)
    return int(tx.execute(query).scalar_one())


def stage(tx: Tx, gallery: int, plan: int, new: Sequence[NewPicture], *, space: str, model: str) -> dict[str, int]:
    """Insert pictures with their objects for a plan. SHA-256 to picture id.

    `space` is that of the vectors, `model` the digest of the model that gave the labels. Call `lock` first, and make
    sure that the gallery knows none of the pictures.
    """
    ids = _insert_pictures(tx, gallery, new)
    found = [(ids[picture.sha256], picture.item.day, one) for picture in new for one in picture.objects]
    _insert_objects(tx, gallery, found, space=space, model=model, plan=plan, sequence=None)
    return ids


def add(tx: Tx, gallery: int, sequence: int, new: NewPicture) -> tuple[int, list[int]]:
    """Insert a picture with its objects, visible with `sequence`: its id, and theirs in order.

    Call `lock` first, and make sure that the gallery does not know the picture.
    """
    picture = _insert_pictures(tx, gallery, [new])[new.sha256]
    found = [(picture, new.item.day, one) for one in new.objects]
    return picture, _insert_objects(tx, gallery, found, space="", model="", plan=None, sequence=sequence)


@dataclass(frozen=True, slots=True)
class Partition:
    """What a plan has staged in a category and day: how many objects, and how many of them lived then."""

    category: str
    day: str
    staged: int
    living: int


def staged_partitions(tx: Tx, plan: int, as_of: int) -> list[Partition]:
    """What a plan has staged, in order. Another plan may have deleted some of it already, up to `as_of`."""
    alive = sa.func.sum(sa.case((living(as_of), 1), else_=0))
    query = (
        sa.select(objects.c.category, objects.c.day, sa.func.count(), alive)
        .where(objects.c.plan == plan)
        .group_by(objects.c.category, objects.c.day)
        .order_by(objects.c.category, objects.c.day)
    )
    return [Partition(category, day, int(staged), int(alive)) for category, day, staged, alive in tx.execute(query)]


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
                living(as_of),
            )
            .order_by(objects.c.id)
            .limit(batch)
        ).all()
        if not rows:
            return
        yield np.array([row.id for row in rows], dtype=np.int64), [(row.file, row.row) for row in rows]
        after = rows[-1].id


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


def _insert_pictures(tx: Tx, gallery: int, new: Sequence[NewPicture]) -> dict[str, int]:
    if not new:
        return {}
    inserted = tx.execute(
        sa.insert(pictures).returning(pictures.c.id, sort_by_parameter_order=True),
        [_picture_row(gallery, picture) for picture in new],
    )
    return {picture.sha256: int(picture_id) for picture, (picture_id,) in zip(new, inserted, strict=True)}


def _insert_objects(
    tx: Tx,
    gallery: int,
    found: Sequence[tuple[int, str, NewObject]],
    *,
    space: str,
    model: str,
    plan: int | None,
    sequence: int | None,
) -> list[int]:
    """Objects with the picture and day of each, their crops and labels. Ids in order."""
    if not found:
        return []
    owner = {"gallery": gallery, "plan": plan, "sequence": sequence}
    inserted = tx.execute(
        sa.insert(objects).returning(objects.c.id, sort_by_parameter_order=True),
        [owner | _object_row(picture, day, one) for picture, day, one in found],
    )
    ids = [int(object_id) for (object_id,) in inserted]
    rows = [(object_id, one) for object_id, (_, _, one) in zip(ids, found, strict=True)]
    describe_new(tx, gallery, rows, space=space, model=model)
    return ids


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
        add_texts(tx, gallery, texts)


def _object_row(picture: int, day: str, one: NewObject) -> dict[str, Any]:
    box = one.box
    return {
        "picture": picture,
        "x": box.x,
        "y": box.y,
        "w": box.w,
        "h": box.h,
        "landmarks": [list(point) for point in one.landmarks] or None,
        "score": one.score,
        "category": one.category,
        "day": day,
        "attributes": dict(one.attributes),
    }


def _crop_row(object_id: int, one: NewObject) -> dict[str, Any]:
    assert one.crop is not None
    shard, offset, length = one.crop
    sides = {side: None if one.cut is None else getattr(one.cut, side) for side in "xywh"}
    return {"object": object_id, "shard": shard, "offset": offset, "length": length, **sides}
