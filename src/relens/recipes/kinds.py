"""Kinds of values that a recipe is written with: numbers within bounds, names, words, references to models.

A kind takes a key and what stands there, and gives the value. What cannot be one is BadInput that names the key, and
shows no more of what stands there than fits a line: YAML can say anything, and very long.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import reprlib
from collections.abc import Callable
from typing import Any

from relens.errors import BadInput

Kind = Callable[[str, Any], Any]
"""From a key and what stands there to the value."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")
REFERENCE = re.compile(rf"{NAME.pattern}(/{NAME.pattern})?")
MAX_TEXT = 200

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 60, 60


def shown(given: object) -> str:
    """What stands there, as far as an error has room for it."""
    return " ".join(_SHORT.repr(given).split())


def bad(key: str, given: object, wanted: str, *, hint: str = "") -> BadInput:
    """The error for a value that a key cannot have."""
    return BadInput("recipes.bad-value", f"{key}: {shown(given)} is not {wanted}", hint=hint)


def number(least: float, most: float) -> Kind:
    """A number within bounds, as a float."""

    def read(key: str, given: Any) -> float:
        if isinstance(given, bool) or not isinstance(given, int | float) or not least <= given <= most:
            raise bad(key, given, f"a number from {least:g} to {most:g}", hint=_plainly(given))
        return float(given)

    return read


def count(least: int, most: int) -> Kind:
    """A whole number within bounds."""

    def read(key: str, given: Any) -> int:
        if isinstance(given, bool) or not isinstance(given, int | float) or not least <= given <= most or given % 1:
            raise bad(key, given, f"a whole number from {least} to {most}", hint=_plainly(given))
        return int(given)

    return read


def name(key: str, given: Any) -> str:
    """What recipes, files beside them and models are called."""
    return _matching(NAME, key, given, "a name of letters, digits, `.`, `_` and `-`")


def word(key: str, given: Any) -> str:
    """What a recipe itself gives a name to: categories and scores."""
    return _matching(WORD, key, given, "a word of lower-case letters, digits, `_` and `-`")


def reference(key: str, given: Any) -> str:
    """A model version, or `none`."""
    return _matching(REFERENCE, key, given, "a model", hint="write name/version, name/label, or none")


def identifier(key: str, given: Any) -> str:
    """What a function is called."""
    if not isinstance(given, str) or not given.isidentifier():
        raise bad(key, given, "the name of a function")
    return given


def text(key: str, given: Any) -> str:
    """A line of text."""
    if not isinstance(given, str) or not given.isprintable() or not 0 < len(given) <= MAX_TEXT:
        raise bad(key, given, f"text of 1 to {MAX_TEXT} characters", hint="write it in quotes")
    return given


def scalar(key: str, given: Any) -> str | float:
    """Text, a number, or true or false. A day that YAML has read is text again."""
    if isinstance(given, dt.date):
        return given.isoformat()
    if isinstance(given, int | float) and math.isfinite(given):
        return given
    return text(key, given)


def _plainly(given: object) -> str:
    """YAML takes `1e-3` for text, as it does what stands in quotes."""
    return "write it as 0.5 or 90, without quotes" if isinstance(given, str) else ""


def _matching(form: re.Pattern[str], key: str, given: Any, wanted: str, *, hint: str = "") -> str:
    if not isinstance(given, str) or not form.fullmatch(given):
        raise bad(key, given, wanted, hint=hint or ("" if isinstance(given, str) else "write it in quotes"))
    return given
