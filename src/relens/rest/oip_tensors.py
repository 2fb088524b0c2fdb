"""Requests and answers of the Open Inference Protocol's REST as bytes: tensors in JSON, or binary behind it.

https://github.com/kserve/open-inference-protocol, with Triton's extensions for binary tensors (the raw request without
JSON included), classification, and `timeout` and `priority` of the schedule policy. Pure: nothing here reads from or
writes to anybody. Everything that is wrong with a request is BadInput and says what; numbers that came as binary are
not copied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput
from relens.rest.bodies import object_in
from relens.serving.classes import classified
from relens.serving.oip import (
    BAD_REQUEST,
    BAD_TENSOR,
    NAME_SHOWN,
    Asked,
    Naming,
    Wanted,
    priority_of,
    shown,
    timeout_s_of,
    wanted_of,
)
from relens.serving.served import Inferred, Served
from relens.tensors import BYTES, DATATYPES, Array, TensorInfo, datatype_of, dtype_of, from_bytes, to_bytes

TAKES_LONG_ELEMENTS = 4096
"""Elements that become text in about 2 ms; more of them keep the event loop from others."""
TEXTS = {list: "an array", dict: "an object", str: "a string", int: "an integer", bool: "true or false"}
JSON_TYPES: Mapping[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({int, float}),
    "O": frozenset({str}),
}
"""What JSON's values may be, by the kind of the tensor's type. numpy would take `"1"` and `true` for numbers."""
JSON_NAMES = {"b": "true and false", "i": "integers", "u": "integers", "f": "numbers", "O": "strings"}

REMEMBERED, REMEMBERED_BYTES = 256, 4096
"""How many texts of JSON are remembered, and how long one may be."""

T = TypeVar("T")
_dumped = json.JSONEncoder(separators=(",", ":")).encode


def read_request(body: bytes, head_bytes: int | None) -> Asked:
    """The request that a body is: `head_bytes` of JSON with binary tensors behind them, or nothing but JSON (None)."""
    end = len(body) if head_bytes is None else head_bytes
    if end > len(body):
        raise BadInput(BAD_REQUEST, f"the JSON is said to have {end:,} bytes, and the body has {len(body):,}")
    text = body[:end]
    head = _head(text) if head_bytes is None or end > REMEMBERED_BYTES else _remembered(text)
    inputs = _inputs(head.inputs, memoryview(body)[end:])
    return Asked(inputs, head.outputs, head.binary, head.id, head.timeout_s, head.priority)


@dataclass(frozen=True, slots=True)
class _Input:
    """What the JSON says of an input: how many bytes it has behind the JSON, or its `data`."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int | None
    data: list[Any]


@dataclass(frozen=True, slots=True)
class _Head:
    """What the JSON of a request says."""

    inputs: tuple[_Input, ...]
    outputs: tuple[Wanted, ...]
    binary: bool
    id: str | None
    timeout_s: float | None
    priority: int


def _head(text: bytes) -> _Head:
    head = object_in(text, "the request")
    parameters = _field(head, "parameters", dict, "the request", {})
    binary = _field(parameters, "binary_data_output", bool, "the request's parameters", False)
    return _Head(
        _listed(_field(head, "inputs", list, "the request")),
        _outputs(_field(head, "outputs", list, "the request", []), binary=binary),
        binary,
        _field(head, "id", str, "the request", "") or None,
        timeout_s_of(_field(parameters, "timeout", int, "the request's parameters", 0)),
        priority_of(_field(parameters, "priority", int, "the request's parameters", 0)),
    )


_known: dict[bytes, _Head] = {}


def _remembered(text: bytes) -> _Head:
    """The same, of JSON that clients send again and again: with all tensors behind it, and no id of the request."""
    head = _known.get(text)
    if head is None:
        head = _head(text)
        if head.id is None and all(one.size is not None for one in head.inputs):
            if len(_known) >= REMEMBERED:
                _known.clear()
            _known[text] = head
    return head


def read_raw(body: bytes, infos: Sequence[TensorInfo]) -> Asked:
    """The request of a body that is nothing but the model's only input; all outputs are wanted as binary.

    One free side is computed from the size; of two, the first is the batch and is 1. Of BYTES the body is the one
    element, without its length.
    """
    if len(infos) != 1:
        raise _not_raw(f"the model has {len(infos)} inputs")
    (info,) = infos
    if info.datatype == BYTES:
        return Asked({info.name: _single(info, body)}, binary=True)
    with Naming(info.name):
        return Asked({info.name: from_bytes(memoryview(body), info.datatype, _raw_shape(info, len(body)))}, binary=True)


def takes_long(asked: Asked, inferred: Inferred) -> bool:
    """Whether an answer takes so long to write that it is not done on an event loop."""
    ways = ((asked.wanted(name), array.size) for name, array in inferred.outputs.items())
    return sum(size for way, size in ways if way.classes or not way.binary) > TAKES_LONG_ELEMENTS


