"""The three networks of MTCNN, written anew from the weights of a published conversion, so that they run faster.

The published files hold PReLU, at which onnxruntime spends more than half of the time, and a picture with its axes
exchanged. Here each PReLU becomes a linear and a rectified part, the picture lies upright, and the scaling of its
values is folded into the first convolution: the same numbers to 1e-5, P- and O-Net in half of the time and less, R-Net
in a third. What they find is put together by `vision.faces`.

Architecture: Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
https://arxiv.org/abs/1604.02878, figure 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from relens.errors import BadInput
from relens.models.graph import Graph, Shape
from relens.models.reference import reference_pictures
from relens.values import Floats

Numbers = NDArray[np.float64]
Weights = Mapping[str, Numbers]

BLOCK = 16  # channels that onnxruntime computes together; others are moved to and fro
_STEEPEST = 1 - 2**-20  # a slope of 1 would leave nothing to take the ReLU of
_MEAN, _SPREAD = 127.5, 128.0
_REFERENCE_SIZE = (45, 38)  # odd and even, wider than high: exchanged axes or a wrong last window would be seen
_PAIR = 2  # outputs of a softmax over "no face" and "face"


@dataclass(frozen=True, slots=True)
class _Stage:
    """A convolution, its PReLU and a pooling (window; 0 for none), by their names in the published file."""

    conv: str
    slope: str
    shape: tuple[int, int, int]  # out, in, side of the kernel
    pool: int = 0


@dataclass(frozen=True, slots=True)
class _Network:
    """`inner` is the layer behind the convolutions: its name, its inputs as (channels, side), its outputs."""

    stages: tuple[_Stage, ...]
    heads: Mapping[str, str]
    inner: tuple[str, tuple[int, int], int] | None = None
    side_px: int | None = None


NETWORKS: Final[Mapping[str, _Network]] = {
    "propose": _Network(
        (
            _Stage("conv2d", "p_re_lu_initializer_8", (10, 3, 3), pool=2),
            _Stage("conv2d_1", "p_re_lu_1_initializer_6", (16, 10, 3)),
            _Stage("conv2d_2", "p_re_lu_2_initializer_3", (32, 16, 3)),
        ),
        {"boxes": "conv2d_4", "scores": "conv2d_3"},
    ),
    "refine": _Network(
        (
            _Stage("conv2d_5", "p_re_lu_3_initializer_14", (28, 3, 3), pool=3),
            _Stage("conv2d_6", "p_re_lu_4_initializer_12", (48, 28, 3), pool=3),
            _Stage("conv2d_7", "p_re_lu_5_initializer_10", (64, 48, 2)),
        ),
        {"boxes": "dense_2", "scores": "dense_1"},
        ("dense", (64, 3), 128),
        side_px=24,
    ),
    "finish": _Network(
        (
            _Stage("conv2d_8", "p_re_lu_7_initializer_22", (32, 3, 3), pool=3),
            _Stage("conv2d_9", "p_re_lu_8_initializer_20", (64, 32, 3), pool=3),
            _Stage("conv2d_10", "p_re_lu_9_initializer_18", (64, 64, 3), pool=2),
            _Stage("conv2d_11", "p_re_lu_10_initializer_16", (128, 64, 2)),
        ),
        {"boxes": "dense_5", "landmarks": "dense_6", "scores": "dense_4"},
        ("dense_3", (128, 3), 256),
        side_px=48,
    ),
}
_WIDTHS = {"boxes": 4, "landmarks": 10, "scores": _PAIR}


def build_onnx(published: bytes, network: str) -> bytes:
    """The ONNX file of "propose" (P-Net), "refine" (R-Net) or "finish" (O-Net), from the published one.

    pixels     input, (n, 3, height, width) float32, RGB, 0 to 255; 24 px a side for "refine", 48 px for "finish"
    scores     (n, 1) float32: how sure it is of a face, 0 to 1
    boxes      (n, 4) float32: how far left, top, right and bottom of the face are from those of the input, as shares
               of its side
    landmarks  (n, 10) float32, of "finish": x of five points, then y, as shares of the input's side

    "propose" answers for each window of 12 px, every second pixel: scores (n, 1, rows, columns), boxes (n, 4, rows,
    columns). BadInput `models.bad-weights` for a file that holds other tensors than this network has.
    """
    plan = NETWORKS[network]
    weights = _read(published, _expected(plan))
    graph = Graph()
    x = "pixels"
    for stage in plan.stages:
        x = _stage(graph, x, stage, weights)
    side: Shape = ("height", "width") if plan.side_px is None else (plan.side_px, plan.side_px)
    places: Shape = ("rows", "columns") if plan.inner is None else ()
    _heads(graph, x, plan, weights)
    outputs = {name: (1 if name == "scores" else _WIDTHS[name], *places) for name in plan.heads}
    return graph.serialise(network, inputs={"pixels": (3, *side)}, outputs=outputs)


def _expected(plan: _Network) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the published file has to hold."""
    shapes: dict[str, tuple[int, ...]] = {}
    for stage in plan.stages:
        out, into, side = stage.shape
        shapes |= {f"{stage.conv}/kernel:0": (out, into, side, side), f"{stage.conv}/bias:0": (out,)}
        shapes[stage.slope] = (1, out, 1, 1)
    width: tuple[int, ...] = (plan.stages[-1].shape[0], 1, 1)
    if plan.inner is not None:
        name, (channels, side), inner = plan.inner
        shapes |= {f"{name}/kernel:0": (channels * side * side, inner), f"{name}/bias:0": (inner,), "slope": (inner,)}
        width = (inner,)
    for role, name in plan.heads.items():
        out = _WIDTHS[role]
        shapes |= {f"{name}/kernel:0": (*width, out) if plan.inner else (out, *width), f"{name}/bias:0": (out,)}
    return shapes


