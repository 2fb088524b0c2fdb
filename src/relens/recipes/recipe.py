"""A recipe as it is written: YAML that says what is found in a picture, what is kept of it and what is said of it.

Steps are data: a detector, filters with their reasons, models for names, vectors, scores and text, and branches for
categories that want others. Reading a recipe checks its words; whether its models can play their roles, `lens` checks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from relens.errors import BadInput

MAX_LABELS = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")

WHOLE_PICTURE = "whole"
BY_MODEL = "model"
NONE = "none"
ALL = "all"
ANY = "*"

STEPS = ("embed", "classify", "read", "turn")
"""Roles of models that describe an object. `score` names more: each is the role `score.NAME`."""

MEASURES = ("face",)

FILTERS: Mapping[str, Mapping[str, Any]] = {
    "short-side": {"min_px": int},
    "score": {"min": float},
    "blur": {"min": float},
    "quality": {"min": float},
    "duplicate": {"min_cosine": float},
    "own": {"file": str, "function": str},
}
"""Filters with their options, all of which must be given; see docs/recipes.md."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A named step with its options: a filter, or a rule of ranking."""

    name: str
    options: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {self.name: dict(self.options)}


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
        _require("detect.min_score", self.min_score, 0, 1)
        _require("detect.overlap", self.overlap, 0, 1)
        _require("detect.max_objects", self.max_objects, 1, 10_000)
        _require("detect.min_side_px", self.min_side_px, 1, 4096)
        for category in self.categories.values():
            if not WORD.fullmatch(category):
                raise _bad("detect.categories", category, "a word of lower-case letters, digits, `_` and `-`")

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
        if not NAME.fullmatch(self.name):
            raise _bad("recipe", self.name, "a name of letters, digits, `.`, `_` and `-`")
        if self.detect not in (WHOLE_PICTURE, BY_MODEL):
            raise _bad("detect", self.detect, "`whole`, or a mapping with a `model`")
        _require("crop.short_side_px", self.short_side_px, 32, 4096)
        _require("crop.quality", self.quality, 1, 100)
        _require("crop.margin", self.margin, 0, 2)
        _require("labels", self.labels, 1, MAX_LABELS)
        if self.measure and self.measure not in MEASURES:
            raise _bad("measure", self.measure, " or ".join(MEASURES))
        if self.threshold is not None:
            _require("search.threshold", self.threshold, -1, 1)

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
            filters=tuple(_rule(one) for one in given.get("filters", ())),
            threshold=given.get("threshold"),
            rerank=tuple(_rule(one) for one in given.get("rerank", ())),
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


_CROP = ("short_side_px", "quality", "margin")
_DETECT = ("model", "min_score", "overlap", "max_objects", "min_side_px", "categories")
_SEARCH = ("threshold", "rerank")
_BRANCH = (*STEPS, "score")
_KNOWN = ("recipe", "detect", "crop", "measure", "filters", "labels", "branches", "search", *_BRANCH)


