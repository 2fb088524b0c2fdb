"""Tensors as bytes and back: every datatype, every shape, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from relens.errors import BadInput
from relens.tensors import BYTES, DATATYPES, TensorInfo, datatype_of, from_bytes, to_bytes

NUMBERS = [dtype for name, dtype in DATATYPES.items() if name != BYTES]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)))
def test_numbers_come_back(array):
    again = from_bytes(to_bytes(array), datatype_of(array), array.shape)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


@given(st.lists(st.binary(max_size=20), max_size=12), st.booleans())
def test_texts_come_back(texts, in_rows):
    array = np.empty(len(texts), object)
    array[:] = texts
    if in_rows and len(texts) % 2 == 0:
        array = array.reshape(2, -1)
    again = from_bytes(to_bytes(array), datatype_of(array), array.shape)
    assert again.tolist() == array.tolist()


def test_numbers_of_another_order_are_turned():
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    assert to_bytes(array.T) == np.arange(6, dtype="<f4").reshape(2, 3).T.tobytes()
    assert datatype_of(array) == "FP32"


@pytest.mark.parametrize(
    ("data", "datatype", "shape"),
    [
        (b"123", "FP32", (1,)),
        (b"1234", "FP32", (2,)),
        (b"1234", "FP33", (1,)),
        (b"1234", "FP32", (-1,)),
        (b"", "FP32", (0, 2**70)),
        (b"", "FP32", (0,) * 70),
        (b"", "BYTES", (1,)),
        (b"\x01\x00\x00", "BYTES", (1,)),
        (b"\x02\x00\x00\x00a", "BYTES", (1,)),
        (b"\x01\x00\x00\x00a", "BYTES", (2,)),
        (b"\x01\x00\x00\x00ab", "BYTES", (1,)),
        (b"\x00\x00\x00\x00", "BYTES", (0,)),
    ],
)
def test_bytes_that_are_no_such_tensor_are_refused(data, datatype, shape):
    with pytest.raises(BadInput):
        from_bytes(data, datatype, shape)


def test_an_array_without_a_datatype_is_refused():
    with pytest.raises(BadInput):
        datatype_of(np.array(["x"]))


def test_a_shape_fits_where_any_length_will_do():
    info = TensorInfo("x", "FP32", (None, 4))
    assert [info.fits(shape) for shape in [(7, 4), (0, 4), (7, 3), (4,), (1, 4, 1)]] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert str(info) == "x (any, 4) FP32"
