"""Lines of text are cut out upright and read, by a recogniser with connectionist temporal classification (CTC).

What a line says does not depend on the lines beside it, and a page of hundreds takes no more memory than a few. Where
the lines are, and in which order they are read, is found elsewhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from relens.errors import BadInput, Broken
from relens.values import Floats, Pixels, Preprocessing
from relens.vision.lines import TALL
from relens.vision.preprocess import normalise
from relens.vision.regions import Points, turns

LONGEST_PX = 4800
"""Of a line of 48 px: some 200 letters. What is longer is squeezed."""

# Per line, larger batches are no faster: 56 to 62 µs per px of width with 160 to 1280 px at once, then slower. For each
# 8 px a recogniser gives the chances of 18,710 characters: 12 MB for this much, 45 MB for the longest line.
_BATCH_PX = 1280
_STEP_PX = 64  # lines are filled up to multiples of this, so that those in a batch are equally long
# Right way up, 95 % of lines of noisy pages score above 0.94; upside down, none above 0.9.
_SURE = 0.9
_TURNED = 0.5
_AT_ONCE = 32
# A slanting line is first shrunk, antialiased, to at most so many times its height in the end.
_SHRUNK = 7 / 6
# Bounds of a slanting line so many times its area are cut out piece by piece.
_ROOMY = 4
_LEVEL_PX = 0.1
_FLATTEST = 0.05

Forward = Callable[[Floats], Floats]
"""A model: a batch of inputs to its scores."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a line says, how sure the model is of its letters on average (0 to 1), and whether it stood on its head."""

    text: str
    score: float
    turned: bool = False


def rectify(pixels: Pixels, polygon: Sequence[tuple[float, float]], height_px: int = 48) -> Pixels:
    """A line cut out of its picture, upright: (height_px, w, 3), w by its proportions, 1 to LONGEST_PX.

    polygon   four corners, clockwise from the top left of the text, as shares of the picture's sides

    One that is 1.5 times higher than wide is taken to run downwards and turned to the left. Corners outside the
    picture are moved to its border. Antialiased; time grows with the area of the line, however it slants. BadInput
    `vision.bad-polygon` for corners that go otherwise, or around nothing.
    """
    corners = np.array(polygon, np.float64).clip(0, 1)
    if corners.shape != (4, 2) or not (turns(corners) > 0).all():
        raise BadInput("vision.bad-polygon", f"not the four corners of a line, clockwise: {list(polygon)}")
    corners *= pixels.shape[1], pixels.shape[0]
    width, height = _sides(corners)
    if height >= TALL * width:
        corners, width, height = np.roll(corners, -1, axis=0), height, width
    across = max(1, min(LONGEST_PX, round(height_px * width / height)))
    if _is_straight(corners):
        return _straight(pixels, corners, across, height_px)
    bounds = np.ptp(corners, axis=0)
    pieces = min(math.ceil(bounds[0] * bounds[1] / (width * height * _ROOMY)), across)
    ends = np.linspace(0, across, pieces + 1).round().tolist()
    projection = _projection(corners, across, height_px)
    share = min(1.0, _SHRUNK * height_px / height)
    parts = []
    for start, end in itertools.pairwise(ends):
        source = _projected(projection, [(start, 0), (end, 0), (end, height_px), (start, height_px)])
        parts.append(_slanting(pixels, source, int(end - start), height_px, share))
    return np.concatenate(parts, axis=1)


def read_lines(
    crops: Sequence[Pixels],
    forward: Forward,
    characters: Sequence[str],
    prep: Preprocessing,
    *,
    turned: Callable[[Sequence[Pixels]], Floats] | None = None,
) -> list[Reading]:
    """What each line says, in their order; ("", 0) where nothing is read.

    crops       (prep.height, w, 3), any widths, as `rectify` cuts them
    forward     (n, 3, prep.height, w) to (n, t, classes), 0 to 1; the first class is CTC's blank
    characters  a string for each class; that of the blank is never used
    turned      how likely each of some crops stands on its head (`upside_down`). It is asked about lines that were
                read with a score below 0.9; what is likely turned is read once more, and the better reading counts

    A score is the mean over the letters read (Graves et al., "Connectionist Temporal Classification", ICML 2006, best
    path). BadInput `vision.bad-crop` for a crop of another height; Broken `vision.wrong-head` if the classes are not
    as many as the characters.
    """
    readings = _read(crops, forward, characters, prep)
    unsure = [number for number, reading in enumerate(readings) if reading.score < _SURE]
    if turned is None or not unsure:
        return readings
    chances = turned([crops[number] for number in unsure])
    again = [number for number, chance in zip(unsure, chances, strict=True) if chance >= _TURNED]
    others = _read([crops[number][::-1, ::-1] for number in again], forward, characters, prep)
    for number, other in zip(again, others, strict=True):
        if other.score > readings[number].score:
            readings[number] = replace(other, turned=True)
    return readings


def upside_down(crops: Sequence[Pixels], forward: Forward, prep: Preprocessing) -> Floats:
    """How likely each line stands on its head: (n,) float32, 0 to 1.

    crops     (h, w, 3), as `rectify` cuts them
    forward   (n, 3, prep.height, prep.size_px) to (n, 2): upright, turned by 180 degrees

    A line is as high as the input; one that is longer is squeezed, one that is shorter has mid-grey behind it.
    """
    chances = []
    for start in range(0, len(crops), _AT_ONCE):
        some = crops[start : start + _AT_ONCE]
        batch = np.zeros((len(some), 3, prep.height, prep.size_px), np.float32)
        for row, crop in zip(batch, some, strict=True):
            width = max(1, min(prep.size_px, round(crop.shape[1] * prep.height / crop.shape[0])))
            line = Image.fromarray(crop).resize((width, prep.height), Image.Resampling.BILINEAR)
            row[:, :, :width] = normalise(line, prep)[0]
        chances.append(forward(batch)[:, 1])
    return np.concatenate(chances) if chances else np.zeros(0, np.float32)


