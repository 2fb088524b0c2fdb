"""Detectors: from a picture to what is in it, by what the model's card says of its outputs."""

from __future__ import annotations

from collections.abc import Callable

from relens.errors import BadInput
from relens.recipes.lens import LoadedModel
from relens.recipes.recipe import Finding
from relens.values import Detection, Pixels
from relens.vision import placement, preprocess
from relens.vision.faces import detect_faces
from relens.vision.heads import LEAST_SIDE, detections_of
from relens.vision.lines import find_lines, text_input
from relens.vision.order import reading_order

Detect = Callable[[Pixels], list[Detection]]
"""Things found in (height, width, 3) RGB uint8, in the order that their ids shall have."""


def detector(model: LoadedModel, finding: Finding) -> Detect:
    """What a loaded detector finds, within the recipe's limits. BadInput for a card whose outputs nobody can read."""
    make = {"mtcnn": _faces, "db": _lines, "yolo": _boxes, "boxes": _boxes}.get(model.artifact.card.kind)
    if make is None:
        raise BadInput("recipes.wrong-model", f"{model.artifact.reference}: nobody reads {model.artifact.card.kind}")
    return make(model, finding)


def _boxes(model: LoadedModel, finding: Finding) -> Detect:
    card = model.artifact.card
    prep = card.preprocessing

    def detect(pixels: Pixels) -> list[Detection]:
        height, width = pixels.shape[:2]
        return detections_of(
            model.session.run(preprocess(pixels, prep)),
            card.decode,
            input_size=(prep.size_px, prep.height),
            placed=placement(width, height, prep),
            min_score=finding.min_score,
            iou=finding.overlap,
            max_objects=finding.max_objects,
            labels=model.labels,
        )

    return detect


def _faces(model: LoadedModel, finding: Finding) -> Detect:
    def detect(pixels: Pixels) -> list[Detection]:
        found = detect_faces(
            pixels,
            propose=model.session.run,
            refine=model.parts["refine"].run,
            finish=model.parts["finish"].run,
            min_face_px=finding.min_side_px,
            max_faces=finding.max_objects,
        )
        return [one for one in found if one.score >= finding.min_score and min(one.box.w, one.box.h) > LEAST_SIDE]

    return detect


def _lines(model: LoadedModel, finding: Finding) -> Detect:
    card = model.artifact.card

    def detect(pixels: Pixels) -> list[Detection]:
        chances = model.session.run(text_input(pixels, card.preprocessing, card.decode))["map"]
        found = find_lines(chances, card.decode, max_lines=finding.max_objects)
        sure = [line for line in found if line.score >= finding.min_score]
        height, width = pixels.shape[:2]
        return [sure[number] for number in reading_order(sure, aspect=width / height)]

    return detect
