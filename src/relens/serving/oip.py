"""What both doors of the Open Inference Protocol share: requests as values, and what is said of server and models.

What is said is JSON; protobuf's messages of the same names have the same JSON. Nothing here knows a transport.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from relens.errors import BadInput
from relens.serving.served import PICTURES, Named, Served, State, VersionStatus
from relens.serving.tallies import Counted
from relens.tensors import BYTES, TensorInfo, Tensors

BAD_REQUEST = "oip.bad-request"
BAD_TENSOR = "oip.bad-tensor"
NAME_SHOWN = 60
EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
]
BATCH_TOLD = 1024
"""Triton's clients want a bound on batches to split them by. There is none but the size of a body."""
REPOSITORY_STATES: Mapping[State, str] = {
    "START": "LOADING",
    "LOADING": "LOADING",
    "AVAILABLE": "READY",
    "UNLOADING": "UNLOADING",
    "END": "UNAVAILABLE",
}


# -- requests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for: as binary, and as its best `classes` instead of its numbers if that is not 0."""

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: inputs by name, and how outputs are wanted; those that are not listed are as `binary` says."""

    inputs: Tensors
    outputs: tuple[Wanted, ...] = ()
    binary: bool = False
    id: str | None = None
    timeout_s: float | None = None
    priority: int = 0

    def wanted(self, name: str) -> Wanted:
        """How this output is wanted."""
        return next((one for one in self.outputs if one.name == name), Wanted(name, self.binary))


class Naming:
    """What is wrong with an input, or an output, names it."""

    def __init__(self, name: str, what: str = "input") -> None:
        self._name = name
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BadInput):
            raise BadInput(error.code, f"{self._what} {shown(self._name)}: {error.message}", hint=error.hint) from error


def named_of(model: str, version: str, sticky: str | None = None) -> Named:
    """Which version is meant: digits are its number, nothing the newest, anything else a label."""
    if not version:
        return Named(model, sticky=sticky)
    number = number_in(version)
    return Named(model, label=version, sticky=sticky) if number is None else Named(model, number, sticky=sticky)


def number_in(text: str) -> int | None:
    """What digits mean, of up to 18 of them."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def timeout_s_of(microseconds: int) -> float | None:
    """The schedule policy's `timeout` in seconds; 0, as in Triton, is as the server is set up."""
    if not 0 <= microseconds < 2**63:
        raise BadInput(BAD_REQUEST, "`timeout` is microseconds, 0 or more")
    return microseconds / 1e6 or None


def priority_of(given: int) -> int:
    """The schedule policy's `priority`: 1 is first; 0, and more than a model has, is its usual one."""
    if not 0 <= given < 2**63:
        raise BadInput(BAD_REQUEST, "`priority` is 0 or more")
    return given


def wanted_of(name: str, classes: int, *, binary: bool = False) -> Wanted:
    """An output that is asked for. BadInput for a number of classes that is none."""
    if classes < 0:
        raise BadInput(BAD_REQUEST, f"output {shown(name)}: `classification` is {classes}")
    return Wanted(name, binary, classes)


def not_controlled() -> BadInput:
    """Why nothing is loaded by request."""
    return BadInput(
        "oip.not-controlled",
        "models are neither loaded nor unloaded by request",
        hint="versions follow the folder of models: put the folder of a version there, or take it away",
    )


def shown(name: str) -> str:
    """A name as messages have it: quoted, and not too long."""
    return repr(name[:NAME_SHOWN])


# -- what is said ---------------------------------------------------------------------------------------------------


class Said:
    """What is said of the server and its models, as JSON. Reads them; changes nothing."""

    def __init__(self, server: Counted) -> None:
        self._server = server

    def server(self) -> dict[str, Any]:
        return {"name": "relens", "version": metadata.version("relens"), "extensions": EXTENSIONS}

    def unready(self) -> list[str]:
        """Models that do not answer; one whose versions were all taken away is none."""
        return [model for model in self._server.models() if not _answers(self._server.versions(model))]

    def model(self, named: Named) -> dict[str, Any]:
        served = self._server.describe(named)
        told = {PICTURES: served.pictures, "space": served.space}
        properties = {name: value for name, value in told.items() if value is not None}
        return {
            "name": served.model,
            "versions": [str(version) for version in self._available(served.model)],
            "platform": served.backend,
            "inputs": [_metadata(info) for info in served.inputs],
            "outputs": [_metadata(info) for info in served.outputs],
        } | ({"properties": properties} if properties else {})

    def config(self, named: Named) -> dict[str, Any]:
        return _config(self._server.describe(named))

    def stats(self, named: Named | None = None) -> dict[str, Any]:
        """Of a version that is named by number or label, else of all that are available, of one model or of all."""
        if named is not None and (named.version or named.label):
            served = self._server.describe(named)
            return {"model_stats": [self._statistics(served.model, served.version)]}
        models = self._server.models() if named is None else [named.model]
        listed = [(model, version) for model in models for version in self._available(model)]
        return {"model_stats": [self._statistics(model, version) for model, version in listed]}

    def index(self, *, ready: bool) -> list[dict[str, str]]:
        """Every version that is known, or only those that are ready."""
        listed = [(model, status) for model in self._server.models() for status in self._server.versions(model)]
        return [_indexed(model, status) for model, status in listed if not ready or _is_available(status)]

    def _available(self, model: str) -> list[int]:
        return [status.version for status in self._server.versions(model) if _is_available(status)]

    def _statistics(self, model: str, version: int) -> dict[str, Any]:
        tally = self._server.tally(model, version)
        return {
            "name": model,
            "version": str(version),
            "last_inference": tally.last_ms,
            "inference_count": tally.inferred,
            "execution_count": tally.counts.get("success", 0),
            "inference_stats": tally.durations(),
            "batch_stats": [],
        }


def _is_available(status: VersionStatus) -> bool:
    return status.state == "AVAILABLE"


def _answers(versions: list[VersionStatus]) -> bool:
    return any(map(_is_available, versions)) or all(one.state == "END" and one.error is None for one in versions)


def _indexed(model: str, status: VersionStatus) -> dict[str, str]:
    ended = "unloaded" if status.state == "END" else ""
    reason = ended if status.error is None else str(status.error)
    return {
        "name": model,
        "version": str(status.version),
        "state": REPOSITORY_STATES[status.state],
        "reason": reason,
    }


def _metadata(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "datatype": info.datatype, "shape": _sides(info.shape)}


def _sides(shape: tuple[int | None, ...]) -> list[int]:
    return [-1 if side is None else side for side in shape]


def _config(served: Served) -> dict[str, Any]:
    """Triton's ModelConfig as JSON. Where all tensors have a free first side, that is the batch and is left out."""
    tensors = (*served.inputs, *served.outputs)
    batched = all(info.shape[:1] == (None,) for info in tensors)
    return {
        "name": served.model,
        "platform": served.backend,
        "backend": served.backend,
        "max_batch_size": BATCH_TOLD if batched else 0,
        "input": [_configured(info, batched=batched) for info in served.inputs],
        "output": [_configured(info, batched=batched) for info in served.outputs],
    }


def _configured(info: TensorInfo, *, batched: bool) -> dict[str, Any]:
    kind = "TYPE_STRING" if info.datatype == BYTES else f"TYPE_{info.datatype}"
    dims = _sides(info.shape[1:] if batched else info.shape)
    if dims:
        return {"name": info.name, "data_type": kind, "dims": dims}
    return {"name": info.name, "data_type": kind, "dims": [1], "reshape": {"shape": []}}  # Triton's way of no sides
