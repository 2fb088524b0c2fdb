"""The networks with random weights in the published form, which is run beside ours, and the check of the real ones."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from relens.errors import BadInput, Broken
from relens.models import mtcnn
from relens.models.mtcnn import NETWORKS, build_onnx, reference_pixels
from relens.models.reference import check_conversion


def random_weights(network, seed=1):
    """Slopes from -1.3 to 0.9, as the real ones; of the first layer two are above 1, and one is 1."""
    rng = np.random.default_rng(seed)
    plan = NETWORKS[network]
    weights = {}
    for name, shape in mtcnn._expected(plan).items():
        if name.endswith("kernel:0"):
            fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
            weights[name] = rng.normal(0, np.sqrt(1 / fan_in), shape)
        elif name.endswith("bias:0"):
            weights[name] = rng.normal(0, 0.2, shape)
        else:
            weights[name] = rng.uniform(-1.3, 0.9, shape)
    weights[plan.stages[0].slope].flat[:3] = 1.01, 1.3, 1.0
    return {name: values.astype(np.float32) for name, values in weights.items()}


def published(network, weights):
    """The published form: the picture with its axes exchanged, channels last, PReLU, softmax over two."""
    plan = NETWORKS[network]
    nodes = [helper.make_node("Transpose", ["x"], ["now"], perm=[0, 3, 1, 2])]

    def then(kind, *more, to="", **attributes):
        last = nodes[-1].output[0]
        nodes.append(helper.make_node(kind, [last, *more], [to or f"{kind}{len(nodes)}"], **attributes))

    for at, stage in enumerate(plan.stages):
        then("Conv", f"{stage.conv}/kernel:0", f"{stage.conv}/bias:0", auto_pad="VALID")
        then("PRelu", stage.slope)
        if stage.pool:
            same = network == "propose" or at != 1
            pad = "SAME_UPPER" if same else "VALID"
            then("MaxPool", auto_pad=pad, kernel_shape=[stage.pool] * 2, strides=[2, 2])
    if plan.inner is not None:
        then("Transpose", perm=[0, 2, 3, 1])
        then("Flatten", axis=1)
        then("MatMul", f"{plan.inner[0]}/kernel:0")
        then("Add", f"{plan.inner[0]}/bias:0")
        then("PRelu", "slope")
    features = nodes[-1].output[0]
    for role, name in plan.heads.items():
        kernel, bias = f"{name}/kernel:0", f"{name}/bias:0"
        if plan.inner is None:
            nodes.append(helper.make_node("Conv", [features, kernel, bias], [f"{role}.first"]))
            then("Transpose", perm=[0, 2, 3, 1], to=role)
        else:
            nodes.append(helper.make_node("MatMul", [features, kernel], [f"{role}.first"]))
            then("Add", bias, to=role)
    nodes.append(helper.make_node("Softmax", ["scores"], ["sure"], axis=-1))
    outputs = [role if role != "scores" else "sure" for role in plan.heads]
    graph = helper.make_graph(
        nodes,
        network,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", None, None, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    opset = [helper.make_opsetid("", 12)]
    return helper.make_model(graph, opset_imports=opset, ir_version=7).SerializeToString()


def run(model, given):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: given}), strict=True))


def run_published(network, model, pixels):
    """In our words: upright, channels first, the score of "face" alone."""
    scaled = ((pixels - 127.5) / 128).astype(np.float32)
    out = run(model, np.ascontiguousarray(scaled.transpose(0, 3, 2, 1)))
    if network == "propose":
        out = {role: values.transpose(0, 3, 2, 1) for role, values in out.items()}
    return {role: values for role, values in out.items() if role != "sure"} | {"scores": out["sure"][:, 1:]}


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return request.param


def random_pixels(network, size=(31, 44), count=3):
    side = NETWORKS[network].side_px
    height, width = size if side is None else (side, side)
    return np.random.default_rng(4).integers(0, 256, (count, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize("seed", [1, 2])
def test_ours_says_what_the_published_form_says(network, seed):
    file = published(network, random_weights(network, seed))
    pixels = random_pixels(network)
    wanted, said = run_published(network, file, pixels), run(build_onnx(file, network), pixels)
    assert set(said) == set(wanted) == set(NETWORKS[network].heads)
    for role, values in wanted.items():
        assert said[role].shape == values.shape
        np.testing.assert_allclose(said[role], values, atol=1e-4 * np.abs(values).max())


@pytest.mark.parametrize("size", [(12, 12), (13, 12), (12, 57), (40, 41)])
def test_the_first_network_takes_any_size_and_answers_for_each_window(size):
    file = published("propose", random_weights("propose"))
    pixels = random_pixels("propose", size, count=1)
    said = run(build_onnx(file, "propose"), pixels)
    rows, columns = (-(-(side - 2) // 2) - 4 for side in size)
    assert said["scores"].shape == (1, 1, rows, columns)
    assert said["boxes"].shape == (1, 4, rows, columns)
    wanted = run_published("propose", file, pixels)
    np.testing.assert_allclose(said["scores"], wanted["scores"], atol=1e-5)


def test_the_same_weights_give_the_same_bytes_in_any_order(network):
    weights = random_weights(network)
    file = build_onnx(published(network, weights), network)
    assert build_onnx(published(network, dict(reversed(weights.items()))), network) == file
    assert {node.op_type for node in onnx.load_from_string(file).graph.node}.isdisjoint({"PRelu", "Transpose"})


def test_a_tensor_that_is_missing_misshapen_or_not_finite_is_refused_by_name(network):
    stage = NETWORKS[network].stages[1]
    name = f"{stage.conv}/kernel:0"
    weights = random_weights(network)
    lacking = {key: values for key, values in weights.items() if key != name}
    cases = {
        "is missing": lacking,
        "has shape": weights | {name: weights[name][:, :-1]},
        "not finite": weights | {name: np.where(weights[name] > 0, np.float32(np.nan), weights[name])},
    }
    for message, held in cases.items():
        model = onnx.ModelProto(
            graph=onnx.GraphProto(initializer=[numpy_helper.from_array(v, k) for k, v in held.items()])
        )
        with pytest.raises(BadInput, match=message) as caught:
            build_onnx(model.SerializeToString(), network)
        assert caught.value.code == "models.bad-weights"
        assert name in caught.value.message


@pytest.mark.parametrize("data", [b"", b"no model at all"])
def test_what_is_no_model_is_refused(data, network):
    with pytest.raises(BadInput) as caught:
        build_onnx(data, network)
    assert caught.value.code == "models.bad-weights"


def test_random_weights_do_not_pass_the_check_of_the_real_ones(network):
    said = run(build_onnx(published(network, random_weights(network)), network), reference_pixels(network))
    with pytest.raises(Broken) as caught:
        check_conversion(network, said)
    assert caught.value.code == "models.bad-conversion"


def test_the_kept_outputs_are_those_of_the_reference_pictures(network):
    """Their shapes follow from the networks: pictures of another size would have others."""
    said = run(build_onnx(published(network, random_weights(network)), network), reference_pixels(network))
    for role, values in said.items():
        with pytest.raises(Broken, match="deviates") as caught:
            check_conversion(network, {**said, role: values[:, :, :-1] if values.ndim > 2 else values[:, :-1]})
        assert "inf" in caught.value.message
    with pytest.raises(Broken) as caught:
        check_conversion(network, said)
    assert "inf" not in caught.value.message
