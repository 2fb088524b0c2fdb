"""Small networks in ONNX, made on the spot: a detector of coloured signs, an embedder, a classifier, a multiplier.

They are shaped like what people bring, and cost nothing: the detector's weights are written down, the others' are
random but always the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIGNS = ("red", "green", "blue")
STRIDE = 32


def yolo(*, side_px: int = 320) -> bytes:
    """A detector as YOLOv8 is exported: (n, 3, side, side) of 0 to 1 to (n, 4 + 3, cells).

    Each cell of 32 pixels is a finding of that size, red, green or blue if it is bright in that channel alone.
    """
    cells = side_px // STRIDE
    down, across = np.divmod(np.arange(cells * cells), cells)
    size = np.full(cells * cells, STRIDE)
    boxes = np.stack([(across + 0.5) * STRIDE, (down + 0.5) * STRIDE, size, size])[None].astype(np.float32)
    weights = {
        "kernel": (18 * np.eye(3) - 12).reshape(3, 3, 1, 1),
        "bias": np.full(3, 2.0) - 6,
        "boxes": boxes,
        "nothing": np.zeros(1),
    }
    nodes = [
        _node("AveragePool", ["images"], "cells", kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        _node("Conv", ["cells", "kernel", "bias"], "logits"),
        _node("Reshape", ["logits", "columns"], "flat"),
        _node("Sigmoid", ["flat"], "scores"),
        _node("ReduceMax", ["scores"], "best", axes=[1]),
        _node("Mul", ["best", "nothing"], "zeros"),
        _node("Add", ["zeros", "boxes"], "places"),
        _node("Concat", ["places", "scores"], "output0", axis=1),
    ]
    shapes: dict[str, list[int | str]] = {"output0": ["n", 7, cells * cells]}
    return _saved(nodes, weights, ["n", 3, side_px, side_px], shapes, columns=[0, 3, -1])


def embedder(*, side_px: int = 64, dim: int = 32, seed: int = 0, broken: bool = False) -> bytes:
    """(n, 3, side, side) to a vector (n, dim): convolution, ReLU, mean, linear. `broken` gives what is no number."""
    nodes = [*_body(), _node("Gemm", ["pooled", "linear"], "raw"), _node("Add", ["raw", "spoil"], "vector")]
    weights = {**_weights(dim, seed), "spoil": np.full(1, np.nan if broken else 0.0)}
    return _saved(nodes, weights, ["n", 3, side_px, side_px], {"vector": ["n", dim]})


def classifier(*, side_px: int = 64, classes: int = 5, seed: int = 0, activation: str = "Softmax") -> bytes:
    """(n, 3, side, side) to scores (n, classes), by a softmax or sigmoid, or to logits if that is ""."""
    nodes = [*_body(), _node("Gemm", ["pooled", "linear"], "logits" if activation else "scores")]
    if activation:
        nodes.append(_node(activation, ["logits"], "scores"))
    return _saved(nodes, _weights(classes, seed), ["n", 3, side_px, side_px], {"scores": ["n", classes]})


def pooler(*, side_px: int = 64) -> bytes:
    """(n, 3, side, side) to a vector (n, 3), the mean colour: a model without weights."""
    nodes = [_node("GlobalAveragePool", ["images"], "mean"), _node("Flatten", ["mean"], "vector")]
    return _saved(nodes, {}, ["n", 3, side_px, side_px], {"vector": ["n", 3]})


def scaler(factor: float, *, length: int = 4, rows: str | int = "n") -> bytes:
    """A model that multiplies: `images` (n, length) float32 to `scaled`; and `factor` (1) float32 tells by what."""
    nodes = [_node("Mul", ["images", "by"], "scaled"), _node("Identity", ["by"], "factor")]
    weights = {"by": np.array([factor])}
    return _saved(nodes, weights, [rows, length], {"scaled": [rows, length], "factor": [1]})


def mixed() -> bytes:
    """A model of any length: `images` (n, m) float32 to `double` (n, m) and `sum` (n, 1)."""
    nodes = [_node("Add", ["images", "images"], "double"), _node("ReduceSum", ["images", "across"], "sum")]
    gives: dict[str, list[int | str]] = {"double": ["n", "m"], "sum": ["n", 1]}
    return _saved(nodes, {}, ["n", "m"], gives, across=[1])


def together() -> bytes:
    """A model whose rows are compared: `images` (n, 4) to `likeness` (n, n)."""
    nodes = [_node("Transpose", ["images"], "turned"), _node("MatMul", ["images", "turned"], "likeness")]
    return _saved(nodes, {}, ["n", 4], {"likeness": ["n", "n"]})


def shared() -> bytes:
    """A model that takes the mean of the batch from each row: `images` (n, 4) to `apart` (n, 4)."""
    nodes = [_node("ReduceMean", ["images"], "mean", axes=[0]), _node("Sub", ["images", "mean"], "apart")]
    return _saved(nodes, {}, ["n", 4], {"apart": ["n", 4]})


def _body() -> list[NodeProto]:
    return [
        _node("Conv", ["images", "kernel"], "raw_map", strides=[4, 4]),
        _node("Relu", ["raw_map"], "map"),
        _node("GlobalAveragePool", ["map"], "mean"),
        _node("Flatten", ["mean"], "pooled"),
    ]


def _weights(columns: int, seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {"kernel": rng.normal(size=(48, 3, 4, 4)), "linear": rng.normal(size=(48, columns))}


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, list(inputs), [output], **attributes)


def _saved(
    nodes: Sequence[NodeProto],
    weights: Mapping[str, NDArray[Any]],
    takes: Sequence[int | str],
    gives: Mapping[str, Sequence[int | str]],
    **lengths: Sequence[int],
) -> bytes:
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    constants += [numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in lengths.items()]
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(takes))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in gives.items()],
        constants,
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())
