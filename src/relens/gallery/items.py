"""Items: what people call the things in a gallery, and what plans say of them until they are sealed.

A plan stages only what differs from the item that is there; sealing applies it in one step, with the plan's sequence,
and giving the plan up forgets it. A picture that loses its last item is released, unless an open plan brings it one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from relens.errors import Missing
from relens.gallery.batches import batches
from relens.store import Tx
from relens.store.schema import items, objects, pictures, staged_items, tombstones


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
    off_shelf: bool = False

    def to_json(self) -> dict[str, Any]:
        known = {"title": self.title, "price": self.price, "shop": self.shop, "off_shelf": self.off_shelf or None}
        present = {name: value for name, value in known.items() if value is not None}
        ours = {"id": self.key, "uri": self.uri, "day": self.day} | present
        return ours | dict(self.data) | ours  # a free column never speaks for one of ours


def item_of(row: sa.RowMapping) -> Item:
    """An item from its row."""
    return Item(**{name: row[name] for name in Item.__dataclass_fields__})


# -- one item -------------------------------------------------------------------------------------------------------


def get_item(tx: Tx, gallery: int, key: str) -> tuple[Item, int]:
    """An item by the user's id, with the id of the picture that it shows. Missing if there is none."""
    found = find_item(tx, gallery, key)
    if found is None:
        raise Missing("gallery.no-item", f"there is no item {key!r}", hint="`relens gallery export` lists them")
    return found


def find_item(tx: Tx, gallery: int, key: str) -> tuple[Item, int] | None:
    """An item by the user's id, with the id of the picture that it shows; None if there is none."""
    row = tx.execute(sa.select(items).where(*_keyed(gallery, key))).mappings().one_or_none()
    return None if row is None else (item_of(row), row["picture"])


def put_item(tx: Tx, gallery: int, item: Item, picture: int, now: float) -> None:
    """Write an item as it is now, new or not."""
    row = _row(item, picture) | {"updated_at": now}
    if tx.execute(sa.update(items).where(*_keyed(gallery, item.key)).values(**row)).rowcount == 0:
        tx.execute(sa.insert(items).values(gallery=gallery, **row))


def delete_item(tx: Tx, gallery: int, key: str) -> None:
    """Delete an item. What becomes of its picture, `release_unshown` decides."""
    tx.execute(sa.delete(items).where(*_keyed(gallery, key)))


def _keyed(gallery: int, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return items.c.gallery == gallery, items.c.key == key


def _row(item: Item, picture: int) -> dict[str, Any]:
    fields = {name: getattr(item, name) for name in Item.__dataclass_fields__}
    return fields | {"data": dict(item.data), "picture": picture}


# -- what plans say of items ----------------------------------------------------------------------------------------


def stage_items(
    tx: Tx,
    gallery: int,
    plan: int,
    shown: Sequence[tuple[Item, int]],
    *,
    undated: Collection[str] = (),
    unflagged: Collection[str] = (),
) -> None:
    """Write down what a plan says of items, with the pictures that they show: only what differs from what is there.

    Items whose key is in `undated` keep the day that they have, those in `unflagged` their place on or off the shelf.
    """
    for some in batches(shown):
        query = sa.select(items).where(items.c.gallery == gallery, items.c.key.in_([item.key for item, _ in some]))
        before = {row["key"]: row for row in tx.execute(query).mappings()}
        staged = []
        for item, picture in some:
            row = _row(item, picture)
            old = before.get(item.key)
            kept = {"day": item.key in undated, "off_shelf": item.key in unflagged}
            if old is None or any(old[name] != value for name, value in row.items() if not kept.get(name)):
                flag = None if kept["off_shelf"] else item.off_shelf
                staged.append(row | {"plan": plan, "undated": kept["day"], "off_shelf": flag})
        if staged:
            tx.execute(sa.insert(staged_items), staged)


def apply_items(tx: Tx, gallery: int, plan: int, sequence: int, now: float) -> None:
    """What a plan staged of items becomes so, and pictures that lose their last item by it are released.

    Call `lock` first. Their objects get tombstones with `sequence`. An item whose picture was deleted since is left as
    it is.
    """
    usable = (
        sa.select(staged_items)
        .join(pictures, pictures.c.id == staged_items.c.picture)
        .where(staged_items.c.plan == plan, ~pictures.c.released)
        .subquery("usable")
    )
    same = (items.c.gallery == gallery, items.c.key == usable.c.key)
    left = sa.select(items.c.picture).where(*same, items.c.picture != usable.c.picture).distinct()
    left_alone = sorted(tx.execute(left).scalars())
    changed = {
        **{name: usable.c[name] for name in ("picture", "uri", "title", "price", "shop", "data")},
        "day": sa.case((usable.c.undated, items.c.day), else_=usable.c.day),
        "off_shelf": sa.func.coalesce(usable.c.off_shelf, items.c.off_shelf),
        "updated_at": now,
    }
    tx.execute(sa.update(items).where(*same).values(changed))
    columns = ("key", "picture", "uri", "title", "price", "shop", "day", "data")
    fresh = sa.select(
        *[usable.c[name] for name in columns],
        sa.func.coalesce(usable.c.off_shelf, sa.false()),
        sa.literal(gallery),
        sa.literal(now),
    ).where(~sa.exists().where(*same))
    tx.execute(sa.insert(items).from_select([*columns, "off_shelf", "gallery", "updated_at"], fresh))
    forget_items(tx, plan)
    for some in batches(left_alone):
        _release_unshown(tx, gallery, plan, sequence, some)


def forget_items(tx: Tx, plan: int) -> None:
    """What a plan staged of items is forgotten."""
    tx.execute(sa.delete(staged_items).where(staged_items.c.plan == plan))


def _release_unshown(tx: Tx, gallery: int, plan: int, sequence: int, some: list[int]) -> None:
    free = list(tx.execute(sa.select(pictures.c.id).where(pictures.c.id.in_(some), unshown())).scalars())
    tx.execute(sa.update(pictures).where(pictures.c.id.in_(free)).values(released=True))
    dead = sa.select(objects.c.id, sa.literal(gallery), sa.literal(plan), sa.literal(sequence)).where(
        objects.c.picture.in_(free), ~sa.exists().where(tombstones.c.object == objects.c.id)
    )
    tx.execute(sa.insert(tombstones).from_select(["object", "gallery", "plan", "sequence"], dead))


def unshown() -> sa.ColumnElement[bool]:
    """Of a picture: nobody released it yet, and no item shows it, neither now nor when an open plan is sealed."""
    return sa.and_(
        ~pictures.c.released,
        ~sa.exists().where(items.c.picture == pictures.c.id),
        ~sa.exists().where(staged_items.c.picture == pictures.c.id),
    )
