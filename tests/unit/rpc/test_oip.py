"""The Open Inference Protocol over gRPC: Triton's own client, and messages as they are."""

import asyncio
import queue

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.json_format import ParseDict
from starlette.applications import Starlette
from tritonclient.utils import InferenceServerException

from relens.rest.models import model_routes
from relens.rpc.messages import INFERENCE, methods
from relens.serving.served import Named, VersionStatus
from relens.serving.tallies import counted
from relens.testing.served import MadeUpModels

X = np.array([[1, 2, 3, 4], [8, 7, 6, 5]], np.float32)


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(address) as client:
        yield client


@pytest.fixture
def say(call):
    """What a method answers to a message that is given as JSON."""
    return lambda method, **fields: call(INFERENCE, method, ParseDict(fields, methods(INFERENCE)[method][0]()))


def tensor(name, array, datatype=None):
    given = triton.InferInput(name, list(array.shape), datatype or triton.np_to_triton_dtype(array.dtype))
    given.set_data_from_numpy(array)
    return given


def refused(client, model, inputs, **options):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs, **options)
    return caught.value.status(), caught.value.message()


def test_the_server_and_its_models_are_live_and_ready(client, models):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert [client.is_model_ready("scale", version) for version in ("", "1", "stable", "3", "canary")] == [
        *[True] * 3,
        *[False] * 2,
    ]
    assert not client.is_model_ready("none")
    models.versions = lambda _: [VersionStatus(1, "LOADING")]
    assert not client.is_server_ready()


def test_a_server_and_a_model_say_what_they_are(client):
    server = client.get_server_metadata()
    assert server.name == "relens"
    assert {"classification", "statistics"} <= set(server.extensions)
    model = client.get_model_metadata("scale")
    assert (list(model.versions), model.platform) == (["2", "1"], "made-up")
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [("x", "FP32", [-1, 4])]
    assert [one.name for one in model.outputs] == ["y", "sum"]


def test_a_model_that_takes_pictures_says_so(say):
    assert dict(say("ModelMetadata", name="looks").properties) == {"pictures": "images"}
    assert not say("ModelMetadata", name="scale").properties


def test_a_configuration_has_what_clients_split_batches_by(client):
    config = client.get_model_config("scale").config
    assert config.max_batch_size > 1
    assert list(config.input[0].dims) == [4]
    assert config.output[1].HasField("reshape")
    assert client.get_model_config("pair").config.max_batch_size == 0


def test_numbers_are_inferred(client, models):
    result = client.infer("scale", [tensor("x", X)], request_id="seven")
    np.testing.assert_array_equal(result.as_numpy("y"), X * 2)
    np.testing.assert_array_equal(result.as_numpy("sum"), X.sum(1) * 2)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("seven", "scale", "2")
    assert models.asked[-1][0] == Named("scale")


@pytest.mark.parametrize(("version", "factor"), [("1", 1), ("2", 2), ("stable", 2), ("", 2)])
def test_a_version_is_named_by_number_or_label(client, version, factor):
    result = client.infer("scale", [tensor("x", X)], model_version=version)
    np.testing.assert_array_equal(result.as_numpy("y"), X * factor)


def test_only_the_outputs_that_are_named_are_answered(client, models):
    result = client.infer("scale", [tensor("x", X)], outputs=[triton.InferRequestedOutput("sum")])
    assert [one.name for one in result.get_response().outputs] == ["sum"]
    assert models.asked[-1][2] == ("sum",)


def test_strings_are_inferred(client):
    text = np.array([b"one", "zwölf".encode()], object)
    result = client.infer("letters", [tensor("text", text, "BYTES")])
    assert result.as_numpy("upper").tolist() == [one.upper() for one in text]
    assert result.as_numpy("length").tolist() == [3, 6]


def test_typed_contents_are_answered_with_typed_contents(say):
    given = {"datatype": "INT32", "shape": [2, 1], "contents": {"int_contents": [3, -4]}}
    response = say("ModelInfer", model_name="pair", inputs=[{"name": name, **given} for name in "ab"])
    assert list(response.outputs[0].contents.int_contents) == [6, -8]
    assert not response.raw_output_contents


def test_the_best_classes_are_answered_as_text(client):
    wanted = [triton.InferRequestedOutput("y", class_count=2)]
    result = client.infer("scale", [tensor("x", X)], outputs=wanted, model_version="1")
    assert result.as_numpy("y").tolist() == [
        [b"4.000000:3:black", b"3.000000:2:blue"],
        [b"8.000000:0:red", b"7.000000:1:green"],
    ]


def test_a_picture_is_handed_on_as_bytes(client):
    result = client.infer("looks", [tensor("images", np.array([b"\xff\xd8", b"\xff"], object), "BYTES")])
    assert result.as_numpy("seen").tolist() == [2, 2]


def test_the_priority_goes_with_the_request(client, models):
    client.infer("scale", [tensor("x", X)])
    client.infer("scale", [tensor("x", X)], priority=2)
    assert [named.priority for named, *_ in models.asked] == [0, 2]


