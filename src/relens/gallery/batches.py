"""Long lists of values in short statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

MAX_IN = 500
"""Values in one `IN (…)`: SQLite's limit on parameters is far above, its planner's patience is not."""


def batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    for value in values:
        some.append(value)
        if len(some) == MAX_IN:
            yield some
            some = []
    if some:
        yield some
