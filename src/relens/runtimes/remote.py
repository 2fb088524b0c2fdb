"""Models on another server, by HTTP: Open Inference Protocol (Triton, KServe, MLServer…) or TensorFlow Serving.

The model file says where: `{"url", "protocol", "model"}` and how long to wait, in JSON or YAML. What runs there is the
server's; that it is still the same model is known by its golden pictures, at every start, and by nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import numpy as np
import yaml

from relens.runtimes.base import (
    ModelSpec,
    load_failed,
    require_inputs,
    require_outputs,
    require_runnable,
    run_failed,
)
from relens.runtimes.wire import Described, Wire, bad_answer, wire_of
from relens.values import Floats

if TYPE_CHECKING:
    from relens.runtimes.line import Line

MAX_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True)
class Address:
    """What a model file says. ValueError or TypeError for what is no such file.

    url                 of the server, without the model: `http://10.0.0.5:8000`
    protocol            "oip" or "tfserving"
    model, version      as the server calls them; without a version the server takes its newest
    signature           of TensorFlow Serving
    connect_timeout_s   to be connected
    response_timeout_s  without a byte of the answer
    timeout_s           for everything, tries and pauses included
    pool                connections at most; more runs at once wait for one
    retries             further tries, when a connection fails or the server says that it is busy (503), never else
    """

    url: str
    protocol: Literal["oip", "tfserving"]
    model: str
    version: str | int | None = None
    signature: str = "serving_default"
    connect_timeout_s: float = 2.0
    response_timeout_s: float = 10.0
    timeout_s: float = 30.0
    pool: int = 4
    retries: int = 2

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"url {self.url!r} is no address like http://server:8000")
        if self.protocol not in {"oip", "tfserving"}:
            raise ValueError(f"protocol {self.protocol!r} is none of oip, tfserving")
        if not isinstance(self.model, str) or not self.model:
            raise ValueError("model is the name of a model on the server")
        for name in ("connect_timeout_s", "response_timeout_s", "timeout_s"):
            if not 0 < getattr(self, name) <= MAX_TIMEOUT_S:
                raise ValueError(f"{name} is a number of seconds, {MAX_TIMEOUT_S} at most")
        if type(self.pool) is not int or type(self.retries) is not int or self.pool < 1 or self.retries < 0:
            raise ValueError("pool is a number from 1, retries a number from 0")


class Remote:
    """The back-end for models on other servers."""

    name = "remote"
    formats = frozenset({"remote"})

    def devices(self) -> tuple[str, ...]:
        return ("remote",)

    def load(self, spec: ModelSpec, *, threads: int = 1) -> RemoteSession:
        require_runnable(spec, threads, backend=self.name, formats=self.formats, precisions={"fp32"})
        try:
            address = _read(spec)
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise load_failed(spec, error) from error
        wire = wire_of(
            address.protocol, model=address.model, version=address.version or "", signature=address.signature
        )
        line = _line_to(address)
        try:
            described = wire.describe(line.call)
            _require_fit(spec, described)
        except BaseException:
            line.close()
            raise
        return RemoteSession(spec, line, wire, described.batch)


class RemoteSession:
    """A model on another server. One that was made with a fixed batch is run in pieces of that size."""

    backend = Remote.name
    device = "remote"

    def __init__(self, spec: ModelSpec, line: Line, wire: Wire, batch: int | None) -> None:
        self._spec = spec
        self._line = line
        self._wire = wire
        self._batch = batch

    def run(self, inputs: Floats) -> dict[str, Floats]:
        require_inputs(self._spec, inputs)
        if not self._line.enter():
            raise run_failed(self._spec, "it was closed")
        try:
            step = self._batch or len(inputs)
            parts = [self._run(inputs[start : start + step], step) for start in range(0, len(inputs), step)]
        finally:
            self._line.leave()
        return {role: np.concatenate([part[role] for part in parts]) for role in self._spec.outputs}

    def close(self) -> None:
        self._line.close()

    def _run(self, inputs: Floats, count: int) -> dict[str, Floats]:
        padding = np.zeros((count - len(inputs), *inputs.shape[1:]), np.float32)
        given = np.ascontiguousarray(np.concatenate([inputs, padding]) if len(padding) else inputs)
        wanted = sorted(set(self._spec.outputs.values()))
        tensors = self._wire.run(self._line.call, self._spec.input, given, wanted)
        if missing := [name for name in wanted if name not in tensors]:
            raise bad_answer(f"it has no {', '.join(missing)}, but {sorted(tensors)}")
        if wrong := {name: tensors[name].shape for name in wanted if tensors[name].shape[:1] != (count,)}:
            raise bad_answer(f"{count} inputs gave {wrong}")
        return {role: tensors[name][: len(inputs)] for role, name in self._spec.outputs.items()}


def _line_to(address: Address) -> Line:
    # The HTTP client takes 0.2 s to import, which only models on other servers should pay for.
    from relens.runtimes.line import Line  # noqa: PLC0415

    return Line(address)


def _read(spec: ModelSpec) -> Address:
    given = yaml.safe_load(spec.path.read_bytes())
    if not isinstance(given, dict):
        raise ValueError("it must hold keys and values: url, protocol, model…")  # noqa: TRY004 - of the file's value
    known = [field.name for field in fields(Address)]
    if unknown := sorted(map(str, set(given) - set(known))):
        raise ValueError(f"unknown {', '.join(unknown)}; known: {', '.join(known)}")
    return Address(**given)


def _require_fit(spec: ModelSpec, described: Described) -> None:
    """Broken if what the server says of its model is not what the spec says. A server may say nothing."""
    if described.outputs:
        require_outputs(spec, described.outputs)
    if not described.inputs:
        return
    if set(described.inputs) != {spec.input}:
        raise load_failed(spec, f"its inputs are {sorted(described.inputs)}, the card says {spec.input!r}")
    shape = described.inputs[spec.input]
    sides = () if shape is None else shape[1:]
    fits = shape is None or (
        len(sides) == len(spec.input_shape)
        and all(
            has is None or wants is None or has == wants for has, wants in zip(sides, spec.input_shape, strict=True)
        )
    )
    if not fits:
        raise load_failed(spec, f"its input is {shape}, the card says {spec.input_shape}")
