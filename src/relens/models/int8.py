"""int8 from float32: an ONNX file written anew so that its convolutions and matrix products compute in 8 bits.

Activations are 8 bits without a sign, weights 8 bits with one and scaled for each channel (QDQ); which values a tensor
takes is learnt from pictures. Inputs and outputs keep their names and types. What the result is worth, is not said
here. The same file and inputs give the same bytes.

Why these settings: docs/decisions/008-int8-by-the-library.md, with what was measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from relens.errors import BadInput, RelensError
from relens.models.onnxfile import Tensor, read_onnx
from relens.values import Floats

LEAST_OPSET = 13
"""The first in which weights may be scaled for each channel."""
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
JOINED = frozenset({"Relu", "Clip"})
"""They are one with the weighted operation before them."""
QUANTIZED = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"})
OPTIONS = {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]}
"""Logits in 256 steps are often equal, so names would lose their order; whole ones cost no time."""


def quantize(model: bytes, inputs: Iterable[Floats]) -> bytes:
    """The int8 version of an ONNX file.

    inputs   each (1, …) float32, as the model is given them; read once, one at a time

    What comes behind the last weighted operation stays in float: scores of a thousand classes, or boxes beside scores,
    do not fit into 256 steps. BadInput for a file that cannot be quantized, or is already, and if there is no input.
    """
    file = read_onnx(model)
    if already := QUANTIZED & set(file.operations):
        raise BadInput("models.already-int8", f"the model has {', '.join(sorted(already))}: it is quantized already")
    if len(file.inputs) != 1:
        raise _cannot(f"it has {len(file.inputs)} inputs, not one")
    with tempfile.TemporaryDirectory(prefix="relens-int8-") as folder:
        given, prepared, made = (Path(folder) / name for name in ("given.onnx", "prepared.onnx", "made.onnx"))
        try:
            onnx.save(_modern(onnx.load_model_from_string(model)), given)
            quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
            graph = onnx.load(prepared)
            _name_nodes(graph.graph)
            onnx.save(graph, prepared)
            quantize_static(
                str(prepared),
                str(made),
                _Reader(file.inputs[0], inputs),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_behind_the_last(graph.graph),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=dict(OPTIONS),
            )
        except RelensError:
            raise
        except Exception as error:  # the library's errors have no common root
            raise _cannot(str(error) or type(error).__name__) from error
        data = made.read_bytes()
    if "QuantizeLinear" not in read_onnx(data).operations:
        raise _cannot("it has no convolutions and no products of matrices")
    return data


class _Reader:
    """Inputs in the form that the library asks for: with the model's own type and batch."""

    def __init__(self, tensor: Tensor, inputs: Iterable[Floats]) -> None:
        self._tensor = tensor
        self._batch = (tensor.shape or (None,))[0] or 1
        self._inputs = self._all(inputs)

    def get_next(self) -> dict[str, Floats] | None:
        given = next(self._inputs, None)
        if given is None:
            return None
        return {self._tensor.name: np.repeat(given, self._batch, axis=0).astype(self._tensor.kind)}

    @staticmethod
    def _all(inputs: Iterable[Floats]) -> Iterator[Floats]:
        count = 0
        for given in inputs:
            count += 1
            yield given
        if not count:
            raise BadInput("models.no-calibration", "there is no picture to calibrate with")


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), LEAST_OPSET)
    return onnx.version_converter.convert_version(model, LEAST_OPSET) if version < LEAST_OPSET else model


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Every operation gets a name of its own: by it the library is told which ones to leave out."""
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}/{number}"
        seen.add(node.name)


def _behind_the_last(graph: onnx.GraphProto) -> list[str]:
    """Names of the operations that no weighted one follows."""
    before: set[str] = set()  # tensors that lead to a weighted operation
    weighted: set[str] = set()
    behind = []
    for node in reversed(graph.node):  # in the order of computation, by the format
        if node.op_type in WEIGHTED or before & set(node.output):
            before |= set(node.input)
        else:
            behind.append(node)
    for node in graph.node:
        if node.op_type in WEIGHTED:
            weighted |= set(node.output)
    return sorted(node.name for node in behind if not (node.op_type in JOINED and node.input[0] in weighted))


def _cannot(why: str) -> BadInput:
    return BadInput(
        "models.cannot-quantize",
        f"the model cannot be written in int8: {why}",
        hint="it goes on in float32; an int8 export of its maker's comes in by `relens model add`",
    )
