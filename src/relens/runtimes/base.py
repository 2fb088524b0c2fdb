"""What an inference back-end is: it loads a model file and gives a session, which turns tensors into tensors.

Sessions know roles, not heads: what scores or vectors mean is for `vision` and the card to say. Back-ends agree to 1e-3
on the same file in float32, so which one runs is no part of a space. Of int8 they round differently: galleries stay
with the one that the golden pictures were made with.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from relens.errors import BadInput, Broken
from relens.values import Floats

ROLE = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a back-end must know of a model.

    format       "onnx" or "dummy"
    path         the model file; it is read by `load` and not needed after
    input        name of the input tensor
    input_shape  its shape without the batch; None where any length will do
    outputs      role to tensor name. Some roles: scores (n, classes), vector (n, d), features (n, d, rows, columns), of
                 which vector is the mean over rows and columns; value (n, m); boxes (n, m, 4)
    precision    "fp32": what the arithmetic is done in; pinned, a part of the space
    """

    format: str
    path: Path
    input: str
    input_shape: tuple[int | None, ...]
    outputs: Mapping[str, str]
    precision: str

    def __post_init__(self) -> None:
        if not self.input_shape or min(1 if side is None else side for side in self.input_shape) < 1:
            raise BadInput("runtimes.bad-spec", f"an input shape is made of numbers from 1, not {self.input_shape}")
        if not self.outputs or not all(ROLE.fullmatch(role) for role in self.outputs):
            raise BadInput("runtimes.bad-spec", f"roles of outputs are words like `scores`, not {sorted(self.outputs)}")


class Session(Protocol):
    """A loaded model. Safe to use from many threads at once."""

    @property
    def backend(self) -> str:
        """Name of the back-end that runs it."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu"."""

    def run(self, inputs: Floats) -> dict[str, Floats]:
        """One forward of a batch.

        inputs   (n, *input_shape) float32, n at least 1
        returns  for each role of the spec its tensor, (n, …) float32, the caller's to keep

        A row of the result depends on its own input only. BadInput for another shape or type; Broken if the model
        fails, or was closed.
        """

    def close(self) -> None:
        """Let go of the model; again does nothing. Runs that have begun end."""


class Backend(Protocol):
    """A way to run models. Every implementation passes `relens.testing.runtimes`."""

    @property
    def name(self) -> str:
        """One word."""

    @property
    def formats(self) -> frozenset[str]:
        """The formats of models that it runs."""

    def devices(self) -> tuple[str, ...]:
        """What it can run on here."""

    def load(self, spec: ModelSpec, *, threads: int = 1) -> Session:
        """Read a model and make it ready; one run uses at most `threads` cores.

        BadInput for a format or precision that it cannot run as asked. Broken if the file cannot be used, or lacks a
        tensor that the spec names.
        """


def require_runnable(
    spec: ModelSpec, threads: int, *, backend: str, formats: Collection[str], precisions: Collection[str]
) -> None:
    """BadInput if a back-end cannot run this as asked."""
    if spec.format not in formats:
        raise BadInput(
            "runtimes.format",
            f"back-end {backend} runs {', '.join(sorted(formats))}, not {spec.format!r}",
            hint="choose a back-end for that format",
        )
    if spec.precision not in precisions:
        raise BadInput(
            "runtimes.precision",
            f"back-end {backend} computes in {', '.join(sorted(precisions))}, not {spec.precision!r}",
            hint="another precision is another space: choose a back-end that has it, or import the model in this one",
        )
    if threads < 1:
        raise BadInput("runtimes.bad-threads", f"a session has at least one thread, not {threads}")


def require_inputs(spec: ModelSpec, inputs: Floats) -> None:
    """BadInput that names what is expected and what was given, if they differ."""
    fits = len(inputs.shape) == len(spec.input_shape) + 1 and all(
        wanted in (None, side) for wanted, side in zip(spec.input_shape, inputs.shape[1:], strict=True)
    )
    if inputs.dtype != np.float32 or not fits or not inputs.size:
        expected = ", ".join("any" if side is None else str(side) for side in spec.input_shape)
        raise BadInput(
            "runtimes.wrong-shape",
            f"the model takes (n, {expected}) float32 with n from 1; given was {inputs.shape} {inputs.dtype.name}",
        )


def require_outputs(spec: ModelSpec, tensors: Collection[str]) -> None:
    """Broken that names what is missing, if the model does not have every tensor of the spec."""
    if missing := sorted(set(spec.outputs.values()) - set(tensors)):
        raise Broken(
            "runtimes.wrong-outputs",
            f"the model has no output {', '.join(missing)}; it has {', '.join(sorted(tensors))}",
            hint="the card's outputs and the model file do not fit together",
        )


def load_failed(spec: ModelSpec, why: object) -> Broken:
    return Broken(
        "runtimes.load-failed",
        f"the model {spec.path} cannot be loaded: {why}",
        hint="is the file complete, and of the format that its card says?",
    )


def run_failed(spec: ModelSpec, why: object) -> Broken:
    return Broken("runtimes.run-failed", f"the model {spec.path.name} failed: {why}")
