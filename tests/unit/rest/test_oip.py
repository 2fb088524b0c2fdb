"""The door of the Open Inference Protocol: what the specification says, what is wrong, and Triton's own client."""

import asyncio
import concurrent.futures
import contextlib
import gzip
import json
import socket
import threading
import time
import zlib

import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from starlette.applications import Starlette

from relens.errors import BadInput, Broken, Busy
from relens.rest.codings import deflated, inflated
from relens.rest.oip import oip_routes
from relens.rest.oip_tensors import read_request
from relens.runtimes.wire import wire_of
from relens.serving.classes import best_classes
from relens.serving.served import Inferred, Served, VersionStatus
from relens.tensors import DATATYPES, TensorInfo, datatype_of, from_bytes, to_bytes
from relens.testing.served import LABELS, MadeUpModels

MAX_BYTES = 1_000_000
LENGTH = "Inference-Header-Content-Length"
X = np.array([[1, 2, 3, 4], [8, 7, 6, 5]], np.float32)
X_JSON = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": X.tolist()}
NUMBERS = [name for name in DATATYPES if name != "BYTES"]
ON_A_MACHINE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Models(MadeUpModels):
    """The made-up models without `slow`, and `mirror`, which gives back its input `x` as `y`, whatever it is.

    `infer` raises `error` if that is set. `described` may be set for one model,"""

    def __init__(self):
        super().__init__()
        self.error = None

    def models(self):
        return ["letters", "mirror", "pair", "scale"]

    def versions(self, model):
        return [VersionStatus(4, "AVAILABLE")] if model == "mirror" else super().versions(model)

    def describe(self, named):
        if named.model != "mirror":
            return super().describe(named)
        return Served("mirror", 4, (TensorInfo("x", "FP32", (None,)),), (TensorInfo("y", "FP32", (None,)),), "made-up")

    async def infer(self, named, inputs, *, outputs=(), timeout_s=None):
        if self.error is not None:
            raise self.error
        if named.model != "mirror":
            return await super().infer(named, inputs, outputs=outputs, timeout_s=timeout_s)
        if set(inputs) != {"x"} or set(outputs) - {"y"}:
            raise BadInput("serving.wrong-inputs", "the model takes x and gives y")
        return Inferred("mirror", 4, {"y": inputs["x"]}, {"run": 0.1})


class Client:
    """Asks an application over these models, on one event loop; what the application does not catch is raised."""

    def __init__(self, models):
        app = Starlette(routes=oip_routes(models, max_bytes=MAX_BYTES))
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")
        self._runner = asyncio.Runner()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runner.run(self._client.aclose())
        self._runner.close()

    def request(self, method, path, **sent):
        return self._runner.run(self._client.request(method, path, **sent))

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, **sent):
        return self.request("POST", path, **sent)


@pytest.fixture
def models():
    return Models()


@pytest.fixture
def client(models):
    with Client(models) as client:
        yield client


@pytest.fixture(scope="module")
def mirror():
    with Client(Models()) as client:
        yield client


def test_the_server_says_what_it_is_and_which_extensions_it_has(client):
    said = client.get("/v2").json()
    assert said["name"] == "relens"
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} <= set(said["extensions"])


def test_a_server_is_live_and_is_ready_when_every_model_is(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_a_server_is_not_ready_while_a_model_is_being_loaded():
    with Client(MadeUpModels()) as client:
        response = client.get("/v2/health/ready")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "error": "not available: slow"}


def test_a_model_that_was_taken_away_keeps_no_server_from_being_ready(client, models):
    models.versions = lambda _: [VersionStatus(1, "END")]
    assert client.get("/v2/health/ready").json() == {"ready": True}
    models.versions = lambda _: [VersionStatus(1, "END", Broken("models.corrupt", "it is broken"))]
    assert client.get("/v2/health/ready").status_code == 503


def test_a_model_says_its_versions_and_tensors(client):
    assert client.get("/v2/models/scale").json() == {
        "name": "scale",
        "versions": ["2", "1"],
        "platform": "made-up",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, 4]},
            {"name": "sum", "datatype": "FP32", "shape": [-1]},
        ],
    }
    assert client.get("/v2/models/scale/versions/1").status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("scale", 200),
        ("scale/versions/2", 200),
        ("scale/versions/stable", 200),
        ("scale/versions/3", 404),
        ("scale/versions/newest", 404),
        (f"scale/versions/{'9' * 5000}", 404),
        ("slow", 503),
        ("none", 404),
    ],
)
def test_a_model_is_ready_when_its_version_is(client, path, status):
    response = client.get(f"/v2/models/{path}/ready")
    assert response.status_code == status
    assert response.json()["name"] == path.split("/")[0]
    assert response.json()["ready"] is (status == 200)
    assert ("error" in response.json()) is (status != 200)
    assert ("Retry-After" in response.headers) is (status == 503)


