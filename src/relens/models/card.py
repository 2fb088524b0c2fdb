"""A model's card: what a stranger needs to run it and to read what it says.

`card.yaml` in the version's folder. It fixes the space of the model's vectors together with the digest of its weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import yaml

from relens.errors import BadInput
from relens.values import Preprocessing, digest_of

TASKS = ("classify+embed", "classify", "embed", "detect", "regress", "read")
"""What a model can be for. A detector finds objects, a reader reads lines of text, a regressor gives a number."""

NEEDED = {
    "classify+embed": ("scores", "vector"),
    "classify": ("scores",),
    "embed": ("vector",),
    "regress": ("value",),
    "read": ("scores",),
}
"""Output roles that a task cannot do without; what a detector needs follows from how its outputs are decoded."""

KINDS = {
    "classify+embed": ("none", "softmax", "sigmoid"),
    "classify": ("none", "softmax", "sigmoid"),
    "embed": ("none",),
    "regress": ("value", "expectation"),
    "detect": ("yolo", "boxes", "mtcnn", "db"),
    "read": ("ctc",),
}
"""How the outputs of a task may be decoded; the first one is meant when the card does not say."""


_FINDINGS = {"box": str, "units": str, "scores": str, "strides": list, "nms": str}
_NUMBER = {"scale": float, "offset": float, "unit": str}
DECODES: Mapping[str, Mapping[str, type]] = {
    "none": {},
    "softmax": {},
    "sigmoid": {},
    "value": _NUMBER,
    "expectation": {**_NUMBER, "first": float, "step": float, "scores": str},
    "yolo": {
        **_FINDINGS,
        "variant": str,
        "transposed": bool,
        "classes": int,
        "landmarks": int,
        "landmark_size": int,
    },
    "boxes": {**_FINDINGS, "background": int},
}
"""What `decode` may say besides its kind (docs/your-own-models.md). Of kinds that are not here the reader knows."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
RESERVED = frozenset({"card.yaml", "manifest.json", "COMPLETE", "golden"})


