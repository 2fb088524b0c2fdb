"""Near-identical objects: of those whose vectors are as good as the same, the first one stays.

What a plan has staged is compared with what the gallery shows in the same category, in its newest view and in its tail,
and with what the plan itself brought before. Every pair is compared exactly; it is asked for by the recipe's filter
`duplicate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from relens.recipes import Lens
from relens.values import Floats
from relens.vectors import Ids

CHUNK_ROWS = 1 << 14
"""Rows of the gallery that are compared with a batch at a time: 256 MB of cosines with 4096 of them."""


def least_cosine(lens: Lens) -> float | None:
    """From which cosine on two objects count as one; None if the recipe compares none."""
    rules = [rule.options["min_cosine"] for rule in lens.recipe.filters if rule.name == "duplicate"]
    return min(rules) if rules else None


def find_doubles(
    staged: Iterable[tuple[Ids, Floats]], held: Sequence[tuple[Ids, Floats]], dead: Ids, least: float
) -> Ids:
    """Ids of staged objects that are doubles, increasing.

    staged  batches of ids with their unit vectors, in the order in which the first stays
    held    ids and unit vectors of the same space that were there before; those that are `dead` do not count
    """
    kept: list[Floats] = []
    doubles: list[Ids] = []
    living = [np.flatnonzero(~np.isin(before, dead)) for before, _ in held]
    for ids, vectors in staged:
        double: NDArray[np.bool_] = np.zeros(len(ids), bool)
        for (_, others), rows in zip(held, living, strict=True):
            for start in range(0, len(rows), CHUNK_ROWS):
                near = _any_near(vectors, others[rows[start : start + CHUNK_ROWS]], least)
                np.logical_or(double, near, out=double)
        for before in kept:
            np.logical_or(double, _any_near(vectors, before, least), out=double)
        np.logical_or(double, _repeats(vectors, ~double, least), out=double)
        kept.append(np.ascontiguousarray(vectors[~double]))
        doubles.append(ids[double])
    return np.sort(np.concatenate([np.empty(0, np.int64), *doubles]))


def _any_near(vectors: Floats, others: Floats, least: float) -> NDArray[np.bool_]:
    return np.asarray((vectors @ np.asarray(others).T).max(axis=1, initial=-2.0) >= np.float32(least))


def _repeats(vectors: Floats, open_: NDArray[np.bool_], least: float) -> NDArray[np.bool_]:
    """Rows that are near to an earlier one which stays itself. Rows that are not open neither stay nor are asked."""
    near = vectors @ vectors.T >= np.float32(least)
    double = np.zeros(len(vectors), bool)
    for row in np.flatnonzero(open_):
        earlier = near[row, :row] & open_[:row] & ~double[:row]
        double[row] = bool(earlier.any())
    return double
