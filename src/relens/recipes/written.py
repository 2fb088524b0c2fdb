"""Recipes as people write them: YAML to a Recipe, every word of it checked.

What is unknown, missing, there twice or of another kind is BadInput that names the key, and the nearest known word. A
key without a value is as if it were not there, so that all that stands below it may be commented out.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from relens.errors import BadInput
from relens.recipes.kinds import Kind, bad, reference, shown, word
from relens.recipes.recipe import (
    BY_MODEL,
    FILTERS,
    KEYS,
    MEASURES,
    NONE,
    RANKS,
    STEPS,
    WHOLE_PICTURE,
    Finding,
    Recipe,
    Rule,
)

_CROP = ("short_side_px", "quality", "margin")
_FINDING = ("min_score", "overlap", "max_objects", "min_side_px")
_DETECT = ("model", *_FINDING, "categories")
_SEARCH = ("threshold", "rerank")
_BRANCH = (*STEPS, "score")
_KNOWN = ("recipe", "detect", "crop", "measure", "filters", "labels", "branches", "search", *_BRANCH)

_USUAL_CROP = {"short_side_px": 320, "quality": 90, "margin": 0.0}
_USUAL_LABELS = 5

TAKEN = frozenset(
    {
        *("label", "polygon", "text", "text_score", "vector", "subject", "heatmap"),
        *(name for names in MEASURES.values() for name in names),
    }
)
"""Names of attributes that an object has by itself: no score may be called so."""

_SHOWN_KEYS = 5
_WHOLE = "name a detector; `detect: whole` takes the picture as one object"
_RULE = "write `- name: {option: value}`"

# What PyYAML raises for text that is no YAML, or that says of a value what it is not (`!!int ""`), or nests too deep.
_UNREADABLE = (
    *(yaml.YAMLError, ValueError, TypeError, AttributeError),
    *(LookupError, ArithmeticError, RecursionError),
)


def read_recipe(data: bytes, *, source: str) -> Recipe:
    """A recipe from YAML; `source` is named in errors. BadInput for what is missing, unknown or out of range."""
    try:
        return _read(_section(_loaded(data), "", _KNOWN))
    except BadInput as error:
        raise BadInput(error.code, f"{source}: {error.message}", hint=error.hint) from error


def _loaded(data: bytes) -> Any:
    try:
        return yaml.load(data, _Loader)  # noqa: S506 - it is a safe one
    except _UNREADABLE as error:
        raise BadInput("recipes.bad-recipe", f"it cannot be read: {error or type(error).__name__}") from error


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice: the first of the two would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                at = f"line {key.start_mark.line + 1}"
                raise BadInput(
                    "recipes.bad-recipe", f"{at}: {shown(key.value)} is there twice", hint="keep one of them"
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _read(given: Mapping[str, Any]) -> Recipe:
    if "recipe" not in given:
        raise BadInput("recipes.bad-recipe", "recipe is missing", hint="it is the name of the recipe, that of its file")
    crop = _USUAL_CROP | _values(_section(given.get("crop"), "crop", _CROP), "crop", _CROP)
    search = _section(given.get("search"), "search", _SEARCH)
    models = _steps(given, "", "")
    detect, finding = WHOLE_PICTURE, Finding()
    if isinstance(given.get("detect"), dict):
        detect = BY_MODEL
        models["detect"], finding = _detector(given["detect"])
    elif given.get("detect", WHOLE_PICTURE) != WHOLE_PICTURE:
        raise bad("detect", given["detect"], "`whole`, or a mapping with a `model`")
    plain = Recipe(
        name=KEYS["recipe"]("recipe", given["recipe"]),
        detect=detect,
        short_side_px=crop["short_side_px"],
        quality=crop["quality"],
        labels=KEYS["labels"]("labels", given.get("labels", _USUAL_LABELS)),
        models=models,
        margin=crop["margin"],
        finding=finding,
        measure=_measure(given.get("measure", "")),
        filters=_rules(given.get("filters"), "filters", FILTERS),
        threshold=_values(search, "search", ("threshold",)).get("threshold"),
        rerank=_rules(search.get("rerank"), "search.rerank", RANKS),
    )
    recipe = replace(plain, models=models | _branches(given.get("branches"), plain.categories))
    _require_sense(recipe)
    return recipe


def _detector(given: Mapping[str, Any]) -> tuple[str, Finding]:
    """The model that detects, and what becomes of its findings."""
    options = _section(given, "detect", _DETECT)
    if "model" not in options:
        raise BadInput("recipes.bad-recipe", "detect.model is missing", hint=_WHOLE)
    model = reference("detect.model", options["model"])
    if model == NONE:
        raise bad("detect.model", model, "a model that detects", hint=_WHOLE)
    found: dict[str, Any] = _values(options, "detect", _FINDING)
    if "categories" in options:
        categories = _pairs(options["categories"], "detect.categories")
        found["categories"] = {_label(key): value for key, value in categories.items()}
    return model, Finding(**found)


def _label(given: Any) -> str:
    """A detector's name for something. YAML takes `no` and `on` for truth."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise bad("detect.categories", given, "a label", hint="write it in quotes")
    return str(given)


