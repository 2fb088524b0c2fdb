"""Fidelity: how close a model comes to another that it shall replace, and what a picture costs in each.

Vectors are compared by cosine, names by the best one, findings by box and label, numbers by their difference. Both run
on the same pictures, in turns and on one core, so that their CPU times can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from relens.models import Card
from relens.runtimes import Session
from relens.values import Detection, Floats
from relens.vision.boxes import iou
from relens.vision.heads import detections_of, scores_of, value_of

MIN_SCORE = 0.25
"""Findings with a lower score are not compared: many detectors list every place of the picture."""
SAME_PLACE = 0.5
MAX_FINDINGS = 300
LEAST_NEIGHBOURS = 10

Outputs = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a version must reach: the mean cosine of its vectors, and the share of answers that are the same.

    The correlation of numbers must reach what a cosine must; it is the cosine of how they vary.
    """

    min_cosine: float = 0.98
    min_agreement: float = 0.95

    def missed(self, fidelity: Mapping[str, Any]) -> list[str]:
        """What a report does not reach, in words. What could not be compared reaches nothing."""
        asked = (
            ("cosine", "mean", "the mean cosine", self.min_cosine),
            ("difference", "correlation", "the correlation of the numbers", self.min_cosine),
            ("agreement", "share", "the agreement", self.min_agreement),
        )
        found = [(what, fidelity[part][key], bound) for part, key, what, bound in asked if part in fidelity]
        return [
            f"{what} is {'unknown' if value is None else f'{value:.4f}'} and must be {bound:g}"
            for what, value, bound in found
            if value is None or value < bound
        ]


DEFAULT_BOUNDS = Bounds()
"""EfficientNet-lite0 to 2 reach 0.993 to 0.995 and 0.97 to 1 (docs/decisions/008-int8-by-the-library.md)."""


def compare(card: Card, original: Session, other: Session, inputs: Iterable[Floats]) -> dict[str, Any]:
    """How close the other comes to the original on these inputs, each (1, …) float32, at least one.

    cosine      of vectors: `mean`, `p1` (one in a hundred is lower), `worst`; `nearest`, the share of pictures whose
                nearest other one is the same, if there are ten. Where nothing else can be said: of all outputs
    agreement   `share` of pictures with the same best name, or of findings that both have among those of either
    difference  of numbers: `mean`, `worst`, `spread` (standard deviation of the original's) and `correlation`
    cpu_ms      `fp32` and `int8`: the median of a picture; `speedup` is their ratio

    What the pictures do not tell is None: the agreement if nothing is found, the correlation if all numbers are equal.
    """
    measures = _MEASURES[card.task](card)
    took: list[tuple[float, float]] = []
    for given in inputs:
        if not took:
            original.run(given), other.run(given)  # the first run of a session does more than others
        (one, one_ms), (two, two_ms) = _timed(original, given), _timed(other, given)
        took.append((one_ms, two_ms))
        for measure in measures.values():
            measure.add(one, two)
    fp32, int8 = (float(np.median(column)) for column in zip(*took, strict=True))
    times = {"cpu_ms": {"fp32": round(fp32, 3), "int8": round(int8, 3)}, "speedup": round(fp32 / int8, 2)}
    return {name: measure.result() for name, measure in measures.items()} | times


def _timed(session: Session, given: Floats) -> tuple[Outputs, float]:
    """What a session with one thread says, and milliseconds of CPU: it runs in the thread that asks."""
    start = time.thread_time()
    outputs = session.run(given)
    return outputs, max((time.thread_time() - start) * 1000, 1e-6)


