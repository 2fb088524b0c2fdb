"""A pipeline runs a lens on pictures: decode, crop, describe. The same code online and in bulk.

Errors that a picture causes are BadInput; errors of an engine are Broken. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from relens.recipes.lens import Lens, LoadedModel
from relens.values import WHOLE, Box, Floats, Label, Pixels, Vector
from relens.vision import (
    Decoded,
    Limits,
    class_activation_map,
    decode,
    encode_jpeg,
    preprocess,
    seen_box,
    shrink,
    subject_box,
)

INCLUDES = ("vector", "subject", "heatmap")
"""What `describe` gives on request, besides names."""


@dataclass(frozen=True, slots=True)
class Cropped:
    """An object that was found and cut out: `jpeg` is what is stored, and what is described."""

    box: Box
    score: float
    category: str
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Described:
    """What the models say of a crop: names best first, the vector, and what else was asked for."""

    labels: tuple[Label, ...]
    vector: Vector
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Pipeline:
    """A lens with its models loaded. Safe to use from many threads."""

    def __init__(self, lens: Lens, models: Mapping[str, LoadedModel], limits: Limits) -> None:
        """`models` by role; each must have the digest that the lens names."""
        self.lens = lens
        self._embed = models["embed"]
        self._classify = models["classify"]
        self._limits = limits

    def decode(self, data: bytes) -> Decoded:
        """The picture, upright, decoded no larger than the crop needs. BadInput if it cannot be used."""
        return decode(data, limits=self._limits, short_side_px=self.lens.recipe.short_side_px)

    def crop(self, picture: Decoded) -> list[Cropped]:
        """The objects of a picture with their crops: here the whole picture."""
        recipe = self.lens.recipe
        pixels = shrink(picture.pixels, recipe.short_side_px)
        return [Cropped(WHOLE, 1.0, "all", encode_jpeg(pixels, quality=recipe.quality))]

    def describe(self, crop: bytes, *, include: Collection[str] = ()) -> Described:
        """Names and vector of a stored crop (JPEG bytes), with one forward per model.

        `include` holds any of "vector", "subject", "heatmap": they become attributes. BadInput if the crop is no JPEG.
        """
        pixels = decode(crop).pixels
        outputs = self._forward(self._embed, pixels)
        vector = Vector(self.lens.space, _unit(outputs["vector"][0]))
        if self._classify.artifact.digest != self._embed.artifact.digest:
            outputs = self._forward(self._classify, pixels)
        labels = self._labels(outputs["scores"][0])
        attributes: dict[str, Any] = {}
        if "vector" in include:
            attributes["vector"] = [round(float(value), 6) for value in vector.values]
        if {"subject", "heatmap"} & set(include):
            attributes |= self._explain(outputs, labels[0].index, pixels, include)
        return Described(labels, vector, attributes)

    def _forward(self, model: LoadedModel, pixels: Pixels) -> dict[str, Floats]:
        return model.session.run(preprocess(pixels, model.artifact.card.preprocessing))

    def _labels(self, scores: Floats) -> tuple[Label, ...]:
        count = min(self.lens.recipe.labels, len(scores))
        top = np.argpartition(-scores, count - 1)[:count]
        best = top[np.lexsort((top, -scores[top]))]
        return tuple(Label(self._classify.labels[i], int(i), float(scores[i])) for i in best)

    def _explain(
        self, outputs: Mapping[str, Floats], index: int, pixels: Pixels, include: Collection[str]
    ) -> dict[str, Any]:
        """Where the best name comes from, by class activation of the same forward; nothing if the model has no head."""
        head = self._classify.head
        if head is None or "features" not in outputs:
            return {}
        height, width = pixels.shape[:2]
        seen = seen_box(width, height, self._classify.artifact.card.preprocessing)
        cam = class_activation_map(outputs["features"][0], head[index])
        explained: dict[str, Any] = {}
        if "subject" in include:
            explained["subject"] = subject_box(cam, seen).to_json()
        if "heatmap" in include:
            explained["heatmap"] = {"box": seen.to_json(), "values": [[round(float(v), 3) for v in row] for row in cam]}
        return explained


def _unit(vector: Floats) -> Floats:
    """Scaled to unit length. A zero vector stays zero, and is refused by `Vector`."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)