@dataclass(frozen=True, slots=True)
class Part:
    """A further network of a model, run by itself: its file, input, outputs and input shape (None: any length)."""

    file: str
    input: str
    outputs: Mapping[str, str]
    shape: tuple[int | None, ...]

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "input": self.input, "outputs": dict(self.outputs), "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Card:
    """What a model version is.

    task       one of TASKS; "classify+embed" gives class scores and a vector from one forward
    format     "onnx", "dummy", …; which back-ends can run it follows from this
    file       the model's file in the folder
    input      name of the input tensor
    outputs    role ("scores", "vector", "features", "value", "boxes"…) to tensor name
    labels     file with a JSON list of class names, by index; may be missing for embedders and regressors
    head       safetensors file with the classifier's `weight` (classes, d), for class-activation maps; may be missing
    dim        length of the vector; 0 if there is none
    precision  "fp32"; pinned, part of the space
    normalise  "l2": vectors are scaled to unit length
    decode     how outputs are read: `kind`, one of KINDS for the task, and what that kind must know
    parts      further networks by name, run by the code that `decode` names
    shape      of one input, without the batch, None for any length; given when it does not follow from preprocessing
    """

    name: str
    version: int
    task: str
    format: str
    file: str
    input: str
    preprocessing: Preprocessing
    outputs: Mapping[str, str]
    licence: str
    source: str
    dim: int = 0
    labels: str | None = None
    head: str | None = None
    precision: str = "fp32"
    normalise: str = "l2"
    decode: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    shape: tuple[int | None, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """What a card does not say is left out where it once could not be said, so that digests stay what they were."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _ALWAYS}
        values |= {"preprocessing": self.preprocessing.to_json(), "outputs": dict(self.outputs)}
        if self.decode:
            values["decode"] = dict(self.decode)
        if self.parts:
            values["parts"] = {name: part.to_json() for name, part in self.parts.items()}
        if self.shape is not None:
            values["shape"] = list(self.shape)
        return values

    def to_yaml(self) -> bytes:
        return yaml.safe_dump(self.to_json(), sort_keys=False, allow_unicode=True).encode()

    @property
    def kind(self) -> str:
        """How the outputs are decoded."""
        return str(self.decode.get("kind", KINDS[self.task][0]))

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the card names."""
        named = [self.file, self.labels, self.head, *(part.file for part in self.parts.values())]
        return tuple(dict.fromkeys(file for file in named if file is not None))

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of one input, without the batch; None where any length will do."""
        if self.shape is not None:
            return self.shape
        prep = self.preprocessing
        channels = 1 if prep.colour == "grey" else 3
        return (channels, prep.height, prep.size_px) if prep.layout == "nchw" else (prep.height, prep.size_px, channels)

    def space(self, weights: str) -> dict[str, Any] | None:
        """All that makes a vector of this model, given the digest of its file; its digest names the space.

        None for a model that gives no vector.
        """
        if "vector" not in self.outputs:
            return None
        return {
            "weights": weights,
            "preprocessing": self.preprocessing.to_json(),
            "precision": self.precision,
            "output": self.outputs["vector"],
            "normalise": self.normalise,
            "dim": self.dim,
        }


# In this order they have always been written.
_ALWAYS = (
    "name",
    "version",
    "task",
    "format",
    "file",
    "input",
    "preprocessing",
    "outputs",
    "dim",
    "labels",
    "licence",
    "source",
    "head",
    "precision",
    "normalise",
)


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
        if unknown := sorted(map(str, set(given) - known)):
            raise BadInput(
                "models.bad-card", f"unknown in the card: {', '.join(unknown)}", hint=f"known: {sorted(known)}"
            )
        steps = dict(given.pop("preprocessing"))
        steps |= {"mean": tuple(steps["mean"]), "std": tuple(steps["std"])}
        parts = {
            name: Part(**{**part, "shape": tuple(part["shape"])}) for name, part in (given.pop("parts", {})).items()
        }
        shape = given.pop("shape", None)
        card = Card(
            preprocessing=Preprocessing(**steps), parts=parts, shape=None if shape is None else tuple(shape), **given
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput("models.bad-card", f"the card cannot be read: {error}") from error
    _require_sense(card)
    return card


def _within(file: object) -> bool:
    """Whether this is the name of a file in the version's folder, and none that the folder has by itself."""
    if not isinstance(file, str) or not file or "\\" in file or "\0" in file:
        return False
    parts = file.split("/")
    return not {"", ".", ".."} & set(parts) and parts[0] not in RESERVED


def _require_sense(card: Card) -> None:
    """BadInput if a card contradicts itself, or names what no version can have."""
    if not isinstance(card.name, str) or not NAME.fullmatch(card.name) or type(card.version) is not int:
        raise BadInput(
            "models.bad-card",
            f"{card.name!r}/{card.version!r} is no name and version",
            hint="a name is made of letters, digits, `.`, `_` and `-`, a version is a number",
        )
    _require_types(card)
    if outside := [file for file in card.files if not _within(file)]:
        raise BadInput(
            "models.bad-card",
            f"{', '.join(map(str, outside))}: no name of a file in a version's folder",
            hint="files lie in the folder itself or in one under it, and card.yaml, manifest.json and golden are taken",
        )
    if card.task not in TASKS:
        raise BadInput("models.bad-card", f"task {card.task!r} is unknown", hint=f"known: {', '.join(TASKS)}")
    if card.kind not in KINDS[card.task]:
        raise BadInput(
            "models.bad-card",
            f"decode.kind {card.kind!r} does not fit task {card.task}",
            hint=f"known: {', '.join(KINDS[card.task])}",
        )
    _require_decode(card)
    if missing := [role for role in NEEDED.get(card.task, ()) if role not in card.outputs]:
        raise BadInput(
            "models.bad-card",
            f"task {card.task} needs an output {', '.join(missing)}",
            hint=f"outputs maps a role to a tensor of the model; given are {', '.join(card.outputs) or 'none'}",
        )
    if ("vector" in card.outputs) != (card.dim > 0):
        raise BadInput("models.bad-card", f"dim is {card.dim}", hint="a model with an output `vector` has its length")
    if card.labels is None and card.task in {"classify", "classify+embed", "read"}:
        raise BadInput("models.bad-card", f"task {card.task} needs labels", hint="a file with a JSON list of names")


def _require_types(card: Card) -> None:
    """BadInput for a value that is no text, no number or no mapping where it has to be one."""
    words = {name: getattr(card, name) for name in _WORDS} | {f"outputs.{k}": v for k, v in _pairs(card.outputs)}
    if wrong := [f"{name}: {value!r}" for name, value in words.items() if not isinstance(value, str)]:
        raise BadInput("models.bad-card", f"{wrong[0]} is no text", hint="write it in quotes")
    if type(card.dim) is not int or not isinstance(card.decode, Mapping):
        raise BadInput("models.bad-card", "dim is a whole number, and decode holds keys and values")


def _pairs(given: object) -> list[tuple[Any, Any]]:
    return list(given.items()) if isinstance(given, Mapping) else [("", given)]


_WORDS = ("task", "format", "file", "input", "licence", "source", "precision", "normalise")


def _require_decode(card: Card) -> None:
    """BadInput for a key of `decode` that its kind has not, or a value of another type."""
    if card.kind not in DECODES:
        return
    known = {"kind": str, **DECODES[card.kind]}
    for key, value in card.decode.items():
        if key not in known:
            raise BadInput(
                "models.bad-card",
                f"decode.{key} is unknown for kind {card.kind}",
                hint=f"known: {', '.join(sorted(known))}",
            )
        wanted = known[key]
        if not isinstance(value, (int, float) if wanted is float else wanted):
            raise BadInput(
                "models.bad-card", f"decode.{key}: {value!r} is no {_TYPES[wanted]}", hint="see docs/your-own-models.md"
            )


_TYPES = {str: "word", float: "number", int: "whole number", bool: "true or false", list: "list of numbers"}
