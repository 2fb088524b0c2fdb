"""Connected regions of a mask, and the tightest rectangle around each, at any angle.

Everything is done for all regions at once, run by run of True cells, so that a map with thousands of specks costs
little more than one with a few words. The points of a region are the corners of its cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Indexes = NDArray[np.int64]
Points = NDArray[np.float64]

# A hull needs a few rounds. A made-up outline could need as many as it has points; what is left then is a hull with
# points too many, around which the rectangle is the same or a little larger.
_ROUNDS = 64


@dataclass(frozen=True, slots=True)
class Rectangle:
    """(x, y) of the centre, unit vector along one side, and the lengths of that side and of the other one."""

    x: float
    y: float
    direction: tuple[float, float]
    length: float
    breadth: float


def outlines(mask: Mask, *, least_px: int, most: int) -> list[Points]:
    """The convex outline of each region of True cells that touch, also by a corner: (n, 2) x, y; n at least 4.

    mask      (h, w)
    least_px  regions less wide or less high than this are left out
    most      only so many regions are kept, those of the most cells

    In the order of their first cells. A cell (row, column) has its corners at column and column + 1, row and row + 1.
    """
    runs = _runs(mask)
    region = _joined(runs, mask.shape[1])
    number = _numbers(region, runs, least_px, most)[region]
    kept = np.flatnonzero(number >= 0)
    return _hulls(number[kept], _Runs(runs.rows[kept], runs.starts[kept], runs.ends[kept]))


def tightest_rectangle(outline: Points) -> Rectangle:
    """The rectangle of least area around a convex outline. One of its sides lies on a side of the outline.

    Freeman and Shapira, "Determining the minimum-area encasing rectangle for an arbitrary closed curve" (Communications
    of the ACM 18, 1975).
    """
    sides = np.roll(outline, -1, axis=0) - outline
    sides /= np.hypot(sides[:, 0], sides[:, 1])[:, np.newaxis]
    along, across = outline @ sides.T, outline @ (sides[:, ::-1] * (-1, 1)).T
    lengths, breadths = np.ptp(along, axis=0), np.ptp(across, axis=0)
    best = int(np.argmin(lengths * breadths))
    middle_along, middle_across = (float(part[:, best].min() + part[:, best].max()) / 2 for part in (along, across))
    dx, dy = (float(value) for value in sides[best])
    x, y = middle_along * dx - middle_across * dy, middle_along * dy + middle_across * dx
    return Rectangle(x, y, (dx, dy), float(lengths[best]), float(breadths[best]))


def turns(corners: Points) -> Points:
    """How far an outline turns to the right behind each of its sides: (n,), twice the area of the triangle there.

    All are above 0 where corners go clockwise, in a picture, around a convex area.
    """
    sides = np.roll(corners, -1, axis=0) - corners
    after = np.roll(sides, -1, axis=0)
    areas: Points = sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0]
    return areas


@dataclass(frozen=True, slots=True)
class _Runs:
    """Row, first column and the column behind the last of each run of True cells, row by row from the left."""

    rows: Indexes
    starts: Indexes
    ends: Indexes


def _runs(mask: Mask) -> _Runs:
    edges = np.flatnonzero(np.diff(mask, axis=1, prepend=False, append=False))
    rows, columns = np.divmod(edges, mask.shape[1] + 1)
    return _Runs(rows[::2], columns[::2], columns[1::2])


def _joined(runs: _Runs, width: int) -> Indexes:
    """For each run the first run of its region.

    Runs that touch are joined by hooking the later region onto the earlier one, all at once, until nothing changes: a
    few rounds (Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", J. Algorithms 3, 1982).
    """
    line = width + 2  # longer than any row, so that a run meets none of the row after the next
    first = np.searchsorted(runs.rows * line + runs.ends, (runs.rows + 1) * line + runs.starts, side="left")
    behind = np.searchsorted(runs.rows * line + runs.starts, (runs.rows + 1) * line + runs.ends, side="right")
    counts = np.maximum(behind - first, 0)
    above = np.repeat(np.arange(len(counts)), counts)
    below = np.arange(len(above)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    root = np.arange(len(counts))
    while len(above):
        a, b = root[above], root[below]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(higher := root[root], root):
            root = higher
        apart = root[above] != root[below]
        above, below = above[apart], below[apart]
    return root


def _numbers(region: Indexes, runs: _Runs, least_px: int, most: int) -> Indexes:
    """For each run that is the first of its region: the number of the region among those kept; else -1."""
    count = len(region)
    left, right = runs.starts.copy(), runs.ends.copy()
    bottom, cells = runs.rows + 1, np.zeros(count, np.int64)
    np.minimum.at(left, region, runs.starts)
    np.maximum.at(right, region, runs.ends)
    np.maximum.at(bottom, region, runs.rows + 1)
    np.add.at(cells, region, runs.ends - runs.starts)
    large = np.flatnonzero((cells > 0) & (right - left >= least_px) & (bottom - runs.rows >= least_px))
    large = np.sort(large[np.argsort(-cells[large], kind="stable")[:most]])
    numbers = np.full(count, -1)
    numbers[large] = np.arange(len(large))
    return numbers


def _hulls(region: Indexes, runs: _Runs) -> list[Points]:
    """The convex hull of each region, numbered from 0 without gaps, clockwise in a picture."""
    if not len(region):
        return []
    order = np.lexsort((runs.starts, runs.rows, region))
    region, rows = region[order], runs.rows[order]
    first = np.flatnonzero(np.diff(region * (rows.max() + 2) + rows, prepend=-1))
    # The outermost corners of each row of each region, above and below.
    chain, y = np.repeat(region[first], 2), np.repeat(rows[first], 2)
    y[1::2] += 1
    left = np.repeat(np.minimum.reduceat(runs.starts[order], first), 2)
    right = np.repeat(np.maximum.reduceat(runs.ends[order], first), 2)
    ups, downs = _envelope(chain, y, left), _envelope(chain, y, -right)
    every = np.arange(1, region[-1] + 1)
    hulls = []
    for up, down in zip(
        np.split(ups, np.searchsorted(chain[ups], every)),
        np.split(downs, np.searchsorted(chain[downs], every)),
        strict=True,
    ):
        x = np.concatenate([left[up[::-1]], right[down]])
        hulls.append(np.stack([x, np.concatenate([y[up[::-1]], y[down]])], axis=1).astype(np.float64))
    return hulls


def _envelope(chain: Indexes, y: Indexes, x: Indexes) -> Indexes:
    """Which points of each chain, from the top down, are corners of its hull on the side of smaller x.

    A point on or behind the line between its neighbours is on no hull, so that all such go at once.
    """
    order = np.lexsort((x, y, chain))
    chosen = order[np.flatnonzero(np.diff(chain[order] * (y.max() + 1) + y[order], prepend=-1))]
    for _ in range(_ROUNDS):
        c, px, py = chain[chosen], x[chosen], y[chosen]
        turn = (px[2:] - px[:-2]) * (py[1:-1] - py[:-2]) - (px[1:-1] - px[:-2]) * (py[2:] - py[:-2])
        behind = np.flatnonzero((c[:-2] == c[2:]) & (turn <= 0)) + 1
        if not len(behind):
            break
        chosen = np.delete(chosen, behind)
    return chosen
