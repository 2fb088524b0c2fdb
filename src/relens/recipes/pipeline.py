"""A pipeline runs a lens on pictures: decode, find and crop, filter, describe. The same code online and in bulk.

Errors that a picture causes are BadInput; errors of an engine are Broken. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from relens.errors import BadInput
from relens.recipes.crops import (
    Cropped,
    box_in_crop,
    category_of,
    crop_found,
    crop_whole,
    in_crop,
    see,
    seen_of,
)
from relens.recipes.detectors import detector
from relens.recipes.filters import Filters
from relens.recipes.lens import Lens, LoadedModel
from relens.recipes.reading import read_crops
from relens.recipes.recipe import ALL, WHOLE_PICTURE
from relens.values import Floats, Label, Pixels, Vector
from relens.vision import (
    Decoded,
    Limits,
    class_activation_map,
    decode,
    subject_box,
)
from relens.vision.heads import best_labels, scores_of, value_of
from relens.vision.quality import face_quality

INCLUDES = ("vector", "subject", "heatmap")
"""What `describe` gives on request, besides names."""

BATCH = 32
"""Objects in one forward: a crowd of hundreds costs no more memory than this."""

UNWANTED = "unwanted-label"
"""Why an object is dropped whose label has no category."""


@dataclass(frozen=True, slots=True)
class Described:
    """What the models say of a crop: names best first, the vector if it has one, text if it was read, and the rest."""

    labels: tuple[Label, ...]
    vector: Vector | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None


def attributes_of(crop: Cropped, described: Described) -> dict[str, Any]:
    """What is kept and shown of an object besides its names: measures, scores, text, its detector's label, polygon."""
    given = dict(described.attributes)
    if crop.label:
        given["label"] = crop.label
    if crop.polygon:
        given["polygon"] = [[round(x, 6), round(y, 6)] for x, y in crop.polygon]
    return given


class Pipeline:
    """A lens with its models loaded. Safe to use from many threads."""

    def __init__(
        self, lens: Lens, models: Mapping[str, LoadedModel], limits: Limits, own: Mapping[str, bytes] | None = None
    ) -> None:
        """`models` by role; each must have the digest that the lens names. `own`: files of the user's own filters."""
        self.lens = lens
        self._models = models
        self._limits = limits
        self._filters = Filters(lens.recipe.filters, own or {})
        self._detect = detector(models["detect"], lens.recipe.finding) if "detect" in models else None

    def decode(self, data: bytes) -> Decoded:
        """The picture, upright, decoded no larger than the recipe needs. BadInput if it cannot be used."""
        whole = self.lens.recipe.detect == WHOLE_PICTURE
        return decode(data, limits=self._limits, short_side_px=self.lens.recipe.short_side_px if whole else None)

    def crop(self, picture: Decoded) -> list[Cropped]:
        """The objects of a picture with their crops, those included that are not wanted (category "").

        An unwanted one has no crop.
        """
        recipe = self.lens.recipe
        if self._detect is None:
            return [crop_whole(picture, recipe)]
        crops = []
        for found in self._detect(picture.pixels):
            category = category_of(found, recipe)
            if category is None:
                crops.append(Cropped(found.box, found.score, "", b"", label=found.label))
            else:
                crops.append(self._measured(crop_found(picture, found, category, recipe)))
        return crops

    def reason(self, crop: Cropped) -> str | None:
        """Why an object is dropped, by the recipe's filters in their order; None if it is kept."""
        return self._filters.reason(crop) if crop.category else UNWANTED

    def describe(self, crop: Cropped, *, include: Collection[str] = ()) -> Described:
        """Names, vector and attributes of one stored crop."""
        return self.describe_all([crop], include=include)[0]

    def describe_all(self, crops: Sequence[Cropped], *, include: Collection[str] = ()) -> list[Described]:
        """Names, vectors and attributes of stored crops (JPEG bytes), in their order.

        One forward per model for up to BATCH objects. `include` holds any of "vector", "subject", "heatmap": they
        become attributes. BadInput if a crop is no JPEG.
        """
        described: list[Described | None] = [None] * len(crops)
        for numbers in _by_category(crops):
            some = [(crops[number], decode(crops[number].jpeg).pixels) for number in numbers]
            for number, said in zip(numbers, _Described(self, some, include).all(), strict=True):
                described[number] = said
        return [said for said in described if said is not None]

    def model(self, step: str, category: str) -> LoadedModel | None:
        """The model that does a step for a category."""
        role = self.lens.recipe.role(step, category)
        return None if role is None else self._models[role]

    def scorers(self, category: str) -> dict[str, LoadedModel]:
        """The models that score a category's objects, by name."""
        return {name: self._models[role] for name, role in self.lens.recipe.scores(category).items()}

    def _measured(self, crop: Cropped) -> Cropped:
        if self.lens.recipe.measure != "face" or not crop.landmarks:
            return crop
        measures = face_quality(decode(crop.jpeg).pixels, in_crop(crop.landmarks, crop), box_in_crop(crop))
        return replace(crop, measures={name: round(value, 3) for name, value in measures.items()})


