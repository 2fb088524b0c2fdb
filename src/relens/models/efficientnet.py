"""EfficientNet-lite0, -lite1 and -lite2 (ImageNet, 1000 classes) as ONNX, out of the weights of their checkpoints.

The graph is written node by node, batch normalisation folded into the convolutions, and the same weights give the
same bytes. Whether a machine runs it correctly is checked against outputs of the original implementation, which are
kept here for pictures that are computed. Reading checkpoints and preparing pictures is done elsewhere.

Architecture: Tan and Le, "EfficientNet", https://arxiv.org/abs/1905.11946, table 1. The lite variants leave out
squeeze-and-excitation, use ReLU6, and keep the width of stem and head and the depth of the first and last stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load

from relens.errors import BadInput, Broken

Floats = NDArray[np.float32]
Weights = Mapping[str, NDArray[Any]]

OPSET = 17
IR_VERSION = 8
CLASSES = 1000
VECTOR_LENGTH = 1280
LARGEST_DEVIATION = 1e-3

_STEM_WIDTH = 32
_EPSILON = 1e-3
_WIDTH_STEP = 8
_REFERENCE = "imagenet_reference.safetensors"


@dataclass(frozen=True, slots=True)
class _Variant:
    width: float
    depth: float
    size_px: int


@dataclass(frozen=True, slots=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


_VARIANTS: Final = (_Variant(1.0, 1.0, 224), _Variant(1.0, 1.1, 240), _Variant(1.1, 1.2, 260))
_STAGES: Final = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True, slots=True)
class _Conv:
    """A convolution without bias and the batch normalisation behind it, by their names in the checkpoint."""

    weight: str
    norm: str
    shape: tuple[int, int, int, int]
    stride: int = 1
    groups: int = 1


@dataclass(frozen=True, slots=True)
class _Block:
    """An inverted bottleneck: widen (not where the expansion is 1), filter each channel, narrow without activation."""

    active: tuple[_Conv, ...]
    project: _Conv
    residual: bool


def input_size_px(variant: int) -> int:
    """Side of the input in pixels. The short side of a picture is resized to 32 more before the centre is cut."""
    return _variant(variant).size_px


def expected_shapes(variant: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the checkpoint of lite`variant` has to hold."""
    shapes: dict[str, tuple[int, ...]] = {}
    for conv in _convolutions(variant):
        shapes[f"{conv.weight}.weight"] = conv.shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{conv.norm}.{part}"] = conv.shape[:1]
        shapes[f"{conv.norm}.num_batches_tracked"] = ()
    return shapes | {"_fc.weight": (CLASSES, VECTOR_LENGTH), "_fc.bias": (CLASSES,)}


def build_onnx(weights: Weights, *, variant: int) -> bytes:
    """The ONNX file of lite`variant`: the same bytes for the same weights.

    pixels    input, (n, 3, s, s) float32, RGB, (value 0..255 - 127) / 128, s as in `input_size_px`
    scores    (n, 1000) float32, softmax, classes in ImageNet's usual order
    vector    (n, 1280) float32, the mean of `features`, not normalised, never negative
    features  (n, 1280, h, h) float32, the last feature map, h = s / 32 rounded up: 7, 8 and 9

    BadInput `models.bad-checkpoint` for a tensor too many, missing, of another shape or not finite.
    """
    side = input_size_px(variant)
    _require_shapes(weights, expected_shapes(variant))
    graph = _Graph(weights)
    stem, blocks, head = _architecture(variant)
    x = graph.conv("pixels", stem, side, active=True)
    side = math.ceil(side / stem.stride)
    for block in blocks:
        x, side = graph.block(x, block, side)
    graph.conv(x, head, side, active=True, output="features")
    graph.classify("features")
    return graph.serialise(variant, side)


def classifier_head(weights: Weights) -> tuple[Floats, Floats]:
    """What turns `vector` into logits, for class-activation maps: (1000, 1280) and (1000,) float32.

    BadInput `models.bad-checkpoint` if the weights have no such head.
    """
    shapes = {"_fc.weight": (CLASSES, VECTOR_LENGTH), "_fc.bias": (CLASSES,)}
    _require_shapes({name: weights[name] for name in shapes if name in weights}, shapes)
    return _finite("_fc.weight", weights["_fc.weight"]), _finite("_fc.bias", weights["_fc.bias"])


