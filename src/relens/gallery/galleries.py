"""Galleries by name, and their sequences: taken under the gallery's row lock, so that they never skip."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa

from relens.errors import BadInput, Missing
from relens.gallery.deleting import living, published
from relens.store import Tx, insert_if_absent
from relens.store.schema import galleries, items, objects, plans, thresholds

Retention = Literal["originals", "crops", "none"]
"""What a gallery keeps of pictures: their bytes and the crops, the crops, or nothing but boxes, names and vectors."""
RETENTIONS: tuple[Retention, ...] = get_args(Retention)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Gallery:
    """A named set of objects, filled by one recipe, at its newest sequence."""

    id: int
    name: str
    recipe: str
    sequence: int
    created_at: float
    retention: Retention = "crops"


def check_retention(given: str) -> Retention:
    """What to keep, by its word. BadInput for another."""
    for known in RETENTIONS:
        if given == known:
            return known
    raise BadInput("gallery.bad-retention", f"{given!r} is no retention", hint=f"one of {', '.join(RETENTIONS)}")


def check_name(name: str) -> None:
    """BadInput unless a name fits for galleries, recipes and models: lower-case letters, digits, `.`, `_`, `-`."""
    if not NAME.fullmatch(name):
        raise BadInput(
            "gallery.bad-name",
            f"{name!r} is no name",
            hint="use lower-case letters, digits, '.', '_' and '-', up to 63",
        )


def create(tx: Tx, name: str, recipe: str, now: float, *, retention: Retention = "crops") -> Gallery | None:
    """A new, empty gallery at sequence 0; None if somebody else has just made one of that name."""
    check_name(name)
    values = {"name": name, "recipe": recipe, "sequence": 0, "created_at": now, "retention": retention}
    inserted = insert_if_absent(tx, galleries, galleries.c.id, **values)
    return None if inserted is None else Gallery(inserted, name, recipe, 0, now, retention)


def set_retention(tx: Tx, gallery: int, retention: Retention) -> None:
    """What is to be kept of pictures from now on. Call `lock` first. What is stored already, a purge brings in line."""
    tx.execute(sa.update(galleries).where(galleries.c.id == gallery).values(retention=retention))


def set_threshold(tx: Tx, gallery: int, space: str, value: float | None) -> None:
    """The cosine in a space under which nothing of a gallery matches; None: what its lens says. Call `lock` first."""
    tx.execute(sa.delete(thresholds).where(thresholds.c.gallery == gallery, thresholds.c.space == space))
    if value is not None:
        tx.execute(sa.insert(thresholds).values(gallery=gallery, space=space, value=value))


def thresholds_of(tx: Tx, gallery: int) -> dict[str, float]:
    """Space to the cosine under which nothing of a gallery matches, where somebody has set one."""
    query = sa.select(thresholds.c.space, thresholds.c.value).where(thresholds.c.gallery == gallery)
    return {row.space: row.value for row in tx.execute(query)}


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
    """How many pictures, items and objects a gallery shows; what open plans have staged is not among them."""
    shown = sa.select(sa.func.count(items.c.picture.distinct()), sa.func.count()).where(items.c.gallery == gallery)
    pictures, things = tx.execute(shown).one()
    alive = sa.select(sa.func.count()).select_from(objects.outerjoin(plans, plans.c.id == objects.c.plan))
    found = tx.execute(alive.where(objects.c.gallery == gallery, published(), living())).scalar_one()
    return {"pictures": int(pictures), "items": int(things), "objects": int(found)}


def _galleries() -> sa.Select[Any]:
    columns = [galleries.c[name] for name in Gallery.__dataclass_fields__]
    return sa.select(*columns).where(galleries.c.removed_at.is_(None))
