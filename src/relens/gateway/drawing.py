"""What was recognised, drawn on the picture: what a mark says of an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from relens.values import Box, FoundObject, Recognition
from relens.vision import Limits, decode, encode_jpeg, overlay
from relens.vision.draw import Mark, draw

QUALITY = 90
SAID_ELSEWHERE = frozenset({"label", "text", "text_score", "polygon", "subject", "heatmap", "vector"})
"""Attributes that a mark shows otherwise, or not at all."""


def draw_answer(data: bytes, answer: Recognition, limits: Limits) -> bytes:
    """A JPEG of the picture with a mark for each object, under them the heat maps that the answer has."""
    pixels = decode(data, limits=limits).pixels
    for found in answer.objects:
        heat = found.attributes.get("heatmap")
        if heat:
            pixels = overlay(pixels, np.asarray(heat["values"], np.float32), Box.from_json(heat["box"]))
    marks = [mark_of(found, number) for number, found in enumerate(answer.objects, 1)]
    return encode_jpeg(draw(pixels, marks), quality=QUALITY)


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
    """`age 31`, `gender: female`: numbers and names that models gave."""
    said = []
    for name, value in attributes.items():
        if name in SAID_ELSEWHERE:
            continue
        if isinstance(value, Mapping) and "name" in value:
            said.append(str(value["name"]))
        elif isinstance(value, int | float) and not isinstance(value, bool) and name in {"age", "score"}:
            said.append(f"{name} {value:.0f}" if abs(value) >= 1 else f"{name} {value:.2f}")
    return said
