"""Boxes, names and scores on a picture, to be looked at: legible on any background and in any script.

Lines and letters grow with the picture. A label is looked for a place where it covers no other; when there is none, it
says less, is written smaller, or is left out: a crowd stays readable. A heat map (`overlay`) is laid under it first.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from relens.values import Box, Floats, Pixels
from relens.vision.fonts import Fonts

_Colour = tuple[int, int, int]
_Rect = tuple[int, int, int, int]  # left, top, right, bottom (exclusive), in pixels
_Points = tuple[tuple[float, float], ...]

# Told apart also by people who do not see red and green alike (Okabe and Ito, 2008, and shades between them).
PALETTE: tuple[_Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (20, 110, 190),
    (213, 94, 0),
    (204, 121, 167),
    (170, 68, 153),
    (136, 204, 238),
    (153, 153, 51),
    (221, 51, 68),
    (102, 194, 102),
)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

LINE = 1 / 320  # width of a line, as a share of the picture's mean side
TINY_PX = 160  # smaller pictures have lines of one pixel, without the thin ones that set them off
LETTER = 1 / 40  # height of letters, the same
LEAST_LETTER_PX = 9  # smaller ones cannot be read
BEST_LETTER_PX = 12  # in a small picture
LEAST_LETTERS = 3  # "a…" says nothing
MOST_HIDDEN = 0.4  # share of a label that may lie on other boxes, if there is a smaller label


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing to be shown.

    text       its label; "" for none
    key        chooses its colour: the same key has the same colour in every picture
    polygon    corners that are drawn instead of the box, as shares of the picture's sides
    landmarks  points in it, in the same units
    short      what its label says where there is no room for `text`; "" for nothing
    """

    box: Box
    text: str
    key: str
    polygon: _Points = ()
    landmarks: _Points = ()
    short: str = ""


def draw(pixels: Pixels, marks: Iterable[Mark], *, fonts: Sequence[Path] = ()) -> Pixels:
    """The picture with the marks on it, in a copy of the same size.

    marks   the most important first: they choose the place of their labels first, and lie above the others
    fonts   font files to be used before those of the system

    Labels lie on the colour of their box, above it or inside, and never outside the picture. Characters that no font
    has are shown as their code points, or as "?".
    """
    kept = list(marks)
    image = Image.fromarray(pixels)  # over the same memory; the first stroke makes a copy
    canvas = ImageDraw.Draw(image)
    height, width = pixels.shape[:2]
    side = (width * height) ** 0.5
    line = max(1 if side < TINY_PX else 2, round(side * LINE))
    for mark in reversed(kept):
        _outline(canvas, mark, width, height, line)
    layout = _Layout(width, height, line, [_rect(mark.box, width, height) for mark in kept], _fonts(tuple(fonts)))
    largest = max(BEST_LETTER_PX, round(side * LETTER))
    for label in [label for number, mark in enumerate(kept) if (label := layout.place(mark, number, largest))]:
        _write(canvas, label)
    return np.array(image)


def colour_of(key: str) -> _Colour:
    """The colour of a key, for ever the same."""
    return PALETTE[zlib.crc32(key.encode("utf-8", "replace")) % len(PALETTE)]


@dataclass(frozen=True, slots=True)
class _Label:
    """Text with its place: where its background lies, and where its letters stand."""

    rect: _Rect
    text: str
    size_px: int
    colour: _Colour
    fonts: Fonts
    pad: int
    ascent: int


