"""Two ways to ask another server for tensors by HTTP: Open Inference Protocol, and TensorFlow Serving's REST.

Bytes only: who connects, waits and tries again is the caller's. Tensors are binary where the server says that it can
(the binary tensor data extension), else JSON, which is a dozen times slower.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np

from relens.errors import Broken
from relens.values import Floats

Call = Callable[[str, bytes | None, Mapping[str, str]], tuple[Mapping[str, str], bytes]]
"""Path, body (None to get) and headers to headers and body of the answer."""

JSON = {"Content-Type": "application/json"}
HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "binary_tensor_data"
TYPES = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "BOOL": "?",
}


@dataclass(frozen=True, slots=True)
class Described:
    """What a server says of a model: input to shape (batch first, None for any length), outputs, and a fixed batch."""

    inputs: Mapping[str, tuple[int | None, ...] | None]
    outputs: frozenset[str]
    batch: int | None


class Wire(Protocol):
    """A protocol, for one model. Broken `runtimes.bad-answer` for an answer that is not of the protocol."""

    def describe(self, call: Call) -> Described:
        """What the server says of the model."""

    def run(self, call: Call, name: str, inputs: Floats, wanted: Sequence[str]) -> dict[str, Floats]:
        """Tensors by name, float32, of a batch that the input `name` is given."""


def wire_of(protocol: str, *, model: str, version: str | int, signature: str) -> Wire:
    """The wire of a protocol that is known: "oip" or "tfserving"."""
    if protocol == "oip":
        return _Oip(model, version)
    return _TfServing(model, version, signature)


class _Oip:
    """https://github.com/kserve/open-inference-protocol, REST, with Triton's binary tensor data extension."""

    def __init__(self, model: str, version: str | int) -> None:
        self._path = f"v2/models/{quote(model, safe='')}"
        if version:
            self._path += f"/versions/{quote(str(version), safe='')}"
        self._binary = False

    def describe(self, call: Call) -> Described:
        said = _parsed(call(self._path, None, {})[1])
        with contextlib.suppress(Broken):  # not every server describes itself
            self._binary = BINARY in (_parsed(call("v2", None, {})[1]).get("extensions") or ())
        with _Reading("metadata"):
            inputs = {one["name"]: _shape(one.get("shape")) for one in said.get("inputs") or ()}
            outputs = frozenset(one["name"] for one in said.get("outputs") or ())
        return Described(inputs, outputs, _batch(inputs))

    def run(self, call: Call, name: str, inputs: Floats, wanted: Sequence[str]) -> dict[str, Floats]:
        tensor: dict[str, Any] = {"name": name, "shape": list(inputs.shape), "datatype": "FP32"}
        if not self._binary:
            request = {"inputs": [tensor | {"data": inputs.ravel().tolist()}], "outputs": [{"name": n} for n in wanted]}
            headers, answer = call(f"{self._path}/infer", json.dumps(request).encode(), JSON)
            return _oip_tensors(headers, answer)
        raw = inputs.astype("<f4", copy=False).tobytes()
        request = {
            "inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}],
            "outputs": [{"name": n, "parameters": {"binary_data": True}} for n in wanted],
        }
        head = json.dumps(request).encode()
        sent = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
        headers, answer = call(f"{self._path}/infer", head + raw, sent)
        return _oip_tensors(headers, answer)


def _oip_tensors(headers: Mapping[str, str], answer: bytes) -> dict[str, Floats]:
    """Tensors of an answer, those behind its JSON head in their order."""
    length = headers.get(HEADER_LENGTH, headers.get(HEADER_LENGTH.lower()))
    with _Reading("answer"):
        end = len(answer) if length is None else int(length)
        tensors: dict[str, Floats] = {}
        at = end
        for one in _parsed(answer[:end])["outputs"]:
            kind = TYPES[one["datatype"]]
            size = (one.get("parameters") or {}).get("binary_data_size")
            if size is None:
                values = np.asarray(one["data"], dtype=kind)
            else:
                values = np.frombuffer(answer[at : at + size], dtype=kind)
                at += size
            tensors[one["name"]] = values.astype(np.float32).reshape(one["shape"])
        return tensors


class _TfServing:
    """https://www.tensorflow.org/tfx/serving/api_rest: columns in, columns out."""

    def __init__(self, model: str, version: str | int, signature: str) -> None:
        self._path = f"v1/models/{quote(model, safe='')}"
        if version:
            self._path += f"/versions/{quote(str(version), safe='')}"
        self._signature = signature

    def describe(self, call: Call) -> Described:
        said = _parsed(call(f"{self._path}/metadata", None, {})[1])
        with _Reading("metadata"):
            signatures = said["metadata"]["signature_def"]["signature_def"]
            if self._signature not in signatures:
                raise ValueError(f"no signature {self._signature}; there is {', '.join(signatures)}")
            chosen = signatures[self._signature]
            inputs = {name: _tf_shape(one.get("tensor_shape") or {}) for name, one in chosen["inputs"].items()}
            return Described(inputs, frozenset(chosen["outputs"]), _batch(inputs))

    def run(self, call: Call, name: str, inputs: Floats, wanted: Sequence[str]) -> dict[str, Floats]:
        request = {"signature_name": self._signature, "inputs": {name: inputs.tolist()}}
        answer = _parsed(call(f"{self._path}:predict", json.dumps(request).encode(), JSON)[1])
        with _Reading("answer"):
            columns = answer["outputs"]
            if not isinstance(columns, dict):  # of a model with one output its name is left out
                columns = dict.fromkeys(wanted[:1], columns)
            return {key: np.asarray(column, dtype=np.float32) for key, column in columns.items() if key in wanted}


class _Reading:
    """Whatever goes wrong while an answer is read is Broken, and says what is wrong with it."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError):
            raise bad_answer(f"no {error}" if isinstance(error, KeyError) else str(error), self._what) from error


def bad_answer(why: str, what: str = "answer") -> Broken:
    return Broken(
        "runtimes.bad-answer",
        f"the server's {what} cannot be used: {why}",
        hint="does the model's file name the protocol that the server speaks, and its model?",
    )


def _parsed(data: bytes) -> dict[str, Any]:
    with _Reading("answer"):
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError(f"{data[:100]!r} is no JSON object")  # noqa: TRY004 - of the server's value
    return value


def _shape(given: Sequence[int | str] | None) -> tuple[int | None, ...] | None:
    if given is None:
        return None
    return tuple(None if int(side) < 0 else int(side) for side in given)


def _tf_shape(given: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    return None if given.get("unknown_rank") else _shape([side["size"] for side in given.get("dim") or ()])


def _batch(inputs: Mapping[str, tuple[int | None, ...] | None]) -> int | None:
    shapes = [shape for shape in inputs.values() if shape]
    return shapes[0][0] if len(shapes) == 1 else None
