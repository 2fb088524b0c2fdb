"""What only ONNX files can get wrong."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from relens.errors import BadInput, Broken
from relens.runtimes import ModelSpec, OnnxRuntime


def spec_of(path, nodes, inputs, outputs=None, *, shape=(4,)):
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in (outputs or [("y", TensorProto.FLOAT)])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return ModelSpec("onnx", path, "x", shape, {"vector": "y"}, "fp32")


def refusal(spec):
    with pytest.raises(Broken) as caught:
        OnnxRuntime().load(spec)
    return caught.value


def test_an_input_of_another_name_is_named(tmp_path):
    spec = spec_of(tmp_path / "m", [helper.make_node("Relu", ["z"], ["y"])], [("z", TensorProto.FLOAT, ["n", 4])])
    error = refusal(spec)
    assert error.code == "runtimes.load-failed"
    assert "['z']" in error.message
    assert "'x'" in error.message


def test_a_second_input_is_refused_when_loading_and_not_when_running(tmp_path):
    inputs = [("x", TensorProto.FLOAT, ["n", 4]), ("z", TensorProto.FLOAT, ["n", 4])]
    error = refusal(spec_of(tmp_path / "m", [helper.make_node("Add", ["x", "z"], ["y"])], inputs))
    assert error.code == "runtimes.load-failed"


def test_an_input_that_is_no_number_is_refused(tmp_path):
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    error = refusal(spec_of(tmp_path / "m", [node], [("x", TensorProto.BOOL, ["n", 4])]))
    assert error.code == "runtimes.load-failed"
    assert "bool" in error.message


def test_an_output_that_is_no_number_is_refused(tmp_path):
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BOOL)
    inputs = [("x", TensorProto.FLOAT, ["n", 4])]
    error = refusal(spec_of(tmp_path / "m", [node], inputs, [("y", TensorProto.BOOL)]))
    assert error.code == "runtimes.wrong-outputs"
    assert "bool" in error.message


def test_other_numbers_are_taken_and_given_as_float32(tmp_path):
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)
    inputs = [("x", TensorProto.UINT8, ["n", 4])]
    session = OnnxRuntime().load(spec_of(tmp_path / "m", [node], inputs, [("y", TensorProto.INT64)]))
    given = session.run(np.array([[1, 2, 3, 250]], np.float32))["vector"]
    assert given.dtype == np.float32
    assert given.tolist() == [[1, 2, 3, 250]]


def test_a_side_that_the_card_leaves_free_takes_any_length(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    spec = spec_of(tmp_path / "m", [node], [("x", TensorProto.FLOAT, ["n", 2, "b"])], shape=(2, None))
    session = OnnxRuntime().load(spec)
    assert [session.run(np.ones((1, 2, wide), np.float32))["vector"].shape[2] for wide in (1, 9)] == [1, 9]
    with pytest.raises(BadInput):
        session.run(np.ones((1, 3, 9), np.float32))


def test_free_sides_are_taken_at_the_size_of_the_card(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    spec = spec_of(tmp_path / "m", [node], [("x", TensorProto.FLOAT, ["n", "a", "b"])], shape=(2, 3))
    assert OnnxRuntime().load(spec).run(np.ones((2, 2, 3), np.float32))["vector"].shape == (2, 2, 3)


def test_an_output_without_the_batch_is_broken_and_not_passed_on(tmp_path):
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=0)
    session = OnnxRuntime().load(spec_of(tmp_path / "m", [node], [("x", TensorProto.FLOAT, ["n", 4])]))
    with pytest.raises(Broken) as caught:
        session.run(np.ones((3, 4), np.float32))
    assert caught.value.code == "runtimes.run-failed"


def test_what_fails_inside_the_model_is_broken(tmp_path):
    nodes = [
        helper.make_node("Constant", [], ["seven"], value_ints=[7, 7]),
        helper.make_node("Reshape", ["x", "seven"], ["y"]),
    ]
    session = OnnxRuntime().load(spec_of(tmp_path / "m", nodes, [("x", TensorProto.FLOAT, ["n", 4])]))
    with pytest.raises(Broken) as caught:
        session.run(np.ones((3, 4), np.float32))
    assert caught.value.code == "runtimes.run-failed"
    assert caught.value.__cause__ is not None


def test_nothing_is_printed_while_loading_and_running(tmp_path, capfd):
    spec = spec_of(tmp_path / "m", [helper.make_node("Relu", ["x"], ["y"])], [("x", TensorProto.FLOAT, ["n", 4])])
    OnnxRuntime().load(spec).run(np.ones((1, 4), np.float32))
    assert capfd.readouterr() == ("", "")
