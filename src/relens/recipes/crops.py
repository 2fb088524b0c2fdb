"""Crops: the cut-outs of objects that are stored, and the part of a crop that a model looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from relens.errors import BadInput
from relens.recipes.recipe import ALL, ANY, BY_MODEL, Recipe
from relens.values import WHOLE, Box, Detection, Floats, Pixels, Preprocessing
from relens.vision import Decoded, encode_jpeg, normalise, preprocess, seen_box, shrink
from relens.vision.align import align

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Cropped:
    """An object that was found and cut out: `jpeg` is what is stored, and what is described.

    box            where the object is in the picture
    cut            what of the picture the crop shows: the box with its margin, within the picture
    landmarks      (x, y) as shares of the picture, in the detector's order; `polygon` likewise, corners clockwise
    label          what the detector calls it; "" if it has no words
    measures       what was measured of it before it was described
    short_side_px  of the object in the picture as it was decoded
    """

    box: Box
    score: float
    category: str
    jpeg: bytes
    cut: Box = WHOLE
    landmarks: Points = ()
    polygon: Points = ()
    label: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    short_side_px: int = 0

    @property
    def about(self) -> dict[str, Any]:
        """What a filter of the user's own is told."""
        return {
            "box": self.box.to_json(),
            "score": self.score,
            "category": self.category,
            "label": self.label,
            "measures": dict(self.measures),
        }


def category_of(found: Detection, recipe: Recipe) -> str | None:
    """The category that a detector's label has by the recipe; None if it is not wanted."""
    categories = recipe.finding.categories
    return categories.get(found.label, categories.get(ANY))


def crop_whole(picture: Decoded, recipe: Recipe) -> Cropped:
    """The whole picture as one object."""
    pixels = shrink(picture.pixels, recipe.short_side_px)
    jpeg = encode_jpeg(pixels, quality=recipe.quality)
    return Cropped(WHOLE, 1.0, ALL, jpeg, short_side_px=min(picture.width, picture.height))


def crop_found(picture: Decoded, found: Detection, category: str, recipe: Recipe) -> Cropped:
    """What was found, cut out with the recipe's margin as far as the picture goes."""
    assert recipe.detect == BY_MODEL
    cut = widened(found.box, recipe.margin, picture.width, picture.height)
    height, width = picture.pixels.shape[:2]
    left, top, right, bottom = _pixels_of(cut, width, height)
    part = np.ascontiguousarray(picture.pixels[top:bottom, left:right])
    # What slants is narrower than its box: its own shorter side is what may be so large.
    slender = min(1.0, _breadth_px(found.polygon, width, height) / max(1, min(part.shape[:2])))
    part = shrink(part, max(1, round(recipe.short_side_px / max(slender, 1e-3))))
    # The cut goes along whole pixels: what the crop shows, to the pixel.
    shown = Box(left / width, top / height, (right - left) / width, (bottom - top) / height)
    return Cropped(
        box=found.box,
        score=found.score,
        category=category,
        jpeg=encode_jpeg(part, quality=recipe.quality),
        cut=shown,
        landmarks=found.landmarks,
        polygon=found.polygon,
        label=found.label,
        short_side_px=round(min(found.box.w * picture.width, found.box.h * picture.height)),
    )


def _breadth_px(polygon: Points, width: int, height: int) -> float:
    """The shorter side of a polygon, in pixels; infinity if there is none."""
    if not polygon:
        return math.inf
    corners = np.asarray(polygon, np.float64) * [width, height]
    return float(np.hypot(*(np.roll(corners, -1, axis=0) - corners).T).min())


def widened(box: Box, margin: float, width: int, height: int) -> Box:
    """A box with a share of its longer side, in pixels of a picture of this size, added on each side, within it."""
    reach = margin * max(box.w * width, box.h * height)
    left, top = max(0.0, box.x - reach / width), max(0.0, box.y - reach / height)
    right, bottom = min(1.0, box.x + box.w + reach / width), min(1.0, box.y + box.h + reach / height)
    return Box(left, top, right - left, bottom - top)


