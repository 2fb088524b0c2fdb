"""Models as they are: every datatype goes in and comes out, and what a model does not take is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from relens.errors import BadInput, Broken
from relens.runtimes.graph import TYPES, Graph
from relens.tensors import BYTES, dtype_of
from relens.testing import networks

KINDS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    BYTES: TensorProto.STRING,
}


def saved(path, nodes, inputs, outputs):
    graph = helper.make_graph(
        [helper.make_node(kind, takes, gives, **more) for kind, takes, gives, more in nodes],
        "made",
        [helper.make_tensor_value_info(name, *rest) for name, *rest in inputs],
        [helper.make_tensor_value_info(name, *rest) for name, *rest in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("datatype", sorted(TYPES.values()))
def test_each_datatype_goes_in_and_comes_out_as_it_is(tmp_path, datatype):
    kind = KINDS[datatype]
    nodes = [("Identity", ["x"], ["y"], {})]
    path = saved(tmp_path / "m.onnx", nodes, [("x", kind, ["n", 2])], [("y", kind, ["n", 2])])
    graph = Graph(path)
    assert [str(info) for info in graph.inputs] == [f"x (any, 2) {datatype}"]
    given = np.empty((2, 2), object)
    given[:] = [["é".encode(), b""], [b"b", b"c"]]
    given = given if datatype == BYTES else np.array([[0, 1], [1, 0]], dtype_of(datatype))
    graph.warm_up()
    made = graph.run({"x": given})["y"]
    assert made.dtype == given.dtype
    assert made.tolist() == given.tolist()


@pytest.fixture
def pair(tmp_path):
    """Two inputs and two outputs, of which one can be asked for alone."""
    nodes = [("Add", ["a", "b"], ["sum"], {}), ("Sub", ["a", "b"], ["rest"], {})]
    given = [(name, TensorProto.FLOAT, ["n", 3]) for name in ("a", "b")]
    return Graph(saved(tmp_path / "pair.onnx", nodes, given, [("sum", *given[0][1:]), ("rest", *given[0][1:])]))


def test_outputs_are_those_that_are_wanted_in_their_order(pair):
    given = {"a": np.full((2, 3), 5, np.float32), "b": np.full((2, 3), 3, np.float32)}
    assert {name: made[0, 0] for name, made in pair.run(given).items()} == {"sum": 8, "rest": 2}
    assert list(pair.run(given, ["rest", "sum"])) == ["rest", "sum"]
    assert list(pair.run(given, ["rest"])) == ["rest"]


@pytest.mark.parametrize(
    ("a", "b", "wanted", "said"),
    [
        ((2, 3), None, (), "given was a"),
        ((2, 4), (2, 3), (), "(2, 4)"),
        ((3,), (2, 3), (), "(3,)"),
        ((2, 3), (3, 3), (), "`n` of 2 and of 3"),
        ((2, 3), (2, 3), ("product",), "product"),
    ],
)
def test_what_a_model_does_not_take_is_named(pair, a, b, wanted, said):
    given = {name: np.zeros(shape, np.float32) for name, shape in (("a", a), ("b", b)) if shape is not None}
    with pytest.raises(BadInput) as caught:
        pair.run(given, wanted)
    assert said in str(caught.value)


def test_numbers_of_another_type_are_not_converted(pair):
    with pytest.raises(BadInput, match="FP64"):
        pair.run({"a": np.zeros((1, 3)), "b": np.zeros((1, 3), np.float32)})


def test_text_that_is_none_is_refused(tmp_path):
    given = [("x", TensorProto.STRING, ["n"])]
    graph = Graph(saved(tmp_path / "m.onnx", [("Identity", ["x"], ["y"], {})], given, [("y", *given[0][1:])]))
    with pytest.raises(BadInput, match="UTF-8"):
        graph.run({"x": np.array([b"\xff"], object)})


def test_a_model_with_free_lengths_is_not_warmed_up_and_runs(tmp_path):
    given = [("x", TensorProto.FLOAT, ["n", "m"])]
    graph = Graph(saved(tmp_path / "m.onnx", [("Identity", ["x"], ["y"], {})], given, [("y", *given[0][1:])]))
    graph.warm_up()
    assert graph.run({"x": np.ones((3, 5), np.float32)})["y"].shape == (3, 5)


@pytest.mark.parametrize("data", [b"", b"no model", networks.scaler(1)[:-20]])
def test_a_file_that_is_no_model_is_broken(tmp_path, data):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(Broken) as caught:
        Graph(path)
    assert caught.value.code == "runtimes.load-failed"
