"""Tensors out of a checkpoint in torch's older format, without torch and without trusting the file.

Such a file is five pickles followed by the raw storages. A pickle is a program that may call anything; here it is run
by a reader of our own that knows the few opcodes a list of tensors needs, admits an explicit list of names and calls
none of them, so that a hostile file can be refused but cannot do anything. The newer zip format is not read.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput

_ZIP_MAGIC = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_PICKLE_PROTOCOL = 2
_MOST_DIMENSIONS = 8
_MOST_QUOTED = 200

_STORAGES: Final[Mapping[str, str]] = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "|i1",
    "torch.ByteStorage": "|u1",
}
_ADMITTED = frozenset({"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", *_STORAGES})


def read_checkpoint(data: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict by name, in the file's order; read-only, in the dtype that they were saved in.

    BadInput `models.unsafe-checkpoint` names what the file wanted beyond tensors. BadInput `models.bad-checkpoint` is
    for a file that is truncated, of another format, or whose tensors reach outside of their storages.
    Tensors may share memory, as they did when they were saved: the result never takes more than the file.
    """
    if data.startswith(_ZIP_MAGIC):
        raise BadInput(
            "models.bad-checkpoint",
            "the checkpoint is in torch's newer zip format, which is not read",
            hint="save it again with torch.save(..., _use_new_zipfile_serialization=False)",
        )
    try:
        return _read(io.BytesIO(data))
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise BadInput(
            "models.bad-checkpoint",
            f"the file is truncated, or no checkpoint in torch's older format: {str(error)[:_MOST_QUOTED]}",
            hint="compare its size and SHA-256 with those of the source",
        ) from error


@dataclass(frozen=True, slots=True)
class _Name:
    dotted: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _read(stream: io.BytesIO) -> dict[str, NDArray[Any]]:
    if _Unpickler().load(stream) != _MAGIC:
        raise ValueError("the magic number is missing")
    if _Unpickler().load(stream) != _PROTOCOL:
        raise ValueError("unknown protocol version")
    match _Unpickler().load(stream):
        case {"little_endian": True}:
            pass
        case _:
            raise ValueError("the storages are not little-endian")
    unpickler = _Unpickler()
    tensors = unpickler.load(stream)
    if not (isinstance(tensors, dict) and all(isinstance(tensor, _Tensor) for tensor in tensors.values())):
        raise ValueError("it holds something else than one flat list of named tensors")
    buffers = _read_storages(stream, unpickler.storages)
    return {name: _array(name, tensor, buffers[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_storages(stream: io.BytesIO, storages: Mapping[str, _Storage]) -> dict[str, bytes]:
    keys = _Unpickler().load(stream)
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys) and sorted(keys) == sorted(storages)):
        raise ValueError("the storages that it lists are not those that its tensors use")
    buffers = {key: _read_storage(stream, storages[key]) for key in keys}
    if stream.read(1):
        raise ValueError("there is more after the last storage")
    return buffers


def _read_storage(stream: io.BytesIO, storage: _Storage) -> bytes:
    count = int.from_bytes(stream.read(8), "little")
    if count != storage.count:
        raise ValueError(f"storage {storage.key} has {count} elements where {storage.count} were announced")
    length = count * np.dtype(storage.dtype).itemsize
    buffer = stream.read(length)
    if len(buffer) != length:
        raise ValueError(f"storage {storage.key} ends after {len(buffer)} of {length} bytes")
    return buffer


def _array(name: str, tensor: _Tensor, buffer: bytes) -> NDArray[Any]:
    numbers = (tensor.offset, *tensor.size, *tensor.stride)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"tensor {name} has an offset, size or stride that is no count")
    if len(tensor.size) != len(tensor.stride) or len(tensor.size) > _MOST_DIMENSIONS:
        raise ValueError(f"tensor {name} has {len(tensor.size)} dimensions and {len(tensor.stride)} strides")
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    # The second condition refuses tensors that repeat a small storage: they would grow without bound when copied.
    if not (0 <= last < tensor.storage.count and 1 <= math.prod(tensor.size) <= tensor.storage.count):
        raise ValueError(f"tensor {name} reaches outside of its storage, or is empty")
    dtype = np.dtype(tensor.storage.dtype)
    strides = tuple(step * dtype.itemsize for step in tensor.stride)
    return np.ndarray(tensor.size, dtype, buffer, tensor.offset * dtype.itemsize, strides)


