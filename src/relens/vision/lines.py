"""Lines of text in a picture: the input of a detector by differentiable binarisation, and what its map says.

The method is that of Liao et al., "Real-time Scene Text Detection with Differentiable Binarization" (AAAI 2020), as
PaddleOCR runs it. A line is a rectangle at any angle. Nothing is read here, and lines come in no order of reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from relens.errors import Broken
from relens.values import Box, Detection, Floats, Pixels, Preprocessing
from relens.vision.preprocess import normalise
from relens.vision.regions import Points, Rectangle, outlines, tightest_rectangle, turns
from relens.vision.resize import FILTERS

STEP_PX = 32
"""The network halves its input five times: sides are multiples of this."""

TALL = 1.5
"""A line so many times higher than wide runs downwards."""

# Beyond 1600 px nothing more was found on pages of 2 to 35 megapixels, where a font of 8 px is still read without a
# fault, and neighbouring columns began to flow together. Of small labels nothing was lost at four times their size,
# and 9 % of the letters at eight times.
_SHORT_SIDE_PX, _LONG_SIDE_PX, _LARGEST = 736, 1600, 4.0
_REDUCING_GAP = 3.0
_THRESHOLD, _BOX_THRESHOLD, _UNCLIP = 0.3, 0.5, 1.6
_LEAST_PX = 3
_SAMPLES = (128, 16)
_UPRIGHT = math.cos(math.radians(75))  # what is steeper has no left end


def text_input(pixels: Pixels, prep: Preprocessing, decode: Mapping[str, Any]) -> Floats:
    """A detector's input: all of the picture, (1, 3, h, w) or (1, h, w, 3) as the card says; h and w multiples of 32.

    decode   `short_side_px` (736): a picture whose shorter side is smaller is enlarged to it, at most four times;
             `long_side_px` (1600): no side becomes longer than this, whatever becomes of proportions

    So an input has at most 1600 x 1600 pixels, and a strip of 10,000 x 10 becomes one of 1600 x 32.
    """
    height, width = pixels.shape[:2]
    short_px, long_px = decode.get("short_side_px", _SHORT_SIDE_PX), decode.get("long_side_px", _LONG_SIDE_PX)
    scale = min(max(1.0, min(short_px / min(width, height), _LARGEST)), long_px / max(width, height))
    size = _stepped(width * scale, long_px), _stepped(height * scale, long_px)
    resized = Image.fromarray(pixels).resize(size, FILTERS[prep.resample], reducing_gap=_REDUCING_GAP)
    return normalise(resized, prep)


def _stepped(side: float, most: int) -> int:
    return max(1, min(round(side / STEP_PX), most // STEP_PX)) * STEP_PX


def find_lines(chances: Floats, decode: Mapping[str, Any], *, max_lines: int = 1000) -> list[Detection]:
    """The lines of text that a detector's map shows, each with its polygon.

    chances    (h, w), 0 to 1: how likely each place of the input lies in the core of a line. More dimensions of length
               1 before are fine
    decode     `threshold` (0.3): what is above belongs to a line; `box_threshold` (0.5): the mean over a line that it
               must reach, its score; `unclip` (1.6): how far a core is widened, as a share of area by perimeter
    max_lines  of more, the largest are kept

    A polygon has four corners, clockwise from the top left of the text, shares of the picture's sides, all within it.
    Text of up to 45 degrees is taken to stand upright, a line that is steeper to be read from its left end, and one
    that is steeper than 75 degrees downwards: what is turned by 180 degrees shows when it is read. Broken
    `vision.wrong-head` if the map has another shape.
    """
    if chances.ndim < 2 or chances.size != math.prod(chances.shape[-2:]):  # noqa: PLR2004 - rows and columns
        raise Broken("vision.wrong-head", f"a map of lines is (h, w), the model gives {chances.shape}")
    height, width = chances.shape[-2:]
    chances = chances.reshape(height, width)
    mask = chances > decode.get("threshold", _THRESHOLD)
    found = []
    for outline in outlines(mask, least_px=_LEAST_PX, most=max_lines):
        core = tightest_rectangle(outline)
        if min(core.length, core.breadth) < _LEAST_PX:
            continue
        score = _mean_inside(chances, core)
        if score >= decode.get("box_threshold", _BOX_THRESHOLD):
            line = _widened(core, decode.get("unclip", _UNCLIP))
            found.append(_detection(_corners(line) / (width, height), score))
    return found


def _mean_inside(chances: Floats, core: Rectangle) -> float:
    """The mean of a map in a rectangle, of samples at most a cell apart in all but the largest."""
    sides = (core.length, core.breadth)
    counts = (min(math.ceil(side), most) for side, most in zip(sides, _SAMPLES, strict=True))
    along, aside = (((np.arange(count) + 0.5) / count - 0.5) * side for side, count in zip(sides, counts, strict=True))
    dx, dy = core.direction
    columns = (core.x + along * dx - aside[:, np.newaxis] * dy).astype(np.int64).clip(0, chances.shape[1] - 1)
    rows = (core.y + along * dy + aside[:, np.newaxis] * dx).astype(np.int64).clip(0, chances.shape[0] - 1)
    return min(1.0, float(chances[rows, columns].mean()))


def _widened(core: Rectangle, unclip: float) -> Rectangle:
    """The line of which the detector was trained to show the core: by area / perimeter times `unclip` on each side."""
    more = core.length * core.breadth * unclip / (core.length + core.breadth)
    return Rectangle(core.x, core.y, core.direction, core.length + more, core.breadth + more)


def _corners(line: Rectangle) -> Points:
    """(4, 2) x, y of the corners, clockwise from the top left of the text."""
    dx, dy = line.direction
    length, breadth = line.length, line.breadth
    if abs(dy) > abs(dx):
        dx, dy, length, breadth = -dy, dx, breadth, length
    if breadth >= TALL * length:
        dx, dy, length, breadth = -dy, dx, breadth, length
    if dx < 0 if abs(dx) > _UPRIGHT else dy < 0:
        dx, dy = -dx, -dy
    right, down = np.array([dx, dy]) * length / 2, np.array([-dy, dx]) * breadth / 2
    centre = np.array([line.x, line.y])
    return np.array([centre - right - down, centre + right - down, centre + right + down, centre - right + down])


def _detection(corners: Points, score: float) -> Detection:
    corners = corners.clip(0, 1)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    if turns(corners).min() <= 0:  # a corner of the picture, where corners of a slanting line fell together
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    polygon = tuple((float(x), float(y)) for x, y in corners)
    return Detection(Box(left, top, right - left, bottom - top), score, polygon=polygon)
