"""What an index finds of what there is, measured: the neighbours of some of its rows, beside those of exact search.

A search for more than ten, or among few allowed rows, goes deeper: the ten nearest of each tenth row lie about as far
away as the hundred nearest of all. So lists are counted for all rows, for each tenth and for each hundredth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relens.values import Floats, Vector
from relens.vectors.exact import Rows, exact_scores
from relens.vectors.indexes import DEPTH, DEPTHS, Index
from relens.vectors.quantizers import Quantizer
from relens.vectors.searching import Searchable
from relens.vectors.segments import Ids, Segment

ENOUGH = 0.95  # recall at ten
SPARE = 0.02  # more than enough is aimed at: a sample errs, and 8 bits lose a little
OVERFETCH = (2, 4, 8, 16)
MORE, MORE_LISTS = 1.25, 4  # times as many lists and as far, and how often that is tried
NARROWEST = 1e-3  # of reach: products of one query and of many differ in their last bits
SAMPLE_ROWS = 100
SEED = 1
UNIT_TOLERANCE = 1e-3  # of the squared length
FIRST_CHUNK_ROWS, CHUNK_ROWS = 1 << 8, 1 << 13

Settings = NDArray[Any]
"""(3,) lists, or how far they reach, for each of `DEPTHS`."""

Places = NDArray[np.intp]
"""Where rows stand if segments follow each other; -1 for no row."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What searches are to do, as a manifest says it, and the share of the ten nearest that is found then."""

    probes: tuple[int, ...]
    reach: tuple[float, ...]
    overfetch: int
    recall: float


def measure_recall(index: Index, segments: Sequence[Segment], gone: Sequence[Rows]) -> Recall:
    """How many lists of an index have to be searched, and what is found then; 1.0 if there is nothing to find.

    segments  all that the index covers; the same in the same order are measured the same
    gone      for each segment the rows that are dead
    """
    rows = _Living(segments, gone)
    chosen = rows.draw(SAMPLE_ROWS, np.random.default_rng(SEED))
    queries = rows.vectors(chosen)
    nearest = [rows.nearest(queries, chosen, every=times) for times in DEPTHS]
    needs = [_lists_that_hold(index.quantizer, queries, rows, near) for near in nearest]
    probes = np.maximum.accumulate([lists for lists, _ in needs])
    reach = np.maximum.accumulate([far for _, far in needs])
    there = int((nearest[0] >= 0).sum())
    least = [_worst_score(rows, query, near) for query, near in zip(queries, nearest[0], strict=True)]
    vectors = [Vector(index.manifest.space, query) for query in queries]
    dead = {segment.digest: segment.ids[of] for segment, of in zip(segments, gone, strict=True)}
    best = Recall((), (), 0, -1.0)
    for lists, far, overfetch in _ever_more(probes, reach, index.quantizer.manifest.nlist):
        tried = Recall(tuple(lists.tolist()), tuple(far.round(4).tolist()), overfetch, 0.0)
        manifest = replace(index.manifest, **asdict(tried))
        searchable = Searchable(segments, dead=dead, indexes=[replace(index, manifest=manifest)])
        found = _found(searchable, vectors, rows.ids(chosen), least)
        recall = round(found / there, 4) if there else 1.0
        if recall > best.recall:
            best = replace(tried, recall=recall)
        if recall >= ENOUGH:
            break
    return best


def _ever_more(probes: Settings, reach: Settings, nlist: int) -> Iterator[tuple[Settings, Settings, int]]:
    """Lists that hold enough; if not enough is found all the same, more candidates, and then more lists."""
    for overfetch in OVERFETCH:
        yield probes, reach, overfetch
    for _ in range(MORE_LISTS):
        probes, reach = np.minimum(np.ceil(probes * MORE).astype(np.int64), nlist), reach * MORE
        yield probes, reach, OVERFETCH[-1]


def least_of(indexes: Sequence[Index]) -> Recall:
    """The most lists and the least recall that any of some indexes was measured to have."""
    manifests = [index.manifest for index in indexes]
    probes = np.max([manifest.probes for manifest in manifests], axis=0)
    reach = np.max([manifest.reach for manifest in manifests], axis=0)
    overfetch = max(manifest.overfetch for manifest in manifests)
    return Recall(tuple(probes.tolist()), tuple(reach.tolist()), overfetch, min(one.recall for one in manifests))


def _lists_that_hold(quantizer: Quantizer, queries: Floats, rows: _Living, nearest: Places) -> tuple[int, float]:
    """In how many lists enough of the neighbours of queries lie, and how much farther than the nearest those are."""
    asked, places = np.nonzero(nearest >= 0)[0], nearest[nearest >= 0]
    if not len(places):
        return 1, 0.0
    closeness = queries @ quantizer.centroids.T
    held = closeness[asked, quantizer.assign(rows.vectors(places))]
    nearer = np.sort([int((closeness[one] > close).sum()) for one, close in zip(asked, held, strict=True)])
    farther = np.sort(closeness.max(axis=1)[asked] - held)
    enough = math.ceil((ENOUGH + SPARE) * len(places)) - 1
    return int(nearer[enough]) + 1, float(farther[enough]) + NARROWEST


