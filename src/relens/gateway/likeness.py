"""How alike the objects of a gallery are: the distribution of cosines, and a threshold that it suggests.

Pairs taken at random show what "another thing" looks like in this space; nearest neighbours show how close others
come. If items say what is the same thing (a column such as `person`), pairs that are the same are compared with pairs
that are not. A sample is looked at, the same every time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relens.errors import Conflict
from relens.values import Floats
from relens.vectors import Ids, Segment

SAMPLE = 2000
"""Objects that are looked at: two million pairs."""
LEAST = 10
STRANGERS = 1e-3
"""Share of pairs of different things that may pass for the same."""
BIN = 0.05
EDGES = np.round(np.arange(-1, 1 + BIN / 2, BIN), 2)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Objects of one category with their vectors, by increasing id."""

    ids: Ids
    vectors: Floats


def likeness_of(
    segments: Sequence[Segment],
    dead: Mapping[str, Ids],
    things: Callable[[Sequence[int]], Mapping[int, str]] | None,
) -> dict[str, Any]:
    """What the cosines between the objects of some segments of one space say.

    things  which thing each of these objects shows, if anybody knows; those that it leaves out are unknown

    `{"objects", "sampled", "pairs": {"different", "nearest", "same"}, "threshold", "why"}`; each kind of pairs is
    `{"count", "quantiles", "histogram"}`. Conflict for fewer than ten objects.
    """
    sample, total = _sampled(segments, dead)
    if len(sample.ids) < LEAST:
        raise Conflict(
            "gateway.too-few",
            f"{len(sample.ids)} objects have vectors; fewer than {LEAST} say nothing about likeness",
            hint="import more pictures first",
        )
    cosines = sample.vectors @ sample.vectors.T
    known = None if things is None else things([int(one) for one in sample.ids])
    same, different = _pairs(cosines, sample.ids, known)
    np.fill_diagonal(cosines, -np.inf)
    shown = {"different": _shown(different), "nearest": _shown(cosines.max(axis=1))}
    if len(same):
        shown["same"] = _shown(same)
    threshold, why = _proposed(same, different, known is not None)
    return {
        "objects": total,
        "sampled": len(sample.ids),
        "pairs": shown,
        "threshold": round(threshold, 3),
        "why": why,
    }


def _sampled(segments: Sequence[Segment], dead: Mapping[str, Ids]) -> tuple[_Sample, int]:
    """Objects spread evenly over all that live, and how many there are."""
    rows = [np.flatnonzero(~np.isin(segment.ids, dead.get(segment.digest, ()))) for segment in segments]
    total = sum(len(some) for some in rows)
    step = max(1, -(-total // SAMPLE))
    ids, vectors, before = [np.empty(0, np.int64)], [], 0
    for segment, living in zip(segments, rows, strict=True):
        taken = living[(-before) % step :: step]
        before += len(living)
        ids.append(segment.ids[taken])
        vectors.append(np.asarray(segment.vectors[taken]))
    if not vectors:
        return _Sample(ids[0], np.empty((0, 1), np.float32)), total
    return _Sample(np.concatenate(ids), np.concatenate(vectors)), total


def _pairs(cosines: Floats, ids: Ids, known: Mapping[int, str] | None) -> tuple[Floats, Floats]:
    """Cosines of pairs that show the same thing, and of those that do not (all, if nobody knows)."""
    above = np.triu(np.ones(cosines.shape, bool), 1)
    if known is None:
        return np.empty(0, np.float32), cosines[above]
    names = [known.get(int(one)) for one in ids]
    codes = {name: code for code, name in enumerate(dict.fromkeys(name for name in names if name is not None))}
    labels: NDArray[np.int64] = np.array([-1 if name is None else codes[name] for name in names])
    both = above & (labels[:, None] >= 0) & (labels[None, :] >= 0)
    alike = labels[:, None] == labels[None, :]
    return cosines[both & alike], cosines[both & ~alike]


def _proposed(same: Floats, different: Floats, asked: bool) -> tuple[float, str]:
    if not len(different):
        return 1.0, "every object shows the same thing, as far as is known: there is nothing to tell it from"
    strict = float(np.quantile(different, 1 - STRANGERS))
    if not len(same):
        hint = "no two objects are known to show the same thing" if asked else "`--same COLUMN` says what is the same"
        return strict, f"{STRANGERS:.1%} of pairs at random are more alike; {hint}"
    kept = float((same >= strict).mean())
    best = _best_cut(same, different)
    if best >= strict:
        missed = float((same < best).mean())
        return (
            best,
            f"pairs that are the same and pairs that are not are told apart best there; {missed:.1%} are missed",
        )
    return strict, f"{STRANGERS:.1%} of different pairs pass, and {kept:.1%} of those that are the same"


def _best_cut(same: Floats, different: Floats) -> float:
    """Where the share of the same that is missed and the share of the different that passes are least together."""
    cuts = np.unique(
        np.quantile(np.concatenate([same, different[:: max(1, len(different) // 10_000)]]), np.linspace(0, 1, 513))
    )
    missed = np.searchsorted(np.sort(same), cuts) / len(same)
    passed = 1 - np.searchsorted(np.sort(different), cuts) / len(different)
    least = np.flatnonzero(np.isclose(missed + passed, (missed + passed).min(), atol=1e-9))
    return float(cuts[least].mean())


def _shown(cosines: Floats) -> dict[str, Any]:
    counts, _ = np.histogram(np.clip(cosines, -1, 1), bins=EDGES)
    at = {"p1": 0.01, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p99": 0.99, "p999": 0.999}
    return {
        "count": len(cosines),
        "quantiles": {name: round(float(np.quantile(cosines, share)), 4) for name, share in at.items()}
        if len(cosines)
        else {},
        "histogram": [
            {"from": float(low), "to": float(high), "count": int(count)}
            for low, high, count in zip(EDGES[:-1], EDGES[1:], counts, strict=True)
            if count
        ],
    }