def read_recipe(data: bytes, *, source: str) -> Recipe:
    """A recipe from YAML; `source` is named in errors. BadInput for what is missing, unknown or out of range."""
    try:
        given = yaml.safe_load(data)
        return _read(_mapping(given, _KNOWN, "", source))
    except BadInput as error:
        raise BadInput(error.code, f"{source}: {error.message.removeprefix(f'{source}: ')}", hint=error.hint) from error
    except KeyError as error:
        raise BadInput("recipes.bad-recipe", f"{source}: {error.args[0]} is missing") from error
    except (yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        raise BadInput("recipes.bad-recipe", f"{source} cannot be read: {error}") from error


def _read(given: Mapping[str, Any]) -> Recipe:
    crop = {"short_side_px": 320, "quality": 90, "margin": 0.0} | _mapping(given.get("crop", {}), _CROP, "crop.")
    search = _mapping(given.get("search", {}), _SEARCH, "search.")
    detect = given.get("detect", WHOLE_PICTURE)
    finding, models = Finding(), _steps(given, "")
    if isinstance(detect, dict):
        options = _mapping(detect, _DETECT, "detect.")
        models["detect"] = str(options.pop("model"))
        if isinstance(categories := options.get("categories"), dict):
            options["categories"] = {str(label): str(category) for label, category in categories.items()}
        finding, detect = Finding(**options), BY_MODEL
    for category, branch in (given.get("branches") or {}).items():
        models |= _steps(_mapping(branch, _BRANCH, f"branches.{category}."), f"{category}/")
    recipe = Recipe(
        name=str(given["recipe"]),
        detect=str(detect),
        short_side_px=int(crop["short_side_px"]),
        quality=int(crop["quality"]),
        labels=int(given.get("labels", 5)),
        models=models,
        margin=float(crop["margin"]),
        finding=finding,
        measure=str(given.get("measure") or ""),
        filters=tuple(_filter(one) for one in given.get("filters") or ()),
        threshold=None if search.get("threshold") is None else float(search["threshold"]),
        rerank=tuple(_rule(one) for one in search.get("rerank") or ()),
    )
    _require_sense(recipe)
    return recipe


def _steps(given: Mapping[str, Any], prefix: str) -> dict[str, str]:
    models = {f"{prefix}{step}": str(given[step]) for step in STEPS if given.get(step) is not None}
    for name, reference in (given.get("score") or {}).items():
        if not WORD.fullmatch(str(name)):
            raise _bad("score", name, "a word of lower-case letters, digits, `_` and `-`")
        models[f"{prefix}score.{name}"] = str(reference)
    return models


def _require_sense(recipe: Recipe) -> None:
    """BadInput for a recipe that says nothing, or that names a branch that no object can take."""
    steps = {role.rpartition("/")[2] for role, reference in recipe.models.items() if reference != NONE}
    if recipe.detect == WHOLE_PICTURE and "embed" not in steps and "classify" not in steps:
        raise BadInput("recipes.bad-recipe", "embed is missing", hint="name a model for embed, classify, or both")
    branches = {role.partition("/")[0] for role in recipe.models if "/" in role}
    if strange := sorted(branches - set(recipe.categories)):
        raise BadInput(
            "recipes.bad-value",
            f"branches: no object has category {', '.join(strange)}",
            hint=f"detect.categories gives {', '.join(recipe.categories)}",
        )


def _filter(given: Any) -> Rule:
    rule = _rule(given)
    if rule.name not in FILTERS:
        raise _unknown([rule.name], list(FILTERS), "filters: ")
    wanted = FILTERS[rule.name]
    options = _mapping(dict(rule.options), tuple(wanted), f"filters.{rule.name}.")
    if missing := sorted(set(wanted) - set(options)):
        raise BadInput("recipes.bad-value", f"filters: {rule.name} needs {', '.join(missing)}")
    return Rule(rule.name, {key: kind(options[key]) for key, kind in wanted.items()})


def _rule(given: Any) -> Rule:
    if not isinstance(given, dict) or len(given) != 1:
        raise BadInput("recipes.bad-value", f"{given!r} is no rule", hint="write `- name: {option: value}`")
    name, options = next(iter(given.items()))
    return Rule(str(name), dict(options or {}))


def _mapping(given: Any, known: Sequence[str], where: str, source: str = "") -> dict[str, Any]:
    if not isinstance(given, dict):
        what = where.removesuffix(".") or source
        raise BadInput("recipes.bad-recipe", f"{what}: a recipe holds keys and values")
    if unknown := sorted(map(str, set(given) - set(known))):
        raise _unknown(unknown, known, where)
    return dict(given)


def _unknown(unknown: Sequence[str], known: Sequence[str], where: str) -> BadInput:
    near = difflib.get_close_matches(unknown[0], known, 1, 0.5)
    named = ", ".join(f"{where}{word}" for word in unknown)
    meant = f"did you mean {near[0]}? " if near else ""
    return BadInput("recipes.unknown-key", f"unknown {named}", hint=f"{meant}known: {', '.join(sorted(known))}")


def _require(key: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise _bad(key, value, f"a number from {least} to {most}")


def _bad(key: str, value: object, wanted: str) -> BadInput:
    return BadInput("recipes.bad-value", f"{key}: {value!r} is not {wanted}")