def test_a_configuration_leaves_the_batch_out_as_triton_does(client):
    config = client.get("/v2/models/scale/config").json()
    assert config["max_batch_size"] > 0
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert config["output"][1] == {"name": "sum", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}
    assert client.get("/v2/models/letters/config").json()["input"][0]["data_type"] == "TYPE_STRING"


def test_a_configuration_of_a_model_without_batch_has_all_sides(client):
    config = client.get("/v2/models/pair/versions/7/config").json()
    assert config["max_batch_size"] == 0
    assert config["input"][0] == {"name": "a", "data_type": "TYPE_INT32", "dims": [2, -1]}


def test_the_index_has_every_version_with_its_state_and_reason(client):
    index = client.post("/v2/repository/index").json()
    states = {(one["name"], one["version"]): one["state"] for one in index}
    assert states["scale", "3"] == "UNAVAILABLE"
    assert states["scale", "2"] == "READY"
    (broken,) = [one for one in index if one["state"] == "UNAVAILABLE"]
    assert "differs from its digest" in broken["reason"]


def test_the_index_of_what_is_ready_has_nothing_else(client):
    ready = client.post("/v2/repository/index", json={"ready": True}).json()
    assert {one["state"] for one in ready} == {"READY"}
    assert client.post("/v2/repository/index", json={"ready": False}).json() != ready
    for wrong in ({"ready": "yes"}, {"ready": [1]}, {"ready": 1}, [1]):
        assert client.post("/v2/repository/index", json=wrong).status_code == 400


@pytest.mark.parametrize("what", ["load", "unload"])
def test_models_are_not_loaded_by_request(client, what):
    response = client.post(f"/v2/repository/models/scale/{what}")
    assert response.status_code == 400
    assert "follow the folder of models" in response.json()["error"]


def test_json_goes_in_and_comes_out(client, models):
    request = {"id": "42", "inputs": [X_JSON], "parameters": {"timeout": 1_500_000}}
    response = client.post("/v2/models/scale/infer", json=request)
    assert response.status_code == 200
    assert LENGTH not in response.headers
    assert response.json() == {
        "model_name": "scale",
        "model_version": "2",
        "id": "42",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 4], "data": [2, 4, 6, 8, 16, 14, 12, 10]},
            {"name": "sum", "datatype": "FP32", "shape": [2], "data": [20, 52]},
        ],
    }
    ((named, _, outputs, timeout_s),) = models.asked
    assert (str(named), outputs, timeout_s) == ("scale", (), 1.5)


@pytest.mark.parametrize(("segment", "meant", "version"), [("1", "scale/1", "1"), ("stable", "scale@stable", "2")])
def test_a_version_is_a_number_or_a_label(client, models, segment, meant, version):
    answer = client.post(f"/v2/models/scale/versions/{segment}/infer", json={"inputs": [X_JSON]}).json()
    assert answer["model_version"] == version
    assert str(models.asked[0][0]) == meant


def test_the_priority_goes_with_the_request(client, models):
    for priority in (0, 2):
        client.post("/v2/models/scale/infer", json={"inputs": [X_JSON], "parameters": {"priority": priority}})
    assert [named.priority for named, *_ in models.asked] == [0, 2]


def test_no_timeout_and_no_id_are_the_servers_choice(client, models):
    request = {"id": None, "inputs": [X_JSON], "parameters": {"timeout": 0}, "outputs": None}
    assert "id" not in client.post("/v2/models/scale/infer", json=request).json()
    assert models.asked[0][3] is None


def test_outputs_come_in_the_order_in_which_they_are_wanted(client):
    request = {"inputs": [X_JSON], "outputs": [{"name": "sum"}, {"name": "y"}]}
    answer = client.post("/v2/models/scale/infer", json=request).json()
    assert [one["name"] for one in answer["outputs"]] == ["sum", "y"]


def test_binary_and_json_tensors_go_together(client):
    a, b = np.array([[1], [2]], np.int32), np.array([[10], [20]], np.int32)
    inputs = [
        {"name": "a", "shape": [2, 1], "datatype": "INT32", "data": [1, 2]},
        {"name": "b", "shape": [2, 1], "datatype": "INT32", "parameters": {"binary_data_size": 8}},
    ]
    response = post_binary(client, "pair", {"inputs": inputs, "parameters": {"binary_data_output": True}}, b.tobytes())
    assert response.headers["content-type"] == "application/octet-stream"
    assert tensors_of(response)["total"].tolist() == (a + b).tolist()


