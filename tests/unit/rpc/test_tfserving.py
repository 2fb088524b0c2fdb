"""TensorFlow Serving over gRPC: OpenVINO's own client, and messages as they are."""

import grpc
import numpy as np
import ovmsclient
import pytest
from google.protobuf.json_format import ParseDict
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError

from relens.rpc.messages import MODEL, PREDICTION, SignatureDefMap, methods
from relens.rpc.tensor_protos import read_tensor, write_tensor
from relens.serving.served import Policy, Served, Wanted
from relens.tensors import TensorInfo
from relens.testing.served import LABELS

X = np.array([[1, 2, 3, 4], [8, 7, 6, 5]], np.float32)
FEATURE_X = {"x": {"float_list": {"value": [1, 2, 3, 4]}}}


@pytest.fixture
def client(address):
    return ovmsclient.make_grpc_client(address)


@pytest.fixture
def say(call):
    """What a method answers to a message that is given as JSON, and to tensors."""

    def ask(method, tensors=(), service=PREDICTION, **fields):
        request = ParseDict(fields, methods(service)[method][0]())
        for name, array in dict(tensors).items():
            write_tensor(array, request.inputs[name])
        return call(service, method, request)

    return ask


@pytest.fixture
def refused(say):
    def ask(method, *tensors, **fields):
        with pytest.raises(grpc.RpcError) as caught:
            say(method, *tensors, **fields)
        return caught.value.code().name, caught.value.details()

    return ask


def spec(name="scale", **more):
    return {"name": name, **more}


def read(response, name):
    return read_tensor(response.outputs[name], max_bytes=10_000)


def text(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def example(**features):
    return {"features": {"feature": features}}


def floats(*values):
    return {"float_list": {"value": values}}


def ints(*values):
    return {"int64_list": {"value": values}}


def examples(*some):
    return {"example_list": {"examples": list(some)}}


# -- predict


def test_openvinos_client_predicts(client):
    answer = client.predict({"x": X}, "scale")
    np.testing.assert_array_equal(answer["y"], X * 2)
    np.testing.assert_array_equal(answer["sum"], X.sum(1) * 2)
    assert (
        client.predict({"a": np.ones((2, 1), np.int32), "b": np.ones((2, 1), np.int32)}, "pair").tolist() == [[2]] * 2
    )
    assert client.predict({"text": [b"one", b"two"]}, "letters")["upper"].tolist() == [b"ONE", b"TWO"]


def test_openvinos_client_names_a_version(client):
    np.testing.assert_array_equal(client.predict({"x": X}, "scale", 1)["y"], X)


def test_openvinos_client_reads_status_and_metadata(client):
    status = client.get_model_status("scale")
    assert {version: one["state"] for version, one in status.items()} == {3: "END", 2: "AVAILABLE", 1: "AVAILABLE"}
    assert status[3]["error_code"] == 13
    assert "digest" in status[3]["error_message"]
    metadata = client.get_model_metadata("scale")
    assert metadata["model_version"] == 2
    assert metadata["inputs"] == {"x": {"shape": [-1, 4], "dtype": "DT_FLOAT"}}


def test_openvinos_client_gives_a_picture(client):
    assert client.predict({"images": b"\xff\xd8"}, "looks").tolist() == [2]


def test_openvinos_client_understands_errors(client):
    with pytest.raises(ModelNotFoundError):
        client.predict({"x": X}, "none")
    with pytest.raises(InvalidInputError, match=r"x \(any, 4\) FP32"):
        client.predict({"x": X[:, :3]}, "scale")


def test_an_answer_has_values_in_the_field_of_their_type_and_says_what_gave_it(say):
    response = say("Predict", {"x": X}, model_spec=spec())
    assert list(response.outputs["sum"].float_val) == [20, 52]
    assert not response.outputs["sum"].tensor_content
    assert (response.model_spec.name, response.model_spec.version.value) == ("scale", 2)
    assert response.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize(
    ("more", "factor"),
    [({}, 2), ({"version": "1"}, 1), ({"version": "0"}, 2), ({"version_label": "stable"}, 2)],
)
def test_a_version_is_named_by_number_or_label(say, more, factor):
    np.testing.assert_array_equal(read(say("Predict", {"x": X}, model_spec=spec(**more)), "y"), X * factor)


def test_an_output_filter_is_what_is_answered(say, models):
    response = say("Predict", {"x": X}, model_spec=spec(), output_filter=["sum"])
    assert list(response.outputs) == ["sum"]
    assert models.asked[-1][2] == ("sum",)


def test_pictures_have_a_signature_and_are_taken_in_the_usual_one_too(say, refused):
    pictures = {"images": text(b"one", b"two")}
    for signature in ("", "serving_default", "pictures"):
        response = say("Predict", pictures, model_spec=spec("looks", signature_name=signature))
        assert read(response, "seen").tolist() == [2, 2]
    numbers = {"images": np.zeros((2, 3, 2, 2), np.float32)}
    assert read(say("Predict", numbers, model_spec=spec("looks")), "seen").tolist() == [1, 1]
    assert refused("Predict", numbers, model_spec=spec("looks", signature_name="pictures"))[0] == "INVALID_ARGUMENT"
    assert "'pictures'" in refused("Predict", {"x": X}, model_spec=spec(signature_name="pictures"))[1]


@pytest.mark.parametrize(
    ("fields", "tensors", "code", "says"),
    [
        ({}, {"x": X}, "INVALID_ARGUMENT", "no `model_spec`"),
        ({"model_spec": {}}, {"x": X}, "NOT_FOUND", "no model ''"),
        ({"model_spec": spec("none")}, {"x": X}, "NOT_FOUND", "no model 'none'"),
        ({"model_spec": spec(version="3")}, {"x": X}, "NOT_FOUND", "scale/3"),
        ({"model_spec": spec(version="-1")}, {"x": X}, "INVALID_ARGUMENT", "-1 is no version"),
        ({"model_spec": spec(version_label="gold")}, {"x": X}, "NOT_FOUND", "scale@gold"),
        ({"model_spec": spec(signature_name="other")}, {"x": X}, "INVALID_ARGUMENT", "no signature 'other'"),
        ({"model_spec": spec()}, {"x": X.astype(np.float64)}, "INVALID_ARGUMENT", "x (any, 4) FP32"),
        ({"model_spec": spec()}, {"z": X}, "INVALID_ARGUMENT", "['x']"),
        (
            {"model_spec": spec(), "inputs": {"x": {"dtype": 14}}},
            {},
            "INVALID_ARGUMENT",
            "input 'x': it is of type DT_BF",
        ),
        ({"model_spec": spec(), "output_filter": ["q"]}, {"x": X}, "INVALID_ARGUMENT", "output q"),
        ({"model_spec": spec(), "output_filter": ["y", "y"]}, {"x": X}, "INVALID_ARGUMENT", "twice"),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_why(refused, fields, tensors, code, says):
    got, message = refused("Predict", tensors, **fields)
    assert got == code
    assert says in message


def test_a_constant_that_fills_more_than_a_request_may_have_is_refused(refused):
    inputs = {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "1000000000000"}]}, "float_val": [1]}}
    assert "more than 1,000,000 bytes" in refused("Predict", model_spec=spec(), inputs=inputs)[1]


