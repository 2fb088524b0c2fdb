"""Every inference back-end against the contract, with the smallest model of its format that has the three roles."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from relens.runtimes import Dummy, ModelSpec, OnnxRuntime, write_dummy
from relens.runtimes.openvino_runtime import OpenVino, is_installed
from relens.testing.runtimes import RuntimeContract

ROLES = {"scores": "probs", "vector": "pooled", "features": "map"}


class TestOnnxRuntime(RuntimeContract):
    def make(self):
        return OnnxRuntime()

    def write_model(self, path):
        onnx.save(small_graph("n"), path)
        return ModelSpec("onnx", path, "images", (3, 16, 16), ROLES, "fp32")


class TestOnnxRuntimeWithAFixedBatch(RuntimeContract):
    """Many exporters freeze the batch; such models run in pieces."""

    def make(self):
        return OnnxRuntime()

    def write_model(self, path):
        onnx.save(small_graph(2), path)
        return ModelSpec("onnx", path, "images", (3, 16, 16), ROLES, "fp32")


@pytest.mark.skipif(not is_installed(), reason="the extra [openvino] is not installed")
class TestOpenVino(RuntimeContract):
    def make(self):
        return OpenVino()

    def write_model(self, path):
        onnx.save(small_graph("n"), path)
        return ModelSpec("onnx", path, "images", (3, 16, 16), ROLES, "fp32")


class TestDummy(RuntimeContract):
    tolerance = 0

    def make(self):
        return Dummy()

    def write_model(self, path):
        write_dummy(path, seed=7, vector_dim=24, classes=5, cells=3)
        roles = {"scores": "scores", "vector": "vector", "features": "features"}
        return ModelSpec("dummy", path, "images", (3, 17, 16), roles, "fp32")


def small_graph(batch):
    """Convolution, ReLU, mean over the picture, linear, softmax."""
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(8, 3, 3, 3)), "linear": rng.normal(size=(8, 5))}
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["raw"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["raw"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "linear"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ROLES.values()],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