def reference_pixels(size_px: int) -> Floats:
    """Three pictures that every machine computes alike, as a model's input: (3, 3, size_px, size_px) float32, -1 to 1.

    A coloured disc before a gradient, a checkerboard under a vignette, and rings crossed by stripes.
    """
    y, x = np.mgrid[0:size_px, 0:size_px] / (size_px - 1)
    radius = np.hypot(x - 0.45, y - 0.55)
    disc = np.floor(np.clip(1.3 - radius, 0.0, 1.0))
    board = (np.floor(x * 8) + np.floor(y * 8)) % 2
    shade = np.clip(1.2 - 1.5 * radius, 0.0, 1.0)
    rings, stripes = np.sin(60 * radius), np.sin(40 * (x + 0.5 * y))
    pictures = [
        [disc * 0.9 + (1 - disc) * x * 0.4, disc * 0.3 + (1 - disc) * y * 0.6, disc * 0.1 + (1 - disc) * (1 - y)],
        [board * shade, (0.2 + 0.6 * board) * shade, (1 - board) * shade * x],
        [0.5 + 0.4 * rings, 0.5 + 0.25 * rings + 0.25 * stripes, 0.5 + 0.4 * stripes * y],
    ]
    return (np.array(pictures) * 2 - 1).astype(np.float32)


def check_conversion(outputs: Mapping[str, NDArray[Any]], variant: int) -> float:
    """Largest deviation from the original implementation, as a share of its largest value.

    outputs   `scores` and `vector` of lite`variant` for `reference_pixels`; others are not looked at

    Broken `models.bad-conversion` above `LARGEST_DEVIATION`: this machine's runtime computes something else.
    """
    _variant(variant)
    reference = load((resources.files(__package__) / _REFERENCE).read_bytes())
    deviation = max(_deviation(outputs, name, reference[f"lite{variant}.{name}"]) for name in ("scores", "vector"))
    if deviation > LARGEST_DEVIATION:
        raise Broken(
            "models.bad-conversion",
            f"EfficientNet-lite{variant} deviates from its original by {deviation:.2g} of the largest value, "
            f"at most {LARGEST_DEVIATION:g} is right",
            hint="check that the checkpoint is the published one, and the version of the runtime",
        )
    return deviation


def _deviation(outputs: Mapping[str, NDArray[Any]], name: str, expected: Floats) -> float:
    actual = outputs.get(name)
    if actual is None or actual.shape != expected.shape:
        return math.inf
    worst = float(np.abs(actual - expected).max() / np.abs(expected).max())
    return worst if math.isfinite(worst) else math.inf


def _variant(variant: int) -> _Variant:
    if variant not in range(len(_VARIANTS)):
        raise BadInput("models.unknown-variant", f"there is no EfficientNet-lite{variant} here, only lite0, 1 and 2")
    return _VARIANTS[variant]