# -- classify and regress


def test_classify_gives_each_example_its_classes_with_scores(say, models):
    models.describe = lambda _: Served("scale", 2, *SCORES, "made-up", LABELS)
    response = say("Classify", model_spec=spec(), input=examples(example(**FEATURE_X), example(x=ints(4, 3, 2, 1))))
    rows = [[(one.label, one.score) for one in row.classes] for row in response.result.classifications]
    assert rows == [
        [("red", 2), ("green", 4), ("blue", 6), ("black", 8)],
        list(zip(LABELS, (8, 6, 4, 2), strict=True)),
    ]
    assert response.model_spec.version.value == 2


SCORES = ((TensorInfo("x", "FP32", (None, 4)),), (TensorInfo("y", "FP32", (None, 4)),))


def test_regress_gives_each_example_a_number(say):
    response = say("Regress", model_spec=spec(version="1"), input=examples(example(**FEATURE_X)))
    assert [one.value for one in response.result.regressions] == [10]


def test_a_single_feature_is_the_only_input_whatever_its_name(say):
    response = say("Regress", model_spec=spec(), input=examples(example(pixels=floats(1, 1, 1, 1))))
    assert [one.value for one in response.result.regressions] == [8]


def test_features_in_the_context_are_those_of_every_example(say):
    given = {"example_list_with_context": {"examples": [example(), example()], "context": example(**FEATURE_X)}}
    assert [one.value for one in say("Regress", model_spec=spec(), input=given).result.regressions] == [20, 20]


def test_a_picture_is_a_feature(say):
    given = examples(example(images={"bytes_list": {"value": ["/9g="]}}))
    response = say("Regress", model_spec=spec("looks"), input=given)
    assert [one.value for one in response.result.regressions] == [2]


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        ("scale", {}, "no examples"),
        ("scale", examples(), "no examples"),
        ("scale", examples(example()), "`examples[0]` lacks x"),
        ("scale", examples(example(x=floats(1), z=floats(1))), "has z, which is no input"),
        ("scale", examples(example(x=floats(1, 2))), "[2] values for each example"),
        ("scale", examples(example(x=floats(*[1] * 4)), example(x=floats(1))), "1 to 4 values"),
        ("scale", examples(example(x=floats(*[1] * 4)), example()), "feature 'x' is missing"),
        ("scale", examples(example(x={"bytes_list": {"value": ["AAAA"]}})), "FP32 is given as float_list"),
        ("scale", examples(example(x={})), "feature 'x' is missing"),
        ("pair", examples(example(a=floats(1), b=ints(1))), "INT32 is given as int64_list"),
        ("pair", examples(example(a=ints(1 << 40), b=ints(1))), "a number that INT32 cannot hold"),
        ("looks", examples(example(images={"bytes_list": {"value": ["AAAA", "AAAA"]}})), "[2] values for each example"),
        (
            "looks",
            examples(example(images={"bytes_list": {"value": ["AAAA"]}}), example(images=floats(1))),
            "pictures in some examples",
        ),
        (
            "scale",
            {"example_list_with_context": {"examples": [example(**FEATURE_X)], "context": example(**FEATURE_X)}},
            "x is in `context` and in `examples[0]`",
        ),
    ],
)
def test_examples_that_the_model_cannot_be_given_are_refused(refused, model, given, says):
    code, message = refused("Regress", model_spec=spec(model), input=given)
    assert code == "INVALID_ARGUMENT"
    assert says in message


