"""What people say of an item, checked before anything is written: text and numbers that any database takes."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from relens.errors import BadInput

NAMES = ("id", "uri", "title", "price", "shop", "day", "off_shelf", "data")
CLEARED = frozenset({"title", "price", "shop"})
"""What an item may also not have."""
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
MAX_ID_BYTES = 2000
"""PostgreSQL keeps no longer key in an index."""
MAX_DEPTH = 32


def read_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of an item, by the names of `Item` (`id` is its key). BadInput names the field that is not right.

    None clears title, price and shop; of the others it says nothing. `data` holds free columns, JSON of any kind.
    """
    if unknown := sorted(set(given) - set(NAMES)):
        raise BadInput(
            "enrolment.unknown-field",
            f"an item has no {', '.join(unknown)}",
            hint=f"known: {', '.join(NAMES)}; columns of your own go into data",
        )
    said = {name: value for name, value in given.items() if value is not None or name in CLEARED}
    checked = {name: None if value is None else CHECKS[name](name, value) for name, value in said.items()}
    return {("key" if name == "id" else name): value for name, value in checked.items()}


def _text(name: str, value: Any) -> str:
    if isinstance(value, str) and "\0" not in value and value.isascii():
        return value
    try:
        if isinstance(value, str) and "\0" not in value and value.encode():
            return value
    except UnicodeEncodeError:
        pass
    raise _bad(name, "text, without NUL and halves of characters")


def _key(name: str, value: Any) -> str:
    key = _text(name, str(value) if isinstance(value, int) and not isinstance(value, bool) else value)
    if not key or len(key.encode()) > MAX_ID_BYTES:
        raise _bad(name, f"text of 1 to {MAX_ID_BYTES} bytes")
    return key


def _uri(name: str, value: Any) -> str:
    uri = _text(name, value)
    if not uri:
        raise _bad(name, "text that says where the picture is")
    return uri


def _price(name: str, value: Any) -> float:
    try:
        price = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        price = math.nan
    if not math.isfinite(price):
        raise _bad(name, "a number")
    return price


def check_day(given: str) -> str:
    """A day as it is written. BadInput for what is none."""
    return _day("day", given)


def _day(name: str, value: Any) -> str:
    try:
        if isinstance(value, str) and DAY.fullmatch(value):
            return dt.date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise _bad(name, "a day like 2026-01-31")


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _bad(name, "true or false")


def _data(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _bad(name, "an object of columns")
    _require_plain(name, value, 0)
    return dict(value)


def _require_plain(name: str, value: Any, depth: int) -> None:
    """JSON that any database takes and any reader understands."""
    if depth > MAX_DEPTH:
        raise _bad(name, f"nested no more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for key, part in value.items():
            _text(f"{name}: a column's name", key)
            _require_plain(name, part, depth + 1)
    elif isinstance(value, list | tuple):
        for part in value:
            _require_plain(name, part, depth + 1)
    elif isinstance(value, str):
        _text(name, value)
    elif not (value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))):
        raise _bad(name, "JSON, without NaN and infinity")


CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "id": _key,
    "uri": _uri,
    "title": _text,
    "price": _price,
    "shop": _text,
    "day": _day,
    "off_shelf": _flag,
    "data": _data,
}


def _bad(name: str, wanted: str) -> BadInput:
    return BadInput("enrolment.bad-field", f"{name} must be {wanted}")
