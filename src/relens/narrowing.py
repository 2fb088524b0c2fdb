"""What a search is narrowed by, and what ranks its answers besides likeness: values, and how people write them.

`shop=north`, `price=5..10`, `size=S|M`: a column of the items, and a value, a range or a choice. Nothing is looked up
here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relens.errors import BadInput

DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
UNSAYABLE = re.compile(r"[\0\ud800-\udfff]")
"""What not every catalog takes, and so none holds."""
MAX_CONDITIONS = 20
MAX_CHOICES = 100


def _require_sayable(*words: str) -> None:
    for one in words:
        if UNSAYABLE.search(one):
            raise _bad(one, "write it without NUL and without halves of characters")


def _bad(what: str, wanted: str) -> BadInput:
    return BadInput("narrowing.bad-condition", f"{what!r} is nothing to search by", hint=wanted)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a column of an item must be: one of `choices`, or a number from `least` to `most`."""

    column: str
    choices: tuple[str, ...] = ()
    least: float = -math.inf
    most: float = math.inf

    def __post_init__(self) -> None:
        _require_sayable(self.column, *self.choices)
        if not self.column or len(self.choices) > MAX_CHOICES or not self.least <= self.most:
            raise _bad(self.column, "name a column with a value, a range from low to high, or up to 100 choices")

    @property
    def is_range(self) -> bool:
        return not self.choices

    def to_json(self) -> dict[str, Any]:
        if self.choices:
            return {"column": self.column, "choices": list(self.choices)}
        ends = {"least": self.least, "most": self.most}
        return {"column": self.column} | {name: value for name, value in ends.items() if math.isfinite(value)}

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Condition:
        return Condition(**{**given, "choices": tuple(given.get("choices", ()))})


@dataclass(frozen=True, slots=True)
class Where:
    """Which objects may answer.

    category   the objects of one category; None: of the category of what is searched for
    label      whose best name is this, whatever its case
    days       first and last day of the objects, inclusive; None leaves an end open
    items      conditions that one item of the picture must meet, all of them
    off_shelf  true: also objects that only items off the shelf show
    """

    category: str | None = None
    label: str | None = None
    days: tuple[str | None, str | None] = (None, None)
    items: tuple[Condition, ...] = ()
    off_shelf: bool = False

    def __post_init__(self) -> None:
        if len(self.items) > MAX_CONDITIONS:
            raise _bad("items", f"up to {MAX_CONDITIONS} conditions")
        _require_sayable(self.category or "", self.label or "")
        first, last = self.days
        wrong = any(day is not None and not DAY.fullmatch(day) for day in self.days)
        if wrong or (first is not None and last is not None and first > last):
            raise _bad("days", "write days like 2026-01-31..2026-02-28; either end may be left out")

    @property
    def asks_items(self) -> bool:
        """Whether names or items decide, and not only where an object lies."""
        return self.label is not None or bool(self.items)

    def takes_day(self, day: str) -> bool:
        first, last = self.days
        return (first is None or first <= day) and (last is None or day <= last)

    def to_json(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if self.category is not None:
            given["category"] = self.category
        if self.label is not None:
            given["label"] = self.label
        if self.days != (None, None):
            given["days"] = list(self.days)
        if self.items:
            given["items"] = [condition.to_json() for condition in self.items]
        if self.off_shelf:
            given["off_shelf"] = True
        return given

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Where:
        first, last = given.get("days", (None, None))
        return Where(
            category=given.get("category"),
            label=given.get("label"),
            days=(first, last),
            items=tuple(Condition.from_json(one) for one in given.get("items", ())),
            off_shelf=given.get("off_shelf", False),
        )


EVERYTHING = Where()


@dataclass(frozen=True, slots=True)
class Hints:
    """What the asker knows of the thing, for the recipe's rules of ranking: words, and columns like a price."""

    text: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "columns": dict(self.columns)}

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Hints:
        return Hints(given.get("text", ""), given.get("columns", {}))


NO_HINTS = Hints()


def read_where(
    *,
    category: str | None = None,
    label: str | None = None,
    days: str | None = None,
    items: Sequence[str] = (),
    off_shelf: bool = False,
) -> Where:
    """As people write it: days like `2026-01-01..`, items like `shop=north`. BadInput for what is none of that."""
    first, dots, last = (days or "").partition("..")
    if days and not dots:
        last = first
    return Where(
        category=category or None,
        label=label or None,
        days=(first or None, last or None),
        items=tuple(read_condition(one) for one in items),
        off_shelf=off_shelf,
    )


def read_condition(written: str) -> Condition:
    """`column=value`, `column=low..high` with either end left out, or `column=one|other`."""
    column, equals, value = written.partition("=")
    column, value = column.strip(), value.strip()
    if not equals or not column or not value:
        raise _bad(written, "write column=value, price=5..10, price=..10, or size=S|M")
    low, dots, high = value.partition("..")
    if dots and all(_is_number(end) for end in (low, high) if end):
        return Condition(column, least=float(low or -math.inf), most=float(high or math.inf))
    return Condition(column, choices=tuple(choice.strip() for choice in value.split("|")))


def read_hints(written: Sequence[str]) -> Hints:
    """`text=red shoe` and `column=value`, each once."""
    columns: dict[str, str] = {}
    for one in written:
        column, equals, value = (part.strip() for part in one.partition("="))
        if not equals or not column or column in columns:
            raise _bad(one, "write text=words or column=value, each column once")
        columns[column] = value
    return Hints(columns.pop("text", ""), columns)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