class _Measure(Protocol):
    """What is compared, a picture at a time, without keeping what the models said."""

    def add(self, one: Outputs, other: Outputs) -> None: ...

    def result(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class _Cosines:
    """The cosines of outputs, all in a row; vectors are kept for their neighbours."""

    roles: Sequence[str]
    cosines: list[float] = field(default_factory=list)
    rows: list[tuple[Floats, Floats]] = field(default_factory=list)

    def add(self, one: Outputs, other: Outputs) -> None:
        pair = self._unit(one), self._unit(other)
        self.cosines.append(float(pair[0] @ pair[1]))
        if self.roles == ("vector",):
            self.rows.append(pair)

    def result(self) -> dict[str, Any]:
        low, worst = np.quantile(self.cosines, 0.01), min(self.cosines)
        shown = {"of": ", ".join(self.roles), "mean": _share(np.mean(self.cosines))}
        shown |= {"p1": _share(low), "worst": _share(worst)}
        if len(self.rows) >= LEAST_NEIGHBOURS:
            ones, others = (np.stack(side) for side in zip(*self.rows, strict=True))
            shown["nearest"] = _share((_nearest(ones) == _nearest(others)).mean())
        return shown

    def _unit(self, outputs: Outputs) -> Floats:
        """Scaled to unit length; zeros are like nothing."""
        row = np.concatenate([outputs[role].ravel() for role in self.roles]).astype(np.float32)
        unit: Floats = row / max(float(np.linalg.norm(row)), 1e-12)
        return unit


@dataclass(slots=True)
class _Names:
    decode: Mapping[str, Any]
    same: list[bool] = field(default_factory=list)

    def add(self, one: Outputs, other: Outputs) -> None:
        best = [int(scores_of(said["scores"], self.decode).argmax()) for said in (one, other)]
        self.same.append(best[0] == best[1])

    def result(self) -> dict[str, Any]:
        return {"of": "the best name", "share": _share(np.mean(self.same))}


@dataclass(slots=True)
class _Numbers:
    decode: Mapping[str, Any]
    pairs: list[tuple[float, float]] = field(default_factory=list)

    def add(self, one: Outputs, other: Outputs) -> None:
        first, second = (float(value_of(said["value"], self.decode)[0]) for said in (one, other))
        self.pairs.append((first, second))

    def result(self) -> dict[str, Any]:
        ones, others = np.array(self.pairs).T
        off, vary = np.abs(ones - others), min(ones.std(), others.std()) > 0
        return {
            "of": f"the number ({unit})" if (unit := self.decode.get("unit")) else "the number",
            "mean": round(float(off.mean()), 5),
            "worst": round(float(off.max()), 5),
            "spread": round(float(ones.std()), 5),
            "correlation": _share(np.corrcoef(ones, others)[0, 1]) if vary else None,
        }


@dataclass(slots=True)
class _Findings:
    """What two detectors have in common, without asking which of them is right (F1)."""

    card: Card
    found: list[int] = field(default_factory=lambda: [0, 0])
    common: int = 0

    def add(self, one: Outputs, other: Outputs) -> None:
        first, second = self._of(one), self._of(other)
        self.found = [self.found[0] + len(first), self.found[1] + len(second)]
        self.common += _common(first, second)

    def result(self) -> dict[str, Any]:
        total = sum(self.found)
        share = _share(2 * self.common / total) if total else None
        return {"of": "findings", "share": share, "found": {"fp32": self.found[0], "int8": self.found[1]}}

    def _of(self, outputs: Outputs) -> list[Detection]:
        prep = self.card.preprocessing
        return detections_of(
            outputs,
            self.card.decode,
            input_size=(prep.size_px, prep.height),
            placed=(0.0, 0.0, float(prep.size_px), float(prep.height)),
            min_score=MIN_SCORE,
            iou=0.5,
            max_objects=MAX_FINDINGS,
            labels=(),
        )


def _detector(card: Card) -> dict[str, _Measure]:
    return {"agreement": _Findings(card)} if card.kind in {"yolo", "boxes"} else _outputs(card)


def _outputs(card: Card) -> dict[str, _Measure]:
    return {"cosine": _Cosines(tuple(card.outputs))}


_MEASURES: Mapping[str, Callable[[Card], dict[str, _Measure]]] = {
    "classify": lambda card: {"agreement": _Names(card.decode)},
    "embed": lambda _card: {"cosine": _Cosines(("vector",))},
    "classify+embed": lambda card: {"cosine": _Cosines(("vector",)), "agreement": _Names(card.decode)},
    "regress": lambda card: {"difference": _Numbers(card.decode)},
    "detect": _detector,
    "read": _outputs,
}


def _common(one: Sequence[Detection], other: Sequence[Detection]) -> int:
    """How many findings have one of the same class in the same place; each is taken once, strongest first."""
    if not one or not other:
        return 0
    overlaps = iou(_sides(one), _sides(other))
    overlaps[np.array([a.index for a in one])[:, None] != np.array([b.index for b in other])] = 0
    common = 0
    for row in range(len(one)):
        best = int(overlaps[row].argmax())
        if overlaps[row, best] >= SAME_PLACE:
            overlaps[:, best] = 0
            common += 1
    return common


def _sides(found: Sequence[Detection]) -> Floats:
    boxes = [one.box for one in found]
    return np.array([[box.x, box.y, box.x + box.w, box.y + box.h] for box in boxes], np.float32)


def _nearest(rows: Floats) -> Any:
    """For each row the number of the other one with the greatest cosine."""
    alike = rows @ rows.T
    np.fill_diagonal(alike, -np.inf)
    return alike.argmax(axis=1)


def _share(value: Any) -> float:
    return round(float(value), 5)
