"""Repeated numbers of messages as arrays, and back, without a step of Python for each.

Protobuf gives them to Python one by one. Floats lie in its wire format as in an array, so they go through that;
integers do not (they are varints) and go through a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from relens.errors import BadInput
from relens.tensors import Array

LENGTH_DELIMITED = 2
FIXED = {"f4", "f8"}
AT_ONCE = 1 << 16
"""Elements that become objects of Python, or are made of them, in some milliseconds. More keep an event loop from
others, so they are taken in a thread, and in parts: each is one step, during which no other thread runs."""

Done = TypeVar("Done")


async def run(work: Callable[[], Done], *, elements: int) -> Done:
    """What the work gives; in a thread if it goes over many elements."""
    return await asyncio.to_thread(work) if elements > AT_ONCE else work()


def numbers_of(owner: Any, field: str, dtype: np.dtype[Any]) -> Array:
    """The numbers of a repeated field. BadInput for one that the type cannot hold.

    owner  a message that holds nothing else of size
    """
    values = getattr(owner, field)
    if dtype.str[1:] in FIXED:
        only = type(owner)()
        getattr(only, field).MergeFrom(values)
        data = only.SerializeToString()
        return np.frombuffer(data, dtype, len(values), len(data) - len(values) * dtype.itemsize)
    try:
        parts = [np.array(values[at : at + AT_ONCE], dtype) for at in range(0, len(values), AT_ONCE)]
    except OverflowError as error:
        raise BadInput("rpc.bad-tensor", f"`{field}` has a number that {dtype.name} cannot hold") from error
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def put_numbers(owner: Any, field: str, array: Array) -> None:
    """Add the numbers of an array, rows first, to a repeated field."""
    if array.dtype.str[1:] in FIXED:
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        tag = owner.DESCRIPTOR.fields_by_name[field].number << 3 | LENGTH_DELIMITED
        owner.MergeFromString(_varint(tag) + _varint(len(data)) + data)
    else:
        values, flat = getattr(owner, field), array.ravel()
        for at in range(0, len(flat), AT_ONCE):
            values.extend(flat[at : at + AT_ONCE].tolist())


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits in each byte
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
