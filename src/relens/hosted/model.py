"""A loaded model, and what a request asks of it: tensors as they are, pictures in their place, or what is in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from relens.errors import BadInput, RelensError
from relens.runtimes.graph import Graph
from relens.tensors import BYTES, Array, TensorInfo, Tensors, pack, unpack

if TYPE_CHECKING:
    from relens.hosted.pictures import Known, Pictures

SIDES = 4
"""Of a batch of pictures: how many, channels, height, width."""
CHANNELS = (1, 3)

Outputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be run.

    inputs  checked: the model takes them
    wanted  names of outputs; all if none is named
    finish  what the answer says of the outputs: its header and body
    """

    inputs: Tensors
    wanted: tuple[str, ...]
    finish: Callable[[Outputs], tuple[dict[str, Any], bytes]]


def is_of_pictures(inputs: tuple[TensorInfo, ...]) -> bool:
    """Whether a model has one input that could be a batch of pictures."""
    if len(inputs) != 1 or inputs[0].datatype == BYTES or len(inputs[0].shape) != SIDES:
        return False
    _batch, second, _third, last = inputs[0].shape
    return second in CHANNELS or last in CHANNELS


class Model:
    """A loaded model, and what it does with pictures if it takes some. Safe to use from many threads at once."""

    def __init__(self, graph: Graph, file: Path, **limits: int) -> None:
        """Verify what a manifest says, and find out how pictures are taken; `limits` as of `vision.Limits`.

        Broken if the version is not what its manifest says.
        """
        self.graph = graph
        self._pictures: Pictures | None = None
        self._known: Known | None = None
        self._why_not: RelensError = BadInput(
            "hosted.no-pictures",
            f"the model takes {'; '.join(map(str, graph.inputs))}, and no pictures",
            hint="send numbers; pictures are taken where the only input is a batch of 1 or 3 channels",
        )
        if is_of_pictures(graph.inputs):
            # Other models start in a third of the time without all that pictures need.
            from relens.hosted.pictures import Pictures, known_of, verify_version  # noqa: PLC0415
            from relens.vision import Limits  # noqa: PLC0415

            verify_version(graph, file)
            try:
                self._known = known_of(file)
                self._pictures = Pictures(graph, self._known, Limits(**limits))
            except RelensError as error:
                self._why_not = error

    @property
    def pictures(self) -> str | None:
        """Name of the input that takes pictures as well."""
        return None if self._pictures is None else self.graph.inputs[0].name

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by index, if they are known."""
        return () if self._pictures is None else self._pictures.known.labels

    def space(self, digest: str) -> str | None:
        """The space of its vectors, given its file's digest; None if no card says that it gives any."""
        return None if self._known is None else self._known.space(digest)

    def prepare(self, header: Mapping[str, Any], body: bytes) -> Prepared:
        """What a request asks for, ready to be run. BadInput if the model does not take it."""
        if "recognize" in header:
            return self.looked_at(body, header["recognize"])
        return self.given(unpack(header["inputs"], body), header["outputs"])

    def given(self, inputs: Tensors, wanted: Sequence[str]) -> Prepared:
        """A forward of tensors as they are, or of pictures in place of the only input."""
        [*infos] = self.graph.inputs
        first = inputs.get(infos[0].name) if len(infos) == 1 else None
        if first is not None and first.dtype == np.dtype(object) and infos[0].datatype != BYTES:
            inputs = {**inputs, infos[0].name: self._of_pictures().batch(first)}
        self.graph.check(inputs, wanted)
        return Prepared(inputs, tuple(wanted), _packed)

    def looked_at(self, picture: bytes, looked: Mapping[str, Any]) -> Prepared:
        """What is in a picture: see `Pictures.looked_at`."""
        return self._of_pictures().looked_at(picture, looked)

    def _of_pictures(self) -> Pictures:
        if self._pictures is None:
            why = self._why_not
            raise type(why)(why.code, why.message, hint=why.hint)
        return self._pictures


def _packed(outputs: Outputs) -> tuple[dict[str, Any], bytes]:
    heads, body = pack(outputs)
    return {"outputs": heads}, body
