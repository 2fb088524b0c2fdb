"""Many boxes at once, as arrays: how much they overlap, and which of those that overlap stay.

Boxes are (n, 4): left, top, right, bottom, in any one unit. A box without area overlaps nothing. `values.Box` is what
leaves `vision`; this is what detectors compute with.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from relens.values import Floats

Boxes = NDArray[np.float32] | NDArray[np.float64]
Share = Literal["union", "smaller"]

# Greedy choice is one box after the other; so many at once are compared with all others, which bounds memory.
_BLOCK = 64


def iou(a: Boxes, b: Boxes, *, of: Share = "union") -> Floats:
    """How much each box of `a` overlaps each of `b`: (n, m) float32, 0 to 1.

    a, b   (n, 4) and (m, 4): left, top, right, bottom
    of     what the intersection is a share of: of the union, or of the smaller of the two boxes
    """
    first, second = _columns(a), _columns(b)
    common, whole = _common(first, second), _whole(_areas(first), _areas(second), of)
    if of == "union":
        whole -= common
    shares: Floats = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return shares


def nms(boxes: Boxes, scores: Floats, most: float, *, of: Share = "union") -> NDArray[np.intp]:
    """Which boxes stay, as indexes, best first: those that no better box that stays overlaps by more than `most`.

    boxes    (n, 4): left, top, right, bottom
    scores   (n,); of equal ones the first is better
    most     0 to 1, as `iou` says with the same `of`

    Greedy non-maximum suppression. Time grows with n times what stays, memory with n.
    """
    order = np.argsort(-scores, kind="stable")
    left, stay = np.arange(len(order)), [order[:0]]
    sides = _columns(boxes[order])
    areas = _areas(sides)
    while left.size:
        block = left[:_BLOCK]
        # Without a division: more than `most` of the union is more than most / (1 + most) of the sum of both.
        share = most / (1 + most) if of == "union" else most
        over = _common(sides[:, block], sides[:, left]) > share * _whole(areas[block], areas[left], of)
        stays = _greedy(over[:, : len(block)])
        left = left[len(block) :][~over[stays, len(block) :].any(axis=0)]
        stay.append(order[block[stays]])
    return np.concatenate(stay)


def _columns(boxes: Boxes) -> Floats:
    """(4, n) float32."""
    return np.ascontiguousarray(boxes.T, np.float32)


def _areas(sides: Floats) -> Floats:
    areas: Floats = np.maximum(sides[2] - sides[0], 0) * np.maximum(sides[3] - sides[1], 0)
    return areas


def _common(a: Floats, b: Floats) -> Floats:
    """Area of the intersection of each of (4, n) with each of (4, m): (n, m)."""
    across = np.minimum(a[2, :, None], b[2]) - np.maximum(a[0, :, None], b[0])
    down = np.minimum(a[3, :, None], b[3]) - np.maximum(a[1, :, None], b[1])
    np.maximum(across, 0, out=across)
    np.maximum(down, 0, out=down)
    common: Floats = across * down
    return common


def _whole(a: Floats, b: Floats, of: Share) -> Floats:
    """Of areas (n,) and (m,): their sums, or the smaller ones, (n, m)."""
    whole: Floats = np.add.outer(a, b) if of == "union" else np.minimum.outer(a, b)
    return whole


def _greedy(over: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of boxes, best first, those that overlap none before them that stays."""
    stays = np.ones(len(over), np.bool_)
    for at in range(len(over) - 1):
        if stays[at]:
            stays[at + 1 :] &= ~over[at, at + 1 :]
    return stays
