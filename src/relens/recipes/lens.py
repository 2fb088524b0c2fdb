"""A lens: a recipe frozen with the digests of its models, its spaces and thresholds. What a model change changes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from relens.errors import BadInput
from relens.models import Artifact, Registered
from relens.recipes.kinds import shown
from relens.recipes.recipe import ALL, ANY, NONE, Recipe
from relens.runtimes import Session
from relens.values import Floats, digest_of

TASKS = {
    "embed": ("embed", "classify+embed"),
    "classify": ("classify", "classify+embed"),
    "turn": ("classify", "classify+embed"),
    "detect": ("detect",),
    "read": ("read",),
    "score": ("regress", "classify", "classify+embed"),
}
"""What a model must be for to play a role."""

GIVES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "mtcnn": {"": ("scores", "boxes"), "refine": ("scores", "boxes"), "finish": ("scores", "boxes", "landmarks")},
    "db": {"": ("map",)},
}
"""What a detector must give, by how it is decoded: roles of its own outputs ("") and of its parts'."""

FACE_POINTS = 5


@dataclass(frozen=True, slots=True)
class Space:
    """A space by its digest, with the length of its vectors."""

    digest: str
    dim: int

    def to_json(self) -> dict[str, Any]:
        return {"digest": self.digest, "dim": self.dim}