def test_an_output_may_be_binary_while_others_are_not(client):
    outputs = [{"name": "y", "parameters": {"binary_data": True}}, {"name": "sum"}]
    response = client.post("/v2/models/scale/infer", json={"inputs": [X_JSON], "outputs": outputs})
    answer = json.loads(response.content[: int(response.headers[LENGTH])])
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": 32}
    assert answer["outputs"][1]["data"] == [20, 52]
    assert tensors_of(response)["y"].tolist() == (X * 2).tolist()


def test_an_output_says_otherwise_than_the_request(client):
    request = {
        "inputs": [X_JSON],
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": True},
    }
    assert LENGTH not in client.post("/v2/models/scale/infer", json=request).headers


def test_a_body_without_json_is_the_only_input_and_its_free_side_is_computed(client):
    response = client.post("/v2/models/scale/infer", content=X.tobytes(), headers={LENGTH: "0"})
    assert tensors_of(response)["y"].tolist() == (X * 2).tolist()


def test_a_body_without_json_is_one_element_of_text(client, models):
    response = client.post("/v2/models/letters/infer", content=b"hello\0", headers={LENGTH: "0"})
    assert tensors_of(response)["upper"].tolist() == [b"HELLO\0"]


@pytest.mark.parametrize(("model", "body"), [("pair", b"12345678"), ("scale", b"123"), ("scale", b"1" * 20)])
def test_a_body_without_json_that_cannot_be_understood_is_bad(client, model, body):
    assert client.post(f"/v2/models/{model}/infer", content=body, headers={LENGTH: "0"}).status_code == 400


@pytest.mark.parametrize(
    ("shape", "size", "status"),
    [
        ((None, 2, None), 16, 200),
        ((None, None, None), 16, 400),
        ((None, 0), 16, 400),
        ((2, 2), 16, 200),
        ((2, 2), 12, 400),
        ((), 4, 200),
    ],
)
def test_the_shape_of_a_body_without_json_must_follow_from_its_size(client, models, shape, size, status):
    models.describe = lambda _: Served("mirror", 4, (TensorInfo("x", "FP32", shape),), (), "made-up")
    response = client.post("/v2/models/mirror/infer", content=bytes(size), headers={LENGTH: "0"})
    assert response.status_code == status


@ON_A_MACHINE
@given(data=st.data(), datatype=st.sampled_from([name for name in NUMBERS if name != "FP16"]))
def test_numbers_of_every_datatype_come_back_from_json(mirror, data, datatype):
    array = data.draw(arrays.arrays(DATATYPES[datatype], shapes()))
    for values in (array.ravel().tolist(), array.tolist() if array.ndim else [array.item()]):
        tensor = {"name": "x", "shape": list(array.shape), "datatype": datatype, "data": values}
        body = json.dumps({"inputs": [tensor]})
        response = mirror.post("/v2/models/mirror/infer", content=body)
        assert response.status_code == 200, response.text
        (output,) = response.json()["outputs"]
        found = np.array(output["data"], array.dtype).reshape(output["shape"])
        np.testing.assert_array_equal(found, array)
        assert output["datatype"] == datatype


@ON_A_MACHINE
@given(data=st.data(), datatype=st.sampled_from(NUMBERS))
def test_numbers_of_every_datatype_come_back_from_bytes(mirror, data, datatype):
    array = data.draw(arrays.arrays(DATATYPES[datatype], shapes()))
    found = mirrored(mirror, array)
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()
    assert found.shape == array.shape


def test_binary_tensors_are_not_copied():
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": 32}}
    head = json.dumps({"inputs": [tensor]}).encode()
    body = head + X.tobytes()
    assert np.shares_memory(read_request(body, len(head)).inputs["x"], np.frombuffer(body, np.uint8))


@ON_A_MACHINE
@given(elements=st.lists(st.binary(max_size=20), max_size=8))
def test_bytes_come_back_from_bytes(mirror, elements):
    assert mirrored(mirror, array_of(elements)).tolist() == elements


@ON_A_MACHINE
@given(elements=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=8))
def test_text_comes_back_from_json(mirror, elements):
    tensor = {"name": "x", "shape": [len(elements)], "datatype": "BYTES", "data": elements}
    response = mirror.post("/v2/models/mirror/infer", json={"inputs": [tensor]})
    assert response.json()["outputs"][0]["data"] == elements


def test_nan_and_infinity_come_back_from_json(mirror):
    body = '{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [NaN, Infinity, -Infinity]}]}'
    data = mirror.post("/v2/models/mirror/infer", content=body).json()["outputs"][0]["data"]
    assert np.isnan(data[0])
    assert data[1:] == [np.inf, -np.inf]