def write_answer(asked: Asked, inferred: Inferred, served: Served) -> tuple[bytes, int | None]:
    """The answer's body, and the bytes of its JSON; None if there is nothing else. `served` is what inferred it.

    Floats in JSON may be NaN and Infinity, as Python and RapidJSON write and read them.
    """
    outputs: list[str] = []
    parts: list[bytes | memoryview] = []
    for name, given in inferred.outputs.items():
        way = asked.wanted(name)
        array = classified(given, name, way.classes, served) if way.classes else given
        outputs.append(_written(array, way, parts))
    head = {"model_name": inferred.model, "model_version": str(inferred.version)}
    if asked.id is not None:
        head["id"] = asked.id
    text = _with_more(head, f'"outputs":[{",".join(outputs)}]').encode()
    return (b"".join([text, *parts]), len(text)) if parts else (text, None)


def _listed(given: Sequence[Any]) -> tuple[_Input, ...]:
    found: dict[str, _Input] = {}
    for each in given:
        one = _object(each, "an input")
        name = _field(one, "name", str, "an input")
        if name in found:
            raise BadInput(BAD_REQUEST, f"there are two inputs {shown(name)}")
        with Naming(name):
            size = _binary_size(one)
            datatype, shape = _field(one, "datatype", str, "it"), _shape(_field(one, "shape", list, "it"))
            data = [] if size is not None else _field(one, "data", list, "it")
            found[name] = _Input(name, datatype, shape, size, data)
    return tuple(found.values())


def _inputs(listed: Sequence[_Input], rest: memoryview) -> dict[str, Array]:
    """The inputs by name. Those that are binary lie one after the other in `rest`, and nothing else does."""
    found: dict[str, Array] = {}
    at = 0
    for one in listed:
        with Naming(one.name):
            if one.size is None:
                found[one.name] = _from_json(one.data, one.datatype, one.shape)
                continue
            if one.size > len(rest) - at:
                left = len(rest) - at
                raise BadInput(BAD_TENSOR, f"it has {one.size:,} bytes, and {left:,} are left", hint=HEADER_HINT)
            found[one.name] = from_bytes(rest[at : at + one.size], one.datatype, one.shape)
            at += one.size
    if at != len(rest):
        raise BadInput(BAD_REQUEST, f"{len(rest) - at:,} bytes behind the JSON belong to no input", hint=HEADER_HINT)
    return found


HEADER_HINT = "Inference-Header-Content-Length is the length of the JSON, `binary_data_size` that of an input behind it"


def _binary_size(one: Mapping[str, Any]) -> int | None:
    parameters = _field(one, "parameters", dict, "it", {})
    if "shared_memory_region" in parameters:
        raise BadInput(BAD_TENSOR, "shared memory is not served", hint="send the data as binary")
    if parameters.get("binary_data_size") is None:
        return None
    if one.get("data") is not None:
        raise BadInput(BAD_TENSOR, "it has `data`, and is said to be binary as well")
    size = _field(parameters, "binary_data_size", int, "its parameters")
    if size < 0:
        raise BadInput(BAD_TENSOR, f"its size is {size}")
    return size


def _shape(given: Sequence[Any]) -> tuple[int, ...]:
    if any(type(side) is not int or side < 0 for side in given):
        raise BadInput(BAD_TENSOR, f"{str(given)[:NAME_SHOWN]} is no shape", hint="sides are integers, 0 or more")
    return tuple(given)


def _from_json(data: list[Any], datatype: str, shape: tuple[int, ...]) -> Array:
    dtype = dtype_of(datatype)
    if datatype == "FP16":
        raise BadInput(BAD_TENSOR, "FP16 is sent as binary alone", hint="set `binary_data_size`, or send FP32")
    flat, sides = _flat(data)
    if not JSON_TYPES[dtype.kind].issuperset(map(type, flat)):
        raise BadInput(BAD_TENSOR, f"`data` of {datatype} is {JSON_NAMES[dtype.kind]}")
    if len(flat) != math.prod(shape) or (len(sides) == len(shape) and tuple(sides) != shape):
        raise BadInput(BAD_TENSOR, f"its shape is {list(shape)}, its `data` is {sides} with {len(flat)} elements")
    try:
        return _filled(flat, dtype).reshape(shape)
    except (ValueError, ArithmeticError) as error:
        raise BadInput(BAD_TENSOR, f"its `data` cannot be {datatype}: {error}") from error


