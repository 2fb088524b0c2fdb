"""A model's card: what a stranger needs to run it and to read what it says.

`card.yaml` in the version's folder. It fixes the space of the model's vectors together with the digest of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import yaml

from relens.errors import BadInput
from relens.values import Preprocessing, digest_of

ROLES = ("scores", "vector", "features")


@dataclass(frozen=True, slots=True)
class Card:
    """What a model version is.

    task       "classify+embed": class scores and a vector, from one forward
    format     "onnx" or "dummy"; which back-ends can run it follows from this
    file       the model's file in the folder
    input      name of the input tensor
    outputs    role ("scores", "vector", "features") to tensor name
    labels     file with a JSON list of class names, by index
    head       safetensors file with the classifier's `weight` (classes, d), for class-activation maps; may be missing
    dim        length of the vector
    precision  "fp32"; pinned, part of the space
    normalise  "l2": vectors are scaled to unit length
    """

    name: str
    version: int
    task: str
    format: str
    file: str
    input: str
    preprocessing: Preprocessing
    outputs: Mapping[str, str]
    dim: int
    labels: str
    licence: str
    source: str
    head: str | None = None
    precision: str = "fp32"
    normalise: str = "l2"

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"preprocessing": self.preprocessing.to_json(), "outputs": dict(self.outputs)}

    def to_yaml(self) -> bytes:
        return yaml.safe_dump(self.to_json(), sort_keys=False, allow_unicode=True).encode()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one input, without the batch."""
        side = self.preprocessing.size_px
        return (3, side, side) if self.preprocessing.layout == "nchw" else (side, side, 3)

    def space(self, weights: str) -> dict[str, Any]:
        """All that makes a vector of this model, given the digest of its file; its digest names the space."""
        return {
            "weights": weights,
            "preprocessing": self.preprocessing.to_json(),
            "precision": self.precision,
            "output": self.outputs["vector"],
            "normalise": self.normalise,
            "dim": self.dim,
        }


def space_digest(document: Mapping[str, Any]) -> str:
    """The name of a space."""
    return digest_of(dict(document))


def read_card(data: bytes | Mapping[str, Any]) -> Card:
    """A card from YAML or its JSON form. BadInput that names what is missing, unknown or wrong."""
    try:
        given = yaml.safe_load(data) if isinstance(data, bytes) else dict(data)
        if not isinstance(given, dict):
            raise BadInput("models.bad-card", "a card holds keys and values")
        known = {field.name for field in fields(Card)}
        if unknown := sorted(set(given) - known):
            raise BadInput(
                "models.bad-card", f"unknown in the card: {', '.join(unknown)}", hint=f"known: {sorted(known)}"
            )
        steps = dict(given.pop("preprocessing"))
        steps |= {"mean": tuple(steps["mean"]), "std": tuple(steps["std"])}
        card = Card(preprocessing=Preprocessing(**steps), **given)
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise BadInput("models.bad-card", f"the card cannot be read: {error}") from error
    if unknown := sorted(set(card.outputs) - set(ROLES)):
        raise BadInput("models.bad-card", f"unknown output roles {unknown}", hint=f"roles are {', '.join(ROLES)}")
    return card
