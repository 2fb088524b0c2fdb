"""Tensors in both protocols' messages: there and back, and what is no tensor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ovmsclient import make_tensor_proto
from ovmsclient.tfs_compat.grpc.tensors import make_ndarray
from ovmsclient.tfs_compat.protos.tensorflow.core.framework import tensor_pb2

from relens.errors import BadInput
from relens.rpc.fields import AT_ONCE
from relens.rpc.infer_tensors import FIELDS as CONTENTS
from relens.rpc.infer_tensors import read_request, write_response
from relens.rpc.messages import DataType, TensorProto, message
from relens.rpc.tensor_protos import read_tensor, write_tensor
from relens.serving.oip import Asked
from relens.serving.served import Inferred, Served
from relens.serving.tfserving import TYPES
from relens.tensors import BYTES, DATATYPES, datatype_of, to_bytes

ModelInferRequest = message("inference.ModelInferRequest")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMBERS = [name for name in DATATYPES if name != BYTES]
SERVED = Served("m", 1, (), (), "made-up")


def number(datatype):
    return DataType.values_by_name[TYPES[datatype]].number


@st.composite
def tensors(draw):
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    if datatype != BYTES:
        return draw(hnp.arrays(DATATYPES[datatype], SHAPES))
    return draw(hnp.arrays(object, SHAPES, elements=st.binary(max_size=9)))


def same(one, other):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    if one.dtype == object:
        assert one.tolist() == other.tolist()
    else:
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()  # NaN too


@settings(max_examples=200)
@given(array=tensors())
def test_a_tensor_proto_gives_back_what_was_written(array):
    proto = TensorProto()
    write_tensor(array, proto)
    same(read_tensor(TensorProto.FromString(proto.SerializeToString()), max_bytes=1000), array)


@settings(max_examples=100)
@given(array=tensors())
def test_openvinos_client_reads_what_is_written(array):
    proto = TensorProto()
    write_tensor(array, proto)
    read = make_ndarray(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))
    if array.dtype == object:
        assert read.tolist() == array.astype(bytes).tolist()  # its strings are numpy's, without trailing zeros
    elif array.size:
        np.testing.assert_array_equal(read, array)


@settings(max_examples=100)
@given(datatype=st.sampled_from(NUMBERS), data=st.data())
def test_tensor_content_is_read(datatype, data):
    array = data.draw(hnp.arrays(DATATYPES[datatype], SHAPES))
    proto = TensorProto(dtype=number(datatype), tensor_content=array.tobytes())
    for side in array.shape:
        proto.tensor_shape.dim.add(size=side)
    same(read_tensor(proto, max_bytes=1000), array)


def test_what_openvinos_client_makes_is_read():
    for value in (np.eye(3, dtype=np.float32), [[1, 2], [3, 4]], 3.5, [b"one", b"two"], b"\xff\xd8 a picture"):
        theirs = make_tensor_proto(value)
        ours = read_tensor(TensorProto.FromString(theirs.SerializeToString()), max_bytes=1000)
        assert ours.tolist() == make_ndarray(theirs).tolist()


@pytest.mark.parametrize(
    ("datatype", "field", "values", "expected"),
    [
        ("FP32", "float_val", [1.5], [1.5, 1.5, 1.5]),
        ("FP64", "double_val", [1.5, 2.5], [1.5, 2.5, 2.5]),
        ("INT8", "int_val", [-3], [-3, -3, -3]),
        ("FP16", "half_val", [0x3C00, 0x4000], [1, 2, 2]),
        ("BOOL", "bool_val", [True, False], [True, False, False]),
        ("BYTES", "string_val", [b"a", b"b"], [b"a", b"b", b"b"]),
        ("INT64", "int64_val", [], [0, 0, 0]),
        ("BYTES", "string_val", [], [b"", b"", b""]),
    ],
)
def test_the_last_value_is_repeated_and_none_are_zeros(datatype, field, values, expected):
    proto = TensorProto(dtype=number(datatype), **{field: values})
    proto.tensor_shape.dim.add(size=3)
    assert read_tensor(proto, max_bytes=1000).tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "shape", "fields", "says"),
    [
        (number("FP32"), [1 << 40], {"float_val": [1]}, "more than 1,000 bytes"),
        (number("BYTES"), [1 << 40], {"string_val": [b""]}, "more than 1,000 bytes"),
        (number("FP32"), [1 << 40], {"tensor_content": b"1234"}, "4 bytes for a tensor"),
        (number("FP32"), [2], {"tensor_content": b"1234567"}, "7 bytes for a tensor"),
        (number("FP32"), [1], {"float_val": [1, 2]}, "2 values for 1 elements"),
        (number("FP32"), [-1], {"float_val": [1, 2]}, "no shape"),
        (number("UINT8"), [1], {"int_val": [256]}, "a number that uint8 cannot hold"),
        (number("UINT8"), [1], {"int_val": [-1]}, "a number that uint8 cannot hold"),
        (number("FP16"), [1], {"half_val": [-1]}, "a number that uint16 cannot hold"),
        (number("BOOL"), [1], {"tensor_content": b"\2"}, "0 or 1"),
        (number("BYTES"), [1], {"tensor_content": b"\2ab"}, "string_val"),
        (14, [1], {"tensor_content": b"ab"}, "DT_BFLOAT16"),
        (99, [1], {"tensor_content": b"ab"}, "99"),
        (0, [], {}, "DT_INVALID"),
        (number("FP32"), [0] * 70, {"tensor_content": b""}, "no shape of a tensor"),
    ],
)
def test_what_is_no_tensor_is_refused(dtype, shape, fields, says):
    proto = TensorProto(dtype=dtype, **fields)
    for side in shape:
        proto.tensor_shape.dim.add(size=side)
    with pytest.raises(BadInput) as caught:
        read_tensor(proto, max_bytes=1000)
    assert says in str(caught.value)


def test_a_shape_of_unknown_rank_is_refused():
    proto = TensorProto(dtype=number("FP32"), tensor_shape={"unknown_rank": True})
    with pytest.raises(BadInput, match="no shape"):
        read_tensor(proto, max_bytes=1000)


@pytest.mark.parametrize("datatype", ["INT32", "UINT64", "FP32", "BOOL", "FP16"])
def test_many_numbers_are_the_same_as_few(datatype):
    array = (np.arange(2 * AT_ONCE + 7) % 2000).astype(DATATYPES[datatype])
    proto = TensorProto()
    write_tensor(array, proto)
    same(read_tensor(proto, max_bytes=array.nbytes), array)


def asked(array, datatype, *, raw):
    request = ModelInferRequest(model_name="m")
    given = request.inputs.add(name="x", datatype=datatype, shape=array.shape)
    if raw:
        request.raw_input_contents.append(to_bytes(array))
    else:
        getattr(given.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    return ModelInferRequest.FromString(request.SerializeToString())


@settings(max_examples=200)
@given(array=tensors(), raw=st.booleans())
def test_an_answer_has_the_form_and_the_numbers_of_its_request(array, raw):
    datatype = datatype_of(array)
    raw = raw or datatype == "FP16"
    request = read_request(asked(array, datatype, raw=raw))
    same(request.inputs["x"], array)
    response = write_response(request, Inferred("m", 1, {"y": array}, {}), SERVED)
    assert bool(response.raw_output_contents) == raw
    output = response.outputs[0]
    back = ModelInferRequest(raw_input_contents=response.raw_output_contents)
    back.inputs.add(name="x", datatype=output.datatype, shape=output.shape)
    if not raw:
        back.inputs[0].contents.CopyFrom(output.contents)
    same(read_request(back).inputs["x"], array)


def test_half_floats_make_an_answer_raw():
    outputs = {"y": np.ones(2, np.float16), "z": np.ones(2, np.float32)}
    response = write_response(Asked({}), Inferred("m", 1, outputs, {}), SERVED)
    assert [len(one) for one in response.raw_output_contents] == [4, 8]


FP32 = {"name": "x", "datatype": "FP32", "shape": [1]}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"inputs": [FP32, FP32], "raw_input_contents": [b"1234"]}, "1 `raw_input_contents` for 2 inputs"),
        ({"inputs": [FP32], "raw_input_contents": [b"123"]}, "input 'x': 3 bytes"),
        ({"inputs": [FP32, FP32], "raw_input_contents": [b"1234"] * 2}, "two inputs 'x'"),
        ({"inputs": [FP32 | {"contents": {}}], "raw_input_contents": [b"1234"]}, "`contents`"),
        ({"inputs": [FP32]}, "0 elements"),
        ({"inputs": [FP32 | {"shape": [-1]}]}, "0 elements"),
        ({"inputs": [FP32 | {"shape": [1 << 40]}]}, "0 elements"),
        ({"inputs": [FP32 | {"shape": [0] * 70}]}, "no shape"),
        ({"inputs": [FP32 | {"contents": {"int_contents": [1]}}]}, "put it into `fp32_contents`"),
        ({"inputs": [FP32 | {"datatype": "FP16"}]}, "raw_input_contents"),
        ({"inputs": [FP32 | {"datatype": "FP31"}]}, "'FP31' is no datatype"),
        ({"inputs": [FP32 | {"datatype": "INT8", "contents": {"int_contents": [128]}}]}, "int8 cannot hold"),
        ({"inputs": [FP32 | {"datatype": "BYTES"}], "raw_input_contents": [b"\xff\xff\xff\xffa"]}, "ends early"),
        ({"inputs": [FP32 | {"parameters": {"shared_memory_region": {"string_param": "s"}}}]}, "shared memory"),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": {}}}]}, "output 'y': shared memory"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "output 'y' is wanted twice"),
        ({"outputs": [{"name": "y", "parameters": {"classification": {"int64_param": -1}}}]}, "is -1"),
        ({"outputs": [{"name": "y", "parameters": {"classification": {"string_param": "1"}}}]}, "no integer"),
        ({"parameters": {"timeout": {"bool_param": True}}}, "`timeout` of the request is no integer"),
        ({"parameters": {"timeout": {"int64_param": -1}}}, "0 or more"),
    ],
)
def test_what_is_no_request_is_refused(fields, says):
    with pytest.raises(BadInput) as caught:
        read_request(ModelInferRequest(**fields))
    assert says in str(caught.value)
