"""Tensors as protocols and engines exchange them: a name, a datatype of the Open Inference Protocol, a shape, bytes.

Numbers are little-endian, rows first. Text and pictures are tensors of datatype BYTES: arrays of Python `bytes`, each
written with its length before it. Nothing is known here of models.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput

Array = NDArray[Any]
Tensors = Mapping[str, Array]

BYTES = "BYTES"
DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BYTES: np.dtype(object),
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What an input or output of a model is: `shape` with the batch, None for any length."""

    name: str
    datatype: str
    shape: tuple[int | None, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape may be given."""
        return len(shape) == len(self.shape) and all(
            wants in (None, has) for wants, has in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        sides = ", ".join("any" if side is None else str(side) for side in self.shape)
        return f"{self.name} ({sides}) {self.datatype}"


def datatype_of(array: Array) -> str:
    """The datatype of an array. BadInput for one that has none."""
    name = _NAMES.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise BadInput("tensors.no-datatype", f"{array.dtype} is no type of a tensor", hint=f"known: {_known()}")
    return name


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The type of an array's elements. BadInput for a datatype that nobody knows."""
    dtype = DATATYPES.get(datatype)
    if dtype is None:
        raise BadInput("tensors.no-datatype", f"{datatype!r} is no datatype", hint=f"known: {_known()}")
    return dtype


def to_bytes(array: Array) -> bytes:
    """The elements of an array of a known datatype."""
    if array.dtype != object:
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    parts: list[bytes] = []
    for element in array.ravel():
        parts += [_LENGTH.pack(len(element)), element]
    return b"".join(parts)


def from_bytes(data: bytes | bytearray | memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """The array of these elements; numbers are not copied. BadInput if they are not as many as the shape says."""
    dtype, view = dtype_of(datatype), memoryview(data).cast("B")
    if any(side < 0 for side in shape):
        raise BadInput("tensors.bad-shape", f"{list(shape)} is no shape of a tensor", hint="sides are 0 or more")
    count = math.prod(shape)
    if datatype == BYTES:
        return _elements(view, count, shape)
    if len(view) != count * dtype.itemsize:
        raise _wrong_size(f"{len(view):,} bytes", datatype, shape, f"{count * dtype.itemsize:,}")
    if datatype == "BOOL" and count and np.frombuffer(view, np.uint8).max() > 1:
        raise BadInput("tensors.bad-bool", "a byte of BOOL is 0 or 1")
    return shaped(np.frombuffer(view, dtype), shape)


def shaped(array: Array, shape: Sequence[int]) -> Array:
    """The elements in that shape. BadInput for one that no array can have, of nothing, with too many or long sides."""
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise BadInput("tensors.bad-shape", f"{str(list(shape))[:80]} is no shape of a tensor: {error}") from error


def pack(tensors: Tensors) -> tuple[list[list[Any]], bytes]:
    """Tensors as JSON (name, datatype, shape and bytes of each) and one body, in their order."""
    parts = [to_bytes(array) for array in tensors.values()]
    heads = [
        [name, datatype_of(array), list(array.shape), len(part)]
        for (name, array), part in zip(tensors.items(), parts, strict=True)
    ]
    return heads, parts[0] if len(parts) == 1 else b"".join(parts)


def unpack(heads: Sequence[Sequence[Any]], body: bytes) -> dict[str, Array]:
    """The inverse of `pack`; numbers are not copied."""
    view, at = memoryview(body), 0
    tensors: dict[str, Array] = {}
    for name, datatype, shape, size in heads:
        tensors[name] = from_bytes(view[at : at + size], datatype, shape)
        at += size
    return tensors


def _elements(view: memoryview, count: int, shape: Sequence[int]) -> Array:
    found: list[bytes] = []
    at = 0
    while at < len(view) and len(found) < count:
        if at + _LENGTH.size > len(view):
            break
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if at + length > len(view):
            raise _wrong_size("an element that ends early", BYTES, shape, "all of it")
        found.append(bytes(view[at : at + length]))
        at += length
    if len(found) != count or at != len(view):
        raise _wrong_size(f"{len(view):,} bytes with {len(found)} elements", BYTES, shape, f"{count} elements")
    array = np.empty(count, object)
    array[:] = found
    return shaped(array, shape)


def _wrong_size(given: str, datatype: str, shape: Sequence[int], wanted: str) -> BadInput:
    return BadInput("tensors.wrong-size", f"{given} for a tensor {list(shape)} of {datatype}, which takes {wanted}")


def _known() -> str:
    return ", ".join(DATATYPES)
