"""Exact search: the rows of some segments that are nearest to a query, as if they lay in one list.

The answer depends on the rows alone, not on how they are cut into segments or on the machine: what a fast product
finds is scored again in double precision. Vectors of two spaces are never compared. One query, one pass over the
memory; how many threads BLAS takes for it is the process's choice (OPENBLAS_NUM_THREADS).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput
from relens.values import Floats, Vector, require_same_space
from relens.vectors.segments import Ids, Segment

CHUNK_ROWS = 1 << 16  # scores of 256 KB at a time
RESCORED_ROWS = 1 << 10  # in double precision at a time, when very many are equal
EPSILON = float(np.finfo(np.float32).eps)
"""A float32 product of two unit vectors of d values errs by less than d / 2 of it (Higham, Accuracy and Stability of
Numerical Algorithms, § 3.1)."""
STEP = 2.0**-24  # of scores, as float32 has below 1: finer differences are those of the machine, and are ties
NOBODY: Mapping[str, Ids] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found, best first: ids (m,) int64 and cosines (m,) float32; equal scores by smaller id."""

    ids: Ids
    scores: Floats


def search(segments: Sequence[Segment], query: Vector, k: int, *, dead: Mapping[str, Ids] = NOBODY) -> Hits:
    """The k nearest living rows by cosine; fewer if there are fewer.

    dead     segment digest -> ids that are gone, in any order; ids that the segment does not hold are ignored

    Ids are unique across the segments of a view; one that two segments hold is found twice. Conflict that names both
    spaces, if any segment is of another than the query. BadInput for k < 1 and for a query of another length.
    """
    if k < 1:
        raise BadInput("vectors.bad-k", f"k is at least 1, not {k}")
    for segment in segments:
        require_same_space(query.space, segment.manifest.space)
        if query.values.shape[0] != segment.manifest.dim:
            raise BadInput(
                "vectors.wrong-shape",
                f"the query has {query.values.shape[0]} values, segment {segment.digest} has {segment.manifest.dim}",
            )
    best = Hits(np.empty(0, np.int64), np.empty(0, np.float32))
    for segment in segments:
        gone = _rows_of(segment.ids, dead.get(segment.digest))
        for start in range(0, len(segment.ids), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            ids, vectors = segment.ids[part], segment.vectors[part]
            here = gone[np.searchsorted(gone, part.start) : np.searchsorted(gone, part.stop)] - start
            floor = float(best.scores[-1]) if len(best.scores) == k else -math.inf
            rows = _candidates(vectors, query.values, here, k, floor)
            if len(rows):
                best = _better(best, Hits(ids[rows], _rescore(vectors, rows, query.values)), k)
    return best


def _candidates(vectors: Floats, query: Floats, gone: NDArray[np.intp], k: int, floor: float) -> NDArray[np.intp]:
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


def _better(best: Hits, found: Hits, k: int) -> Hits:
    """The k best of both, in their order."""
    ids, scores = np.concatenate([best.ids, found.ids]), np.concatenate([best.scores, found.scores])
    order = np.lexsort((ids, -scores))[:k]
    return Hits(ids[order], scores[order])


def _rescore(vectors: Floats, rows: NDArray[np.intp], query: Floats) -> Floats:
    """Scores that depend on nothing but the row and the query; BLAS kernels differ in the last bits between places."""
    exact = np.empty(len(rows), np.float32)
    wide = query.astype(np.float64)
    for start in range(0, len(rows), RESCORED_ROWS):
        part = slice(start, start + RESCORED_ROWS)
        exact[part] = np.rint(np.vecdot(vectors[rows[part]].astype(np.float64), wide) / STEP) * STEP
    return exact


def _rows_of(ids: Ids, some: Ids | None) -> NDArray[np.intp]:
    """Where these ids stand, increasing. ids are increasing."""
    if some is None or not len(some) or not len(ids):
        return np.empty(0, np.intp)
    some = some[(some >= ids[0]) & (some <= ids[-1])]  # most of what is gone lies elsewhere
    rows = np.searchsorted(ids, some)
    return np.unique(rows[ids[rows] == some])
