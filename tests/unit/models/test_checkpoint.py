"""The reader against checkpoints written by hand: torch's older format, with persistent ids for storages."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.errors import BadInput
from relens.models.checkpoint import read_checkpoint

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


@dataclass(frozen=True)
class Global:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    what: Any
    arguments: Any


@dataclass(frozen=True)
class Persistent:
    id: Any


@dataclass(frozen=True)
class Build:
    target: Any
    state: Any


FLOATS = Global("torch", "FloatStorage")
REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
ORDERED = Call(Global("collections", "OrderedDict"), ())


def joined(values: Any) -> bytes:
    return b"".join(map(opcodes, values))


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


WRITERS = {
    type(None): lambda _: b"N",
    bool: lambda value: b"\x88" if value else b"\x89",
    int: number,
    str: lambda text: b"X" + struct.pack("<I", len(text.encode())) + text.encode(),
    tuple: lambda values: b"(" + joined(values) + b"t",
    list: lambda values: b"](" + joined(values) + b"e",
    dict: lambda items: b"}(" + joined(value for item in items.items() for value in item) + b"u",
    Global: lambda found: f"c{found.module}\n{found.name}\n".encode(),
    Call: lambda call: joined((call.what, call.arguments)) + b"R",
    Persistent: lambda held: opcodes(held.id) + b"Q",
    Build: lambda build: joined((build.target, build.state)) + b"b",
}


def opcodes(value: Any) -> bytes:
    return WRITERS[type(value)](value)


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + opcodes(value) + b"."


def storage(key: str, count: int, kind: Global = FLOATS, view: Any = None) -> Persistent:
    return Persistent(("storage", kind, key, "cpu", count, view))


def tensor(held: Any, size: Any, stride: Any, offset: Any = 0) -> Call:
    return Call(REBUILD, (held, offset, size, stride, False, ORDERED))


def raw(*arrays: np.ndarray) -> bytes:
    return b"".join(struct.pack("<q", array.size) + array.tobytes() for array in arrays)


def checkpoint(tensors: Any, storages: dict[str, np.ndarray], *, system: Any = SYSTEM, protocol: int = 1001) -> bytes:
    """`tensors` may be bytes, which then stand in for the whole fourth pickle."""
    body = tensors if isinstance(tensors, bytes) else pickled(tensors)
    head = pickled(MAGIC) + pickled(protocol) + pickled(system)
    return head + body + pickled(list(storages)) + raw(*storages.values())


SIX = np.arange(6, dtype=np.float32)
GOOD = checkpoint(
    {
        "weight": tensor(storage("k1", 6), (2, 3), (3, 1)),
        "turned": tensor(storage("k1", 6), (3, 2), (1, 3)),
        "tail": tensor(storage("k1", 6), (2,), (1,), 4),
        "count": tensor(storage("k2", 1, Global("torch", "LongStorage")), (), ()),
    },
    {"k1": SIX, "k2": np.array([7], np.int64)},
)


def refused(data: bytes, code: str = "models.bad-checkpoint") -> str:
    with pytest.raises(BadInput) as caught:
        read_checkpoint(data)
    assert caught.value.code == code
    return str(caught.value)


def one(size: Any, stride: Any, offset: Any = 0, count: int = 6) -> bytes:
    return checkpoint({"w": tensor(storage("k", count), size, stride, offset)}, {"k": SIX})


def test_tensors_come_back_by_name_in_their_order_with_shape_stride_and_dtype():
    tensors = read_checkpoint(GOOD)
    assert list(tensors) == ["weight", "turned", "tail", "count"]
    assert np.array_equal(tensors["weight"], SIX.reshape(2, 3))
    assert np.array_equal(tensors["turned"], SIX.reshape(2, 3).T)
    assert np.array_equal(tensors["tail"], [4, 5])
    assert tensors["count"].shape == ()
    assert tensors["count"] == 7
    assert [array.dtype for array in tensors.values()] == [np.float32] * 3 + [np.int64]
    assert not tensors["weight"].flags.writeable


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("Double", "f8"), ("Half", "f2"), ("Int", "i4"), ("Short", "i2"), ("Char", "i1"), ("Byte", "u1")],
)
def test_every_admitted_kind_of_storage_is_read(kind, dtype):
    values = np.array([1, 2, 3], dtype)
    held = storage("k", 3, Global("torch", f"{kind}Storage"))
    tensors = read_checkpoint(checkpoint({"w": tensor(held, (3,), (1,))}, {"k": values}))
    assert tensors["w"].dtype == dtype
    assert np.array_equal(tensors["w"], values)


def test_an_ordered_dict_with_the_versions_of_its_modules_is_read():
    item = opcodes("w") + opcodes(tensor(storage("k", 6), (6,), (1,))) + b"s"
    body = b"\x80\x02" + opcodes(ORDERED) + item + opcodes({"_metadata": {"": {"version": 1}}}) + b"b."
    assert list(read_checkpoint(checkpoint(body, {"k": SIX}))) == ["w"]


def test_values_remembered_and_recalled_are_the_same_values():
    name = opcodes("w") + b"q\x00" + opcodes(tensor(storage("k", 6), (6,), (1,))) + b"s"
    body = b"\x80\x02}" + name + b"h\x00" + opcodes(tensor(storage("k", 6), (2,), (1,))) + b"s."
    assert np.array_equal(read_checkpoint(checkpoint(body, {"k": SIX}))["w"], [0, 1])


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("where", ["first", "tensors", "last"])
def test_a_pickle_that_would_run_a_command_is_refused_by_name_and_runs_nothing(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = pickle.dumps(Evil(), protocol=2)
    prefix = pickled(MAGIC) + pickled(1001) + pickled(SYSTEM)
    data = {"first": evil, "tensors": checkpoint(evil, {}), "last": prefix + pickled({}) + evil}[where]
    assert f"{os.system.__module__}.system" in refused(data, "models.unsafe-checkpoint")
    assert not list(tmp_path.iterdir())


def test_other_pickle_protocols_are_refused():
    for protocol in (0, 3, 4, 5):
        with pytest.raises(BadInput):
            read_checkpoint(checkpoint(pickle.dumps(Evil(), protocol=protocol), {}))


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "eval"), ("torch", "load"), ("torch._utils", "_rebuild_parameter"), ("\\x74orch", "FloatStorage")],
)
def test_a_name_off_the_list_is_refused_even_if_nothing_calls_it(module, name):
    assert f"{module}.{name}" in refused(checkpoint({"w": Global(module, name)}, {}), "models.unsafe-checkpoint")


@pytest.mark.parametrize(
    "call",
    [
        Call(FLOATS, (3,)),
        Call(Global("collections", "OrderedDict"), ([],)),
        Call(REBUILD, ()),
        Call(REBUILD, ("a", 0, (1,), (1,), False, None)),
        Call(REBUILD, (storage("k", 6), 0, [1], [1], False, None)),
    ],
)
def test_an_admitted_name_called_in_another_way_is_refused(call):
    assert "to call" in refused(checkpoint({"w": call}, {"k": SIX}), "models.unsafe-checkpoint")


@pytest.mark.parametrize("opcode", [b"0", b"2", b"\x81", b"\x82\x01", b"V1\n", b"\x93", b"\x95" + bytes(8)])
def test_an_opcode_that_tensors_do_not_need_is_refused(opcode):
    body = b"\x80\x02" + opcodes(ORDERED) + opcode + b"."
    assert "opcode" in refused(checkpoint(body, {}), "models.unsafe-checkpoint")


@pytest.mark.parametrize(
    "value",
    [
        Build(REBUILD, {"__code__": 1}),
        Build(tensor(storage("k", 6), (6,), (1,)), (None, {"size": (10**9,)})),
        Call("text", ()),
        {1: 2},
        [1, 2],
        {"epoch": 3, "state_dict": {"w": tensor(storage("k", 6), (6,), (1,))}},
    ],
)
def test_what_is_no_flat_list_of_tensors_is_refused(value):
    refused(checkpoint(value, {"k": SIX}))


@pytest.mark.parametrize(
    "body",
    [b".", b"R.", b"t.", b"h\x05.", b"q\x00.", b"u.", b"s.", b"a.", b"Q.", b"b.", b"](u.", b"}(a.", b"}(X\0\0\0\0u."],
)
def test_a_pickle_that_takes_what_is_not_there_is_refused(body):
    refused(checkpoint(b"\x80\x02" + body, {}))


def test_nesting_and_huge_announcements_cost_nothing():
    nested = b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."
    refused(checkpoint(nested, {}))
    refused(checkpoint(b"\x80\x02X\xff\xff\xff\xff.", {}))
    far = b"\x80\x02}r\xff\xff\xff\xff."
    assert read_checkpoint(checkpoint(far, {})) == {}


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (4, 1), 0),
        ((2,), (6,), 0),
        ((1,), (1,), 6),
        ((1,), (1,), -1),
        ((2,), (-1,), 3),
        ((-2, -3), (3, 1), 0),
        ((6, 1), (1,), 0),
        ((10**12,), (0,), 0),
        ((0,), (1,), 0),
        ((2**70,), (1,), 0),
        ((2,), (2**70,), 0),
        ((1,), (2**70,), 0),
        (("6",), (1,), 0),
        ((6,), (True,), 0),
        ((1,) * 9, (1,) * 9, 0),
    ],
)
def test_a_tensor_that_reaches_outside_of_its_storage_is_refused(size, stride, offset):
    refused(one(size, stride, offset))


@pytest.mark.parametrize("count", [5, 7, -6, 2**62])
def test_a_storage_of_another_length_than_announced_is_refused(count):
    refused(one((1,), (1,), count=count))


def test_storages_have_to_be_announced_once_and_all_be_there():
    w = tensor(storage("k", 6), (6,), (1,))
    doubled = tensor(storage("k", 3, Global("torch", "DoubleStorage")), (3,), (1,))
    refused(checkpoint({"w": w}, {}))
    refused(checkpoint({"w": w}, {"k": SIX, "more": SIX}))
    assert "two ways" in refused(checkpoint({"w": w, "v": doubled}, {"k": SIX}))
    refused(checkpoint({"w": tensor(storage("k", 6, view=("v", 0, 6)), (6,), (1,))}, {"k": SIX}))
    refused(checkpoint({"w": tensor(storage("k", 6, kind=REBUILD), (6,), (1,))}, {"k": SIX}))
    refused(GOOD + b"\0")


def test_the_zip_format_is_refused_with_the_way_to_convert_it():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    message = refused(buffer.getvalue())
    assert "newer zip format" in message
    assert "_use_new_zipfile_serialization=False" in message


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0JFIF", b"hello world", pickle.dumps([1], 2), bytes(100)])
def test_a_file_of_another_kind_is_refused(data):
    with pytest.raises(BadInput):
        read_checkpoint(data)


def test_other_versions_and_byte_orders_are_refused():
    refused(checkpoint({}, {}, protocol=1002))
    refused(checkpoint({}, {}, system={"little_endian": False}))
    refused(checkpoint({}, {}, system=[]))


def test_a_file_cut_anywhere_is_refused():
    for length in range(len(GOOD)):
        refused(GOOD[:length])


def size_or_code(data: bytes) -> int | str:
    try:
        return sum(len(array.tobytes()) for array in read_checkpoint(data).values())
    except BadInput as error:
        return error.code


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_a_damaged_file_gives_tensors_or_a_refusal_and_never_anything_else(at, junk):
    result = size_or_code(GOOD[:at] + junk + GOOD[at + len(junk) :])
    assert isinstance(result, int) or result in {"models.bad-checkpoint", "models.unsafe-checkpoint"}
