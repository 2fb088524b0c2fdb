"""TensorFlow's TensorProto as an array, and back: `tensor_content`, or values in the field of their type.

Source: tensorflow/core/framework/tensor.{proto,cc} and tensorflow/python/framework/tensor_util.py: of values that are
fewer than the elements the last is repeated; none at all are zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from relens.errors import BadInput
from relens.rpc.fields import FIXED, numbers_of, put_numbers
from relens.rpc.messages import DataType
from relens.serving.tfserving import TYPES
from relens.tensors import BYTES, DATATYPES, Array, datatype_of, from_bytes, shaped

BAD_TENSOR = "tfserving.bad-tensors"
HALF = "half_val"
FIELDS = {
    "BOOL": "bool_val",
    **dict.fromkeys(("INT8", "INT16", "INT32", "UINT8", "UINT16"), "int_val"),
    "UINT32": "uint32_val",
    "INT64": "int64_val",
    "UINT64": "uint64_val",
    "FP16": HALF,
    "FP32": "float_val",
    "FP64": "double_val",
    BYTES: "string_val",
}
NUMBERS = {name: DataType.values_by_name[name].number for name in TYPES.values()}
DATATYPE_OF = {NUMBERS[name]: datatype for datatype, name in TYPES.items()}


def read_tensor(proto: Any, *, max_bytes: int) -> Array:
    """The tensor that a TensorProto is. BadInput if it is none.

    max_bytes  of its elements: values that are repeated could be any number
    """
    datatype = DATATYPE_OF.get(proto.dtype)
    if datatype is None:
        known = DataType.values_by_number.get(proto.dtype)
        called = proto.dtype if known is None else known.name
        raise _bad(f"it is of type {called}, which is not served", f"known: {', '.join(NUMBERS)}")
    shape = _shape(proto.tensor_shape)
    if proto.tensor_content and datatype != BYTES:
        return from_bytes(proto.tensor_content, datatype, shape)
    if proto.tensor_content:
        raise _bad("it has strings in `tensor_content`", "put them into `string_val`")
    count = math.prod(shape)
    if count * DATATYPES[datatype].itemsize > max_bytes:
        raise _bad(f"it is {list(shape)}, which has more than {max_bytes:,} bytes")
    if (given := len(getattr(proto, FIELDS[datatype]))) > count:
        raise _bad(f"it has {given} values for {count} elements")
    return shaped(_filled(_values(proto, datatype), count), shape)


def elements_to_read(proto: Any) -> int:
    """How many elements reading goes over one by one: none of those that lie in bytes."""
    return 0 if proto.tensor_content else math.prod(dim.size for dim in proto.tensor_shape.dim)


def elements_to_write(arrays: Iterable[Array]) -> int:
    """How many elements writing goes over one by one: floats are copied."""
    return sum(array.size for array in arrays if array.dtype.str[1:] not in FIXED)


def write_tensor(array: Array, proto: Any) -> None:
    """Fill a TensorProto with an array: in the field of its type, as TensorFlow Serving answers."""
    datatype = datatype_of(array)
    proto.dtype = NUMBERS[TYPES[datatype]]
    dims = proto.tensor_shape.dim
    for side in array.shape:
        dims.add(size=side)
    if datatype == BYTES:
        proto.string_val.extend(array.ravel().tolist())
    else:
        put_numbers(proto, FIELDS[datatype], array.view(np.uint16) if datatype == "FP16" else array)


def _shape(given: Any) -> tuple[int, ...]:
    sides = tuple(dim.size for dim in given.dim)
    if given.unknown_rank or any(side < 0 for side in sides):
        raise _bad("it has no shape", "write the length of every side")
    return sides


def _values(proto: Any, datatype: str) -> Array:
    field = FIELDS[datatype]
    if datatype == BYTES:
        return _strings(proto.string_val)
    if field == HALF:
        return numbers_of(proto, field, np.dtype("<u2")).view(DATATYPES[datatype])
    return numbers_of(proto, field, DATATYPES[datatype])


def _strings(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _filled(values: Array, count: int) -> Array:
    if len(values) == count:
        return values
    filled = np.zeros(count, values.dtype) if values.dtype != object else np.full(count, b"", object)
    if len(values):
        filled[: len(values)] = values
        filled[len(values) :] = values[-1]
    return filled


def _bad(why: str, hint: str = "") -> BadInput:
    return BadInput(BAD_TENSOR, why, hint=hint)
