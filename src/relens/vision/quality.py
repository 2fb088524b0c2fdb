"""How good a picture of a face is: sharp, frontal, well lit; each from 0 (useless) to 1 (as good as can be).

Measured on pixels and landmarks, without a model: the same everywhere, cheap, and good enough to leave out what no
model can read and to show the best of many. It knows nothing of covered faces or of who is easy to recognise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from relens.errors import BadInput
from relens.values import WHOLE, Box, Floats, Pixels

Point = tuple[float, float]

SIDE_PX, LONGEST_PX = 96, 384  # sharpness is measured at this short side, at most so long
HALF_SHARP: Final = 60.0
"""Variance of the Laplacian that gives 0.5, in squared levels of 255.

At 96 px sharp photographs have 350 to 3000, sharp faces 35 to 300; blurred by a Gaussian of 2 % of the short side they
have 12 and 8.
"""

# From dlib's mean face: where the tip of the nose lies between eyes (0) and mouth (1) of a face that looks ahead.
_NOSE: Final = 0.531
# At these the score is 0: the nose so far from the middle line, in distances of the eyes (a head turned by some 50
# degrees); so far up or down from where it should be, in heights of eyes over mouth (some 40 degrees).
_TURNED, _NODDED = 0.6, 0.35
_DARK, _SPREAD = 50.0, 80.0  # mean grey, and range of the middle nine tenths, from which the light is good


def sharpness(pixels: Pixels) -> float:
    """0 to 1: v / (v + HALF_SHARP) for the variance v of the Laplacian of the grey picture at 96 px.

    Under 0.15 a picture is plainly blurred. What is smaller than 96 px is enlarged and so as blurred as it looks; noise
    counts as sharp. 0 for a picture that is a line, or of one colour.
    """
    return _sharpness(_grey(pixels))


def face_quality(pixels: Pixels, landmarks: Sequence[Point], box: Box = WHOLE) -> dict[str, float]:
    """Sharpness, pose, light and quality of a face, each 0 to 1.

    landmarks  five, as `Detection` has them: shares of the sides of `pixels`, beyond 0 to 1 if they lie outside
    box        the face in `pixels`

    sharpness  of what is in the box, as `sharpness` says
    pose       1 for a face that looks ahead and is upright, 0 for one in profile or turned by 90 degrees: the least of
               turned (the nose beside the middle line), nodded (the nose too near to eyes or mouth) and tilted
    light      1 for neither dark nor burnt out, with contrast; 0 for black, white or flat
    quality    the geometric mean of the three: one that is 0 makes it 0

    BadInput `vision.bad-landmarks` if they are not five finite points.
    """
    height, width = pixels.shape[:2]
    left, top = min(int(box.x * width), width - 1), min(int(box.y * height), height - 1)
    right, bottom = math.ceil((box.x + box.w) * width), math.ceil((box.y + box.h) * height)
    grey = _grey(pixels[top : max(bottom, top + 1), left : max(right, left + 1)])
    parts = {"sharpness": _sharpness(grey), "pose": _pose(landmarks, width, height), "light": _light(grey)}
    return parts | {"quality": math.prod(parts.values()) ** (1 / len(parts))}


def _sharpness(grey: Floats) -> float:
    if min(grey.shape) < 3:  # noqa: PLR2004 - a pixel and its neighbours
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    variance = float((around - 4 * grey[1:-1, 1:-1]).var())
    return variance / (variance + HALF_SHARP)


def _pose(landmarks: Sequence[Point], width: int, height: int) -> float:
    points = np.asarray(landmarks, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise BadInput("vision.bad-landmarks", f"a pose is seen from five finite points, not {landmarks!r}")
    right_eye, left_eye, nose, *mouth = (points * (width, height)) @ (1, 1j)
    eyes = left_eye - right_eye
    if not abs(eyes) > 0:
        return 0.0
    tilted = abs(math.atan2(eyes.imag, eyes.real)) / (math.pi / 2)
    middle = (left_eye + right_eye) / 2
    # From here on the eyes are level, one apart, and the place between them is zero.
    tip, lips = ((point - middle) / eyes for point in (nose, sum(mouth) / 2))
    if lips.imag <= 0:
        return 0.0  # a mouth over the eyes
    beside = abs(tip.real - lips.real / 2) / _TURNED
    nodded = abs(tip.imag / lips.imag - _NOSE) / _NODDED
    return max(0.0, 1 - float(max(beside, nodded, tilted)))


def _light(grey: Floats) -> float:
    mean = float(grey.mean())
    low, high = np.percentile(grey, (5, 95))
    exposure = min(mean, 255 - mean) / _DARK
    return min(1.0, exposure) * min(1.0, float(high - low) / _SPREAD)


def _grey(pixels: Pixels) -> Floats:
    """(height, width) float32, 0 to 255, in the size that is measured."""
    image = Image.fromarray(pixels).convert("L")
    share = min(SIDE_PX / min(image.size), LONGEST_PX / max(image.size))
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0), np.float32)
