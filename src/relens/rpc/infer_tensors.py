"""Requests and answers of the Open Inference Protocol's ModelInfer as values: tensors in raw bytes or typed contents.

An answer has the form of its request: typed contents if the inputs had them, raw bytes otherwise, as Triton always
answers. FP16 has no typed contents. Pure: nothing here knows a server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relens.errors import BadInput
from relens.rpc.fields import numbers_of, put_numbers
from relens.rpc.messages import ModelInferResponse
from relens.serving.classes import classified
from relens.serving.oip import (
    BAD_REQUEST,
    BAD_TENSOR,
    Asked,
    Naming,
    Wanted,
    priority_of,
    shown,
    timeout_s_of,
    wanted_of,
)
from relens.serving.served import Inferred, Served
from relens.tensors import BYTES, Array, datatype_of, dtype_of, from_bytes, shaped, to_bytes

FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
SHARED = "shared_memory_region"
INTEGERS = ("int64_param", "uint64_param")


def read_request(request: Any) -> Asked:
    """The request that a ModelInferRequest is. `binary` says that its tensors came as raw bytes."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadInput(
            BAD_REQUEST,
            f"there are {len(raw)} `raw_input_contents` for {len(request.inputs)} inputs",
            hint="give all inputs as raw bytes, in their order, or none",
        )
    inputs: dict[str, Array] = {}
    for at, given in enumerate(request.inputs):
        if given.name in inputs:
            raise BadInput(BAD_REQUEST, f"there are two inputs {shown(given.name)}")
        with Naming(given.name):
            inputs[given.name] = _raw(given, raw[at]) if raw else _typed(given)
    return Asked(
        inputs,
        _outputs(request.outputs),
        bool(raw) or not request.inputs,
        request.id or None,
        timeout_s_of(_integer(request.parameters, "timeout", "the request")),
        priority_of(_integer(request.parameters, "priority", "the request")),
    )


def elements_to_read(request: Any) -> int:
    """How many elements reading goes over one by one: strings, and those that lie in no bytes."""
    typed = not request.raw_input_contents
    return sum(math.prod(one.shape) for one in request.inputs if typed or one.datatype == BYTES)


def elements_to_write(asked: Asked, inferred: Inferred) -> int:
    """How many elements writing goes over one by one: strings, typed contents, and those to find classes in."""
    outputs = inferred.outputs.items()
    one_by_one = ((array, array.dtype == object or asked.wanted(name).classes) for name, array in outputs)
    return sum(array.size for array, one in one_by_one if one or not asked.binary)


def write_response(asked: Asked, inferred: Inferred, served: Served) -> Any:
    """The ModelInferResponse. `served` is what inferred it."""
    response = ModelInferResponse(model_name=inferred.model, model_version=str(inferred.version), id=asked.id or "")
    ways = {name: asked.wanted(name).classes for name in inferred.outputs} if asked.outputs else {}
    outputs = {
        name: classified(array, name, ways[name], served) if ways.get(name) else array
        for name, array in inferred.outputs.items()
    }
    datatypes = {name: datatype_of(array) for name, array in outputs.items()}
    raw = asked.binary or "FP16" in datatypes.values()
    for name, array in outputs.items():
        output = response.outputs.add(name=name, datatype=datatypes[name], shape=array.shape)
        if raw:
            response.raw_output_contents.append(to_bytes(array))
        elif datatypes[name] == BYTES:
            output.contents.bytes_contents.extend(array.ravel().tolist())
        else:
            put_numbers(output.contents, FIELDS[datatypes[name]], array)
    return response


def _raw(given: Any, data: bytes) -> Array:
    _check_not_shared(given.parameters)
    if given.HasField("contents"):
        raise BadInput(BAD_TENSOR, "it has `contents`, and there are `raw_input_contents` as well")
    return from_bytes(data, given.datatype, tuple(given.shape))


def _typed(given: Any) -> Array:
    _check_not_shared(given.parameters)
    field, dtype, shape = FIELDS.get(given.datatype), dtype_of(given.datatype), tuple(given.shape)
    if field is None:
        raise BadInput(BAD_TENSOR, f"{given.datatype} has no typed contents", hint="put it into `raw_input_contents`")
    if wrong := [one.name for one, _ in given.contents.ListFields() if one.name != field]:
        raise BadInput(BAD_TENSOR, f"it is {given.datatype} and has `{wrong[0]}`", hint=f"put it into `{field}`")
    values = getattr(given.contents, field)
    if any(side < 0 for side in shape) or math.prod(shape) != len(values):
        raise BadInput(BAD_TENSOR, f"its shape is {list(shape)}, its contents have {len(values)} elements")
    flat = _strings(values) if given.datatype == BYTES else numbers_of(given.contents, field, dtype)
    return shaped(flat, shape)


def _strings(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _outputs(listed: Sequence[Any]) -> tuple[Wanted, ...]:
    found: dict[str, Wanted] = {}
    for one in listed:
        if one.name in found:
            raise BadInput(BAD_REQUEST, f"output {shown(one.name)} is wanted twice")
        with Naming(one.name, "output"):
            _check_not_shared(one.parameters)
        found[one.name] = wanted_of(one.name, _integer(one.parameters, "classification", f"output {shown(one.name)}"))
    return tuple(found.values())


def _check_not_shared(parameters: Mapping[str, Any]) -> None:
    if SHARED in parameters:
        raise BadInput(BAD_TENSOR, "shared memory is not served", hint="send the data, and take it, as raw bytes")


def _integer(parameters: Mapping[str, Any], key: str, what: str) -> int:
    if key not in parameters:
        return 0
    chosen = parameters[key].WhichOneof("parameter_choice")
    if chosen not in INTEGERS:
        raise BadInput(BAD_REQUEST, f"`{key}` of {what} is no integer")
    return int(getattr(parameters[key], chosen))