@dataclass(frozen=True, slots=True)
class _Described:
    """A batch of crops of one category on its way through the models."""

    pipeline: Pipeline
    crops: Sequence[tuple[Cropped, Pixels]]
    include: Collection[str]

    def all(self) -> list[Described]:
        category = self.crops[0][0].category or ALL
        runs: dict[str, Mapping[str, Floats]] = {}
        vectors = self._vectors(self.pipeline.model("embed", category), category, runs)
        classifier = self.pipeline.model("classify", category)
        scores = None if classifier is None else self._scores(classifier, runs)
        attributes: list[dict[str, Any]] = [dict(crop.measures) for crop, _ in self.crops]
        for name, model in self.pipeline.scorers(category).items():
            for given, value in zip(attributes, self._values(model, runs), strict=True):
                given[name] = value
        texts = self._read(category, attributes)
        described = []
        for row, (given, vector, text) in enumerate(zip(attributes, vectors, texts, strict=True)):
            labels = () if classifier is None or scores is None else self._labels(classifier, scores[row])
            shown: dict[str, Any] = {}
            if "vector" in self.include and vector is not None:
                shown["vector"] = [round(float(value), 6) for value in vector.values]
            if classifier is not None and labels and {"subject", "heatmap"} & set(self.include):
                shown |= self._explain(classifier, runs[classifier.artifact.digest], row, labels[0].index)
            described.append(Described(labels, vector, given | shown, text))
        return described

    def _run(self, model: LoadedModel, runs: dict[str, Mapping[str, Floats]]) -> Mapping[str, Floats]:
        """One forward of a model for all crops of the batch, however many steps use it."""
        digest = model.artifact.digest
        if digest not in runs:
            prep = model.artifact.card.preprocessing
            inputs = [see(pixels, crop, prep) for crop, pixels in self.crops]
            runs[digest] = model.session.run(inputs[0] if len(inputs) == 1 else np.concatenate(inputs))
        return runs[digest]

    def _vectors(
        self, model: LoadedModel | None, category: str, runs: dict[str, Mapping[str, Floats]]
    ) -> list[Vector | None]:
        space = self.pipeline.lens.space_of(category)
        if model is None or space is None:
            return [None] * len(self.crops)
        return [Vector(space.digest, _unit(row)) for row in self._run(model, runs)["vector"]]

    def _scores(self, model: LoadedModel, runs: dict[str, Mapping[str, Floats]]) -> Floats:
        return _finite(model, scores_of(self._run(model, runs)["scores"], model.artifact.card.decode))

    def _labels(self, model: LoadedModel, scores: Floats) -> tuple[Label, ...]:
        return best_labels(scores, model.labels, self.pipeline.lens.recipe.labels)

    def _values(self, model: LoadedModel, runs: dict[str, Mapping[str, Floats]]) -> list[Any]:
        """A number for each crop, or the best name with its score."""
        card = model.artifact.card
        if card.task == "regress":
            values = value_of(self._run(model, runs)["value"], card.decode)
            return [round(float(value), 3) for value in _finite(model, values)]
        scores = self._scores(model, runs)
        best = scores.argmax(axis=1)
        return [
            {"name": model.labels[index], "score": round(float(row[index]), 4)}
            for index, row in zip(best, scores, strict=True)
        ]

    def _read(self, category: str, attributes: Sequence[dict[str, Any]]) -> list[str | None]:
        """The text of each crop, its score added to the attributes; None where nothing is read."""
        reader = self.pipeline.model("read", category)
        if reader is None:
            return [None] * len(self.crops)
        texts, scores = zip(*read_crops(self.crops, reader, self.pipeline.model("turn", category)), strict=True)
        for given, text, score in zip(attributes, texts, _finite(reader, np.array(scores)), strict=True):
            given |= {"text": text, "text_score": round(float(score), 4)}
        return list(texts)

    def _explain(self, model: LoadedModel, outputs: Mapping[str, Floats], row: int, index: int) -> dict[str, Any]:
        """Where the best name comes from, by class activation of the same forward.

        Nothing if the model has no head, or looks at no upright part of the picture.
        """
        if model.head is None or "features" not in outputs:
            return {}
        crop, pixels = self.crops[row]
        seen = seen_of(pixels, crop, model.artifact.card.preprocessing)
        if seen is None:
            return {}
        cam = class_activation_map(outputs["features"][row], model.head[index])
        explained: dict[str, Any] = {}
        if "subject" in self.include:
            explained["subject"] = subject_box(cam, seen).to_json()
        if "heatmap" in self.include:
            explained["heatmap"] = {"box": seen.to_json(), "values": [[round(float(v), 3) for v in row] for row in cam]}
        return explained


def _by_category(crops: Sequence[Cropped]) -> Iterator[list[int]]:
    """Numbers of the crops of one category, at most BATCH at a time."""
    groups: dict[str, list[int]] = {}
    for number, crop in enumerate(crops):
        groups.setdefault(crop.category, []).append(number)
    for numbers in groups.values():
        for start in range(0, len(numbers), BATCH):
            yield numbers[start : start + BATCH]


def _finite(model: LoadedModel, values: Floats) -> Floats:
    """What a model says, if it is numbers. BadInput for what neither JSON nor a catalog could hold."""
    if not np.isfinite(values).all():
        raise BadInput(
            "recipes.not-finite",
            f"{model.artifact.reference} does not say a number of this picture",
            hint="`relens doctor --deep` tells whether the model is as it came in",
        )
    return values


def _unit(vector: Floats) -> Floats:
    """Scaled to unit length. A zero vector stays zero, and is refused by `Vector`."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)
