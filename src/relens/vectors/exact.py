"""Exact search: the rows of some segments that are nearest to a query, as if they lay in one list.

The answer depends on the rows alone, not on how they are cut into segments or on the machine: what a fast product
finds is scored again in double precision. One query, one pass over the memory; how many threads BLAS takes for it is
the process's choice (OPENBLAS_NUM_THREADS).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relens.values import Floats
from relens.vectors.segments import Ids, Segment

CHUNK_ROWS = 1 << 16  # scores of 256 KB at a time
PICKED_ROWS = 1 << 11  # copied at a time, when only some are asked for
PICKED_SHARE = 1 / 6  # up to which copying rows costs less than reading all of them past each other
RESCORED_ROWS = 1 << 10  # in double precision at a time, when very many are equal
EPSILON = float(np.finfo(np.float32).eps)
"""A float32 product of two unit vectors of d values errs by less than d / 2 of it (Higham, Accuracy and Stability of
Numerical Algorithms, § 3.1)."""
STEPS = 2.0**24  # of scores up to 1, as float32 has below 1: finer differences are the machine's, and are ties

Rows = NDArray[np.intp]
"""(n,) where rows stand in a segment, increasing."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found, best first: ids (m,) int64 and cosines (m,) float32; equal scores by smaller id."""

    ids: Ids
    scores: Floats


def nothing() -> Hits:
    return Hits(np.empty(0, np.int64), np.empty(0, np.float32))


def scan(segment: Segment, query: Floats, k: int, *, gone: Rows, allowed: Rows | None, best: Hits) -> Hits:
    """The k best of `best` and of a segment's rows, read one after the other; those `gone` are left out.

    allowed  the only rows that may be answered; None for all
    """
    for ids, vectors, out in _parts(segment, gone, allowed):
        floor = float(best.scores[-1]) if len(best.scores) == k else -math.inf
        rows = _candidates(vectors, query, out, k, floor)
        if len(rows):
            best = better(best, Hits(ids[rows], _rescore(vectors, rows, query)), k)
    return best


def better(best: Hits, found: Hits, k: int) -> Hits:
    """The k best of both, in their order."""
    ids, scores = np.concatenate([best.ids, found.ids]), np.concatenate([best.scores, found.scores])
    order = np.lexsort((ids, -scores))[:k]
    return Hits(ids[order], scores[order])


def exact_scores(vectors: Floats, query: Floats) -> Floats:
    """Scores that depend on nothing but the row and the query; BLAS kernels differ in the last bits between places."""
    exact = np.vecdot(vectors.astype(np.float64), query.astype(np.float64))
    rounded: Floats = (np.rint(exact * STEPS) / STEPS).astype(np.float32)
    return rounded


def rows_of(ids: Ids, some: Ids | None) -> Rows:
    """Where these ids stand. ids are increasing, the others come in any order."""
    if some is None or not len(some) or not len(ids):
        return np.empty(0, np.intp)
    return rows_of_increasing(ids, np.unique(some[(some >= ids[0]) & (some <= ids[-1])]))  # most lie elsewhere


def rows_of_increasing(ids: Ids, some: Ids) -> Rows:
    """Where these ids stand. Both are increasing."""
    if not len(ids):
        return np.empty(0, np.intp)
    some = some[some.searchsorted(ids[0]) : some.searchsorted(ids[-1], "right")]
    rows: Rows = ids.searchsorted(some)
    found: Rows = rows[ids[rows] == some]
    return found


def _parts(segment: Segment, gone: Rows, allowed: Rows | None) -> Iterator[tuple[Ids, Floats, Rows]]:
    """Ids and vectors of some rows at a time, and which of them are left out."""
    count = len(segment.ids)
    if allowed is None:
        yield from _streamed(segment, gone)
    elif len(allowed) <= count * PICKED_SHARE:
        picked = np.setdiff1d(allowed, gone, assume_unique=True)
        for start in range(0, len(picked), PICKED_ROWS):
            rows = picked[start : start + PICKED_ROWS]
            yield segment.ids[rows], segment.vectors[rows], np.empty(0, np.intp)
    else:
        left_out = np.ones(count, np.bool_)
        left_out[allowed] = False
        left_out[gone] = True
        yield from _streamed(segment, np.flatnonzero(left_out))


def _streamed(segment: Segment, gone: Rows) -> Iterator[tuple[Ids, Floats, Rows]]:
    for start in range(0, len(segment.ids), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        here = gone[np.searchsorted(gone, part.start) : np.searchsorted(gone, part.stop)] - start
        yield segment.ids[part], segment.vectors[part], here


def _candidates(vectors: Floats, query: Floats, gone: Rows, k: int, floor: float) -> Rows:
    """Rows, those `gone` left out, among which are all of the k best that score at least `floor`; hardly more."""
    margin = np.float32((len(query) + 2) * EPSILON)
    scores: Floats = vectors @ query
    scores[gone] = np.nan  # not at least as good as anything
    rows = np.flatnonzero(scores >= np.float32(floor) - margin)
    if len(rows) > k:
        near = scores[rows]
        worst = np.partition(near, len(near) - k)[-k]
        rows = rows[near >= worst - margin]
    return rows


def _rescore(vectors: Floats, rows: Rows, query: Floats) -> Floats:
    exact = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), RESCORED_ROWS):
        part = slice(start, start + RESCORED_ROWS)
        exact[part] = exact_scores(vectors[rows[part]], query)
    return exact
