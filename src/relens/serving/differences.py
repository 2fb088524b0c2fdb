"""How far apart the answers of two versions to one request are: tensors, or what is seen in a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from relens.golden import TOLERANCE
from relens.serving.served import Inferred, Recognized
from relens.tensors import Array, Tensors

TINY = 1e-9
"""What the largest number counts as at least, so that zeros can be compared."""
ROWS = 2
"""Sides of a tensor of rows."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far an answer is from another one.

    form    whether it has other names, shapes or types, so that nothing else can be said
    off     the largest difference of two numbers, as a share of the largest number; texts that differ are off by 1
    same    rows or objects with the same best class
    other   rows or objects with another one
    """

    form: bool = False
    off: float = 0.0
    same: int = 0
    other: int = 0

    @property
    def outcome(self) -> str:
        """As metrics call it. Within the tolerance of golden pictures, and of the same classes, is the same."""
        if self.form:
            return "other_form"
        return "same" if self.off <= TOLERANCE and not self.other else "different"


def difference(one: Inferred | Recognized, other: Inferred | Recognized) -> Difference:
    """How far the second answer is from the first; both are answers to the same request.

    The best class of a row is where the largest number is in the first output of rows of numbers.
    """
    if isinstance(one, Inferred) and isinstance(other, Inferred):
        return _of_tensors(one.outputs, other.outputs)
    if isinstance(one, Recognized) and isinstance(other, Recognized):
        return _of_objects(one.found["objects"], other.found["objects"])
    return Difference(form=True)


def _of_tensors(one: Tensors, other: Tensors) -> Difference:
    if _forms(one) != _forms(other):
        return Difference(form=True)
    off = max((_off(one[name], other[name]) for name in one), default=0.0)
    rows = next(filter(_has_classes, zip(one.values(), (other[name] for name in one), strict=True)), None)
    if rows is None:
        return Difference(off=off)
    best, best_of_other = (array.argmax(axis=1) for array in rows)
    same = int((best == best_of_other).sum())
    return Difference(off=off, same=same, other=len(best) - same)


def _has_classes(pair: tuple[Array, Array]) -> bool:
    """Whether these are rows of numbers, of which the largest may be a class."""
    array, _ = pair
    return array.ndim == ROWS and array.shape[1] > 1 and _is_of_numbers(array)


def _forms(tensors: Tensors) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, array.dtype.str) for name, array in tensors.items()}


def _is_of_numbers(array: Array) -> bool:
    return array.dtype.kind in "iuf"


def _off(one: Array, other: Array) -> float:
    if not one.size:
        return 0.0
    if not _is_of_numbers(one):
        return float(not np.array_equal(one, other))
    wide_one, wide_other = one.astype(np.float64), other.astype(np.float64)
    alike = (wide_one == wide_other) | (np.isnan(wide_one) & np.isnan(wide_other))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(alike, 0.0, np.abs(wide_one - wide_other)).max()
        largest = np.abs(wide_one, where=np.isfinite(wide_one), out=np.zeros_like(wide_one)).max()
    return float(apart / max(largest, TINY)) if np.isfinite(apart) else np.inf


def _of_objects(one: list[Mapping[str, Any]], other: list[Mapping[str, Any]]) -> Difference:
    numbers, numbers_of_other = _numbers(one), _numbers(other)
    if len(one) != len(other) or numbers.shape != numbers_of_other.shape:
        return Difference(form=True)
    same = sum(_name(left) == _name(right) for left, right in zip(one, other, strict=True))
    return Difference(off=_off(numbers, numbers_of_other), same=same, other=len(one) - same)


def _name(found: Mapping[str, Any]) -> str | None:
    """The best name of an object."""
    return next((label["name"] for label in found["labels"]), None)


def _numbers(objects: list[Mapping[str, Any]]) -> Array:
    """Boxes, scores, the score of each best name, and what else is told in numbers."""
    found: list[float] = []
    for one in objects:
        found += [*one["box"], one["score"], *(label["score"] for label in one["labels"][:1])]
        for value in one["attributes"].values():
            found += value if isinstance(value, list) else [value] if isinstance(value, float) else []
    return np.array(found, np.float64)
