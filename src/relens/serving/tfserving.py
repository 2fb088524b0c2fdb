"""What both doors of TensorFlow Serving share: signatures, examples, and what is said of models.

What is said is JSON; protobuf's messages of the same names have the same JSON. Nothing here knows a transport.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from relens.errors import BadInput, Missing
from relens.serving.codes import rpc_code
from relens.serving.served import PICTURES, ModelServer, Named, Served, VersionStatus
from relens.tensors import BYTES, Array, TensorInfo, Tensors

DEFAULT_SIGNATURE = "serving_default"
PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{verb}" for verb in ("predict", "classify", "regress"))
NAMES_SHOWN = 200
TYPES: Mapping[str, str] = {
    "BOOL": "DT_BOOL",
    **{f"{sign}INT{bits}": f"DT_{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    BYTES: "DT_STRING",
}


def check_signature(name: Any, served: Served, *methods: str) -> None:
    """BadInput for a signature that the model does not have: `methods` are other names of the usual one."""
    known = ["", DEFAULT_SIGNATURE, *methods, *([PICTURES] if served.pictures else [])]
    if name not in known:
        raise BadInput(
            "tfserving.no-signature",
            f"there is no signature {repr(name)[:NAMES_SHOWN]}",
            hint=f"leave signature_name out, or write one of {', '.join(sorted(known[1:]))}",
        )


def check_pictures(signature: Any, inputs: Tensors, served: Served) -> None:
    """BadInput for the signature of pictures with numbers in their place."""
    given = inputs.get(served.pictures or "")
    if signature == PICTURES and given is not None and given.dtype != object:
        raise BadInput(
            "tfserving.bad-tensors",
            f"input {served.pictures} is no pictures but {given.dtype}",
            hint=f"give the files' bytes, or leave the signature {PICTURES} out",
        )


def check_names(given: Collection[str], infos: Sequence[TensorInfo], where: str) -> None:
    """BadInput if these are not the names of the inputs."""
    wanted = {info.name for info in infos}
    differ = ""
    if missing := wanted - set(given):
        differ = f"lacks {listed(sorted(missing))}"
    elif more := set(given) - wanted:
        differ = f"has {listed(sorted(more))}, which is no input"
    if differ:
        names = listed([info.name for info in infos])
        raise BadInput("tfserving.wrong-inputs", f"`{where}` {differ}", hint=f"the model takes {names}, by name")


def with_context(features: Mapping[str, Any], at: int, context: Mapping[str, Any]) -> Mapping[str, Any]:
    """The features of an example with those that all share. BadInput for one that is in both."""
    if twice := context.keys() & features.keys():
        raise BadInput("tfserving.wrong-inputs", f"{listed(sorted(twice))} is in `context` and in `examples[{at}]`")
    return {**context, **features}


def folded(array: Array, info: TensorInfo) -> Array:
    """The tensor of a feature, of which each row has the flat list of one example: the input's shape folds it."""
    sides = (len(array), *(-1 if side is None else side for side in info.shape[1:]))
    with suppress(ValueError):
        if array.dtype == object and info.datatype != BYTES and array.shape[1:] == (1,):
            return array  # pictures
        if array.ndim == 2:  # noqa: PLR2004 - examples, values
            return array if sides.count(-1) > 1 else array.reshape(sides)
    raise BadInput(
        "tfserving.bad-tensors",
        f"feature {info.name} has {list(array.shape[1:])} values for each example, the model takes {info}",
        hint="a feature is a value or a flat list of values",
    )


def statuses(server: ModelServer, named: Named) -> list[dict[str, Any]]:
    """The states of the versions that are named: all, if none is. Missing if there are none."""
    found = server.versions(named.model)
    if named.label is not None:
        labelled = server.labels(named.model).get(named.label)
        found = [one for one in found if one.version == labelled]
    elif named.version is not None:
        found = [one for one in found if one.version == named.version]
    if not found:
        raise Missing("serving.no-version", f"there is no version {named}", hint="asked without one, all are listed")
    return [_status(one) for one in found]


def signatures(served: Served) -> dict[str, Any]:
    """The SignatureDefMap of a version: the usual signature, and that of pictures if it takes them."""
    outputs = {info.name: _tensor(info) for info in served.outputs}
    usual = {"inputs": {info.name: _tensor(info) for info in served.inputs}, "outputs": outputs, "method_name": PREDICT}
    known = {DEFAULT_SIGNATURE: usual}
    if served.pictures is not None:
        rows = TensorInfo(served.pictures, BYTES, (None,))
        others = {info.name: _tensor(info) for info in served.inputs if info.name != served.pictures}
        known[PICTURES] = {**usual, "inputs": {rows.name: _tensor(rows), **others}}
    return {"signature_def": known}


def listed(names: Sequence[str]) -> str:
    """Names as messages have them: not too many."""
    text = ", ".join(names)
    return text if len(text) <= NAMES_SHOWN else f"{text[:NAMES_SHOWN]}…"


def _status(one: VersionStatus) -> dict[str, Any]:
    code = "OK" if one.error is None else rpc_code(one.error)
    status = {"error_code": code, "error_message": str(one.error) if one.error else ""}
    return {"version": str(one.version), "state": one.state, "status": status}


def _tensor(info: TensorInfo) -> dict[str, Any]:
    sides = [{"size": str(-1 if side is None else side), "name": ""} for side in info.shape]
    return {
        "dtype": TYPES[info.datatype],
        "tensor_shape": {"dim": sides, "unknown_rank": False},
        "name": info.name,
    }