def _branches(given: Any, categories: Sequence[str]) -> dict[str, str]:
    models: dict[str, str] = {}
    for category, branch in _pairs(given, "branches").items():
        if category not in categories:
            raise BadInput(
                "recipes.bad-value",
                f"branches: no object has category {_plain(category)}",
                hint=f"detect.categories gives {', '.join(categories)}",
            )
        where = f"branches.{category}"
        models |= _steps(_section(branch, where, _BRANCH), f"{where}.", f"{category}/")
    return models


def _steps(given: Mapping[str, Any], where: str, prefix: str) -> dict[str, str]:
    """Role to model. `where` is what keys are called in errors, `prefix` in roles."""
    models = {f"{prefix}{step}": reference(f"{where}{step}", given[step]) for step in STEPS if step in given}
    for name, model in _pairs(given.get("score"), f"{where}score").items():
        if word(f"{where}score", name) in TAKEN:
            raise bad(f"{where}score", name, "free", hint=f"objects have {', '.join(sorted(TAKEN))} by themselves")
        models[f"{prefix}score.{name}"] = reference(f"{where}score.{name}", model)
    return models


def _measure(given: Any) -> str:
    if given and given not in list(MEASURES):
        raise bad("measure", given, " or ".join(MEASURES))
    return str(given)


def _require_sense(recipe: Recipe) -> None:
    """BadInput for a recipe that says nothing of anything, or leaves out by what nobody knows."""
    steps = {role.rpartition("/")[2].partition(".")[0] for role, model in recipe.models.items() if model != NONE}
    whole, names = recipe.detect == WHOLE_PICTURE, {rule.name for rule in recipe.filters}
    if whole and not steps - {"turn"}:
        raise BadInput(
            "recipes.bad-recipe", "embed is missing", hint="name a model for one of embed, classify, score or read"
        )
    if whole and recipe.measure:
        raise BadInput("recipes.bad-value", f"measure: {recipe.measure} needs a detector that finds landmarks")
    if "quality" in names and not recipe.measure:
        raise BadInput("recipes.bad-value", "filters: quality is not measured", hint="write `measure: face`")
    if "duplicate" in names and "embed" not in steps:
        raise BadInput("recipes.bad-value", "filters: duplicate compares vectors", hint="name a model for embed")


# -- what stands where ------------------------------------------------------------------------------------------------


def _rules(given: Any, key: str, known: Mapping[str, Mapping[str, Kind]]) -> tuple[Rule, ...]:
    if given is not None and not isinstance(given, list):
        raise BadInput("recipes.bad-value", f"{key}: {shown(given)} is no list of rules", hint=_RULE)
    return tuple(_rule(one, key, known) for one in given or ())


def _rule(given: Any, key: str, known: Mapping[str, Mapping[str, Kind]]) -> Rule:
    if not isinstance(given, dict) or len(given) != 1:
        raise BadInput("recipes.bad-value", f"{key}: {shown(given)} is no rule", hint=_RULE)
    [(name, options)] = given.items()
    if name not in known:
        raise _unknown([name], list(known), key)
    kinds = known[name]
    options = _section(options, f"{key}.{name}", tuple(kinds))
    if missing := [option for option in kinds if option not in options]:
        raise BadInput("recipes.bad-value", f"{key}: {name} needs {', '.join(missing)}")
    return Rule(name, {option: kind(f"{key}.{name}.{option}", options[option]) for option, kind in kinds.items()})


def _values(given: Mapping[str, Any], key: str, names: Sequence[str]) -> dict[str, Any]:
    """Those of the named values that are given."""
    return {name: KEYS[f"{key}.{name}"](f"{key}.{name}", given[name]) for name in names if name in given}


def _section(given: Any, key: str, known: Sequence[str]) -> dict[str, Any]:
    """What stands below a key, by the keys that are known there."""
    pairs = _pairs(given, key)
    if unknown := [one for one in pairs if one not in known]:
        raise _unknown(unknown, known, key)
    return pairs


def _pairs(given: Any, key: str) -> dict[Any, Any]:
    """Keys and values below a key, those without a value left out."""
    if not isinstance(given, dict) and (given is not None or not key):
        raise BadInput(
            "recipes.bad-recipe", f"{key}: it holds keys and values" if key else "a recipe holds keys and values"
        )
    return {name: value for name, value in (given or {}).items() if value is not None}


def _unknown(unknown: Sequence[Any], known: Sequence[str], key: str) -> BadInput:
    named = ", ".join(".".join(filter(None, (key, _plain(one)))) for one in unknown[:_SHOWN_KEYS])
    near = difflib.get_close_matches(_plain(unknown[0]), known, 1, 0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    return BadInput("recipes.unknown-key", f"unknown {named}", hint=f"{meant}known: {', '.join(sorted(known))}")


def _plain(given: Any) -> str:
    return shown(given).strip("'\"")