def _read(published: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Numbers]:
    try:
        constants = onnx.load_from_string(published).graph.initializer
        weights = {one.name: numpy_helper.to_array(one).astype(np.float64) for one in constants}
    except Exception as error:  # protobuf has no root of its errors
        raise _bad(f"it is no ONNX file: {error}") from error
    for name, shape in shapes.items():
        if name not in weights:
            raise _bad(f"the tensor {name} is missing")
        if weights[name].shape != shape:
            raise _bad(f"the tensor {name} has shape {weights[name].shape}, {shape} is expected")
        if not np.isfinite(weights[name]).all():
            raise _bad(f"the tensor {name} holds values that are not finite")
    return weights


def _bad(what: str) -> BadInput:
    return BadInput("models.bad-weights", what, hint="is it the published file of this network of MTCNN?")


def _stage(graph: Graph, x: str, stage: _Stage, weights: Weights) -> str:
    """A convolution, its PReLU and its pooling, with a whole number of blocks of channels, so that layouts stay.

    PReLU(x) = s x + max((1 - s) x, 0) for slopes s below 1. The convolution gives (1 - s) x; of this a plain ReLU is
    taken, and s / (1 - s) times it added. The product with a number per channel is a convolution too: in onnxruntime it
    keeps the layout of its neighbours and takes the sum along.
    """
    kernel = weights[f"{stage.conv}/kernel:0"].transpose(0, 1, 3, 2)  # columns and rows were exchanged
    bias, given = weights[f"{stage.conv}/bias:0"], weights[stage.slope].reshape(-1)
    if x == "pixels":
        kernel = kernel / _SPREAD
        bias = bias - _MEAN * kernel.sum(axis=(1, 2, 3))
    else:
        kernel = _whole_blocks(kernel, axis=1)
    kernel, bias, given = _whole_blocks(kernel), _whole_blocks(bias), _whole_blocks(given)
    slope = np.minimum(given, _STEEPEST)
    bent = graph.conv(x, kernel * _per_channel(1 - slope), bias * (1 - slope), stage.conv)
    linear = graph.conv(bent, _per_channel(slope / (1 - slope)), None, f"{stage.conv}.linear")
    x = graph.node("Add", [linear, graph.node("Relu", [bent], f"{stage.conv}.relu")], f"{stage.conv}.prelu")
    if stage.pool:
        window = [stage.pool, stage.pool]  # the last ones may reach beyond the end
        x = graph.node("MaxPool", [x], f"{stage.conv}.pool", ceil_mode=1, kernel_shape=window, strides=[2, 2])
    return x if (given < 1).all() else _steeper(graph, x, stage.conv, given)