@dataclass(frozen=True, slots=True)
class Lens:
    """A recipe with the digests of its models, its spaces and thresholds, frozen.

    digests  role to digest of its model
    space    of the vectors of objects whose category has no other; "" (dim 0) if they have none
    spaces   category to its own space, None if its objects have no vectors
    code     file of a filter of the user's own to its SHA-256
    """

    recipe: Recipe
    digests: Mapping[str, str]
    space: str
    dim: int
    thresholds: Mapping[str, float]
    spaces: Mapping[str, Space | None] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        given: dict[str, Any] = {
            "recipe": self.recipe.settings,
            "models": {
                role: {"reference": reference, "digest": self.digests[role]}
                for role, reference in self.recipe.models.items()
                if reference != NONE
            },
            "space": {"digest": self.space, "dim": self.dim},
            "thresholds": dict(self.thresholds),
        }
        if without := sorted(role for role, reference in self.recipe.models.items() if reference == NONE):
            given["without"] = without
        if self.spaces:
            given["spaces"] = {
                category: None if space is None else space.to_json() for category, space in self.spaces.items()
            }
        if self.code:
            given["code"] = dict(self.code)
        return given

    @property
    def digest(self) -> str:
        return digest_of(self.document)

    @property
    def labellers(self) -> tuple[str, ...]:
        """Digests of the models that give names, one for each kind of object."""
        roles = {self.recipe.role("classify", category) for category in self.recipe.categories}
        return tuple(sorted({self.digests[role] for role in roles if role is not None}))

    def space_of(self, category: str) -> Space | None:
        """The space of a category's vectors; None if its objects have none."""
        if category in self.spaces:
            return self.spaces[category]
        return Space(self.space, self.dim) if self.space else None

    def labeller_of(self, category: str) -> str:
        """Digest of the model that names a category's objects; "" if none does."""
        role = self.recipe.role("classify", category)
        return "" if role is None else self.digests[role]

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Lens:
        """The inverse of `document`."""
        models = document["models"]
        references = {role: model["reference"] for role, model in models.items()}
        references |= dict.fromkeys(document.get("without", ()), NONE)
        return Lens(
            recipe=Recipe.from_settings(document["recipe"], references),
            digests={role: model["digest"] for role, model in models.items()},
            space=document["space"]["digest"],
            dim=document["space"]["dim"],
            thresholds=document["thresholds"],
            spaces={
                category: None if space is None else Space(**space)
                for category, space in document.get("spaces", {}).items()
            },
            code=document.get("code", {}),
        )


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified model version, loaded on a back-end, that gave its golden outputs. `parts` are further networks."""

    artifact: Artifact
    session: Session
    labels: tuple[str, ...]
    head: Floats | None
    parts: Mapping[str, Session] = field(default_factory=dict)

    def close(self) -> None:
        for session in (self.session, *self.parts.values()):
            session.close()


def freeze(
    recipe: Recipe,
    resolve: Callable[[str], Registered],
    open_model: Callable[[Registered], Artifact],
    code: Callable[[str, str], str],
) -> Lens:
    """The lens that a recipe resolves to now.

    `code` gives the SHA-256 of a file of the user's own that has a function of this name. Missing if a model or file is
    not there; BadInput if a model cannot play its role, or a label has a category that the detector never says.
    """
    recipe = _with_names(recipe, resolve)
    references = {role: reference for role, reference in recipe.models.items() if reference != NONE}
    resolved = {reference: resolve(reference) for reference in sorted(set(references.values()))}
    found = {role: resolved[reference] for role, reference in references.items()}
    for role, model in found.items():
        _require_fit(role, model)
    if "detect" in found:
        _require_labels(recipe, open_model(found["detect"]))
    _require_landmarks(recipe, found)
    pinned = {role: found[role].reference if role in found else NONE for role in recipe.models}

    def space(category: str) -> Space | None:
        role = recipe.role("embed", category)
        if role is None:
            return None
        artifact = open_model(found[role])
        assert artifact.space is not None
        return Space(artifact.space, artifact.card.dim)

    usual = space(ALL) if "embed" in references else None
    others = {category: space(category) for category in recipe.categories}
    return Lens(
        recipe=replace(recipe, models=pinned),
        digests={role: model.digest for role, model in found.items()},
        space=usual.digest if usual else "",
        dim=usual.dim if usual else 0,
        thresholds={} if recipe.threshold is None else {"match": recipe.threshold},
        spaces={category: given for category, given in others.items() if given != usual},
        code={
            rule.options["file"]: code(rule.options["file"], rule.options["function"])
            for rule in recipe.filters
            if rule.name == "own"
        },
    )


def _with_names(recipe: Recipe, resolve: Callable[[str], Registered]) -> Recipe:
    """Names that the embedding model gives by the way are taken, if the recipe says nothing about names."""
    embed = recipe.models.get("embed", NONE)
    if "classify" in recipe.models or embed == NONE or resolve(embed).card.task != "classify+embed":
        return recipe
    return replace(recipe, models={**recipe.models, "classify": embed})


def _require_fit(role: str, model: Registered) -> None:
    step = role.rpartition("/")[2].partition(".")[0]
    if model.card.task not in TASKS[step]:
        raise BadInput(
            "recipes.wrong-model",
            f"{model.reference} is for {model.card.task}: it cannot {step}",
            hint=f"`{role}` takes a model whose task is {' or '.join(TASKS[step])}",
        )
    card = model.card
    given = {"": card.outputs} | {name: part.outputs for name, part in card.parts.items()}
    for part, wanted in GIVES.get(card.kind, {}).items():
        if lacking := [one for one in wanted if one not in given.get(part, {})]:
            raise BadInput(
                "recipes.wrong-model",
                f"{model.reference}: {f'its part {part}' if part else 'it'} gives no {', '.join(lacking)}",
                hint=f"its card says that its outputs are read as {card.kind}",
            )


def _require_labels(recipe: Recipe, detector: Artifact) -> None:
    """BadInput for a category of what the detector never finds."""
    named = [label for label in recipe.finding.categories if label != ANY]
    if not named:
        return
    known = detector.labels()
    if strange := [label for label in named if label not in known]:
        near = difflib.get_close_matches(strange[0], known, 1, 0.5)
        meant = f"did you mean {near[0]}? " if near else ""
        said = f"it finds {shown(known)}" if known else 'what it finds has no names: write `"*"`'
        raise BadInput(
            "recipes.unknown-label",
            f"detect.categories: {detector.reference} finds no {shown(strange[0])}",
            hint=meant + said,
        )


def _require_landmarks(recipe: Recipe, found: Mapping[str, Registered]) -> None:
    """BadInput for a step that needs the five points of a face, after a detector that does not give them."""
    detector = found["detect"].card if "detect" in found else None
    if detector is not None and (detector.kind == "mtcnn" or detector.decode.get("landmarks") == FACE_POINTS):
        return
    wanted = [f"{role}: {model.reference}" for role, model in found.items() if model.card.preprocessing.align != "none"]
    if recipe.measure:
        wanted.append(f"measure: {recipe.measure}")
    if wanted:
        raise BadInput(
            "recipes.no-landmarks",
            f"{wanted[0]} needs the landmarks of a face, and nothing finds them",
            hint="name a detector that does, such as `mtcnn`",
        )