def _scaled_width(width: int, factor: float) -> int:
    """To the nearest multiple of 8, but never less than nine tenths."""
    scaled = width * factor
    rounded = max(_WIDTH_STEP, int(scaled + _WIDTH_STEP / 2) // _WIDTH_STEP * _WIDTH_STEP)
    return rounded if rounded >= 0.9 * scaled else rounded + _WIDTH_STEP


def _architecture(variant: int) -> tuple[_Conv, list[_Block], _Conv]:
    scale = _variant(variant)
    stem = _Conv("_conv_stem", "_bn0", (_STEM_WIDTH, 3, 3, 3), stride=2)
    blocks: list[_Block] = []
    width = _STEM_WIDTH
    for stage in _STAGES:
        fixed = stage in (_STAGES[0], _STAGES[-1])
        for repeat in range(stage.repeats if fixed else math.ceil(stage.repeats * scale.depth)):
            stride = stage.stride if repeat == 0 else 1
            into = _scaled_width(stage.width, scale.width)
            blocks.append(_block(f"_blocks.{len(blocks)}", stage, width, into, stride))
            width = into
    return stem, blocks, _Conv("_conv_head", "_bn1", (VECTOR_LENGTH, width, 1, 1))


def _block(at: str, stage: _Stage, width: int, into: int, stride: int) -> _Block:
    inner = width * stage.expansion
    expand = _Conv(f"{at}._expand_conv", f"{at}._bn0", (inner, width, 1, 1))
    depthwise = _Conv(f"{at}._depthwise_conv", f"{at}._bn1", (inner, 1, stage.kernel, stage.kernel), stride, inner)
    project = _Conv(f"{at}._project_conv", f"{at}._bn2", (into, inner, 1, 1))
    active = (depthwise,) if stage.expansion == 1 else (expand, depthwise)
    return _Block(active, project, residual=stride == 1 and width == into)


def _convolutions(variant: int) -> Iterator[_Conv]:
    stem, blocks, head = _architecture(variant)
    yield stem
    for block in blocks:
        yield from (*block.active, block.project)
    yield head


def _require_shapes(weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name in sorted(shapes.keys() | weights.keys()):
        if name not in weights:
            raise _bad(f"the tensor {name} is missing")
        if name not in shapes:
            raise _bad(f"the tensor {name} belongs to no layer")
        if weights[name].shape != shapes[name]:
            raise _bad(f"the tensor {name} has shape {weights[name].shape}, {shapes[name]} is expected")


def _bad(what: str) -> BadInput:
    return BadInput("models.bad-checkpoint", what, hint="is it the checkpoint of this variant of EfficientNet-lite?")


def _finite(name: str, values: NDArray[Any]) -> Floats:
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(floats).all():
        raise _bad(f"the tensor {name} holds values that are not finite")
    return floats


def _folded(weights: Weights, conv: _Conv) -> tuple[Floats, Floats]:
    """One convolution with bias that does what the convolution and its batch normalisation do."""
    gamma, beta, mean, variance = (
        weights[f"{conv.norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gain = gamma / np.sqrt(variance + _EPSILON)
        kernel = weights[f"{conv.weight}.weight"] * gain[:, None, None, None]
        bias = beta - mean * gain
    return _finite(conv.weight, kernel), _finite(conv.norm, bias)


def _padding(side: int, kernel: int, stride: int) -> list[int]:
    """Zeros at top, left, bottom, right that make the side become side / stride, rounded up; an odd one goes last."""
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return [total // 2, total // 2, total - total // 2, total - total // 2]


class _Graph:
    """Collects nodes and constants. What a method returns is the name of the tensor that it made."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._constant("zero", np.array(0, np.float32))
        self._constant("six", np.array(6, np.float32))

    def conv(self, x: str, conv: _Conv, side: int, *, active: bool, output: str = "") -> str:
        kernel, bias = _folded(self._weights, conv)
        inputs = [x, self._constant(f"{conv.weight}.weight", kernel), self._constant(f"{conv.weight}.bias", bias)]
        size = conv.shape[-1]
        out = self._node(
            "Conv",
            inputs,
            conv.weight,
            group=conv.groups,
            kernel_shape=[size, size],
            pads=_padding(side, size, conv.stride),
            strides=[conv.stride, conv.stride],
        )
        return self._node("Clip", [out, "zero", "six"], output or f"{conv.weight}.relu6") if active else out

    def block(self, x: str, block: _Block, side: int) -> tuple[str, int]:
        out = x
        for conv in block.active:
            out = self.conv(out, conv, side, active=True)
            side = math.ceil(side / conv.stride)
        out = self.conv(out, block.project, side, active=False)
        return (self._node("Add", [out, x], f"{block.project.weight}.sum") if block.residual else out), side

    def classify(self, features: str) -> None:
        matrix, bias = classifier_head(self._weights)
        pooled = self._node("GlobalAveragePool", [features], "pooled")
        vector = self._node("Flatten", [pooled], "vector", axis=1)
        inputs = [vector, self._constant("_fc.weight", matrix), self._constant("_fc.bias", bias)]
        self._node("Softmax", [self._node("Gemm", inputs, "logits", transB=1)], "scores", axis=1)

    def serialise(self, variant: int, side: int) -> bytes:
        image = [3, input_size_px(variant), input_size_px(variant)]
        outputs = {"scores": [CLASSES], "vector": [VECTOR_LENGTH], "features": [VECTOR_LENGTH, side, side]}
        graph = helper.make_graph(
            self._nodes,
            f"efficientnet-lite{variant}",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", *image])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]) for name, shape in outputs.items()],
            self._constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="relens"
        )
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _constant(self, name: str, values: Floats) -> str:
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output
