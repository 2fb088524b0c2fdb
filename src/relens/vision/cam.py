"""Where a classifier looked: its class activation map, the box of the main subject, and a picture of the map.

The map is exact for networks that end in a global average and one linear layer: Zhou et al., "Learning Deep Features
for Discriminative Localization" (CVPR 2016). It shows evidence for one class, not an object's outline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relens.errors import BadInput
from relens.values import Box, Floats, Pixels

_GRID = 64
"""Cells on the longer side of a map before its subject is boxed."""


def class_activation_map(features: Floats, weights: Floats) -> Floats:
    """How much each place speaks for a class: (h, w) float32, 0 to 1, the largest 1; all 0 if none does.

    features   (c, h, w), what goes into the global average
    weights    (c,), the row of the class in the linear layer

    What speaks against the class counts as 0. BadInput `vision.bad-map` if the shapes differ or a number is not finite.
    """
    if features.ndim != 3 or weights.shape != features.shape[:1]:  # noqa: PLR2004 - (c, h, w)
        raise BadInput("vision.bad-map", f"features {features.shape} do not go with weights {weights.shape}")
    evidence = np.maximum(np.tensordot(weights, features, axes=1), 0).astype(np.float32)
    most = float(evidence.max(initial=0.0))
    if not np.isfinite(most):
        raise BadInput("vision.bad-map", "the features or weights are not finite")
    return evidence / most if most > 0 else evidence


def subject_box(cam: Floats, seen: Box, *, threshold: float = 0.35) -> Box:
    """The box, within the picture, of the largest connected region where the map passes a share of its maximum.

    cam         (h, w), not negative
    seen        the part of the picture that the map covers (`seen_box`)
    threshold   that share, 0 to 1. Judged by eye on 20 photographs: 0.2 takes in surroundings, 0.5 cuts off limbs

    A map without a peak (flat, or zero) shows no subject: the answer is `seen`.
    """
    fine = np.maximum(_upsample(cam, max(1, _GRID // max(cam.shape))), 0)
    most, least = float(fine.max()), float(fine.min())
    if not most > least:
        return seen
    left, top, right, bottom = _largest_region(fine >= threshold * most)
    height, width = fine.shape
    return Box(
        seen.x + seen.w * left / width,
        seen.y + seen.h * top / height,
        seen.w * (right - left) / width,
        seen.h * (bottom - top) / height,
    )


def overlay(pixels: Pixels, cam: Floats, seen: Box) -> Pixels:
    """The picture with the map laid over it, from clear (0) through violet and red to bright yellow (1).

    cam    (h, w), 0 to 1
    seen   the part of the picture that the map covers; the rest stays as it is
    """
    height, width = pixels.shape[:2]
    left, right = _span(seen.x, seen.w, width)
    top, bottom = _span(seen.y, seen.h, height)
    field = Image.fromarray(cam.astype(np.float32)).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    heat = np.asarray(field).clip(0, 1)
    opacity = 0.8 * heat[..., np.newaxis]
    painted = pixels.copy()
    part = painted[top:bottom, left:right]
    part[:] = np.rint(part + (_RAMP[np.rint(heat * 255).astype(np.uint8)] - part) * opacity)
    return painted


def _span(start: float, length: float, size: int) -> tuple[int, int]:
    """First pixel and the one behind the last, at least one, of a share of a side."""
    first = min(round(start * size), size - 1)
    return first, min(max(first + 1, round((start + length) * size)), size)


def _upsample(cam: Floats, factor: int) -> Floats:
    """Bilinear, by a whole factor; the outermost values reach to the border."""
    fine: Floats = _stretch(cam.shape[0], factor) @ cam.astype(np.float32) @ _stretch(cam.shape[1], factor).T
    return fine


def _stretch(n: int, factor: int) -> Floats:
    """(n * factor, n) float32: rows that mix the two nearest of n values."""
    places = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)
    weights: Floats = np.maximum(0, 1 - np.abs(places[:, np.newaxis] - np.arange(n))).astype(np.float32)
    return weights


def _largest_region(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (exclusive) of the largest region of True cells that touch by their sides.

    Row by row: a run of True cells starts a region, which joins those that it touches in the row above.
    """
    joined: list[int] = []  # the region that a region has become a part of; itself, if of none
    regions: list[_Region] = []
    y, above, here = -1, list[_Run](), list[_Run]()
    rows, columns = (places.tolist() for places in np.nonzero(np.diff(mask, prepend=False, append=False)))
    for row, start, end in zip(rows[::2], columns[::2], columns[1::2], strict=True):
        if row != y:
            y, above, here = row, here if row == y + 1 else [], []
        region = len(regions)
        joined.append(region)
        regions.append((end - start, start, y, end, y + 1))
        for other_start, other_end, touched in above:
            if other_start < end and start < other_end:
                other = _root(joined, touched)
                if other != region:
                    regions[other] = _union(regions[other], regions[region])
                    joined[region] = region = other
        here.append((start, end, region))
    return max(regions)[1:]  # what was joined is smaller than what it joined


_Region = tuple[int, int, int, int, int]
"""Cells, left, top, right, bottom."""

_Run = tuple[int, int, int]
"""Start, end, region."""


def _root(joined: list[int], region: int) -> int:
    while joined[region] != region:
        region = joined[region]
    return region


def _union(a: _Region, b: _Region) -> _Region:
    return a[0] + b[0], min(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3]), max(a[4], b[4])


_SRGB_LINEAR_BELOW = 0.0031308


def _ramp() -> Floats:
    """(256, 3) sRGB 0 to 255: lightness rises evenly in OKLab (Ottosson, 2020) while the hue goes round by red."""
    share = np.linspace(0, 1, 256)
    lightness, hue, chroma = 0.3 + 0.65 * share, np.deg2rad(300 + 168 * share), 0.17 + 0.05 * np.sin(np.pi * share)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)])
    to_lms = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (to_rgb @ (to_lms @ lab) ** 3).clip(0, 1)
    encoded = np.where(linear <= _SRGB_LINEAR_BELOW, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (encoded.T * 255).astype(np.float32)


_RAMP = _ramp()