def test_json_that_takes_long_is_done_in_a_thread_and_is_the_same(mirror):
    values = np.arange(50_000, dtype=np.int32)
    tensor = {"name": "x", "shape": [50_000], "datatype": "INT32", "data": values.tolist()}
    response = mirror.post("/v2/models/mirror/infer", json={"inputs": [tensor]})
    assert response.json()["outputs"][0]["data"] == values.tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": [1, 2, 3]}, "3 elements"),
        ({"data": [[1, 2], [3, 4], [5, 6], [7, 8]]}, "[4, 2]"),
        ({"data": [[1, 2, 3, 4], [5, 6, 7]]}, "different lengths"),
        ({"data": [[1, 2, 3, 4], 5]}, "different lengths"),
        ({"data": [1, 2, 3, 4, 5, 6, 7, [8]]}, "numbers"),
        ({"data": ["1"] * 8}, "numbers"),
        ({"data": [True] * 8}, "numbers"),
        ({"data": [1e300] * 8}, "cannot be FP32"),
        ({"data": [10**400] * 8}, "cannot be FP32"),
        ({"data": 5}, "an array"),
        ({"data": None}, "`data` of it is missing"),
        ({"datatype": "FP16"}, "binary alone"),
        ({"datatype": "BF16"}, "is no datatype"),
        ({"datatype": None}, "`datatype` of it is missing"),
        ({"datatype": "INT32", "data": [1.5] * 8}, "integers"),
        ({"datatype": "INT8", "data": [300] * 8}, "out of bounds"),
        ({"datatype": "UINT64", "data": [-1] * 8}, "out of bounds"),
        ({"datatype": "BOOL", "data": [1] * 8}, "true and false"),
        ({"datatype": "BYTES", "data": ["\ud800"] * 8}, "cannot be BYTES"),
        ({"datatype": "INT32", "data": [1] * 8}, "takes x"),
        ({"shape": [2, -4]}, "no shape"),
        ({"shape": [2, "4"]}, "no shape"),
        ({"shape": [2, True]}, "no shape"),
        ({"shape": 8}, "not an array"),
        ({"shape": [0, 2**80], "data": []}, "x"),
        ({"shape": [1] * 70, "data": [1]}, "dimension"),
        ({"shape": [8]}, "takes x"),
        ({"name": None}, "`name` of an input is missing"),
        ({"name": "z"}, "takes ['x']"),
        ({"parameters": {"binary_data_size": 32}}, "binary as well"),
        ({"parameters": {"binary_data_size": 32}, "data": None}, "0 are left"),
        ({"parameters": {"binary_data_size": -1}, "data": None}, "size is -1"),
        ({"parameters": {"binary_data_size": "8"}, "data": None}, "not an integer"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory"),
        ({"parameters": []}, "not an object"),
    ],
)
def test_a_tensor_that_is_wrong_is_bad_and_what_is_wrong_is_said(client, change, said):
    response = client.post("/v2/models/scale/infer", content=json.dumps({"inputs": [{**X_JSON, **change}]}))
    assert response.status_code == 400
    assert said in response.json()["error"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": []}, "takes"),
        ({"inputs": None}, "`inputs` of the request is missing"),
        ({"inputs": [1]}, "no JSON object"),
        ({"inputs": [X_JSON, X_JSON]}, "two inputs"),
        ({"id": 42}, "not a string"),
        ({"outputs": [{"name": "z"}]}, "no output z"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "wanted twice"),
        ({"outputs": ["y"]}, "no JSON object"),
        ({"outputs": [{"name": "y", "parameters": {"classification": -1}}]}, "-1"),
        ({"outputs": [{"name": "y", "parameters": {"classification": True}}]}, "not an integer"),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "not true or false"),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
        ({"parameters": {"timeout": -1}}, "microseconds"),
        ({"parameters": {"timeout": 1.5}}, "not an integer"),
        ({"parameters": {"timeout": 10**400}}, "microseconds"),
        ({"parameters": {"priority": -1}}, "0 or more"),
        ({"parameters": {"priority": True}}, "not an integer"),
        ({"parameters": {"binary_data_output": "yes"}}, "not true or false"),
    ],
)
def test_a_request_that_is_wrong_is_bad_and_what_is_wrong_is_said(client, change, said):
    response = client.post("/v2/models/scale/infer", json={"inputs": [X_JSON], **change})
    assert response.status_code == 400
    assert said in response.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b'{"inputs": ' + b"9" * 5000 + b"}"]
)
def test_a_body_that_is_no_json_is_bad(client, body):
    response = client.post("/v2/models/scale/infer", content=body)
    assert response.status_code == 400
    assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", "9" * 30, "999999", "3", "²"])
def test_a_length_of_the_json_that_is_wrong_is_bad(client, length):
    sent = {LENGTH: length.encode("latin-1")}
    response = client.post("/v2/models/scale/infer", content=json.dumps({"inputs": [X_JSON]}), headers=sent)
    assert response.status_code == 400


