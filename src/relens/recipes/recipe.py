"""A recipe: what is found in a picture, what is kept of it and what is said of it.

Steps are data: a detector, filters with their reasons, models for names, vectors, scores and text, and branches for
categories that want others. Its values are right each by itself; how people write it is `written`, whether its models
can play their roles, `lens` checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relens.recipes.kinds import Kind, bad, count, identifier, name, number, scalar, text, word

MAX_LABELS = 100

WHOLE_PICTURE = "whole"
BY_MODEL = "model"
NONE = "none"
ALL = "all"
ANY = "*"

STEPS = ("embed", "classify", "read", "turn")
"""Roles of models that describe an object. `score` names more: each is the role `score.NAME`."""

MEASURES: Mapping[str, tuple[str, ...]] = {"face": ("sharpness", "pose", "light", "quality")}
"""What is measured of an object without a model."""

KEYS: Mapping[str, Kind] = {
    "recipe": name,
    "detect.min_score": number(0, 1),
    "detect.overlap": number(0, 1),
    "detect.max_objects": count(1, 10_000),
    "detect.min_side_px": count(1, 4096),
    "crop.short_side_px": count(32, 4096),
    "crop.quality": count(1, 100),
    "crop.margin": number(0, 2),
    "labels": count(1, MAX_LABELS),
    "search.threshold": number(-1, 1),
}
"""What a recipe says in one value, by its key."""

FILTERS: Mapping[str, Mapping[str, Kind]] = {
    "short-side": {"min_px": count(1, 100_000)},
    "score": {"min": number(0, 1)},
    "blur": {"min": number(0, 1)},
    "quality": {"min": number(0, 1)},
    "duplicate": {"min_cosine": number(-1, 1)},
    "own": {"file": name, "function": identifier},
}
"""Filters with their options, all of which must be given; see docs/recipes.md."""

_WEIGHT = number(-1, 1)
RANKS: Mapping[str, Mapping[str, Kind]] = {
    "text": {"field": text, "weight": _WEIGHT},
    "near": {"field": text, "within": number(0, 100), "weight": _WEIGHT},
    "prefer": {"field": text, "value": scalar, "weight": _WEIGHT},
}
"""Rules of ranking with their options, all of which must be given."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A named step with its options: a filter, or a rule of ranking."""

    name: str
    options: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {self.name: dict(self.options)}

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Rule:
        [(name, options)] = given.items()
        return Rule(name, dict(options))


@dataclass(frozen=True, slots=True)
class Finding:
    """How a detector's findings become objects.

    min_score    findings under it are none
    overlap      of two that overlap by more (intersection over union) the weaker is left out
    max_objects  the strongest so many are taken, 1 to 10,000
    min_side_px  smaller things are not looked for, if the detector can be told so
    categories   label of the detector to category; "*" is every other label. What has none is dropped
    """

    min_score: float = 0.5
    overlap: float = 0.5
    max_objects: int = 300
    min_side_px: int = 20
    categories: Mapping[str, str] = field(default_factory=lambda: {ANY: ALL})

    def __post_init__(self) -> None:
        for option in ("min_score", "overlap", "max_objects", "min_side_px"):
            _require(f"detect.{option}", getattr(self, option))
        for label, category in self.categories.items():
            word(f"detect.categories.{label}", category)
        if not self.categories:
            raise bad("detect.categories", {}, "a label with its category", hint='`"*"` is every label')

    def to_json(self) -> dict[str, Any]:
        return {
            "min_score": self.min_score,
            "overlap": self.overlap,
            "max_objects": self.max_objects,
            "min_side_px": self.min_side_px,
            "categories": dict(self.categories),
        }


@dataclass(frozen=True, slots=True)
class Recipe:
    """What happens to a picture.

    detect    "whole": the picture is one object; "model": what the model of the role `detect` finds
    models    role to a reference like `effnet-lite0/1`. Roles are `detect`, those of STEPS, `score.NAME`, and for one
              category alone `CATEGORY/ROLE`, where "none" takes a step away
    margin    share of the longer side that a stored crop shows around an object
    measure   what is measured of every crop: "" or "face" (sharpness, pose, light)
    filters   in their order; an object is dropped by the first that has a reason
    threshold cosine under which nothing matches; None if everything is an answer
    rerank    rules of ranking, applied to what was found
    """

    name: str
    detect: str
    short_side_px: int
    quality: int
    labels: int
    models: Mapping[str, str]
    margin: float = 0.0
    finding: Finding = field(default_factory=Finding)
    measure: str = ""
    filters: tuple[Rule, ...] = ()
    threshold: float | None = None
    rerank: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        _require("recipe", self.name)
        if self.detect not in {WHOLE_PICTURE, BY_MODEL}:
            raise bad("detect", self.detect, "`whole`, or a mapping with a `model`")
        _require("crop.short_side_px", self.short_side_px)
        _require("crop.quality", self.quality)
        _require("crop.margin", self.margin)
        _require("labels", self.labels)
        if self.measure and self.measure not in MEASURES:
            raise bad("measure", self.measure, " or ".join(MEASURES))
        if self.threshold is not None:
            _require("search.threshold", self.threshold)

    @property
    def settings(self) -> dict[str, Any]:
        """What of a recipe is not its models. What a plain recipe does not say is left out, as it always was."""
        crop: dict[str, Any] = {"short_side_px": self.short_side_px, "quality": self.quality}
        if self.margin:
            crop["margin"] = self.margin
        given: dict[str, Any] = {"name": self.name, "detect": self.detect, "crop": crop, "labels": self.labels}
        if self.detect == BY_MODEL:
            given["finding"] = self.finding.to_json()
        if self.measure:
            given["measure"] = self.measure
        if self.filters:
            given["filters"] = [rule.to_json() for rule in self.filters]
        if self.threshold is not None:
            given["threshold"] = self.threshold
        if self.rerank:
            given["rerank"] = [rule.to_json() for rule in self.rerank]
        return given

    @staticmethod
    def from_settings(given: Mapping[str, Any], models: Mapping[str, str]) -> Recipe:
        """The inverse of `settings`."""
        return Recipe(
            name=given["name"],
            detect=given["detect"],
            short_side_px=given["crop"]["short_side_px"],
            quality=given["crop"]["quality"],
            labels=given["labels"],
            models=dict(models),
            margin=given["crop"].get("margin", 0.0),
            finding=Finding(**given["finding"]) if "finding" in given else Finding(),
            measure=given.get("measure", ""),
            filters=tuple(Rule.from_json(one) for one in given.get("filters", ())),
            threshold=given.get("threshold"),
            rerank=tuple(Rule.from_json(one) for one in given.get("rerank", ())),
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """Every category that an object can have, in order."""
        if self.detect == WHOLE_PICTURE:
            return (ALL,)
        return tuple(sorted(set(self.finding.categories.values())))

    def role(self, step: str, category: str = ALL) -> str | None:
        """The role of the model that does a step for a category; None if none does."""
        for role in (f"{category}/{step}", step):
            if role in self.models:
                return role if self.models[role] != NONE else None
        return None

    def scores(self, category: str) -> dict[str, str]:
        """Name to role of what is scored of a category's objects."""
        names = {role.rpartition("/")[2].removeprefix("score.") for role in self.models if "score." in role}
        roles = {name: self.role(f"score.{name}", category) for name in sorted(names)}
        return {name: role for name, role in roles.items() if role is not None}


def _require(key: str, value: object) -> None:
    KEYS[key](key, value)