def _filled(flat: Sequence[Any], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "O":
        array = np.empty(len(flat), object)
        array[:] = [text.encode() for text in flat]
        return array
    with np.errstate(over="raise"):
        return np.array(flat, dtype)


def _flat(data: list[Any]) -> tuple[list[Any], list[int]]:
    """The elements of nested lists, and the length of each level. Levels are taken one at a time, in bulk."""
    sides = [len(data)]
    while data and type(data[0]) is list:
        if {*map(type, data)} != {list} or len({*map(len, data)}) != 1:
            raise BadInput(BAD_TENSOR, "its `data` has rows of different lengths")
        sides.append(len(data[0]))
        data = list(chain.from_iterable(data))
    return data, sides


def _outputs(listed: Sequence[Any], *, binary: bool) -> tuple[Wanted, ...]:
    found: dict[str, Wanted] = {}
    for given in listed:
        one = _object(given, "an output")
        name = _field(one, "name", str, "an output")
        what = f"output {shown(name)}"
        if name in found:
            raise BadInput(BAD_REQUEST, f"{what} is wanted twice")
        parameters = _field(one, "parameters", dict, what, {})
        if "shared_memory_region" in parameters:
            raise BadInput(BAD_REQUEST, f"{what}: shared memory is not served")
        classes = _field(parameters, "classification", int, what, 0)
        found[name] = wanted_of(name, classes, binary=_field(parameters, "binary_data", bool, what, binary))
    return tuple(found.values())


def _raw_shape(info: TensorInfo, size: int) -> tuple[int, ...]:
    shape = list(info.shape)
    if shape.count(None) == 2 and shape[0] is None:  # noqa: PLR2004 - a batch, and one more
        shape[0] = 1
    if shape.count(None) > 1:
        raise _not_raw(f"the model takes {info}, and one size fits many of its shapes")
    fixed = dtype_of(info.datatype).itemsize * math.prod(side for side in shape if side is not None)
    if fixed == 0:
        raise _not_raw(f"the model takes {info}")
    return tuple(size // fixed if side is None else side for side in shape)


def _single(info: TensorInfo, body: bytes) -> Array:
    if any(side not in {1, None} for side in info.shape):
        raise _not_raw(f"the model takes {info}, which is more than one element")
    array = np.empty(1, object)
    array[0] = body
    return array.reshape((1,) * len(info.shape))


def _not_raw(why: str) -> BadInput:
    return BadInput(BAD_REQUEST, f"a body without JSON cannot be understood: {why}", hint="send the JSON before it")


def _written(array: Array, way: Wanted, parts: list[bytes | memoryview]) -> str:
    """What the JSON says of an output; its bytes are put behind `parts` if it is binary."""
    datatype = datatype_of(array)
    if way.binary:
        part = to_bytes(array) if datatype == BYTES else _memory(array, datatype)
        parts.append(part)
        return _binary_said(way.name, datatype, array.shape, len(part))
    said = {"name": way.name, "datatype": datatype, "shape": list(array.shape)}
    if datatype == "FP16":
        raise BadInput(
            BAD_REQUEST, f"output {shown(way.name)} is FP16, which is sent as binary alone", hint=BINARY_HINT
        )
    data = _dumped(_texts(array, way.name)) if datatype == BYTES else _numbers(array, datatype)
    return _with_more(said, f'"data":{data}')


@lru_cache(REMEMBERED)
def _binary_said(name: str, datatype: str, shape: tuple[int, ...], size: int) -> str:
    """The JSON of an output whose bytes lie behind it."""
    said = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    return _dumped(said)


def _numbers(array: Array, datatype: str) -> str:
    """Numbers as JSON; FP32 with its nine digits, a third of the time of a Python float's seventeen."""
    values = array.ravel().tolist()
    if datatype == "FP32" and np.isfinite(array).all():
        return f"[{('%.9g,' * len(values))[:-1] % tuple(values)}]"
    return _dumped(values)


def _with_more(said: Mapping[str, Any], more: str) -> str:
    """An object as JSON, with a field that is JSON already."""
    return f"{_dumped(said)[:-1]},{more}}}"


BINARY_HINT = "set `binary_data` of the output, or `binary_data_output` of the request"


def _memory(array: Array, datatype: str) -> memoryview:
    """The bytes of an array, where they lie if they are in the protocol's order."""
    flat: NDArray[np.uint8] = np.ascontiguousarray(array, DATATYPES[datatype]).reshape(-1).view(np.uint8)
    return flat.data


def _texts(array: Array, name: str) -> list[str]:
    try:
        return [element.decode() for element in array.ravel()]
    except UnicodeDecodeError as error:
        raise BadInput(BAD_REQUEST, f"output {shown(name)} is no UTF-8: {error}", hint=BINARY_HINT) from error


def _field(given: Mapping[str, Any], key: str, kind: type[T], what: str, default: T | None = None) -> T:
    """A field of an object. BadInput if it is of another type, or missing (or null) and has no default."""
    value = given.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not kind:
        raise BadInput(BAD_REQUEST, f"`{key}` of {what} is {'missing' if value is None else 'not ' + TEXTS[kind]}")
    return value


def _object(given: Any, what: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BadInput(BAD_REQUEST, f"{what} is no JSON object")
    return given
