"""Segments that one index covers: candidates from the index, then the truth about each of them from its segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relens.values import Floats
from relens.vectors.exact import Hits, Rows, exact_scores, nothing, rows_of_increasing, scan
from relens.vectors.indexes import Index, nearest_lists
from relens.vectors.quantizers import Quantizer
from relens.vectors.segments import Ids, Segment
from relens.vectors.selectors import all_but, both, only

PICKED_COST = 8  # copying a row of a segment and scoring it costs as much as so many rows of lists
STREAMED_COST = 4  # the same for all rows of a segment, beside rows of lists most of which are passed over
WIDER = 4  # times as many lists, when those searched held too few that may be answered


class Asked:
    """A query, and how close it is to the centroids of each quantizer, computed once for all indexes that use one."""

    def __init__(self, values: Floats) -> None:
        self.values = np.ascontiguousarray(values)
        self._closeness: dict[str, Floats] = {}

    def closeness(self, quantizer: Quantizer) -> Floats:
        """(nlist,) product of the query and each centroid."""
        if quantizer.digest not in self._closeness:
            self._closeness[quantizer.digest] = quantizer.centroids @ self.values
        return self._closeness[quantizer.digest]


class Covered:
    """Some segments of an index, all of which it covers, and for each the rows that are gone."""

    def __init__(self, index: Index, segments: Sequence[Segment], gone: Mapping[str, Rows]) -> None:
        self.index = index
        self._parts = [(segment, gone[segment.digest]) for segment in segments if len(segment.ids)]
        self._first = np.array([segment.ids[0] for segment, _ in self._parts], np.int64)
        self._last = np.array([segment.ids[-1] for segment, _ in self._parts], np.int64)
        self._living = _living(segments, gone)
        dead = np.unique(np.concatenate([np.empty(0, np.int64), *(one.ids[gone] for one, gone in self._parts)]))
        elsewhere = self._living_among(dead)  # who lives in another segment is not dead
        self._twice = len(elsewhere) > 0
        self._selector = self._select(np.setdiff1d(dead, elsewhere), partly=len(index.manifest.covers) > len(segments))

    @staticmethod
    def lacks_nobody(index: Index, segments: Sequence[Segment], gone: Mapping[str, Rows]) -> bool:
        """Whether an index has as many rows as live in these segments, so that it may be asked for them."""
        return index.manifest.count >= _living(segments, gone)

    def search(self, asked: Asked, k: int, allowed: Ids | None, nprobe: int | None) -> Hits:
        """The k nearest of the candidates, scored exactly. Of few rows that may be answered all are scored instead."""
        most = self._living if allowed is None else min(self._living, self._count(allowed))
        wanted = min(k, most)
        if not wanted:
            return nothing()
        depth = k * self.index.manifest.count / most
        cost = STREAMED_COST if allowed is None else PICKED_COST
        if most * cost <= self._rows_met(nprobe or self.index.lists_at_most(depth)):
            return self._scan(asked.values, k, allowed)
        closeness = asked.closeness(self.index.quantizer)
        selector = self._selector if allowed is None else both(only(allowed), self._selector)
        lists = self.index.lists_within_reach(closeness, depth) if nprobe is None else nearest_lists(closeness, nprobe)
        while True:
            ids = self.index.nearest(asked.values, closeness, lists, k * self.index.manifest.overfetch, selector)
            hits = self._score(ids, asked.values, k)
            if len(hits.ids) >= wanted or nprobe is not None or len(lists) == len(closeness):
                return hits
            lists = nearest_lists(closeness, len(lists) * WIDER)

    def _score(self, ids: Ids, query: Floats, k: int) -> Hits:
        """The k best of the rows with these ids, as exact search answers them."""
        found = [self._look_up(part, some) for part, some in self._by_part(ids)]
        if not found:
            return nothing()
        held, vectors = found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True))
        scores = exact_scores(vectors, query)
        order = np.lexsort((held, -scores))[:k]
        hits = Hits(held[order], scores[order])
        if not len(order) or hits.scores[-1] == hits.scores[-1]:
            return hits
        numbers = ~np.isnan(hits.scores)  # a row that is not a number comes last, and is never found
        return Hits(hits.ids[numbers], hits.scores[numbers])

    def _look_up(self, part: int, ids: Ids) -> tuple[Ids, Floats]:
        """Those of the ids that live in a segment, and their vectors."""
        segment, gone = self._parts[part]
        rows = segment.ids.searchsorted(ids)
        here = segment.ids.take(rows, mode="clip") == ids
        if self._twice and len(gone):
            here &= ~np.isin(rows, gone)
        if not here.all():
            ids, rows = ids[here], rows[here]
        return ids, segment.vectors[rows]

    def _scan(self, query: Floats, k: int, allowed: Ids | None) -> Hits:
        best = nothing()
        for segment, gone in self._parts:
            rows = None if allowed is None else rows_of_increasing(segment.ids, allowed)
            best = scan(segment, query, k, gone=gone, allowed=rows, best=best)
        return best

    def _by_part(self, ids: Ids) -> list[tuple[int, Ids]]:
        """The segments that may hold some of these ids, and which."""
        if len(self._parts) == 1:
            return [(0, ids)] if len(ids) else []
        increasing = np.sort(ids)
        return [(part, increasing[low:high]) for part, low, high in self._spans(increasing)]

    def _spans(self, ids: Ids) -> list[tuple[int, int, int]]:
        """The segments that may hold some of these ids, which increase, and from where to where those stand."""
        low, high = ids.searchsorted(self._first), ids.searchsorted(self._last, "right")
        return [(int(part), int(low[part]), int(high[part])) for part in np.flatnonzero(high > low)]

    def _rows_met(self, lists: int) -> float:
        """How many rows so many lists have, about."""
        return lists * self.index.manifest.count / len(self.index.lists.sizes)

    def _count(self, allowed: Ids) -> int:
        """At most so many rows of these segments are allowed."""
        spans = np.array([high - low for _, low, high in self._spans(allowed)], np.int64)
        return int(spans.sum())

    def _select(self, dead: Ids, *, partly: bool) -> Any:
        """What keeps the dead, and rows of segments that are not searched, out of the candidates; None for nothing."""
        if partly:
            return only(
                np.concatenate([np.empty(0, np.int64), *(np.delete(one.ids, gone) for one, gone in self._parts)])
            )
        return all_but(dead) if len(dead) else None

    def _living_among(self, ids: Ids) -> Ids:
        """Those of some ids, increasing, that live in any of these segments."""
        found = [np.empty(0, np.int64)]
        for segment, gone in self._parts:
            found.append(segment.ids[np.setdiff1d(rows_of_increasing(segment.ids, ids), gone, assume_unique=True)])
        return np.concatenate(found)


def _living(segments: Sequence[Segment], gone: Mapping[str, Rows]) -> int:
    return sum(len(segment.ids) - len(gone[segment.digest]) for segment in segments)
