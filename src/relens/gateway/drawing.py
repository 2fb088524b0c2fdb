"""What was recognised, drawn on the picture: what a mark says of an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from relens.recipes.recipe import MEASURES
from relens.values import WHOLE, Box, FoundObject, Pixels, Recognition
from relens.vision import Limits, decode, encode_jpeg, overlay
from relens.vision.draw import Mark, draw

QUALITY = 90
SAID_ELSEWHERE = frozenset(
    {
        *("label", "text", "text_score", "polygon", "subject", "heatmap", "vector"),
        *(name for names in MEASURES.values() for name in names),
    }
)
"""Attributes that a mark shows otherwise, or not at all."""

LABELLED = 1000
"""Objects with a label. To find a place for each costs time that grows with their square: 1.4 s for so many."""


def draw_answer(data: bytes, answer: Recognition, limits: Limits) -> bytes:
    """A JPEG of the picture with a mark for each object, under them the heat maps that the answer has.

    Of more than LABELLED objects those behind them have a box and no label.
    """
    pixels = decode(data, limits=limits).pixels
    if any("heatmap" in found.attributes for found in answer.objects):
        pixels = pixels.copy()  # what is decoded may not be ours to write into
    for found in answer.objects:
        if heat := found.attributes.get("heatmap"):
            _warm(pixels, heat)
    marks = [mark_of(found, number) for number, found in enumerate(answer.objects, 1)]
    marks[LABELLED:] = [replace(mark, text="", short="") for mark in marks[LABELLED:]]
    return encode_jpeg(draw(pixels, marks), quality=QUALITY)


def _warm(pixels: Pixels, heat: Mapping[str, Any]) -> None:
    """Lay a heat map over its part of the picture, in place: it costs what that part costs."""
    height, width = pixels.shape[:2]
    box = Box.from_json(heat["box"])
    left, top = min(round(box.x * width), width - 1), min(round(box.y * height), height - 1)
    right, bottom = max(round((box.x + box.w) * width), left + 1), max(round((box.y + box.h) * height), top + 1)
    part = pixels[top:bottom, left:right]
    part[:] = overlay(part, np.asarray(heat["values"], np.float32), WHOLE)


def mark_of(found: FoundObject, number: int) -> Mark:
    """What is drawn of an object: its name with the score and what else was measured.

    Of text that was read, its number in the order of reading: the words stand there already.
    """
    subject = found.attributes.get("subject")
    polygon = tuple((float(x), float(y)) for x, y in found.attributes.get("polygon", ()))
    name = _name(found)
    said = [name, *_scores(found.attributes)]
    if "text" in found.attributes:
        name, said = str(number), [str(number)]
    return Mark(
        box=Box.from_json(subject) if subject else found.box,
        text=", ".join(part for part in said if part),
        key=found.labels[0].name if found.labels else str(found.attributes.get("label") or found.category),
        polygon=polygon,
        landmarks=found.landmarks,
        short=name,
    )


def _name(found: FoundObject) -> str:
    if found.labels:
        best = found.labels[0]
        return f"{best.name} {best.score:.0%}"
    name = found.attributes.get("label") or ("" if found.category == "all" else found.category)
    return f"{name} {found.score:.0%}".strip()


def _scores(attributes: Mapping[str, Any]) -> list[str]:
    """`age 31`, `female`: numbers and names that models gave."""
    said = []
    for name, value in attributes.items():
        if name in SAID_ELSEWHERE:
            continue
        if isinstance(value, Mapping) and "name" in value:
            said.append(str(value["name"]))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            said.append(f"{name} {value:.0f}" if abs(value) >= 1 else f"{name} {value:.2f}")
    return said
