"""An ONNX graph that is written node by node: the same calls give the same bytes.

It collects nodes and constants; what a method returns is the name of the tensor that it made. What the network means
is for the module that writes it to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

Shape = Sequence[int | str]
"""Sides of a tensor without the batch; a word stands for a side of any length."""


class Graph:
    """A network in the making. Numbers are written as float32, whatever they were computed in."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: NDArray[Any], dtype: type[np.generic] = np.float32) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def conv(
        self, x: str, kernel: NDArray[Any], bias: NDArray[Any] | None, output: str, *, stride: int = 1, pad: int = 0
    ) -> str:
        """A convolution of x with `kernel` (out, in / groups, rows, columns) and `bias` (out,).

        A kernel of one input channel, for an x of many, filters each channel by itself.
        """
        inputs = [x, self.constant(f"{output}.kernel", kernel)]
        inputs += [] if bias is None else [self.constant(f"{output}.bias", bias)]
        return self.node(
            "Conv",
            inputs,
            output,
            group=len(kernel) if kernel.shape[1] == 1 else 1,
            kernel_shape=list(kernel.shape[2:]),
            pads=[pad] * 4,
            strides=[stride, stride],
        )

    def linear(self, x: str, matrix: NDArray[Any], bias: NDArray[Any] | None, output: str) -> str:
        """(n, in) times `matrix` (in, out), plus `bias` (out,)."""
        inputs = [x, self.constant(f"{output}.matrix", matrix)]
        inputs += [] if bias is None else [self.constant(f"{output}.bias", bias)]
        return self.node("Gemm", inputs, output)

    def serialise(self, name: str, *, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> bytes:
        """The ONNX file, checked. All tensors are float32 and begin with the batch, which may have any length."""
        graph = helper.make_graph(self._nodes, name, _described(inputs), _described(outputs), self._constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="relens"
        )
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
        return data


def _described(tensors: Mapping[str, Shape]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]) for name, shape in tensors.items()]
