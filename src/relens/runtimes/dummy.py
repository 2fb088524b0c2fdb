"""A model without weights: deterministic, fast, and honest enough that a picture finds itself and its likes.

The model file is `{"seed", "vector_dim", "classes", "cells"}`. All numbers follow from the seed by SHAKE-256, so that a
file means the same with every version of everything. The platform runs on it in seconds; its scores mean nothing. As a
detector it finds what is bright: each bright cell of the picture is an object, of the class of its strongest colour.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from relens.errors import BadInput
from relens.runtimes.base import (
    ModelSpec,
    load_failed,
    require_inputs,
    require_outputs,
    require_runnable,
    run_failed,
)
from relens.values import Floats, canonical_json

ROLES = ("scores", "vector", "features", "detections")
CHANNELS = 3
FLOOR = 0.01  # instead of zero, so that no picture has a zero vector
BIAS = 0.1
SPREAD = 8.0  # of the logits: names differ clearly, and none takes everything


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What a model file says. ValueError or TypeError for what is no such file."""

    seed: int
    vector_dim: int
    classes: int
    cells: int

    def __post_init__(self) -> None:
        values = [getattr(self, field.name) for field in fields(self)]
        if not all(type(value) is int for value in values) or min(values[1:]) < 1:
            raise ValueError(f"seed, vector_dim, classes and cells are numbers from 1, not {values}")


class Dummy:
    """The back-end for dummy files."""

    name = "dummy"
    format = "dummy"
    formats = frozenset({"dummy"})

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def load(self, spec: ModelSpec, *, threads: int = 1) -> DummySession:
        require_runnable(spec, threads, backend=self.name, formats=self.formats, precisions={"fp32"})
        try:
            numbers = _read(spec.path)
        except (OSError, ValueError, TypeError) as error:
            raise load_failed(spec, error) from error
        channels, *sides = (side or 0 for side in spec.input_shape)
        if channels != CHANNELS or len(sides) != 2 or min(sides) < numbers.cells:  # noqa: PLR2004 - height and width
            raise load_failed(spec, f"it takes (3, height, width) of {numbers.cells} cells a side at least")
        require_outputs(spec, ROLES)
        return DummySession(spec, numbers)


class DummySession:
    """A loaded dummy file. A row has the same bits in whatever batch it comes. The input tensor may have any name.

    A picture is averaged into cells; each channel sees the colour of its own cells, projected and cut off below.
    Channels take cells in turn, so that vectors know where a colour was and different pictures point elsewhere.
    """

    backend = Dummy.name
    device = "cpu"

    def __init__(self, spec: ModelSpec, numbers: _Numbers) -> None:
        self._spec = spec
        self._cells = numbers.cells
        self._closed = False
        self._weight, self._bias = _head(numbers)
        dim, count = numbers.vector_dim, numbers.cells**2
        self._colours = _uniform(numbers.seed, "colours", (CHANNELS, dim, 1))
        turn = min(dim, count)
        sees = np.arange(dim)[:, None] % turn == np.arange(count) % turn
        self._gain = sees * np.float32(turn)  # the mean over cells is of the order of one

    def run(self, inputs: Floats) -> dict[str, Floats]:
        require_inputs(self._spec, inputs)
        if self._closed:
            raise run_failed(self._spec, "it was closed")
        rows = [self._run(one) for one in inputs]
        return {role: np.stack([row[role] for row in rows]) for role in self._spec.outputs}

    def close(self) -> None:
        self._closed = True

    def _run(self, one: Floats) -> dict[str, Floats]:
        """One input by itself, without BLAS, whose bits depend on the shapes around."""
        colour = _averages(one, self._cells).reshape(CHANNELS, 1, -1)
        features = np.maximum((self._colours * colour).sum(axis=0), np.float32(FLOOR)) * self._gain
        vector = features.mean(axis=1)
        logits = (self._weight * vector).sum(axis=1) + self._bias
        scores = np.exp(logits - logits.max())
        return {
            "scores": scores / scores.sum(),
            "vector": vector,
            "features": features.reshape(-1, self._cells, self._cells),
            "detections": _bright_cells(colour, self._cells),
        }


def write_dummy(path: Path, *, seed: int, vector_dim: int, classes: int, cells: int) -> None:
    """Write a model file. BadInput for numbers below 1; the seed may be any."""
    try:
        numbers = _Numbers(seed, vector_dim, classes, cells)
    except ValueError as error:
        raise BadInput("runtimes.bad-spec", str(error)) from error
    path.write_bytes(canonical_json(asdict(numbers)))


def head(model: Path) -> tuple[Floats, Floats]:
    """Weight (classes, vector_dim) and bias (classes,), float32: scores are softmax(vector @ weight.T + bias)."""
    return _head(_read(model))


def _read(path: Path) -> _Numbers:
    return _Numbers(**json.loads(path.read_bytes()))


def _head(numbers: _Numbers) -> tuple[Floats, Floats]:
    weight = _uniform(numbers.seed, "weight", (numbers.classes, numbers.vector_dim))
    centred = weight - weight.mean(axis=1, keepdims=True, dtype=np.float64)  # what all vectors share says nothing
    bias = _uniform(numbers.seed, "bias", (numbers.classes,))
    return (centred * SPREAD / np.sqrt(numbers.vector_dim)).astype(np.float32), bias * np.float32(BIAS)


def _uniform(seed: int, name: str, shape: tuple[int, ...]) -> Floats:
    """Numbers from -1 to 1, exact in float32, that follow from seed and name for ever."""
    stream = hashlib.shake_256(f"{seed} {name}".encode()).digest(4 * int(np.prod(shape)))
    return ((np.frombuffer(stream, "<u4") >> 8).astype(np.float32) / np.float32(1 << 23) - 1).reshape(shape)


def _bright_cells(colour: Floats, cells: int) -> Floats:
    """(cells * cells, 6) float32: left, top, right, bottom as shares of the picture, score, class of each cell.

    The score of mean brightness b, for inputs of -1 to 1, is (b + 1) / 2: half of it is mid-grey.
    """
    down, across = np.divmod(np.arange(cells * cells), cells)
    score = np.clip((colour[:, 0].mean(axis=0) + 1) / 2, 0, 1)
    corners = [across / cells, down / cells, (across + 1) / cells, (down + 1) / cells]
    return np.stack([*corners, score, colour[:, 0].argmax(axis=0)], axis=1).astype(np.float32)


def _averages(one: Floats, cells: int) -> Floats:
    """Mean of each cell of (channels, height, width): (channels, cells, cells) float32."""
    height, width = one.shape[1:]
    tops, lefts = np.arange(cells) * height // cells, np.arange(cells) * width // cells
    sums = np.add.reduceat(np.add.reduceat(one, tops, axis=1, dtype=np.float64), lefts, axis=2)
    areas = np.diff(tops, append=height)[:, None] * np.diff(lefts, append=width)
    averages: Floats = (sums / areas).astype(np.float32)
    return averages
