"""Ranking: what was found, put in another order by what is known of the items beside their looks.

Each rule of a recipe's `search.rerank` adds its weight times a number from 0 to 1 to an answer's cosine. Rules that
need a hint (words, a price) do nothing without it. The best item of an object counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relens.errors import BadInput
from relens.narrowing import Hints
from relens.recipes.recipe import Rule

DEPTH = 100
"""Answers that are ranked anew: nothing that looks less like it than so many others comes first."""

Item = Mapping[str, Any]
Signal = Callable[[Item, Hints], float]
"""0 to 1."""


class Ranking:
    """The rules of a recipe. BadInput for one that is unknown, or lacks an option."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [(_weight(rule), _signal(rule)) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def boost(self, items: Sequence[Item], hints: Hints) -> float:
        """What is added to the cosine of an object that these items show."""
        return sum(weight * max((signal(item, hints) for item in items), default=0.0) for weight, signal in self._rules)


def _signal(rule: Rule) -> Signal:
    make = _MAKE.get(rule.name)
    if make is None:
        raise BadInput("recipes.unknown-key", f"unknown search.rerank.{rule.name}", hint="known: text, near, prefer")
    try:
        return make(**{name: value for name, value in rule.options.items() if name != "weight"})
    except TypeError as error:
        raise BadInput(
            "recipes.bad-value",
            f"search.rerank.{rule.name}: its options are wrong: {dict(rule.options)}",
            hint="text: {field, weight}; near: {field, within, weight}; prefer: {field, value, weight}",
        ) from error


def _weight(rule: Rule) -> float:
    weight = rule.options.get("weight")
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not -1 <= weight <= 1:
        raise BadInput("recipes.bad-value", f"search.rerank.{rule.name}: weight {weight!r} is no number from -1 to 1")
    return float(weight)


def _text(field: str) -> Signal:
    """Share of the hint's words that the field has."""

    def signal(item: Item, hints: Hints) -> float:
        wanted = words(hints.text)
        return len(wanted & words(str(item.get(field) or ""))) / len(wanted) if wanted else 0.0

    return signal


def _near(field: str, within: float) -> Signal:
    """1 where the field is the hint's number, 0 where it is off by the share `within` of it, or more."""
    reach = float(within)

    def signal(item: Item, hints: Hints) -> float:
        wanted, given = _number(hints.columns.get(field)), _number(item.get(field))
        if wanted is None or given is None:
            return 0.0
        return max(0.0, 1 - abs(given - wanted) / max(abs(wanted) * reach, 1e-9))

    return signal


def _prefer(field: str, value: Any) -> Signal:
    """1 where the field has this value."""
    return lambda item, _: float(str(item.get(field)) == str(value))


def words(text: str) -> set[str]:
    """Words of a text, whatever their case and accents."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return set(re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c))))


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


_MAKE: Mapping[str, Callable[..., Signal]] = {"text": _text, "near": _near, "prefer": _prefer}
