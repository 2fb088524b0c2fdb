"""What a model says of a picture, by its card: objects with names, numbers and vectors, in the form of every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relens.errors import BadInput, Broken
from relens.models import Card
from relens.values import WHOLE, Detection, Floats, FoundObject, Label
from relens.vision import placement
from relens.vision.heads import best_labels, detections_of, scores_of, value_of

ALL = "all"
MOST_OBJECTS = 300
OVERLAP = 0.5


def objects_of(
    outputs: Mapping[str, Floats],
    card: Card,
    labels: Sequence[str],
    *,
    size: tuple[int, int],
    names: int,
    min_score: float,
    vector: bool,
) -> list[FoundObject]:
    """What one forward of one picture says: of a detector its findings, of other models the whole picture.

    outputs    role to (1, …)
    labels     class names by index; a class without one is called by its index
    size       width and height of the picture
    names      how many names an object has, at most
    min_score  findings of a detector under it are none
    vector     whether a vector is told as well, as attribute `vector`; of a model that gives nothing else it always is

    BadInput for models that one picture and one network are not enough for; Broken if it says what is no number.
    """
    if card.task == "detect":
        return [_found(one) for one in _detections(outputs, card, labels, size, min_score)]
    if card.task not in {"classify+embed", "classify", "embed", "regress"}:
        raise _not_read(card)
    attributes: dict[str, Any] = {}
    best: tuple[Label, ...] = ()
    if "scores" in outputs and card.task != "regress":
        best = best_labels(_finite(scores_of(outputs["scores"], card.decode))[0], labels, names)
    if card.task == "regress":
        attributes["value"] = round(float(_finite(value_of(outputs["value"], card.decode))[0]), 6)
        attributes |= {"unit": card.decode["unit"]} if "unit" in card.decode else {}
    if "vector" in outputs and (vector or not (best or attributes)):
        attributes["vector"] = [round(float(value), 6) for value in _unit(_finite(outputs["vector"])[0].ravel())]
    return [FoundObject(WHOLE, 1.0, ALL, best, attributes)]


def _detections(
    outputs: Mapping[str, Floats], card: Card, labels: Sequence[str], size: tuple[int, int], min_score: float
) -> list[Detection]:
    if card.kind not in {"yolo", "boxes"}:
        raise _not_read(card)
    prep = card.preprocessing
    return detections_of(
        outputs,
        card.decode,
        input_size=(prep.size_px, prep.height),
        placed=placement(*size, prep),
        min_score=min_score,
        iou=OVERLAP,
        max_objects=MOST_OBJECTS,
        labels=labels,
    )


def _found(one: Detection) -> FoundObject:
    name = Label(one.label or str(one.index), one.index, one.score)
    return FoundObject(one.box, one.score, ALL, (name,), {}, one.landmarks)


def _unit(vector: Floats) -> Floats:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector


def _finite(values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise Broken("hosted.not-finite", "the model does not say a number of this picture", hint="ask for its tensors")
    return values


def _not_read(card: Card) -> BadInput:
    return BadInput(
        "hosted.not-recognized",
        f"a model that is read as {card.task} by {card.kind} takes more than a picture and one network",
        hint="ask a recipe of relens, or for its tensors",
    )
