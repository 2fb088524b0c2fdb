"""A face turned and scaled so that its landmarks lie where a model expects them.

A template says where that is. It is a part of the space of the vectors that are made with it: the numbers under a name
never change. Finding landmarks is a detector's work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from PIL import Image

from relens.errors import BadInput
from relens.values import Pixels

GREY: Final = (128, 128, 128)
"""What is outside of the picture."""

Point = tuple[float, float]

_FAR = 1e6  # pixels; no landmark is so far from its picture

# dlib's mean face (`get_face_chip_details` in dlib/image_transforms/interpolation.h): the mean of the six points around
# each eye, the tip of the nose, the corners of the mouth.
_DLIB: Final = (
    (0.2254918333, 0.2159903333),
    (0.7547613333, 0.2159903333),
    (0.490127, 0.515625),
    (0.254149, 0.780233),
    (0.726104, 0.780233),
)


def _padded(points: Sequence[Point], padding: float) -> tuple[Point, ...]:
    """With so much more around them, as a share of the unpadded side."""
    return tuple(((x + padding) / (1 + 2 * padding), (y + padding) / (1 + 2 * padding)) for x, y in points)


TEMPLATES: Final[Mapping[str, tuple[Point, ...]]] = {
    "dlib-25": _padded(_DLIB, 0.25),
    "dlib-20": _padded(_DLIB, 0.20),
}
"""Name to where the eyes, the nose and the corners of the mouth lie, as shares of the side, in the landmarks' order.

"dlib-25" is what dlib's face recogniser was trained with, "dlib-20" what the age and gender networks in its model zoo
were.
"""


def align(pixels: Pixels, points: Sequence[Point], *, template: str, size_px: int) -> Pixels:
    """(size_px, size_px, 3) uint8: the face with these landmarks, turned, scaled and moved, but not distorted.

    points    five landmarks in pixels of `pixels`, in the order of `Detection.landmarks`; they may lie outside
    template  a name in TEMPLATES. Landmarks come to lie on it with the least sum of squared distances, measured in the
              picture (Umeyama, IEEE PAMI 13, 1991, without reflection)

    Antialiased where the face becomes smaller. What lies outside of the picture is grey. BadInput
    `vision.unknown-template`; `vision.bad-landmarks` for points that are not five, not finite or all in one place.
    """
    if template not in TEMPLATES:
        raise BadInput(
            "vision.unknown-template", f"{template!r} is no template", hint=f"known: {', '.join(sorted(TEMPLATES))}"
        )
    turn, origin = _similarity(TEMPLATES[template], points, size_px)
    left, top, right, bottom = _surroundings(turn, origin, size_px, pixels)
    if left >= right or top >= bottom:
        return np.full((size_px, size_px, 3), GREY, np.uint8)
    part = Image.fromarray(pixels[top:bottom, left:right])
    shrink = max(1.0, abs(turn))  # to about the size that is asked for: the turning itself does not antialias
    size = max(1, round(part.width / shrink)), max(1, round(part.height / shrink))
    across, down = size[0] / part.width, size[1] / part.height
    small = part.resize(size, Image.Resampling.HAMMING, reducing_gap=3.0) if size != part.size else part
    x, y = origin.real - left, origin.imag - top
    rows = (turn.real * across, -turn.imag * across, x * across), (turn.imag * down, turn.real * down, y * down)
    aligned = small.transform(
        (size_px, size_px), Image.Transform.AFFINE, rows[0] + rows[1], Image.Resampling.BILINEAR, fillcolor=GREY
    )
    return np.array(aligned)


def _similarity(template: Sequence[Point], points: Sequence[Point], size_px: int) -> tuple[complex, complex]:
    """From a place in the aligned picture to one in the picture, in complex numbers: `origin + turn * place`."""
    given = np.asarray(points, np.float64)
    if given.shape != (len(template), 2) or not (np.abs(given) < _FAR).all():
        raise BadInput("vision.bad-landmarks", f"a face is aligned by {len(template)} finite points, not {points!r}")
    seen, wanted = given @ (1, 1j), np.asarray(template) @ (1, 1j) * size_px
    spread = wanted - wanted.mean()
    turn = complex((spread.conj() * (seen - seen.mean())).sum() / (abs(spread) ** 2).sum())
    if not abs(turn) > 0:
        raise BadInput("vision.bad-landmarks", "the landmarks of a face do not all lie in one place")
    return turn, complex(seen.mean() - turn * wanted.mean())


def _surroundings(turn: complex, origin: complex, size_px: int, pixels: Pixels) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what of the picture goes into the aligned one, as far as filters reach."""
    corners = [origin + turn * complex(x, y) for x in (0, size_px) for y in (0, size_px)]
    across, down = [corner.real for corner in corners], [corner.imag for corner in corners]
    height, width = pixels.shape[:2]
    reach = 2 + 2 * abs(turn)
    return (
        max(0, math.floor(min(across) - reach)),
        max(0, math.floor(min(down) - reach)),
        min(width, math.ceil(max(across) + reach)),
        min(height, math.ceil(max(down) + reach)),
    )