def test_bytes_that_belong_to_no_input_are_bad(client):
    response = post_binary(client, "scale", {"inputs": [X_JSON]}, b"more")
    assert response.status_code == 400
    assert "4 bytes behind the JSON" in response.json()["error"]


@pytest.mark.parametrize(("datatype", "data"), [("BOOL", b"\x02"), ("BYTES", b"\xff\0\0\0a"), ("INT16", b"1")])
def test_bytes_that_are_no_tensor_are_bad(mirror, datatype, data):
    tensor = {"name": "x", "shape": [1], "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    response = post_binary(mirror, "mirror", {"inputs": [tensor]}, data)
    assert response.status_code == 400
    assert "input 'x'" in response.json()["error"]


# fmt: off
JSON_VALUES = st.sampled_from([
    None, True, 0, 1, -1, 32, 1.5, 1e300, float("nan"), 2**31, 10**30, "", "x", "y", "1", "\ud800", [], [1], [-1],
    [2, 4], [[1], [2]], [[1], 2], [[[]]], [None], [{}], ["a"] * 8, [True] * 8, [1.5] * 8, [10**30] * 8, [0] * 70,
    [0, 2**70], [2**40, 2**40], {}, {"name": "y"}, [{"name": "y"}],
    [{"name": "sum", "parameters": {"classification": 3}}],
])
# fmt: on
KEYS = st.sampled_from(["inputs", "outputs", "parameters", "id"])
TENSOR_KEYS = st.sampled_from(["name", "shape", "datatype", "data", "parameters"])
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "classification", "timeout", "binary_data_output"]), JSON_VALUES
)


@settings(ON_A_MACHINE, max_examples=150)
@given(
    changes=st.dictionaries(KEYS, JSON_VALUES | st.fixed_dictionaries({"parameters": PARAMETERS}), max_size=2),
    tensor=st.dictionaries(TENSOR_KEYS, JSON_VALUES | PARAMETERS | st.sampled_from([*DATATYPES]), max_size=2),
    model=st.sampled_from(["mirror", "scale", "letters", "pair", "slow", "none"]),
    around=st.tuples(st.none() | st.integers(0, 200), st.binary(max_size=40)),
)
def test_whatever_is_sent_is_answered_and_never_fails(mirror, changes, tensor, model, around):
    head, more = around
    request = {"inputs": [{**X_JSON, **tensor}], **changes}
    body = json.dumps(request).encode("utf-8", "surrogatepass") + more
    headers = {} if head is None else {LENGTH: str(head)}
    response = mirror.post(f"/v2/models/{model}/infer", content=body, headers=headers)
    assert response.status_code in {200, 400, 404, 503}
    if response.status_code != 200:
        assert isinstance(response.json()["error"], str)


def test_the_best_classes_come_with_scores_and_names(client):
    outputs = [{"name": "y", "parameters": {"classification": 2}}]
    answer = client.post("/v2/models/scale/infer", json={"inputs": [X_JSON], "outputs": outputs}).json()
    assert answer["outputs"] == [
        {
            "name": "y",
            "datatype": "BYTES",
            "shape": [2, 2],
            "data": ["8.000000:3:black", "6.000000:2:blue", "16.000000:0:red", "14.000000:1:green"],
        }
    ]


def test_the_best_classes_may_be_binary_and_are_no_more_than_there_are(client):
    outputs = [{"name": "y", "parameters": {"classification": 9, "binary_data": True}}, {"name": "sum"}]
    response = client.post("/v2/models/scale/infer", json={"inputs": [X_JSON], "outputs": outputs})
    assert tensors_of(response)["y"].shape == (2, 4)


def test_a_batch_of_single_numbers_has_one_class_each_and_no_names_of_others(client):
    outputs = [{"name": "sum", "parameters": {"classification": 3}}]
    answer = client.post("/v2/models/scale/infer", json={"inputs": [X_JSON], "outputs": outputs}).json()
    assert answer["outputs"][0]["shape"] == [2, 1]
    assert answer["outputs"][0]["data"] == ["20.000000:0", "52.000000:0"]


def test_text_has_no_best_classes(client):
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    outputs = [{"name": "upper", "parameters": {"classification": 1}}]
    assert client.post("/v2/models/letters/infer", json={"inputs": [tensor], "outputs": outputs}).status_code == 400


@given(
    arrays.arrays(np.int8, arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6)),
    st.integers(1, 8),
)
def test_the_best_classes_are_those_of_a_sort(rows, count):
    expected = [
        [f"{row[i]}:{i}".encode() for i in sorted(range(len(row)), key=lambda i: (-int(row[i]), i))[:count]]
        for row in rows
    ]
    assert best_classes(rows, count, ()).tolist() == expected


