"""Which objects meet a condition: by name, by what their items are, and whether any of these is on the shelf."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from relens.gallery.batches import batches
from relens.narrowing import Condition, Where
from relens.store import Tx
from relens.store.schema import items, labels, objects

NUMBER = "^[+-]?([0-9]{1,200}([.][0-9]{0,200})?|[.][0-9]{1,200})([eE][+-]?[0-9]{1,2})?$"
"""What every database can cast; it is not asked to cast anything else, which some refuse, as what is next to zero."""

OURS = {"id": items.c.key, "uri": items.c.uri, "title": items.c.title, "shop": items.c.shop, "day": items.c.day}


def matching(tx: Tx, gallery: int, where: Where, among: Collection[int] | None = None) -> set[int]:
    """Ids of objects that meet `label`, `items` and `off_shelf` of a condition; of all, or of those in `among`.

    Category and days are for the caller, who knows where each object lies. Whether objects are deleted, or published
    yet, is not asked.
    """
    query = sa.select(objects.c.id).where(objects.c.gallery == gallery, *conditions_of(where, tx.dialect.name))
    if among is None:
        return set(tx.execute(query).scalars())
    found: set[int] = set()
    for some in batches(sorted(among)):
        found.update(tx.execute(query.where(objects.c.id.in_(some))).scalars())
    return found


def conditions_of(where: Where, dialect: str) -> list[sa.ColumnElement[bool]]:
    """What a row of `objects` must meet for `label`, `items` and `off_shelf` of a condition."""
    shown = items.c.picture == objects.c.picture
    conditions: list[sa.ColumnElement[bool]] = []
    if where.label is not None:
        best = labels.c.labels[0]["name"].as_string()
        # Databases lower what they please: SQLite ASCII alone. As it is written it is always found.
        same = sa.or_(best == where.label, sa.func.lower(best) == where.label.lower())
        conditions.append(sa.exists().where(labels.c.object == objects.c.id, same))
    if where.items:
        wanted = [_condition(condition, dialect) for condition in where.items]
        on_shelf = [] if where.off_shelf else [~items.c.off_shelf]
        conditions.append(sa.exists().where(shown, *on_shelf, *wanted))
    elif not where.off_shelf:
        some, on_shelf_now = sa.exists().where(shown), sa.exists().where(shown, ~items.c.off_shelf)
        conditions.append(sa.or_(~some, on_shelf_now))
    return conditions


def _condition(condition: Condition, dialect: str) -> sa.ColumnElement[bool]:
    if condition.column == "price":
        return _of_number(items.c.price, condition)
    if condition.column in OURS:
        return _of_text(OURS[condition.column], condition)
    value = _spelled(condition.column, dialect)
    if not condition.is_range:
        return _of_text(value, condition)
    number = sa.case((value.regexp_match(NUMBER), sa.cast(value, sa.Double)))
    return _of_number(number, condition)


def _spelled(column: str, dialect: str) -> sa.ColumnElement[str]:
    """A free column as text, in which a number and a number that a CSV gave as text are the same."""
    value = sa.cast(items.c.data[column].as_string(), sa.Text)
    if dialect != "sqlite":
        return value
    kind = sa.func.json_type(items.c.data, sa.literal(column, sa.JSON.JSONIndexType()))
    return sa.case((kind.in_(["true", "false"]), kind), else_=value)  # by itself it says 1 and 0


def _of_text(column: Any, condition: Condition) -> sa.ColumnElement[bool]:
    if condition.is_range:
        return sa.false()
    found: sa.ColumnElement[bool] = column.in_(condition.choices)
    return found


def _of_number(column: Any, condition: Condition) -> sa.ColumnElement[bool]:
    if not condition.is_range:
        numbers = [number for choice in condition.choices if (number := _float(choice)) is not None]
        chosen: sa.ColumnElement[bool] = column.in_(numbers)
        return chosen
    return sa.and_(column >= _finite(condition.least), column <= _finite(condition.most))


def _finite(number: float) -> float:
    return max(-1e308, min(1e308, number))


def _float(text: str) -> float | None:
    try:
        return _finite(float(text))
    except ValueError:
        return None
