"""Many boxes at once, as arrays: how much they overlap, and which of those that overlap stay.

Boxes are (n, 4): left, top, right, bottom, in any one unit. A box without area overlaps nothing. `values.Box` is what
leaves `vision`; this is what detectors compute with.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from relens.values import Floats

Share = Literal["union", "smaller"]

# Greedy choice is one box after the other; so many at once are compared with all others, which bounds memory.
_BLOCK = 128


def iou(a: Floats, b: Floats, *, of: Share = "union") -> Floats:
    """How much each box of `a` overlaps each of `b`: (n, m) float32, 0 to 1.

    a, b   (n, 4) and (m, 4): left, top, right, bottom
    of     what the intersection is a share of: of the union, or of the smaller of the two boxes
    """
    across = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    down = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    common = np.maximum(across, 0) * np.maximum(down, 0)
    first, second = _areas(a)[:, None], _areas(b)[None, :]
    whole = first + second - common if of == "union" else np.minimum(first, second)
    shares: Floats = np.divide(common, whole, out=np.zeros(common.shape, np.float32), where=whole > 0, casting="unsafe")
    return shares


def nms(boxes: Floats, scores: Floats, most: float, *, of: Share = "union") -> NDArray[np.intp]:
    """Which boxes stay, as indexes, best first: those that no better box that stays overlaps by more than `most`.

    boxes    (n, 4): left, top, right, bottom
    scores   (n,); of equal ones the first is better
    most     0 to 1, as `iou` says with the same `of`

    Greedy non-maximum suppression. Time grows with n times what stays, memory with n.
    """
    left = np.argsort(-scores, kind="stable")
    stay = [left[:0]]
    while left.size:
        block, left = left[:_BLOCK], left[_BLOCK:]
        taken = block[_greedy(iou(boxes[block], boxes[block], of=of) > most)]
        left = left[~(iou(boxes[taken], boxes[left], of=of) > most).any(axis=0)]
        stay.append(taken)
    return np.concatenate(stay)


def _areas(boxes: Floats) -> Floats:
    areas: Floats = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    return areas


def _greedy(overlap: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of boxes, best first, those that overlap none before them that stays."""
    stays = np.ones(len(overlap), np.bool_)
    for at in range(len(overlap)):
        if stays[at]:
            stays[at + 1 :] &= ~overlap[at, at + 1 :]
    return stays