def _worst_score(rows: _Living, query: Floats, nearest: Places) -> float:
    places = nearest[nearest >= 0]
    return float(exact_scores(rows.vectors(places), query).min()) if len(places) else math.inf


def _found(searchable: Searchable, queries: Sequence[Vector], own: Ids, least: Sequence[float]) -> int:
    """How many of the ten nearest searches find; a row that scores the same as one of them is as good."""
    found = 0
    for query, itself, worst in zip(queries, own, least, strict=True):
        hits = searchable.search(query, DEPTH + 1)
        found += int((hits.scores[hits.ids != itself][:DEPTH] >= worst).sum())
    return found


class _Living:
    """The living rows of segments, which have places as if they followed each other."""

    def __init__(self, segments: Sequence[Segment], gone: Sequence[Rows]) -> None:
        self._segments = segments
        self._starts = np.cumsum([0, *(len(segment.ids) for segment in segments)])
        self._dead = np.concatenate([rows + start for rows, start in zip(gone, self._starts[:-1], strict=True)])

    def draw(self, count: int, rng: np.random.Generator) -> Places:
        """Places of some living rows, of which those that are no unit vectors cannot ask."""
        total = int(self._starts[-1])
        drawn = rng.choice(total, min(total, count + len(self._dead)), replace=False)
        drawn = drawn[~np.isin(drawn, self._dead)][:count]
        vectors = self.vectors(drawn)
        units: Places = drawn[np.abs(np.vecdot(vectors, vectors) - 1) <= UNIT_TOLERANCE]
        return units

    def vectors(self, places: Places) -> Floats:
        """(n, d), in the order of the places."""
        held = np.empty((len(places), self._segments[0].vectors.shape[1]), np.float32)
        for segment, mine, rows in self._held(places):
            held[mine] = segment.vectors[rows]
        return held

    def ids(self, places: Places) -> Ids:
        """(n,) in the order of the places."""
        held = np.empty(len(places), np.int64)
        for segment, mine, rows in self._held(places):
            held[mine] = segment.ids[rows]
        return held

    def nearest(self, queries: Floats, own: Places, *, every: int) -> Places:
        """(q, 10) places of the nearest to each query, of living rows at multiples of `every`; its own is left out."""
        best = _Best(len(queries))
        for places, vectors in self._chunks(every):
            scores = vectors @ queries.T
            scores[_meeting(places, self._dead)[0]] = np.nan
            scores[_meeting(places, own)] = np.nan
            best.add(places, scores)
        return best.places

    def _chunks(self, every: int) -> Iterator[tuple[Places, Floats]]:
        """Small chunks first: they tell what is not worth a look in the larger ones."""
        size = FIRST_CHUNK_ROWS
        for segment, start in zip(self._segments, self._starts[:-1], strict=True):
            row = int(-start % every)
            while row < len(segment.ids):
                rows = slice(row, min(row + size * every, len(segment.ids)), every)
                yield start + np.arange(rows.start, rows.stop, every), segment.vectors[rows]
                row, size = row + size * every, min(size * 2, CHUNK_ROWS)

    def _held(self, places: Places) -> Iterator[tuple[Segment, Places, Rows]]:
        """Each segment with which of the places lie in it, and its rows there."""
        numbers = np.searchsorted(self._starts, places, "right") - 1
        for number in np.unique(numbers):
            mine = np.flatnonzero(numbers == number)
            yield self._segments[number], mine, places[mine] - self._starts[number]


class _Best:
    """The ten best places of each of some queries."""

    def __init__(self, queries: int) -> None:
        self._query = np.repeat(np.arange(queries), DEPTH)
        self._score = np.full(queries * DEPTH, -np.inf, np.float32)
        self._place = np.full(queries * DEPTH, -1, np.intp)

    @property
    def places(self) -> Places:
        return self._place.reshape(-1, DEPTH)

    def add(self, places: Places, scores: Floats) -> None:
        """scores (n, q) of the rows at places (n,); NaN is never kept."""
        near = np.flatnonzero(scores > self._score[DEPTH - 1 :: DEPTH])  # ten times as quick as of a table
        rows, asked = np.divmod(near, scores.shape[1])
        query = np.concatenate([self._query, asked])
        score = np.concatenate([self._score, scores[rows, asked]])
        place = np.concatenate([self._place, places[rows]])
        order = np.lexsort((place, -score, query))
        rank = np.arange(len(order)) - np.searchsorted(query[order], query[order])
        kept = order[rank < DEPTH]
        self._score, self._place = score[kept], place[kept]


def _meeting(places: Places, some: Places) -> tuple[Places, Places]:
    """Where in places, which increase, some of them stand; and which of some those are."""
    at = np.searchsorted(places, some)
    there = np.flatnonzero(at < len(places))
    there = there[places[at[there]] == some[there]]
    return at[there], there
