"""Pictures in place of tensors, by a model's card: as its input, or to say what is in one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from relens.errors import BadInput
from relens.golden import repeat_golden
from relens.hosted.model import Outputs, Prepared
from relens.hosted.recognition import objects_of
from relens.models import Card, read_card, read_labels
from relens.models.artifacts import CARD, MARKER, open_version
from relens.models.card import space_digest
from relens.models.infer import infer_card, made_up_names
from relens.runtimes.graph import Graph
from relens.tensors import Array, dtype_of
from relens.values import Floats, PictureInfo, digest_of
from relens.vision import Decoded, Limits, decode, preprocess

LARGEST_BATCH = 1 << 27
"""Numbers that pictures of a request become, at most: a picture of 70 bytes may become 150,000 of them."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model of pictures: its card, and class names by index."""

    card: Card
    labels: tuple[str, ...]

    def space(self, weights: str) -> str | None:
        """The space of its vectors, given the digest of its file; None if it gives none."""
        document = self.card.space(weights)
        return None if document is None else space_digest(document)


def known_of(model: Path) -> Known:
    """What the card beside a model's file says (`card.yaml`, or `<file>.card.yaml`), or what is inferred from it.

    BadInput, naming why, if the card cannot be used, or nothing can be inferred.
    """
    for beside in (model.with_name(CARD), model.with_name(f"{model.name}.card.yaml")):
        if beside.is_file():
            card = read_card(beside.read_bytes())
            return Known(card, () if card.labels is None else tuple(_labels(model.with_name(card.labels))))
    inferred = infer_card(model.read_bytes(), name="served")
    names = inferred.labels or ()
    return Known(inferred.card, () if list(names) == made_up_names(len(names)) else names)


def verify_version(graph: Graph, file: Path) -> None:
    """Check a version that has a manifest: every byte, and what its golden pictures give. Broken if it differs."""
    if (file.parent / MARKER).is_file():
        artifact = open_version(file.parent, verify=True)
        tensors = list(artifact.card.outputs.values())

        def run(row: Floats) -> dict[str, Floats]:
            return _by_role(artifact.card, graph.run(_inputs_of(graph, row), tensors))

        repeat_golden(artifact, graph.backend, run, {})


class Pictures:
    """What a model of pictures does with them. BadInput if they are not enough for it."""

    def __init__(self, graph: Graph, known: Known, limits: Limits) -> None:
        if known.card.preprocessing.align != "none":
            raise BadInput(
                "hosted.aligned",
                f"the model takes faces turned by their landmarks ({known.card.preprocessing.align}), which a picture "
                "does not tell",
                hint="ask a recipe, which finds them",
            )
        self.known = known
        self._graph = graph
        self._limits = limits
        self._prep = known.card.preprocessing
        # A picture may be decoded smaller where its short side is all that counts.
        self._short_side_px = self._prep.resize_px if self._prep.fit == "cut" else None

    def batch(self, elements: Array) -> Array:
        """(n, …) of the model's datatype, of n pictures: (n) or (n, 1) bytes. BadInput, naming which, for others."""
        if elements.ndim not in {1, 2} or elements.shape[1:] not in {(), (1,)} or not elements.size:
            raise BadInput(
                "hosted.wrong-pictures", f"pictures are a tensor (n) of bytes, given was {tuple(elements.shape)}"
            )
        first, *others = elements.ravel()
        row = self._row(0, first)
        most = max(1, LARGEST_BATCH // row.size)
        if elements.size > most:
            raise BadInput(
                "hosted.too-many-pictures",
                f"{elements.size:,} pictures are more than the {most:,} that the model takes at a time",
                hint="send fewer in a request, and more requests",
            )
        made = np.empty((elements.size, *row.shape[1:]), dtype_of(self._graph.inputs[0].datatype))
        made[:1] = row
        for number, data in enumerate(others, start=1):
            made[number : number + 1] = self._row(number, data)
        return made

    def looked_at(self, data: bytes, looked: Mapping[str, Any]) -> Prepared:
        """What is in a picture. It is answered as JSON: `picture` and `objects`, as `values.Recognition` has them.

        looked  as `recognition.objects_of` says
        """
        card, labels = self.known.card, self.known.labels
        picture = self._decode(data)
        size = (picture.width, picture.height)
        tensors = tuple(dict.fromkeys(card.outputs.values()))
        self._graph.check(inputs := _inputs_of(self._graph, preprocess(picture.pixels, self._prep)), tensors)

        def finish(made: Outputs) -> tuple[dict[str, Any], bytes]:
            objects = objects_of(_by_role(card, made), card, labels, size=size, **looked)
            info = PictureInfo(digest_of(data), *size)
            return {"recognized": {"picture": info.to_json(), "objects": [one.to_json() for one in objects]}}, b""

        return Prepared(inputs, tensors, finish)

    def _row(self, number: int, data: bytes) -> Floats:
        try:
            return preprocess(self._decode(data).pixels, self._prep)
        except BadInput as error:
            raise BadInput(error.code, f"picture {number}: {error.message}", hint=error.hint) from error

    def _decode(self, data: bytes) -> Decoded:
        return decode(data, limits=self._limits, short_side_px=self._short_side_px)


def _inputs_of(graph: Graph, row: Floats) -> dict[str, Array]:
    """A model's input of one picture. A model with a fixed batch is given it so many times."""
    [info] = graph.inputs
    rows = np.repeat(row, info.shape[0], axis=0) if info.shape[0] not in {None, 1} else row
    return {info.name: rows.astype(dtype_of(info.datatype), copy=False)}


def _by_role(card: Card, made: Outputs) -> dict[str, Floats]:
    """Role to what it says of the first picture: (1, …) float32."""
    return {role: np.asarray(made[tensor][:1], np.float32) for role, tensor in card.outputs.items()}


def _labels(path: Path) -> Sequence[str]:
    """Class names; none if the card names a file that is not there: tensors do not need them."""
    if not path.is_file():
        log.warning("the card names a file of class names that is not there", file=str(path))
        return ()
    return read_labels(path.read_bytes(), source=path.name)