def see(pixels: Pixels, crop: Cropped, prep: Preprocessing) -> Floats:
    """What a model is given of a decoded crop: a batch of one, by its card.

    BadInput if the model wants landmarks and the object has none.
    """
    if prep.align != "none":
        if not crop.landmarks:
            raise BadInput(
                "recipes.no-landmarks",
                f"the model aligns by {prep.align}, and the object has no landmarks",
                hint="use a detector that gives them, such as `mtcnn`",
            )
        height, width = pixels.shape[:2]
        points = [(x * width, y * height) for x, y in in_crop(crop.landmarks, crop)]
        return normalise(Image.fromarray(align(pixels, points, template=prep.align, size_px=prep.size_px)), prep)
    if _sees_box(crop, prep):
        left, top, right, bottom = _box_of(pixels, crop, prep.margin)
        pixels = np.ascontiguousarray(pixels[top:bottom, left:right])
    return preprocess(pixels, prep)


def seen_of(pixels: Pixels, crop: Cropped, prep: Preprocessing) -> Box | None:
    """The part of the picture that fills a model's input.

    None if it is no upright part of it: a face was turned, or the input has grey around what is seen.
    """
    if prep.align != "none" or prep.fit == "letterbox":
        return None
    height, width = pixels.shape[:2]
    left, top, right, bottom = _box_of(pixels, crop, prep.margin) if _sees_box(crop, prep) else (0, 0, width, height)
    part = Box(left / width, top / height, (right - left) / width, (bottom - top) / height)
    seen = WHOLE if prep.fit == "stretch" else seen_box(right - left, bottom - top, prep)
    return in_picture(_within(seen, part), crop)


def in_crop(points: Points, crop: Cropped) -> Points:
    """Points of the picture as shares of its crop's sides; beyond 0 to 1 for what the crop does not show."""
    cut = crop.cut
    return tuple(((x - cut.x) / cut.w, (y - cut.y) / cut.h) for x, y in points)


def box_in_crop(crop: Cropped) -> Box:
    """The object's box as a box of its crop."""
    cut, box = crop.cut, crop.box
    left, top = max(0.0, (box.x - cut.x) / cut.w), max(0.0, (box.y - cut.y) / cut.h)
    return Box(left, top, min(box.w / cut.w, 1 - left), min(box.h / cut.h, 1 - top))


def in_picture(box: Box, crop: Cropped) -> Box:
    """A box of a crop, as the box of the picture that the crop shows there."""
    return _within(box, crop.cut)


def _within(box: Box, outer: Box) -> Box:
    """A box of what another shows, as a box of what that one lies in."""
    left, top = min(outer.x + box.x * outer.w, 1.0), min(outer.y + box.y * outer.h, 1.0)
    return Box(left, top, min(box.w * outer.w, 1 - left), min(box.h * outer.h, 1 - top))


def _sees_box(crop: Cropped, prep: Preprocessing) -> bool:
    """Whether a model looks at the object's box alone, where the crop shows more."""
    return prep.see == "box" and crop.cut != crop.box


def _box_of(pixels: Pixels, crop: Cropped, margin: float) -> tuple[int, int, int, int]:
    """The part of a decoded crop that shows the object's box with a margin, as far as the crop goes, in pixels."""
    height, width = pixels.shape[:2]
    return _pixels_of(widened(box_in_crop(crop), margin, width, height), width, height)


def _pixels_of(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in whole pixels; at least one each way."""
    left, top = min(width - 1, round(box.x * width)), min(height - 1, round(box.y * height))
    right, bottom = round((box.x + box.w) * width), round((box.y + box.h) * height)
    return left, top, min(width, max(left + 1, right)), min(height, max(top + 1, bottom))
