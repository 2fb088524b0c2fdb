"""A file written in int8: the same names, types and nearly the same answers; what cannot be written so is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

from relens.errors import BadInput
from relens.models.int8 import quantize
from relens.models.onnxfile import read_onnx
from relens.runtimes import ModelSpec, OnnxRuntime
from relens.testing import networks

SHAPE = (3, 64, 64)


def inputs(count=12, *, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random((1, *SHAPE), np.float32) * 2 - 1 for _ in range(count)]


@pytest.fixture
def run(tmp_path):
    """Runs a file on inputs: the output of one role."""

    def runs(data, role, given):
        path = tmp_path / "model.onnx"
        path.write_bytes(data)
        session = OnnxRuntime().load(ModelSpec("onnx", path, "images", SHAPE, {role: role}, "int8"))
        return np.concatenate([session.run(one)[role] for one in given])

    return runs


def test_vectors_stay_where_they_were_and_names_and_types_too(run):
    model = networks.embedder()
    made = quantize(model, inputs())
    before, after = read_onnx(model), read_onnx(made)
    assert (before.precision, after.precision) == ("fp32", "int8")
    assert list(map(str, after.inputs + after.outputs)) == list(map(str, before.inputs + before.outputs))
    others = inputs(8, seed=1)
    one, two = run(model, "vector", others), run(made, "vector", others)
    assert not np.array_equal(one, two)
    cosines = (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert cosines.min() > 0.99


def test_weights_have_a_scale_for_each_channel():
    weights = {
        one.name: one for one in onnx.load_model_from_string(quantize(networks.embedder(), inputs())).graph.initializer
    }
    assert list(weights["kernel_quantized"].dims) == [48, 3, 4, 4]
    assert weights["kernel_quantized"].data_type == onnx.TensorProto.INT8
    assert list(weights["kernel_scale"].dims) == [48]


def test_what_comes_behind_the_last_weights_stays_in_float(run):
    made = quantize(networks.classifier(classes=600), inputs())
    assert read_onnx(made).ends["scores"] == {"Softmax"}
    scores = run(made, "scores", inputs(1, seed=1))[0]
    assert len(np.unique(scores)) > 500  # of 600: what lay on 256 steps could not be put in order
    kinds = read_onnx(quantize(networks.yolo(side_px=64), inputs())).operations
    assert kinds["QuantizeLinear"] == 2  # the picture, and the mean of its cells; not boxes beside scores


def test_the_same_inputs_give_the_same_bytes_in_any_process(tmp_path):
    script = (
        "import sys, hashlib, numpy as np\n"
        "from relens.models.int8 import quantize\n"
        "from relens.testing import networks\n"
        "rng = np.random.default_rng(0)\n"
        "given = (rng.random((1, 3, 64, 64), np.float32) for _ in range(3))\n"
        "print(hashlib.sha256(quantize(networks.classifier(), given)).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_file_of_an_older_version_of_the_format_is_brought_forward(run):
    old = onnx.load_model_from_string(networks.classifier())
    old.opset_import[0].version = 11
    made = quantize(old.SerializeToString(), inputs())
    one, two = (run(data, "scores", inputs(4, seed=1)) for data in (networks.classifier(), made))
    assert np.abs(one - two).max() < 0.05


def test_a_fixed_batch_and_another_type_of_the_input_are_given_what_they_take():
    model = onnx.load_model_from_string(networks.classifier())
    given = model.graph.input[0].type.tensor_type
    given.shape.dim[0].dim_value = 4
    given.elem_type = onnx.TensorProto.UINT8
    cast = onnx.helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT)
    next(node for node in model.graph.node if node.op_type == "Conv").input[0] = "floats"
    model.graph.node.insert(0, cast)
    pixels = [one * 100 + 128 for one in inputs()]
    made = read_onnx(quantize(model.SerializeToString(), pixels))
    assert (str(made.inputs[0]), made.precision) == ("images (4, 3, 64, 64) uint8", "int8")


def test_what_is_int8_already_is_refused():
    with pytest.raises(BadInput) as caught:
        quantize(quantize(networks.embedder(), inputs()), inputs())
    assert caught.value.code == "models.already-int8"


def test_no_picture_calibrates_nothing_and_what_fails_says_why():
    with pytest.raises(BadInput) as caught:
        quantize(networks.embedder(), [])
    assert caught.value.code == "models.no-calibration"
    with pytest.raises(BadInput) as caught:
        quantize(networks.embedder(), [np.zeros((1, 3, 32, 32), np.float32)])
    assert caught.value.code == "models.cannot-quantize"
    assert "64" in caught.value.message