def test_a_model_without_scores_is_not_asked_for_them(refused):
    given = examples(example(text={"bytes_list": {"value": ["AAAA"]}}))
    assert "cannot be asked to classify" in refused("Classify", model_spec=spec("letters"), input=given)[1]


# -- what is said of models


def signatures(response):
    return SignatureDefMap.FromString(response.metadata["signature_def"].value).signature_def


def test_metadata_has_the_signature_of_pictures_for_a_model_that_takes_them(say):
    known = signatures(say("GetModelMetadata", model_spec=spec("looks"), metadata_field=["signature_def"]))
    assert set(known) == {"serving_default", "pictures"}
    images = known["pictures"].inputs["images"]
    assert (images.dtype, [side.size for side in images.tensor_shape.dim]) == (7, [-1])
    assert known["pictures"].outputs["seen"].dtype == 9
    assert known["serving_default"].method_name == "tensorflow/serving/predict"
    other = say("GetModelMetadata", model_spec=spec(), metadata_field=["signature_def"])
    assert set(signatures(other)) == {"serving_default"}
    assert other.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"


@pytest.mark.parametrize("fields", [[], ["other"], ["signature_def", "other"]])
def test_other_metadata_is_refused(refused, fields):
    code, message = refused("GetModelMetadata", model_spec=spec(), metadata_field=fields)
    assert code == "INVALID_ARGUMENT"
    assert "signature_def" in message


@pytest.mark.parametrize(
    ("more", "expected"), [({"version": "1"}, [1]), ({"version_label": "stable"}, [2]), ({}, [3, 2, 1])]
)
def test_the_states_of_the_versions_that_are_named_are_told(say, more, expected):
    response = say("GetModelStatus", service=MODEL, model_spec=spec(**more))
    assert [one.version for one in response.model_version_status] == expected


def test_the_states_of_what_there_is_not_are_not_found(refused):
    for model_spec in (spec("none"), spec(version="9"), spec(version_label="gold")):
        assert refused("GetModelStatus", service=MODEL, model_spec=model_spec)[0] == "NOT_FOUND"


# -- what is served


def test_exactly_the_models_of_a_list_are_served(say, models):
    listed = [
        {"name": "scale", "base_path": "/srv/models/scale/", "version_labels": {"gold": 1}},
        {"name": "pair", "model_version_policy": {"latest": {"num_versions": 3}}},
        {"name": "letters", "model_version_policy": {"all": {}}, "model_platform": "tensorflow"},
        {"name": "looks", "model_version_policy": {"specific": {"versions": ["1"]}}},
    ]
    response = say("HandleReloadConfigRequest", service=MODEL, config={"model_config_list": {"config": listed}})
    assert response.status.error_code == 0
    assert models.configured == {
        "scale": Wanted(Policy(), {"gold": 1}),
        "pair": Wanted(Policy(latest=3)),
        "letters": Wanted(Policy(latest=None)),
        "looks": Wanted(Policy(specific=(1,))),
    }


@pytest.mark.parametrize(
    ("config", "code", "says"),
    [
        ({}, "INVALID_ARGUMENT", "no `model_config_list`"),
        ([{"name": "none"}], "NOT_FOUND", "no model 'none'"),
        ([{"name": ""}], "INVALID_ARGUMENT", "no name"),
        ([{"name": "pair"}, {"name": "pair"}], "INVALID_ARGUMENT", "listed twice"),
        ([{"name": "pair", "base_path": "/etc/other"}], "INVALID_ARGUMENT", "is not loaded from '/etc/other'"),
        ([{"name": "pair", "version_labels": {"gold": 99}}], "INVALID_ARGUMENT", "not available"),
        ([{"name": "pair", "version_labels": {"": 7}}], "INVALID_ARGUMENT", "label"),
        ([{"name": "pair", "model_version_policy": {"specific": {}}}], "INVALID_ARGUMENT", "specific versions"),
    ],
)
def test_a_list_that_cannot_be_served_changes_nothing(refused, models, config, code, says):
    config = {"model_config_list": {"config": config}} if config else {}
    got, message = refused("HandleReloadConfigRequest", service=MODEL, config=config)
    assert got == code
    assert says in message
    assert models.configured is None


def test_multi_inference_is_not_served(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{PREDICTION}/MultiInference")(b"", timeout=20)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