def test_nan_is_no_best_class():
    rows = np.array([[np.nan, 1, 2]], np.float16)
    assert best_classes(rows, 3, ("a", "b", "c")).tolist() == [[b"2.000000:2:c", b"1.000000:1:b", b"nan:0:a"]]


def test_half_floats_do_not_become_json(mirror):
    tensor = {"name": "x", "shape": [1], "datatype": "FP16", "parameters": {"binary_data_size": 2}}
    response = post_binary(mirror, "mirror", {"inputs": [tensor]}, b"\0\0")
    assert response.status_code == 400
    assert "binary_data_output" in response.json()["error"]


def test_text_that_is_no_utf8_does_not_become_json(mirror):
    tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
    response = post_binary(mirror, "mirror", {"inputs": [tensor]}, b"\1\0\0\0\xff")
    assert response.status_code == 400
    assert "no UTF-8" in response.json()["error"]


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_is_the_same_body(client, coding, compress):
    request = {"inputs": [X_JSON | {"parameters": {"binary_data_size": 32}}]}
    request["inputs"][0].pop("data")
    head = json.dumps(request).encode()
    headers = {LENGTH: str(len(head)), "Content-Encoding": coding}
    response = client.post("/v2/models/scale/infer", content=compress(head + X.tobytes()), headers=headers)
    assert response.json()["outputs"][1]["data"] == [20, 52]


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", gzip.compress(b"\0" * (MAX_BYTES + 1), mtime=0), 413),
        ("gzip", gzip.compress(b"\0" * 1000, mtime=0)[:-9], 400),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"more", 400),
        ("gzip", b"no gzip", 400),
        ("gzip", b"", 400),
        ("deflate", gzip.compress(b"{}", mtime=0), 400),
        ("br", b"{}", 400),
    ],
)
def test_a_compressed_body_that_cannot_be_inflated_is_refused(client, coding, body, status):
    response = client.post("/v2/models/scale/infer", content=body, headers={"Content-Encoding": coding})
    assert response.status_code == status
    assert isinstance(response.json()["error"], str)


@given(st.binary(max_size=1000), st.sampled_from(["gzip", "deflate"]))
def test_what_is_deflated_is_inflated(data, coding):
    assert inflated(deflated(data, coding), coding, 1000, lambda: BadInput("too-large", "")) == data


@pytest.mark.parametrize(
    ("accepts", "binary", "coding"),
    [
        ("gzip", True, "gzip"),
        ("deflate", True, "deflate"),
        ("gzip, deflate, br", True, None),
        ("gzip, deflate, br", False, "gzip"),
        ("br, deflate;q=0.5", False, "deflate"),
        ("gzip;q=0, deflate", False, "deflate"),
        ("identity", False, None),
        ("", False, None),
    ],
)
def test_answers_are_compressed_for_who_asks(mirror, accepts, binary, coding):
    values = np.zeros(1000, np.int32)
    tensor = {"name": "x", "shape": [1000], "datatype": "INT32", "data": values.tolist()}
    request = {"inputs": [tensor], "parameters": {"binary_data_output": binary}}
    response = mirror.post("/v2/models/mirror/infer", json=request, headers={"Accept-Encoding": accepts})
    assert response.headers.get("content-encoding") == coding
    found = tensors_of(response)["y"] if binary else response.json()["outputs"][0]["data"]
    assert list(found) == values.tolist()


def test_a_body_that_is_too_large_is_refused_while_it_is_read(client, models):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 100_000
            yield bytes(100_000)

    response = client.post("/v2/models/scale/infer", content=endless())
    assert response.status_code == 413
    assert sent == MAX_BYTES + 100_000
    assert not models.asked


def test_a_body_that_says_that_it_is_too_large_is_refused(client):
    response = client.post("/v2/models/scale/infer", content=bytes(MAX_BYTES + 1))
    assert (response.status_code, "1,000,000 bytes" in response.json()["error"]) == (413, True)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v2"), ("GET", "/v2/models/scale/infer"), ("PUT", "/v2/models/a")]
)
def test_another_method_is_refused_in_the_form_of_the_protocol(client, method, path):
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] in {"GET", "POST"}
    assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize("path", ["/v2/systemsharedmemory/status", "/v2/models/scale/trace", "/v2/models"])
