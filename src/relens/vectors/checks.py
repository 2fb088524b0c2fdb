"""Checks of a segment before anybody searches it: independent of how it was built, each with a name and a verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relens.values import Floats, Vector
from relens.vectors.searching import search
from relens.vectors.segments import Segment

CHUNK_ROWS = 1 << 14
UNIT_TOLERANCE = 1e-3  # of the squared length
SELF_SCORE = 0.999
SAME_SCORE = 1e-6
SAME_VALUE = 1e-3  # float16 rounds a value below 1 by at most half of it


@dataclass(frozen=True, slots=True)
class Check:
    """A question, whether the answer was yes, and in words why."""

    name: str
    ok: bool
    detail: str


def check_vectors(segment: Segment, *, sample: int, seed: int) -> list[Check]:
    """Everything that can be known of a segment alone.

    counts       as many ids and rows as the manifest says, of its length, ids strictly increasing
    finite       no NaN, no infinity                          (every row)
    non-zero     no row of zeros                              (every row)
    unit-length  what cosines rely on                         (every row)
    self-match   the nearest to a row is that row, or one that equals it; `sample` rows chosen by `seed`, or all if
                 there are fewer. Each reads the whole segment once
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = _squared_lengths(segment.vectors)
        return [
            _counts(segment),
            _rows(segment, "finite", ~np.isfinite(squares), "not finite"),
            _rows(segment, "non-zero", squares == 0, "zero"),
            _rows(segment, "unit-length", ~(np.abs(squares - 1) <= UNIT_TOLERANCE), "not of unit length"),
            _self_match(segment, squares, sample, seed),
        ]


def _squared_lengths(vectors: Floats) -> NDArray[np.float32]:
    chunks = (vectors[start : start + CHUNK_ROWS] for start in range(0, len(vectors), CHUNK_ROWS))
    return np.concatenate([np.empty(0, np.float32), *(np.vecdot(chunk, chunk) for chunk in chunks)])


def _counts(segment: Segment) -> Check:
    manifest = segment.manifest
    held = segment.ids.shape == (manifest.count,) and segment.vectors.shape == (manifest.count, manifest.dim)
    increasing = bool(np.all(segment.ids[1:] > segment.ids[:-1]))
    detail = f"{len(segment.ids)} ids, vectors {segment.vectors.shape}, manifest {(manifest.count, manifest.dim)}"
    return _check(segment, "counts", held and increasing, detail if increasing else f"{detail}; ids not increasing")


def _rows(segment: Segment, name: str, bad: NDArray[np.bool_], what: str) -> Check:
    count = int(bad.sum())
    first = f"; the first is id {segment.ids[bad.argmax()]}" if count else ""
    return _check(segment, name, count == 0, f"{count} of {len(bad)} rows are {what}{first}")


def _self_match(segment: Segment, squares: NDArray[np.float32], sample: int, seed: int) -> Check:
    count = len(segment.vectors)
    chosen = np.random.default_rng(seed).choice(count, size=min(sample, count), replace=False)
    lost = [int(row) for row in chosen if not (abs(squares[row] - 1) <= UNIT_TOLERANCE and _finds_itself(segment, row))]
    first = f"; the first is id {segment.ids[lost[0]]}" if lost else ""
    return _check(segment, "self-match", not lost, f"{len(lost)} of {len(chosen)} rows do not find themselves{first}")


def _finds_itself(segment: Segment, row: np.int64) -> bool:
    vector = np.array(segment.vectors[row])
    hits = search([segment], Vector(segment.manifest.space, vector), 1)
    if hits.ids[0] == segment.ids[row]:
        return bool(hits.scores[0] >= SELF_SCORE)
    found = segment.vectors[np.searchsorted(segment.ids, hits.ids[0])]
    tie = abs(hits.scores[0] - vector @ vector) <= SAME_SCORE
    return bool(tie and np.allclose(found, vector, rtol=0, atol=SAME_VALUE))


def _check(segment: Segment, name: str, ok: bool, detail: str) -> Check:
    return Check(name, ok, f"{segment.manifest.category} {segment.manifest.day}: {detail}")