class _Unpickler:
    """Runs one pickle of protocol 2 as far as it makes plain values, tensors and storages. It has no way to call.

    Not built on the standard unpickler: that one lets a file set attributes of what it was given, allocate by
    announcing and recurse through keys until the process dies.
    """

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self, stream: io.BytesIO) -> Any:
        """The value of the pickle at the stream's position, which is then behind it."""
        while (opcode := _next_opcode(stream)).name != "STOP":
            _STEPS[opcode.name](self, _argument(stream, opcode))
        return self._stack.pop()

    def require_protocol(self, protocol: int) -> None:
        if protocol != _PICKLE_PROTOCOL:
            raise ValueError(f"it is pickled in protocol {protocol}, only {_PICKLE_PROTOCOL} is read")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def remember(self, slot: int) -> None:
        self._memo[slot] = self._stack[-1]

    def recall(self, slot: int) -> None:
        self.push(self._memo[slot])

    def pop_marked(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def pop(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise TypeError("it appends to what is no list")
        target.extend(values)

    def set_items(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        keys, values = pairs[::2], pairs[1::2]
        if not (isinstance(target, dict) and all(isinstance(key, str) for key in keys)):
            raise TypeError("it sets items of what is no dictionary of names")
        target.update(zip(keys, values, strict=True))

    def admit(self, dotted: str) -> None:
        if dotted not in _ADMITTED:
            raise _unsafe(dotted)
        self.push(_Name(dotted))

    def refer(self) -> None:
        match self._stack.pop():
            case ("storage", _Name(kind), str(key), str(), int(count), None) if kind in _STORAGES:
                storage = _Storage(_STORAGES[kind], key, count)
            case _:
                raise ValueError("it refers to something else than a whole storage")
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} is announced in two ways")
        self.push(storage)

    def reduce(self) -> None:
        match self.pop(2):
            case [_Name("collections.OrderedDict"), ()]:
                self.push({})
            case [_Name("torch._utils._rebuild_tensor_v2"), (_Storage(), int(), tuple(), tuple(), *_) as arguments]:
                self.push(_Tensor(*arguments[:4]))
            case [_Name(dotted), _]:
                raise _unsafe(f"to call {dotted} in an unknown way")
            case _:
                raise TypeError("it calls what has no name")

    def drop_state(self) -> None:
        """A state dict carries its modules' versions as attributes; nobody here asks for them."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise TypeError("it sets attributes of what is no dictionary")


def _next_opcode(stream: io.BytesIO) -> pickletools.OpcodeInfo:
    code = stream.read(1).decode("latin-1")
    if code not in _OPCODES:
        raise ValueError(f"byte {stream.tell()} is no opcode of a pickle")
    opcode = _OPCODES[code]
    if opcode.name not in _STEPS and opcode.name != "STOP":
        raise _unsafe(f"the pickle opcode {opcode.name}")
    return opcode


def _argument(stream: io.BytesIO, opcode: pickletools.OpcodeInfo) -> Any:
    if opcode.name == "GLOBAL":  # the standard reader would resolve escapes in the name
        return f"{_line(stream)}.{_line(stream)}"
    return opcode.arg.reader(stream) if opcode.arg else None


def _line(stream: io.BytesIO) -> str:
    line = stream.readline().decode("ascii")
    if not line.endswith("\n"):
        raise ValueError("it ends within a name")
    return line[:-1]


def _unsafe(wanted: str) -> BadInput:
    return BadInput(
        "models.unsafe-checkpoint",
        f"the checkpoint holds more than tensors, it wants {wanted[:_MOST_QUOTED]}",
        hint="a checkpoint may run any program when it is loaded; take only a state dict, from a source you trust",
    )


_OPCODES: Final = {opcode.code: opcode for opcode in pickletools.opcodes}
_STEPS: Final[Mapping[str, Callable[[_Unpickler, Any], None]]] = {
    "PROTO": _Unpickler.require_protocol,
    "NONE": lambda run, _: run.push(None),
    "NEWTRUE": lambda run, _: run.push(True),
    "NEWFALSE": lambda run, _: run.push(False),
    "BININT": _Unpickler.push,
    "BININT1": _Unpickler.push,
    "BININT2": _Unpickler.push,
    "LONG1": _Unpickler.push,
    "BINUNICODE": _Unpickler.push,
    "EMPTY_TUPLE": lambda run, _: run.push(()),
    "EMPTY_LIST": lambda run, _: run.push([]),
    "EMPTY_DICT": lambda run, _: run.push({}),
    "MARK": lambda run, _: run.mark(),
    "BINPUT": _Unpickler.remember,
    "LONG_BINPUT": _Unpickler.remember,
    "BINGET": _Unpickler.recall,
    "LONG_BINGET": _Unpickler.recall,
    "TUPLE": lambda run, _: run.push(tuple(run.pop_marked())),
    "TUPLE1": lambda run, _: run.push(tuple(run.pop(1))),
    "TUPLE2": lambda run, _: run.push(tuple(run.pop(2))),
    "TUPLE3": lambda run, _: run.push(tuple(run.pop(3))),
    "APPEND": lambda run, _: run.extend(run.pop(1)),
    "APPENDS": lambda run, _: run.extend(run.pop_marked()),
    "SETITEM": lambda run, _: run.set_items(run.pop(2)),
    "SETITEMS": lambda run, _: run.set_items(run.pop_marked()),
    "GLOBAL": _Unpickler.admit,
    "BINPERSID": lambda run, _: run.refer(),
    "REDUCE": lambda run, _: run.reduce(),
    "BUILD": lambda run, _: run.drop_state(),
}
