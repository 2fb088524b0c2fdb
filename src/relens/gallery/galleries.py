"""Galleries by name, and their sequences: taken under the gallery's row lock, so that they never skip."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relens.errors import BadInput, Missing
from relens.store import Tx, insert_if_absent
from relens.store.schema import galleries, items, objects, pictures, tombstones

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Gallery:
    """A named set of objects, filled by one recipe, at its newest sequence."""

    id: int
    name: str
    recipe: str
    sequence: int
    created_at: float


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


def _galleries() -> sa.Select[Any]:
    columns = [galleries.c[name] for name in Gallery.__dataclass_fields__]
    return sa.select(*columns).where(galleries.c.removed_at.is_(None))