def _sides(corners: Points) -> tuple[float, float]:
    """Width and height of a line: the longer of two opposite sides."""
    sides = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
    return float(max(sides[0], sides[2])), float(max(sides[1], sides[3]))


def _is_straight(corners: Points) -> bool:
    """Whether a line is cut out along the sides of the picture.

    It lies level and upright to a tenth of a pixel; or it is too thin, or too much like a triangle, for anything else.
    """
    (left, top), (right, bottom) = corners[0], corners[2]
    level = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    areas = turns(corners)
    return bool(
        (np.abs(corners - level).max() < _LEVEL_PX and right > left)
        or min(_sides(corners)) < 1
        or areas.min() < _FLATTEST * areas.max()
    )


def _straight(pixels: Pixels, corners: Points, width: int, height: int) -> Pixels:
    left, top, part = _bounds(pixels, corners)
    box = *(corners.min(axis=0) - (left, top)).tolist(), *(corners.max(axis=0) - (left, top)).tolist()
    return np.array(Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR, box=box))


def _slanting(pixels: Pixels, corners: Points, width: int, height: int, share: float) -> Pixels:
    """What lies between the corners as a rectangle; the picture around it is first shrunk to a share of its size."""
    left, top, part = _bounds(pixels, corners)
    image = Image.fromarray(part)
    if share < 1:
        image = image.resize(
            (max(1, round(image.width * share)), max(1, round(image.height * share))), Image.Resampling.BILINEAR
        )
    source = (corners - (left, top)) * (image.width / part.shape[1], image.height / part.shape[0])
    projection = _projection(source, width, height).ravel()[:8]
    return np.array(
        image.transform((width, height), Image.Transform.PERSPECTIVE, tuple(projection), Image.Resampling.BILINEAR)
    )


def _bounds(pixels: Pixels, corners: Points) -> tuple[int, int, Pixels]:
    """Left and top of the smallest part of a picture that holds the corners and what is next to them, and the part."""
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0).tolist()
    right, bottom = (np.ceil(corners.max(axis=0)).astype(int) + 1).tolist()
    return left, top, np.ascontiguousarray(pixels[top:bottom, left:right])


def _projection(corners: Points, width: int, height: int) -> Points:
    """(3, 3): from a place in a rectangle of this size, as (x, y, 1), to the place between the corners, times a factor.

    Heckbert, "Fundamentals of Texture Mapping and Image Warping" (1989), section 2.2.
    """
    given = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    equations = np.zeros((8, 8))
    for row, ((x, y), (u, v)) in enumerate(zip(given, corners, strict=True)):
        equations[2 * row] = x, y, 1, 0, 0, 0, -u * x, -u * y
        equations[2 * row + 1] = 0, 0, 0, x, y, 1, -v * x, -v * y
    return np.append(np.linalg.solve(equations, corners.ravel()), 1).reshape(3, 3)


def _projected(projection: Points, places: Sequence[tuple[float, float]]) -> Points:
    """(n, 2) of places in the rectangle."""
    x, y, factor = projection @ np.array([(*place, 1) for place in places]).T
    return np.stack([x / factor, y / factor], axis=1)


def _read(crops: Sequence[Pixels], forward: Forward, characters: Sequence[str], prep: Preprocessing) -> list[Reading]:
    readings = [Reading("", 0.0)] * len(crops)
    for width, numbers in _batches([crop.shape[1] for crop in crops]):
        batch = np.zeros((len(numbers), 3, prep.height, width), np.float32)  # mid-grey behind the lines
        for row, number in zip(batch, numbers, strict=True):
            crop = crops[number]
            if crop.shape[0] != prep.height:
                raise BadInput("vision.bad-crop", f"a line is cut {prep.height} px high, not {crop.shape[0]}")
            row[:, :, : crop.shape[1]] = normalise(Image.fromarray(crop), prep)[0]
        scores = forward(batch)
        if scores.ndim != 3 or scores.shape[2] != len(characters):  # noqa: PLR2004 - lines, steps, classes
            raise Broken(
                "vision.wrong-head",
                f"a recogniser of {len(characters)} characters gives (n, steps, {len(characters)}), not {scores.shape}",
                hint="the card's labels and the model do not fit together",
            )
        for number, line in zip(numbers, scores, strict=True):
            readings[number] = _best_path(line, characters)
    return readings


def _batches(widths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """A width, and numbers of lines that are filled up to it; those of one width as many at a time as fit."""
    groups: dict[int, list[int]] = {}
    for number, width in enumerate(widths):
        groups.setdefault(math.ceil(width / _STEP_PX) * _STEP_PX, []).append(number)
    for width, numbers in sorted(groups.items()):
        count = max(1, _BATCH_PX // width)
        for start in range(0, len(numbers), count):
            yield width, numbers[start : start + count]


def _best_path(scores: Floats, characters: Sequence[str]) -> Reading:
    """The likeliest class of each step, of which one after the same and blanks say nothing."""
    best = scores.argmax(axis=1)
    said = np.flatnonzero((best != 0) & (np.diff(best, prepend=0) != 0))
    if not len(said):
        return Reading("", 0.0)
    text = "".join(characters[index] for index in best[said])
    return Reading(text, min(1.0, float(scores[said, best[said]].mean())))
