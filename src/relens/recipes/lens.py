"""A recipe as it is written, and a lens: the recipe frozen with model digests, spaces and thresholds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from relens.errors import BadInput
from relens.models import Artifact, Registered
from relens.runtimes import Session
from relens.values import Floats, digest_of

ROLES = ("embed", "classify")
MAX_LABELS = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What happens to a picture. `models` maps a role ("embed", "classify") to a reference like `effnet-lite0/1`."""

    name: str
    detect: str
    short_side_px: int
    quality: int
    labels: int
    models: Mapping[str, str]

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise _bad("recipe", self.name, "a name of letters, digits, `.`, `_` and `-`")
        if self.detect != "whole":
            raise _bad("detect", self.detect, "`whole`")
        _require("crop.short_side_px", self.short_side_px, 32, 4096)
        _require("crop.quality", self.quality, 1, 100)
        _require("labels", self.labels, 1, MAX_LABELS)

    @property
    def settings(self) -> dict[str, Any]:
        """What of a recipe is not its models."""
        return {
            "name": self.name,
            "detect": self.detect,
            "crop": {"short_side_px": self.short_side_px, "quality": self.quality},
            "labels": self.labels,
        }


@dataclass(frozen=True, slots=True)
class Lens:
    """A recipe with the digests of its models, its spaces and thresholds, frozen. What a model change changes."""

    recipe: Recipe
    digests: Mapping[str, str]
    space: str
    dim: int
    thresholds: Mapping[str, float]

    @property
    def document(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.settings,
            "models": {
                role: {"reference": reference, "digest": self.digests[role]}
                for role, reference in self.recipe.models.items()
            },
            "space": {"digest": self.space, "dim": self.dim},
            "thresholds": dict(self.thresholds),
        }

    @property
    def digest(self) -> str:
        return digest_of(self.document)

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Lens:
        """The inverse of `document`."""
        settings = document["recipe"]
        models = document["models"]
        recipe = Recipe(
            name=settings["name"],
            detect=settings["detect"],
            short_side_px=settings["crop"]["short_side_px"],
            quality=settings["crop"]["quality"],
            labels=settings["labels"],
            models={role: model["reference"] for role, model in models.items()},
        )
        return Lens(
            recipe=recipe,
            digests={role: model["digest"] for role, model in models.items()},
            space=document["space"]["digest"],
            dim=document["space"]["dim"],
            thresholds=document["thresholds"],
        )


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified model version, loaded on a back-end, that gave its golden outputs."""

    artifact: Artifact
    session: Session
    labels: tuple[str, ...]
    head: Floats | None


def read_recipe(data: bytes, *, source: str) -> Recipe:
    """A recipe from YAML; `source` is named in errors. BadInput for what is missing, unknown or out of range."""
    try:
        given = yaml.safe_load(data)
        known = {"recipe", "detect", "crop", "labels", *ROLES}
        if not isinstance(given, dict) or not isinstance(given.get("crop", {}), dict):
            raise BadInput("recipes.bad-recipe", f"{source}: a recipe holds keys and values")
        if unknown := sorted(map(str, set(given) - known)):
            raise BadInput(
                "recipes.unknown-key",
                f"{source}: unknown {', '.join(unknown)}",
                hint=f"known: {', '.join(sorted(known))}",
            )
        crop = {"short_side_px": 320, "quality": 90} | given.get("crop", {})
        if unknown := sorted(map(str, set(crop) - {"short_side_px", "quality"})):
            raise BadInput("recipes.unknown-key", f"{source}: unknown crop.{', crop.'.join(unknown)}")
        embed = str(given["embed"])
        return Recipe(
            name=str(given["recipe"]),
            detect=str(given.get("detect", "whole")),
            short_side_px=int(crop["short_side_px"]),
            quality=int(crop["quality"]),
            labels=int(given.get("labels", 5)),
            models={"embed": embed, "classify": str(given.get("classify", embed))},
        )
    except KeyError as error:
        raise BadInput("recipes.bad-recipe", f"{source}: {error.args[0]} is missing") from error
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise BadInput("recipes.bad-recipe", f"{source} cannot be read: {error}") from error


def freeze(recipe: Recipe, resolve: Callable[[str], Registered], open_model: Callable[[Registered], Artifact]) -> Lens:
    """The lens that a recipe resolves to now. Missing if a model is not there; BadInput if one cannot play its role."""
    resolved = {reference: resolve(reference) for reference in set(recipe.models.values())}
    found = {role: resolved[reference] for role, reference in recipe.models.items()}
    for role, output in (("embed", "vector"), ("classify", "scores")):
        if output not in found[role].card.outputs:
            raise BadInput("recipes.wrong-model", f"{found[role].reference} gives no {output}: it cannot {role}")
    embedder = open_model(found["embed"])
    pinned = Recipe(
        name=recipe.name,
        detect=recipe.detect,
        short_side_px=recipe.short_side_px,
        quality=recipe.quality,
        labels=recipe.labels,
        models={role: model.reference for role, model in found.items()},
    )
    return Lens(
        recipe=pinned,
        digests={role: model.digest for role, model in found.items()},
        space=embedder.space,
        dim=embedder.card.dim,
        thresholds={},
    )


def _require(key: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _bad(key, value, f"a number from {least} to {most}")


def _bad(key: str, value: object, wanted: str) -> BadInput:
    return BadInput("recipes.bad-value", f"{key}: {value!r} is not {wanted}")