def _steeper(graph: Graph, x: str, name: str, slope: Numbers) -> str:
    """What is below zero, in channels with a slope of 1 and more, times that slope.

    Such a PReLU rises everywhere, so that it may come after the pooling, where there is less to compute.
    """
    minus = graph.conv(x, _per_channel(np.where(slope < 1, 0.0, -1.0)), None, f"{name}.minus")
    below = graph.node("Relu", [minus], f"{name}.below")
    return graph.node("Add", [graph.conv(below, _per_channel(1 - slope), None, f"{name}.more"), x], f"{name}.steep")


def _per_channel(values: Numbers) -> Numbers:
    """As many filters of one pixel."""
    return values[:, None, None, None]


def _whole_blocks(values: Numbers, axis: int = 0) -> Numbers:
    """Filled up with zeros to a multiple of BLOCK."""
    lacking = [(0, -values.shape[axis] % BLOCK if at == axis else 0) for at in range(values.ndim)]
    return np.pad(values, lacking)


def _heads(graph: Graph, x: str, plan: _Network, weights: Weights) -> None:
    """Two outputs of a softmax are the sigmoid of their difference."""
    heads: dict[str, tuple[Numbers, Numbers]] = {}
    for role, name in plan.heads.items():
        matrix, bias = weights[f"{name}/kernel:0"], weights[f"{name}/bias:0"]
        matrix = matrix[:, :, 0, 0].T if plan.inner is None else matrix
        heads[role] = (np.diff(matrix), np.diff(bias)) if role == "scores" else (matrix, bias)
    if plan.inner is None:
        _split_heads(graph, x, heads)
    else:
        x = _inner(graph, x, plan.inner, weights)
        for role, (matrix, bias) in heads.items():
            graph.linear(x, matrix, bias, "face" if role == "scores" else role)
    graph.node("Sigmoid", ["face"], "scores")


def _split_heads(graph: Graph, x: str, heads: Mapping[str, tuple[Numbers, Numbers]]) -> None:
    """One convolution for all heads: onnxruntime computes sixteen outputs in the time of one."""
    matrix = np.concatenate([matrix for matrix, _ in heads.values()], axis=1)
    bias = np.concatenate([bias for _, bias in heads.values()])
    every = graph.conv(x, matrix.T[:, :, None, None], bias, "every")
    axis, start = graph.constant("axis", np.array([1]), np.int64), graph.constant("end.0", np.array([0]), np.int64)
    width = 0
    for role, (_, own) in heads.items():
        width += len(own)
        end = graph.constant(f"end.{width}", np.array([width]), np.int64)
        graph.node("Slice", [every, start, end, axis], "face" if role == "scores" else role)
        start = end


def _inner(graph: Graph, x: str, layer: tuple[str, tuple[int, int], int], weights: Weights) -> str:
    """The layer behind the convolutions. It was written for features in the order columns, rows, channels."""
    name, (channels, side), width = layer
    matrix = weights[f"{name}/kernel:0"].reshape(side, side, channels, width).transpose(2, 1, 0, 3)
    flat = graph.node("Flatten", [x], "features", axis=1)
    y = graph.linear(flat, matrix.reshape(-1, width), weights[f"{name}/bias:0"], name)
    slope = weights["slope"]
    if (slope > 1).any():
        raise _bad(f"slope holds {slope.max():g}, all are at most 1")
    scaled = graph.node("Mul", [y, graph.constant("slope", slope)], f"{name}.scaled")
    return graph.node("Max", [y, scaled], f"{name}.prelu")


def reference_pixels(network: str) -> Floats:
    """The pictures of the kept outputs, which are of the published network: (3, 3, height, width) float32."""
    side = NETWORKS[network].side_px
    width, height = _REFERENCE_SIZE if side is None else (side, side)
    return np.ascontiguousarray(reference_pictures(width, height).transpose(0, 3, 1, 2), np.float32)