def test_the_timeout_of_a_request_and_the_deadline_of_a_call_are_how_long_it_waits(client, models):
    client.infer("scale", [tensor("x", X)], timeout=2_000_000)
    client.infer("scale", [tensor("x", X)])
    client.infer("scale", [tensor("x", X)], client_timeout=20)
    client.infer("scale", [tensor("x", X)], client_timeout=20, timeout=1_500_000)
    waits = [one[3] for one in models.asked]
    assert waits[:2] == [2.0, None]
    assert 0 < waits[2] < 21  # gRPC counts it anew from when it came
    assert waits[3] == 1.5


@pytest.mark.parametrize(
    ("model", "inputs", "options", "expected"),
    [
        ("none", [tensor("x", X)], {}, ("NOT_FOUND", "no model 'none'")),
        ("scale", [tensor("x", X)], {"model_version": "3"}, ("NOT_FOUND", "scale/3")),
        ("scale", [tensor("x", X)], {"model_version": "gold"}, ("NOT_FOUND", "scale@gold")),
        ("scale", [tensor("x", X.astype(np.float64))], {}, ("INVALID_ARGUMENT", "x (any, 4) FP32")),
        ("scale", [tensor("z", X)], {}, ("INVALID_ARGUMENT", "['x']")),
        ("scale", [tensor("x", -X[:, :1] @ np.ones((1, 4), np.float32))], {}, ("INTERNAL", "a number is negative")),
        ("scale", [tensor("x", X)], {"outputs": [triton.InferRequestedOutput("q")]}, ("INVALID_ARGUMENT", "output q")),
    ],
)
def test_what_cannot_be_inferred_has_a_status_and_says_why(client, model, inputs, options, expected):
    status, message = refused(client, model, inputs, **options)
    assert status == f"StatusCode.{expected[0]}"
    assert expected[1] in message


def test_a_stream_answers_each_request_in_order_and_goes_on_after_an_error(client, logged):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for turn, version in enumerate(["1", "9", "2"]):
        client.async_stream_infer("scale", [tensor("x", X)], model_version=version, request_id=str(turn))
    got = [answers.get(timeout=20) for _ in range(3)]
    client.stop_stream()
    assert [got[0][0].get_response().id, got[2][0].get_response().id] == ["0", "2"]
    np.testing.assert_array_equal(got[2][0].as_numpy("y"), X * 2)
    assert "scale/9" in got[1][1].message()
    assert [one["status"] for one in logged if one["event"] == "request"][:3] == ["OK", "NOT_FOUND", "OK"]


def test_statistics_count_requests_and_rows_of_each_version(client, models):
    client.infer("scale", [tensor("x", X)])
    refused(client, "scale", [tensor("z", X)])
    [stats] = client.get_inference_statistics("scale", "2").model_stats
    assert (stats.inference_count, stats.execution_count) == (2, 1)
    assert (stats.inference_stats.success.count, stats.inference_stats.fail.count) == (1, 1)
    assert stats.last_inference > 0
    every = client.get_inference_statistics().model_stats
    assert [(one.name, one.version) for one in every if one.name == "scale"] == [("scale", "2"), ("scale", "1")]


def test_both_doors_count_for_both(make, models):
    server = counted(models)

    async def tell():
        transport = httpx.ASGITransport(Starlette(routes=model_routes(server, max_bytes=1000)))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
            await http.post("/v1/models/scale:predict", json={"inputs": X.tolist()})
            return (await http.get("/v2/models/scale/versions/2/stats")).json()["model_stats"][0]

    with triton.InferenceServerClient(make(server)) as client:
        client.infer("scale", [tensor("x", X)])
        assert asyncio.run(tell())["inference_count"] == 4
        assert client.get_inference_statistics("scale", "2").model_stats[0].inference_count == 4


def test_the_index_lists_every_version_with_its_state(client, say):
    index = {(one.name, one.version): (one.state, one.reason) for one in client.get_model_repository_index().models}
    assert index["scale", "2"] == ("READY", "")
    assert index["scale", "3"][0] == "UNAVAILABLE"
    assert "digest" in index["scale", "3"][1]
    assert {one.state for one in say("RepositoryIndex", ready=True).models} == {"READY"}


def test_nothing_is_loaded_by_request_and_shared_memory_is_not_served(client):
    for work in (lambda: client.load_model("scale"), lambda: client.unload_model("scale")):
        with pytest.raises(InferenceServerException, match="neither loaded nor unloaded"):
            work()
    with pytest.raises(InferenceServerException) as caught:
        client.get_system_shared_memory_status()
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_a_model_that_is_being_loaded_is_to_be_asked_again(make):
    with triton.InferenceServerClient(make(MadeUpModels())) as client:
        status, message = refused(client, "slow", [tensor("x", X)])
    assert (status, message) == ("StatusCode.UNAVAILABLE", "model slow is being loaded")
