"""A search whose answers must meet a condition: look further until there are enough, or look only among those that do.

Where objects lie (category, day) is decided before the search; what must be looked up (names, items, the shelf) after
it, for the candidates alone. The answer is that of a search among all objects that meet the condition.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from relens.vectors import Hits

Find = Callable[[int, "NDArray[np.int64] | None"], Hits]
"""The k nearest objects; of those alone whose sorted ids are given."""

Matching = Callable[["Collection[int] | None"], "set[int]"]
"""Which of these ids meet the condition; of all that there are, for None."""

AHEAD = 4
"""Candidates for each answer that is wanted, to begin with, when a condition may leave some out."""

FARTHEST = 2048
"""Candidates that are looked up one by one; for a rarer condition all that meet it are asked of the catalog instead."""


def search_narrowed(find: Find, matching: Matching, k: int, *, picky: bool) -> Hits:
    """The k nearest objects that meet a condition.

    picky  whether it is likely to leave some out: a search that is not begins with k candidates
    """
    depth = AHEAD * k if picky else k
    while True:
        hits = find(depth, None)
        kept = _kept(hits, matching([int(one) for one in hits.ids]))
        if len(kept.ids) >= k or len(hits.ids) < depth:
            return Hits(kept.ids[:k], kept.scores[:k])
        share = max(len(kept.ids), 1) / depth
        depth = max(4 * depth, round(1.5 * k / share))
        if depth > FARTHEST:
            return find(k, np.array(sorted(matching(None)), dtype=np.int64))


def _kept(hits: Hits, chosen: Collection[int]) -> Hits:
    rows: Sequence[int] = [row for row, one in enumerate(hits.ids) if int(one) in chosen]
    return Hits(hits.ids[rows], hits.scores[rows])
