"""One spelling of a network: names and order do not matter, what it computes does."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from relens.models.canonical import canonical


def network(seed: int, *, factor: float = 2.0) -> onnx.ModelProto:
    """y = |x| * factor if the sum of x is positive, else x - 1; z = a constant. Names and orders by the seed."""
    rng = random.Random(seed)
    called = {}

    def name(key):
        return called.setdefault(key, f"{key}_{rng.random()}")

    def output(key, shape=None):
        return helper.make_tensor_value_info(key, TensorProto.FLOAT, shape)

    side = name("side")
    then = helper.make_graph(
        [helper.make_node("Mul", [name("size"), name("factor")], [name("then")])], "then", [], [output(name("then"))]
    )
    other = helper.make_graph(
        [helper.make_node("Sub", ["x", name("one")], [name("else")])],
        "else",
        [],
        [output(name("else"))],
        [numpy_helper.from_array(np.float32(1), name("one"))],
    )
    branches = [("then_branch", then), ("else_branch", other)]
    rng.shuffle(branches)
    independent = [
        helper.make_node("Abs", ["x"], [name("size")]),
        helper.make_node("ReduceSum", ["x"], [name("sum")], keepdims=0),
        helper.make_node("Neg", ["x"], [name("unused")]),
    ]
    rng.shuffle(independent)
    nodes = [
        *independent,
        helper.make_node("Greater", [name("sum"), name("zero")], [name("positive")]),
        helper.make_node("If", [name("positive")], ["y"], name=name("if"), **dict(branches)),
    ]
    weights = [
        numpy_helper.from_array(np.float32(factor), name("factor")),
        numpy_helper.from_array(np.float32(0), name("zero")),
        numpy_helper.from_array(np.float32([1, 2]), "weight_3"),
    ]
    rng.shuffle(weights)
    graph = helper.make_graph(
        nodes,
        f"made in {seed}",
        [output("x", [side, 4])],
        [output("y", [side, 4]), output("weight_3", [2])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def answers(data, x):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(["y", "weight_3"], {"x": x})


def test_names_and_order_change_no_byte():
    assert len({network(seed).SerializeToString() for seed in range(5)}) == 5
    assert len({canonical(network(seed)) for seed in range(5)}) == 1
    assert canonical(network(0)) != canonical(network(0, factor=3.0))


def test_written_again_it_stays():
    once = canonical(network(0))
    assert canonical(onnx.load_model_from_string(once)) == once


@pytest.mark.parametrize("sign", [1, -1])
def test_it_computes_what_it_computed(sign):
    x = np.float32([[1, 2, 3, 4], [5, 6, 7, 8]]) * sign
    data = canonical(network(0))
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    for found, wanted in zip(answers(data, x), answers(network(0).SerializeToString(), x), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_what_no_output_depends_on_goes():
    graph = onnx.load_model_from_string(canonical(network(0))).graph
    assert [node.op_type for node in graph.node] == ["ReduceSum", "Greater", "Abs", "If"]
    assert [one.name for one in (*graph.input, *graph.output)] == ["x", "y", "weight_3"]