def test_a_path_that_is_not_there_is_missing_in_the_form_of_the_protocol(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert path in response.json()["error"]


def test_an_unknown_model_is_missing(client):
    response = client.post("/v2/models/none/infer", json={"inputs": [X_JSON]})
    assert response.status_code == 404
    assert response.json() == {"error": "there is no model 'none' (there are scale, letters, pair, slow)"}


@pytest.mark.parametrize(
    ("error", "status", "after"),
    [
        (Busy("runtimes.queue-full", "too much waits", retry_after_s=2.5), 429, "3"),
        (Busy("serving.late", "not in time", retry_after_s=0.1), 503, "1"),
        (Broken("runtimes.run-failed", "the model failed"), 500, None),
    ],
)
def test_an_error_of_the_server_has_the_status_of_its_family(client, models, error, status, after):
    models.error = error
    response = client.post("/v2/models/scale/infer", json={"inputs": [X_JSON]})
    assert (response.status_code, response.headers.get("retry-after")) == (status, after)
    assert ("retry-after-ms" in response.headers) == (after is not None)
    assert response.json() == {"error": error.message}


def test_statistics_count_what_was_inferred(client):
    before = time.time() * 1000
    for _ in range(3):
        client.post("/v2/models/scale/infer", json={"inputs": [X_JSON]})
    client.post("/v2/models/scale/infer", json={"inputs": [X_JSON | {"data": [-1.0] * 8}]})
    client.post("/v2/models/scale/infer", content=b"no JSON")
    (stat,) = client.get("/v2/models/scale/versions/stable/stats").json()["model_stats"]
    assert (stat["name"], stat["version"]) == ("scale", "2")
    assert (stat["inference_count"], stat["execution_count"]) == (6, 3)
    assert stat["inference_stats"]["success"]["count"] == 3
    assert stat["inference_stats"]["success"]["ns"] > 0
    assert stat["inference_stats"]["compute_infer"] == {"count": 3, "ns": 300_000}
    assert stat["inference_stats"]["fail"]["count"] == 1
    assert before - 1 <= stat["last_inference"] <= time.time() * 1000


def test_statistics_are_of_one_version_one_model_or_all(client):
    def versions(path):
        return [(one["name"], one["version"]) for one in client.get(f"/v2/models/{path}stats").json()["model_stats"]]

    assert versions("scale/") == [("scale", "2"), ("scale", "1")]
    assert versions("") == [("letters", "1"), ("mirror", "4"), ("pair", "7"), ("scale", "2"), ("scale", "1")]
    assert client.get("/v2/models/scale/versions/3/stats").status_code == 404


@pytest.mark.parametrize("version", ["", 1])
def test_our_own_client_understands_the_door(client, version):
    def call(path, body, headers):
        response = client.request("GET" if body is None else "POST", f"/{path}", content=body, headers=headers)
        return response.headers, response.content

    wire = wire_of("oip", model="scale", version=version, signature="")
    assert wire.describe(call).inputs == {"x": (None, 4)}
    found = wire.run(call, "x", X, ["sum", "y"])
    assert found["y"].tolist() == (X * (version or 2)).tolist()


# What follows asks with Triton's own client, of a real server.


@pytest.fixture(scope="module")
def triton():
    return pytest.importorskip("tritonclient.http")


@pytest.fixture(scope="module")
def address():
    with serving(Models()) as address:
        yield address


@pytest.fixture
def asking(triton, address):
    with triton.InferenceServerClient(address, concurrency=4) as client:
        yield client


def test_tritons_client_finds_the_server_and_its_models(asking):
    assert asking.is_server_live()
    assert asking.is_server_ready()
    assert asking.is_model_ready("scale", "stable")
    assert not asking.is_model_ready("slow")
    assert asking.get_server_metadata()["name"] == "relens"
    assert asking.get_model_metadata("scale", "1")["inputs"][0]["shape"] == [-1, 4]
    assert asking.get_model_config("scale")["output"][0]["dims"] == [4]


def test_tritons_client_reads_the_index_and_may_not_load(asking, triton):
    assert {one["state"] for one in asking.get_model_repository_index()} == {"READY", "UNAVAILABLE"}
    for use in (asking.load_model, asking.unload_model):
        with pytest.raises(triton.InferenceServerException, match="follow the folder"):
            use("scale")


@pytest.mark.parametrize(
    ("datatype", "binary"),
    [(datatype, binary) for datatype in DATATYPES for binary in (True, False) if binary or datatype != "FP16"],
)
def test_tritons_client_sends_and_reads_every_datatype(asking, triton, datatype, binary):
    array = array_of(["süß".encode(), b"", b"abc"]) if datatype == "BYTES" else np.array([0, 1, 1], DATATYPES[datatype])
    wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = asking.infer("mirror", [tensor_for(triton, "x", array, binary=binary)], outputs=wanted)
    found = result.as_numpy("y")
    if datatype == "BYTES" and not binary:
        found = array_of([text.encode() for text in found])
    assert found.tolist() == array.tolist()
    assert found.dtype == array.dtype


@pytest.mark.parametrize("asked", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answered", [None, "gzip", "deflate"])
def test_tritons_client_compresses_both_ways(asking, triton, asked, answered):
    array = np.arange(4000, dtype=np.float32).reshape(-1, 4)
    result = asking.infer(
        "scale",
        [tensor_for(triton, "x", array)],
        request_compression_algorithm=asked,
        response_compression_algorithm=answered,
        request_id="7",
        timeout=2_000_000,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), array * 2)
    assert result.get_response()["id"] == "7"


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_asks_for_classes(asking, triton, binary):
    wanted = [triton.InferRequestedOutput("y", binary_data=binary, class_count=1)]
    found = asking.infer("scale", [tensor_for(triton, "x", X)], outputs=wanted).as_numpy("y")
    texts = [one.decode() if binary else one for one in found.ravel()]
    assert texts == [f"8.000000:3:{LABELS[3]}", f"16.000000:0:{LABELS[0]}"]


def test_tritons_client_gets_errors_as_exceptions(asking, triton):
    for model, array, said in [
        ("none", X, "there is no model"),
        ("slow", X, "being loaded"),
        ("scale", X[:, :2].copy(), "takes x"),
        ("scale", -X[:, :1].repeat(4, axis=1), "the model failed"),
    ]:
        with pytest.raises(triton.InferenceServerException, match=said):
            asking.infer(model, [tensor_for(triton, "x", array)])


def test_tritons_client_gets_an_exception_for_what_is_too_large(asking, triton):
    with pytest.raises(triton.InferenceServerException, match="1,000,000 bytes"):
        asking.infer("scale", [tensor_for(triton, "x", np.zeros((100_000, 4), np.float32))])


def test_tritons_client_asks_at_the_same_time_from_several_threads(triton, address):
    def ask(number):
        with triton.InferenceServerClient(address, concurrency=4) as client:
            arrays_sent = [np.full((1 + number, 4), 10 * number + i, np.float32) for i in range(8)]
            waiting = [client.async_infer("scale", [tensor_for(triton, "x", one)]) for one in arrays_sent]
            return [
                np.array_equal(one.get_result().as_numpy("y"), sent * 2)
                for one, sent in zip(waiting, arrays_sent, strict=True)
            ]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(all(right) for right in pool.map(ask, range(4)))


def test_tritons_client_reads_statistics(asking, triton):
    def count():
        (stat,) = asking.get_inference_statistics("scale", "1")["model_stats"]
        return stat["inference_count"], stat["inference_stats"]["success"]["count"]

    rows, successes = count()
    asking.infer("scale", [tensor_for(triton, "x", X)], model_version="1")
    assert count() == (rows + 2, successes + 1)
    assert len(asking.get_inference_statistics()["model_stats"]) == 5


def test_tritons_client_writes_and_parses_bodies_by_itself(triton, address):
    body, length = triton.InferenceServerClient.generate_request_body([tensor_for(triton, "x", X)])
    response = httpx.post(f"http://{address}/v2/models/scale/infer", content=body, headers={LENGTH: str(length)})
    result = triton.InferenceServerClient.parse_response_body(
        response.content, header_length=int(response.headers[LENGTH])
    )
    assert result.as_numpy("sum").tolist() == [20, 52]


def shapes():
    return arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def array_of(elements):
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def tensor_for(triton, name, array, *, binary=True):
    tensor = triton.InferInput(name, list(array.shape), datatype_of(array))
    return tensor.set_data_from_numpy(array, binary_data=binary)


def post_binary(client, model, request, data):
    head = json.dumps(request).encode()
    return client.post(f"/v2/models/{model}/infer", content=head + data, headers={LENGTH: str(len(head))})


def mirrored(client, array):
    data = to_bytes(array)
    tensor = {"name": "x", "shape": list(array.shape), "datatype": datatype_of(array)}
    request = {
        "inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}],
        "parameters": {"binary_data_output": True},
    }
    response = post_binary(client, "mirror", request, data)
    assert response.status_code == 200, response.text
    return tensors_of(response)["y"]


def tensors_of(response):
    """The binary tensors of an answer."""
    assert response.status_code == 200, response.text
    at = int(response.headers[LENGTH])
    found = {}
    for one in json.loads(response.content[:at])["outputs"]:
        size = one.get("parameters", {}).get("binary_data_size")
        if size is not None:
            found[one["name"]] = from_bytes(response.content[at : at + size], one["datatype"], one["shape"])
            at += size
    assert at == len(response.content)
    return found


@contextlib.contextmanager
def serving(models):
    """A real server of these models on a free port, as "host:port"."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        app = Starlette(routes=oip_routes(models, max_bytes=MAX_BYTES))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        until = time.monotonic() + 10
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