@dataclass(slots=True)
class _Layout:
    """Where labels are so far, and where there is room."""

    width: int
    height: int
    line: int
    boxes: list[_Rect]
    fonts: Fonts
    _grid: Floats = field(init=False)
    _taken: list[_Rect] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._grid = np.asarray(self.boxes, np.float32).reshape(-1, 4)

    def place(self, mark: Mark, number: int, largest: int) -> _Label | None:
        """The best label of a mark for which there is room. None if there is none, or nothing to say."""
        least_hiding: tuple[float, _Label] | None = None
        for text, size in self._choices(mark, number, largest):
            for label in self._places(text, size, colour_of(mark.key), self.boxes[number]):
                if self._covers_a_label(label.rect):
                    continue
                hidden = self._hides(label.rect, number)
                if least_hiding is None or hidden < least_hiding[0]:
                    least_hiding = hidden, label
            if least_hiding and least_hiding[0] <= MOST_HIDDEN:
                break
        if least_hiding is None:
            return None
        self._taken.append(least_hiding[1].rect)
        return least_hiding[1]

    def _choices(self, mark: Mark, number: int, largest: int) -> Iterator[tuple[str, int]]:
        """Texts and sizes, what says most first: letters are no higher than a fifth of the box, if that can be read."""
        left, top, right, bottom = self.boxes[number]
        fitting = max(LEAST_LETTER_PX, min(largest, min(right - left, bottom - top) // 5))
        said = [self.fonts.drawable(text) for text in (mark.text, mark.short)]
        for size in sorted({max(fitting, min(largest, BEST_LETTER_PX)), fitting, LEAST_LETTER_PX}, reverse=True):
            for text in said:
                if text and (cut := self._cut(text, size)):
                    yield cut, size

    def _cut(self, text: str, size: int) -> str:
        """The text, or its beginning with "…", so that it fits into the picture; "" if not even that does."""
        room = self.width - 2 * _pad(size)
        if _measure(self.fonts, text, size)[0] <= room:
            return text
        fits = [n for n in range(1, len(text)) if _measure(self.fonts, f"{text[:n].rstrip()}…", size)[0] <= room]
        return f"{text[: fits[-1]].rstrip()}…" if fits and fits[-1] >= LEAST_LETTERS else ""

    def _places(self, text: str, size: int, colour: _Colour, box: _Rect) -> Iterator[_Label]:
        """Labels around and in a box that are within the picture, the best place first."""
        across, ascent, descent = _measure(self.fonts, text, size)
        pad = _pad(size)
        w, h = across + 2 * pad, ascent + descent + pad
        left, top, right, bottom = box
        edge = self.line // 2
        above, below = top - h - edge, bottom + edge
        start, end = left - edge, right + edge - w
        spots = [(start, above), (left, top), (end, above), (start, below), (left, bottom - h), (end, below)]
        spots += [(right - w, top), (right - w, bottom - h), (right + edge, top), (left - w - edge, top)]
        for x, y in dict.fromkeys((min(max(x, 0), self.width - w), y) for x, y in spots):
            if x >= 0 and y >= 0 and y + h <= self.height:
                yield _Label((x, y, x + w, y + h), text, size, colour, self.fonts, pad, ascent + pad // 2)

    def _covers_a_label(self, rect: _Rect) -> bool:
        left, top, right, bottom = rect
        return any(left < r and l < right and top < b and t < bottom for l, t, r, b in self._taken)  # noqa: E741

    def _hides(self, rect: _Rect, number: int) -> float:
        """How much of the boxes the label covers, in tenths: 1 is one box's surface. Its own counts half."""
        left, top, right, bottom = rect
        across = np.minimum(self._grid[:, 2], right) - np.maximum(self._grid[:, 0], left)
        down = np.minimum(self._grid[:, 3], bottom) - np.maximum(self._grid[:, 1], top)
        covered = np.maximum(across, 0) * np.maximum(down, 0)
        areas = (self._grid[:, 2] - self._grid[:, 0]) * (self._grid[:, 3] - self._grid[:, 1])
        share = covered / np.maximum(areas, 1)
        share[number] /= 2
        return round(float(share.sum()), 1)


@functools.lru_cache(8)
def _fonts(paths: tuple[Path, ...]) -> Fonts:
    return Fonts(paths)


def _pad(size_px: int) -> int:
    return max(1, round(size_px / 5))


@functools.lru_cache(4096)
def _measure(fonts: Fonts, text: str, size_px: int) -> tuple[int, int, int]:
    """Width, height above the line and depth below it, in pixels."""
    runs = fonts.runs(text, size_px)
    metrics = [run.font.getmetrics() for run in runs]
    across = sum(run.font.getlength(run.text) for run in runs)
    return int(across + 0.999), max(m[0] for m in metrics), max(m[1] for m in metrics)


def _rect(box: Box, width: int, height: int) -> _Rect:
    """The pixels of a box, at least one each way."""
    left, top = min(round(box.x * width), width - 1), min(round(box.y * height), height - 1)
    right, bottom = round((box.x + box.w) * width), round((box.y + box.h) * height)
    return left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)


def _outline(canvas: Any, mark: Mark, width: int, height: int, line: int) -> None:
    """The box or polygon in its colour, between two thin lines that set it off, and the landmarks as dots."""
    colour = colour_of(mark.key)
    halo = _readable_on(colour)
    thin = max(1, line // 3) if line > 1 else 0
    if mark.polygon:
        corners = [(x * width, y * height) for x, y in mark.polygon]
        for shade, wide in ((halo, line + 2 * thin), (colour, line)):
            canvas.line([*corners, corners[0], corners[1 % len(corners)]], fill=shade, width=wide, joint="curve")
    else:
        _frame(canvas, _rect(mark.box, width, height), (colour, halo), line, thin)
    radius = max(1.0, line * 0.9)
    for x, y in ((x * width, y * height) for x, y in mark.landmarks):
        canvas.ellipse((x - radius - thin, y - radius - thin, x + radius + thin, y + radius + thin), fill=halo)
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _frame(canvas: Any, rect: _Rect, colours: tuple[_Colour, _Colour], line: int, thin: int) -> None:
    """Four sides on the edge of a rectangle; lines are thin on what is small."""
    (left, top, right, bottom), (colour, halo) = rect, colours
    line = max(1, min(line, (right - left) // 10, (bottom - top) // 10))
    out = line // 2
    if thin:
        outer = (left - out - thin, top - out - thin, right + out + thin - 1, bottom + out + thin - 1)
        canvas.rectangle(outer, outline=halo, width=line + 2 * thin)
    canvas.rectangle((left - out, top - out, right + out - 1, bottom + out - 1), outline=colour, width=line)


def _write(canvas: Any, label: _Label) -> None:
    left, top, right, bottom = label.rect
    ink = _readable_on(label.colour)
    canvas.rectangle(
        (left, top, right - 1, bottom - 1), fill=label.colour, outline=_between(label.colour, ink), width=1
    )
    x = float(left + label.pad)
    for run in label.fonts.runs(label.text, label.size_px):
        canvas.text((x, top + label.ascent), run.text, fill=ink, font=run.font, anchor="ls")
        x += run.font.getlength(run.text)


def _readable_on(colour: _Colour) -> _Colour:
    """Black or white, whichever has more contrast to a colour (relative luminance as in WCAG 2)."""
    linear = (np.asarray(colour) / 255) ** 2.2
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return BLACK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else WHITE


def _between(colour: _Colour, other: _Colour) -> _Colour:
    red, green, blue = ((a + b) // 2 for a, b in zip(colour, other, strict=True))
    return red, green, blue
