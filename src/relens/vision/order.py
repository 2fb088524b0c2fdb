"""The order in which people read the lines of a picture: from the top down, column by column, rows of tables across.

A recursive cut at the white between lines, after Nagy and Seth, "Hierarchical Representation of Optically Scanned
Documents" (ICPR 1984), in the frame of the text, so that a page may lie askew. Writing is taken to go from left to
right; columns of vertical writing come in no useful order.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relens.values import Detection

Span = tuple[float, float]

# Where lines lie above each other, their widened boxes overlap: half of the height around the middle does not.
_CORE = 0.25
# Lines so many times longer than high are prose, and its columns are read down. Shorter ones are cells of a table, or
# prices behind names, and are read across.
_PROSE = 4.0
# Beyond this the lines of a picture have no common direction: signs, not a page.
_MOST_SLOPE = 0.5


@dataclass(frozen=True, slots=True)
class _Line:
    """Where a line lies in the frame of the text: across, the core of its height, and its length by its height."""

    number: int
    across: Span
    down: Span
    shape: float


def reading_order(lines: Sequence[Detection], *, aspect: float = 1.0) -> list[int]:
    """Indexes of lines as they are read.

    aspect   width of the picture by its height; it only tells prose from cells of a table

    The page is cut into bands from the top down. Neighbouring bands that leave white from top to bottom form columns,
    and are read one column after the other, each in the same way. A title over columns, or a page number below them,
    is a band of its own.
    """
    todo = [_in_frame(lines, aspect)] if lines else []
    order: list[int] = []
    while todo:
        some = todo.pop()
        parts = _parts(some)
        if len(parts) == 1:
            order += [line.number for line in sorted(some, key=lambda line: (sum(line.down), line.across, line.number))]
        else:
            todo += reversed(parts)
    return order


def _in_frame(lines: Sequence[Detection], aspect: float) -> list[_Line]:
    corners = np.array([line.polygon if len(line.polygon) == 4 else _box(line) for line in lines])  # noqa: PLR2004
    right = corners[:, 1] + corners[:, 2] - corners[:, 0] - corners[:, 3]
    below = corners[:, 3] + corners[:, 2] - corners[:, 0] - corners[:, 1]
    along = _common_slope(right[:, 1], right[:, 0])
    aside = _common_slope(below[:, 0], below[:, 1])
    x, y = corners[..., 0] - aside * corners[..., 1], corners[..., 1] - along * corners[..., 0]
    left, end, top, bottom = x.min(axis=1), x.max(axis=1), y.min(axis=1), y.max(axis=1)
    middle, core = (top + bottom) / 2, _CORE * (bottom - top)
    placed = np.stack([left, end, middle - core, middle + core, aspect * (end - left) / (bottom - top)], axis=1)
    return [
        _Line(number, (left, end), (top, bottom), shape)
        for number, (left, end, top, bottom, shape) in enumerate(placed.tolist())
    ]


def _box(line: Detection) -> list[tuple[float, float]]:
    x, y, w, h = line.box.x, line.box.y, line.box.w, line.box.h
    return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]


def _common_slope(rise: NDArray[np.float64], run: NDArray[np.float64]) -> float:
    """The slope of the middle one of lines, 0 if that is steep."""
    slopes = rise / np.where(run == 0, 1e-9, run)
    middle = float(np.median(slopes))
    return middle if abs(middle) < _MOST_SLOPE else 0.0


def _parts(some: list[_Line]) -> list[list[_Line]]:
    """What is read one after the other; one part if it cannot be cut."""
    bands = _split(some, _down)
    if len(bands) == 1:
        return _split(some, _across)
    blocks = [part for block in _blocks(bands) for part in _columns_or_bands(block)]
    return blocks if len(blocks) > 1 else _split(some, _across)


def _blocks(bands: list[list[_Line]]) -> list[list[list[_Line]]]:
    """Bands, of which those that leave white between them from top to bottom are together."""
    blocks = [[bands[0]]]
    spans = _merged(line.across for line in bands[0])
    for band in bands[1:]:
        both = _merged([*spans, *(line.across for line in band)])
        if len(both) > 1:
            blocks[-1].append(band)
            spans = both
        else:
            blocks.append([band])
            spans = _merged(line.across for line in band)
    return blocks


def _columns_or_bands(block: list[list[_Line]]) -> list[list[_Line]]:
    """A block whose columns are read down as one part, without what stands alone above or below; any other by bands."""
    above: list[list[_Line]] = []
    below: list[list[_Line]] = []
    while len(columns := _split(itertools.chain(*block), _across)) > 1 and len(block) > 1:
        if _stands_alone(block[-1], columns):
            below.append(block.pop())
        elif _stands_alone(block[0], columns):
            above.append(block.pop(0))
        else:
            break
    prose = all(statistics.median(line.shape for line in column) >= _PROSE for column in columns)
    return [*above, *([list(itertools.chain(*block))] if prose else block), *reversed(below)]


def _stands_alone(band: list[_Line], columns: list[list[_Line]]) -> bool:
    """Whether a band has something between two columns, where no other band has anything."""
    numbers = {line.number for line in band}
    return any(all(line.number in numbers for line in column) for column in columns[1:-1])


def _down(line: _Line) -> Span:
    return line.down


def _across(line: _Line) -> Span:
    return line.across


def _split(some: Iterable[_Line], span: Callable[[_Line], Span]) -> list[list[_Line]]:
    """Groups with white between them, in order."""
    groups: list[list[_Line]] = []
    reach = -np.inf
    for line in sorted(some, key=span):
        start, end = span(line)
        if start >= reach:
            groups.append([])
        groups[-1].append(line)
        reach = max(reach, end)
    return groups


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Spans that overlap as one, in order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged
