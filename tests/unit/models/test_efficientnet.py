"""The graph with random weights of the right shapes, run by onnxruntime, and the check against the kept outputs."""

from __future__ import annotations

import math
from importlib import resources

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load

from relens.errors import BadInput, Broken
from relens.models import efficientnet
from relens.models.efficientnet import (
    build_onnx,
    check_conversion,
    classifier_head,
    expected_shapes,
    input_size_px,
    reference_pixels,
)


def random_tensor(rng, name, shape):
    """Scaled so that activations neither die nor explode through the depth of the network."""
    if name.endswith("num_batches_tracked"):
        return np.array(1, np.int64)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 1:
        return (rng.uniform(0.5, 1.5, shape) if name.endswith("weight") else rng.normal(0, 0.3, shape)).astype("f4")
    return rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape).astype(np.float32)


def random_weights(variant, seed=7):
    rng = np.random.default_rng(seed)
    return {name: random_tensor(rng, name, shape) for name, shape in expected_shapes(variant).items()}


def run(model, pixels):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"pixels": pixels}), strict=True))


@pytest.fixture(scope="module", params=[0, 1, 2])
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def weights(variant):
    return random_weights(variant)


@pytest.fixture(scope="module")
def model(weights, variant):
    return build_onnx(weights, variant=variant)


@pytest.fixture(scope="module")
def pixels(variant):
    return reference_pixels(input_size_px(variant))


@pytest.fixture(scope="module")
def outputs(model, pixels):
    return run(model, pixels)


@pytest.mark.parametrize(("variant_", "parameters"), [(0, 4_652_008), (1, 5_416_680), (2, 6_092_072)])
def test_the_shapes_hold_as_many_parameters_as_published(variant_, parameters):
    shapes = expected_shapes(variant_)
    learnt = [shape for name, shape in shapes.items() if "running_" not in name and "num_batches" not in name]
    assert sum(map(math.prod, learnt)) == parameters


def test_outputs_have_the_promised_names_shapes_and_types(outputs, variant):
    side = math.ceil(input_size_px(variant) / 32)
    shapes = {name: array.shape for name, array in outputs.items()}
    assert shapes == {"scores": (3, 1000), "vector": (3, 1280), "features": (3, 1280, side, side)}
    assert {array.dtype for array in outputs.values()} == {np.dtype(np.float32)}


def test_the_activations_are_alive_and_differ_between_pictures(outputs):
    assert 0.05 < (outputs["features"] > 0).mean() < 0.95
    assert np.abs(outputs["vector"][0] - outputs["vector"][1]).max() > 1e-2


def test_vector_is_the_mean_of_features_and_scores_are_its_softmax(outputs, weights):
    vector = outputs["vector"]
    np.testing.assert_allclose(vector, outputs["features"].mean(axis=(2, 3)), rtol=1e-4, atol=1e-5)
    matrix, bias = classifier_head(weights)
    logits = vector.astype(np.float64) @ matrix.T + bias
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["scores"], expected, atol=1e-5)
    np.testing.assert_allclose(outputs["scores"].sum(axis=1), 1, atol=1e-5)


def test_a_batch_of_three_equals_three_singles(model, outputs, pixels):
    for at in range(3):
        single = run(model, pixels[at : at + 1])
        for name, batch in outputs.items():
            np.testing.assert_allclose(single[name][0], batch[at], rtol=1e-5, atol=1e-5)


def test_the_same_weights_give_the_same_bytes_in_any_order(model, weights, variant):
    assert build_onnx(dict(reversed(weights.items())), variant=variant) == model
    assert build_onnx(weights | {"_fc.bias": weights["_fc.bias"] + 1}, variant=variant) != model


def test_the_file_is_written_for_older_runtimes_and_any_batch(model):
    proto = onnx.load_from_string(model)
    assert proto.ir_version <= 9
    assert [opset.version for opset in proto.opset_import] == [17]
    assert {node.op_type for node in proto.graph.node} == {
        "Add",
        "Clip",
        "Conv",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "Softmax",
    }
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "n"


def test_a_folded_convolution_does_what_convolution_and_normalisation_do():
    weights = random_weights(0)
    conv = next(efficientnet._convolutions(0))
    kernel, bias = efficientnet._folded(weights, conv)
    patch = np.random.default_rng(3).normal(size=(3, 3, 3))
    plain = (weights["_conv_stem.weight"] * patch).sum(axis=(1, 2, 3))
    centred = (plain - weights["_bn0.running_mean"]) / np.sqrt(weights["_bn0.running_var"] + 1e-3)
    expected = centred * weights["_bn0.weight"] + weights["_bn0.bias"]
    np.testing.assert_allclose((kernel * patch).sum(axis=(1, 2, 3)) + bias, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "pads"),
    [
        (224, 3, 2, [0, 0, 1, 1]),
        (65, 3, 2, [1, 1, 1, 1]),
        (56, 5, 2, [1, 1, 2, 2]),
        (33, 5, 1, [2, 2, 2, 2]),
        (7, 1, 1, [0, 0, 0, 0]),
    ],
)
def test_padding_puts_the_odd_zero_last(side, kernel, stride, pads):
    assert efficientnet._padding(side, kernel, stride) == pads


def test_a_tensor_missing_left_over_or_misshapen_is_refused_by_name():
    weights = random_weights(0)
    missing = {name: array for name, array in weights.items() if name != "_blocks.3._bn1.running_var"}
    cases = {
        "_blocks.3._bn1.running_var is missing": missing,
        "_blocks.16._bn0.bias belongs to no layer": weights | {"_blocks.16._bn0.bias": np.zeros(3, np.float32)},
        "_conv_stem.weight has shape": weights | {"_conv_stem.weight": weights["_conv_stem.weight"][..., :2]},
    }
    for message, held in cases.items():
        with pytest.raises(BadInput, match=message) as caught:
            build_onnx(held, variant=0)
        assert caught.value.code == "models.bad-checkpoint"


@pytest.mark.parametrize(
    ("name", "value"), [("_fc.weight", math.nan), ("_conv_head.weight", math.inf), ("_bn0.running_var", -1.0)]
)
def test_weights_that_are_not_finite_are_refused(name, value):
    weights = random_weights(0)
    with pytest.raises(BadInput, match="not finite"):
        build_onnx(weights | {name: np.full_like(weights[name], value)}, variant=0)


def test_weights_of_another_variant_are_refused():
    with pytest.raises(BadInput, match="this variant"):
        build_onnx(random_weights(0), variant=1)


@pytest.mark.parametrize("unknown", [-1, 3])
def test_another_variant_is_refused(unknown):
    for ask in (input_size_px, expected_shapes, lambda variant: check_conversion({}, variant)):
        with pytest.raises(BadInput) as caught:
            ask(unknown)
        assert caught.value.code == "models.unknown-variant"


def test_the_head_comes_as_float32_and_is_refused_where_it_is_not_there():
    weights = random_weights(0)
    matrix, bias = classifier_head({"_fc.weight": weights["_fc.weight"].astype("f8"), "_fc.bias": weights["_fc.bias"]})
    assert (matrix.shape, matrix.dtype, bias.shape, bias.dtype) == ((1000, 1280), np.float32, (1000,), np.float32)
    with pytest.raises(BadInput, match=r"_fc\.bias is missing"):
        classifier_head({"_fc.weight": weights["_fc.weight"]})


def test_reference_pictures_are_varied_and_within_the_models_range(pixels, variant):
    size = input_size_px(variant)
    assert pixels.shape == (3, 3, size, size)
    assert pixels.dtype == np.float32
    assert np.abs(pixels).max() <= 1
    assert (pixels.std(axis=(2, 3)) > 0.1).all()
    assert np.array_equal(pixels, reference_pixels(size))


def kept(variant):
    arrays = load((resources.files("relens.models") / "imagenet_reference.safetensors").read_bytes())
    return {name: arrays[f"lite{variant}.{name}"] for name in ("scores", "vector")}


def test_the_kept_outputs_are_those_of_a_classifier_that_tells_the_pictures_apart(variant):
    scores = kept(variant)["scores"]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert len(set(scores.argmax(axis=1))) == 3


def test_the_check_passes_the_kept_outputs_and_tells_how_far_others_are(variant):
    outputs = kept(variant)
    assert check_conversion(outputs, variant) == 0
    nearly = outputs | {"vector": outputs["vector"] + 5e-4 * outputs["vector"].max()}
    assert check_conversion(nearly, variant) == pytest.approx(5e-4, rel=1e-2)


@pytest.mark.parametrize("name", ["scores", "vector"])
def test_the_check_refuses_outputs_that_differ_lack_or_are_not_finite(name):
    outputs = kept(0)
    array = outputs[name]
    absent = {other: held for other, held in outputs.items() if other != name}
    worse = [array + 2e-3 * array.max(), np.full_like(array, math.nan), array[:2], array[::-1]]
    for case in (absent, *(outputs | {name: other} for other in worse)):
        with pytest.raises(Broken) as caught:
            check_conversion(case, 0)
        assert caught.value.code == "models.bad-conversion"


def test_random_weights_do_not_pass_the_check(outputs, variant):
    with pytest.raises(Broken):
        check_conversion(outputs, variant)
