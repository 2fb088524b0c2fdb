"""Ranking: what was found, put in another order by what is known of the items beside their looks.

Each rule of a recipe's `search.rerank` adds its weight times a number from 0 to 1 to an answer's cosine. Rules that
need a hint (words, a price) do nothing without it. The best item of an object counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relens.narrowing import Hints
from relens.recipes.recipe import Rule

DEPTH = 100
"""Answers that are ranked anew: nothing that looks less like it than so many others comes first."""

Item = Mapping[str, Any]
Signal = Callable[[Item, Hints], float]
"""0 to 1."""


class Ranking:
    """The rules of a recipe, as it was read."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules: list[tuple[float, Signal]] = [(rule.options["weight"], _signal(rule)) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def boost(self, items: Sequence[Item], hints: Hints) -> float:
        """What is added to the cosine of an object that these items show."""
        return sum(weight * max((signal(item, hints) for item in items), default=0.0) for weight, signal in self._rules)


def _signal(rule: Rule) -> Signal:
    return _MAKE[rule.name](**{name: value for name, value in rule.options.items() if name != "weight"})


def _text(field: str) -> Signal:
    """Share of the hint's words that the field has."""

    def signal(item: Item, hints: Hints) -> float:
        wanted = words(hints.text)
        return len(wanted & words(str(item.get(field) or ""))) / len(wanted) if wanted else 0.0

    return signal


def _near(field: str, within: float) -> Signal:
    """1 where the field is the hint's number, 0 where it is off by the share `within` of it, or more."""

    def signal(item: Item, hints: Hints) -> float:
        wanted, given = _number(hints.columns.get(field)), _number(item.get(field))
        if wanted is None or given is None:
            return 0.0
        return max(0.0, 1 - abs(given - wanted) / max(abs(wanted) * within, 1e-9))

    return signal


def _prefer(field: str, value: Any) -> Signal:
    """1 where the field has this value."""
    wanted, number = _spelled(value), _number(value)

    def signal(item: Item, _: Hints) -> float:
        given = item.get(field)
        return float(_spelled(given) == wanted or (number is not None and _number(given) == number))

    return signal


def words(text: str) -> set[str]:
    """Words of a text, whatever their case and accents."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return set(re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c))))


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _spelled(value: Any) -> str:
    """As a listing of text has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_MAKE: Mapping[str, Callable[..., Signal]] = {"text": _text, "near": _near, "prefer": _prefer}
