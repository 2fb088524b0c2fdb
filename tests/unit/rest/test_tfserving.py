"""TensorFlow Serving's REST API over made-up models: what its documentation says, and nothing that makes a 500."""

import asyncio
import base64
import contextlib
import gzip
import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest
import structlog
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from starlette.applications import Starlette

from relens.errors import BadInput, Broken, Busy, Conflict, Denied, Missing, RelensError
from relens.rest import tfserving
from relens.rest.border import Border
from relens.rest.tfserving import tfserving_routes
from relens.rest.tfserving_json import array_of, write_predict
from relens.serving.served import Inferred, Served, VersionStatus
from relens.tensors import TensorInfo, dtype_of
from relens.testing.served import FAILED, LABELS, MadeUpModels

MAX_BYTES = 1_000_000
ROW = [1.0, 2.0, 3.0, 4.0]
FLOATS = st.floats(-1e6, 1e6, width=32).filter(lambda value: value != -1)


X = (TensorInfo("x", "FP32", (None, None)),)


class OneModel(MadeUpModels):
    """One version of a model `m`, which gives what it was made with."""

    def __init__(self, outputs=None, *, inputs=X, labels=(), error=None):
        super().__init__()
        self.outputs = {"y": np.zeros((1, 1), np.float32)} if outputs is None else outputs
        self.inputs, self.class_names, self.error = inputs, labels, error

    def describe(self, named):  # noqa: ARG002
        datatypes = {"f4": "FP32", "f8": "FP64", "f2": "FP16", "i8": "INT64", "b1": "BOOL", "O": "BYTES"}
        infos = tuple(
            TensorInfo(name, datatypes[array.dtype.str.strip("<|")], (None, *array.shape[1:]))
            for name, array in self.outputs.items()
        )
        return Served("m", 1, self.inputs, infos, "made-up", self.class_names)

    async def infer(self, named, inputs, *, outputs=(), timeout_s=None):
        self.asked.append((named, inputs, tuple(outputs), timeout_s))
        if self.error is not None:
            raise self.error
        return Inferred("m", 1, {name: self.outputs[name] for name in outputs or self.outputs}, {})


def text(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def ask_of(server, method, path, *, max_bytes=MAX_BYTES, around=lambda app: app, **options):
    async def go():
        app = around(Starlette(routes=tfserving_routes(server, max_bytes=max_bytes)))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, f"/v1/models/{path}", **options)

    if isinstance(options.get("json"), dict):  # the client's own refuses NaN
        options["content"] = json.dumps(options.pop("json"))
    return asyncio.run(go())


@pytest.fixture
def server():
    return MadeUpModels()


@pytest.fixture
def ask(server):
    return lambda *arguments, **options: ask_of(server, *arguments, **options)


@pytest.fixture
def post(ask):
    """The answer of a request that is answered."""

    def send(path, body, **options):
        response = ask("POST", path, json=body, **options)
        assert response.status_code == 200, response.text
        return response.json()

    return send


def refused(response, status=400):
    """What an error says: its body is that of TensorFlow Serving."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    said = response.json()
    assert list(said) == ["error"]
    assert isinstance(said["error"], str)
    return said["error"]


# -- status ---------------------------------------------------------------------------------------------------------

OK = {"error_code": "OK", "error_message": ""}


def test_the_status_of_a_model_is_that_of_every_version_newest_first(ask):
    failed = {"error_code": "INTERNAL", "error_message": str(FAILED)}
    assert ask("GET", "scale").json() == {
        "model_version_status": [
            {"version": "3", "state": "END", "status": failed},
            {"version": "2", "state": "AVAILABLE", "status": OK},
            {"version": "1", "state": "AVAILABLE", "status": OK},
        ]
    }


def test_the_status_of_a_model_that_is_loading_is_told_though_it_cannot_answer(ask):
    assert ask("GET", "slow").json()["model_version_status"] == [{"version": "1", "state": "LOADING", "status": OK}]


@pytest.mark.parametrize(("path", "version"), [("versions/1", "1"), ("labels/stable", "2"), ("versions/3", "3")])
def test_the_status_of_one_version_is_told_alone(ask, path, version):
    assert [one["version"] for one in ask("GET", f"scale/{path}").json()["model_version_status"]] == [version]


@pytest.mark.parametrize("path", ["other", "scale/versions/9", "scale/labels/other", "letters/labels/stable"])
@pytest.mark.parametrize("end", ["", "/metadata"])
def test_what_there_is_not_has_no_status_and_no_metadata(ask, path, end):
    assert refused(ask("GET", path + end), 404)


@pytest.mark.parametrize("version", ["one", "-1", "1.0", "²", "9" * 5000])
@pytest.mark.parametrize(("method", "end"), [("GET", ""), ("GET", "/metadata"), ("POST", ":predict")])
def test_a_version_is_a_number(ask, version, method, end):
    assert "is no version" in refused(ask(method, f"scale/versions/{version}{end}"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("a.b", "no"), "INVALID_ARGUMENT"),
        (Denied("a.b", "no"), "PERMISSION_DENIED"),
        (Missing("a.b", "no"), "NOT_FOUND"),
        (Conflict("a.b", "no"), "FAILED_PRECONDITION"),
        (Busy("a.b", "no"), "UNAVAILABLE"),
        (Broken("a.b", "no", hint="look"), "INTERNAL"),
        (RelensError("a.b", "no"), "UNKNOWN"),
    ],
)
def test_why_a_version_failed_is_told_as_a_code_and_a_message(server, ask, error, code):
    server.versions = lambda _: [VersionStatus(1, "END", error)]
    (said,) = ask("GET", "scale").json()["model_version_status"]
    assert said["status"] == {"error_code": code, "error_message": str(error)}


# -- metadata -------------------------------------------------------------------------------------------------------


def test_metadata_describes_inputs_and_outputs_as_a_signature(ask):
    def tensor(name, *sides):
        dims = [{"size": side, "name": ""} for side in sides]
        return {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": name}

    assert ask("GET", "scale/metadata").json() == {
        "model_spec": {"name": "scale", "signature_name": "", "version": "2"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"x": tensor("x", "-1", "4")},
                        "outputs": {"y": tensor("y", "-1", "4"), "sum": tensor("sum", "-1")},
                        "method_name": "tensorflow/serving/predict",
                    }
                }
            }
        },
    }


@pytest.mark.parametrize(("path", "version"), [("versions/1", "1"), ("labels/stable", "2")])
def test_metadata_is_of_the_version_that_is_named(ask, path, version):
    assert ask("GET", f"scale/{path}/metadata").json()["model_spec"]["version"] == version


def test_metadata_of_a_model_that_is_loading_is_busy(ask):
    response = ask("GET", "slow/metadata")
    assert "being loaded" in refused(response, 503)
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("datatype", "name"),
    [
        ("BYTES", "DT_STRING"),
        ("BOOL", "DT_BOOL"),
        ("FP16", "DT_HALF"),
        ("FP64", "DT_DOUBLE"),
        ("UINT8", "DT_UINT8"),
        ("INT64", "DT_INT64"),
    ],
)
def test_datatypes_have_tensorflows_names(datatype, name):
    server = OneModel(inputs=(TensorInfo("x", datatype, ()),))
    signature = ask_of(server, "GET", "m/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert signature["serving_default"]["inputs"]["x"]["dtype"] == name


# -- predict: rows and columns --------------------------------------------------------------------------------------


def test_rows_of_a_model_with_one_input_are_bare_or_named(post):
    answer = {"predictions": [{"y": [2.0, 4.0, 6.0, 8.0], "sum": 20.0}]}
    assert post("scale:predict", {"instances": [ROW]}) == answer
    assert post("scale:predict", {"instances": [{"x": ROW}]}) == answer


def test_columns_of_a_model_with_one_input_are_bare_or_named(post):
    answer = {"outputs": {"y": [[2.0, 4.0, 6.0, 8.0]], "sum": [20.0]}}
    assert post("scale:predict", {"inputs": [ROW]}) == answer
    assert post("scale:predict", {"inputs": {"x": [ROW]}}) == answer


def test_rows_of_a_model_with_several_inputs_are_objects_and_one_output_is_bare(post):
    body = {"instances": [{"a": [1, 2, 3], "b": [10, 20, 30]}, {"b": [40, 50, 60], "a": [4, 5, 6]}]}
    assert post("pair:predict", body) == {"predictions": [[11, 22, 33], [44, 55, 66]]}


def test_columns_of_a_model_with_several_inputs_are_objects_and_one_output_is_bare(post):
    body = {"inputs": {"a": [[1], [2]], "b": [[3], [4]]}}
    assert post("pair:predict", body) == {"outputs": [[4], [6]]}


@pytest.mark.parametrize(("place", "factor"), [("", 2), ("/versions/1", 1), ("/labels/stable", 2), ("/versions/0", 2)])
def test_the_version_or_label_of_the_path_answers(post, place, factor):
    assert post(f"scale{place}:predict", {"instances": [ROW]})["predictions"][0]["sum"] == 10 * factor


@pytest.mark.parametrize("name", ["serving_default", ""])
def test_the_default_signature_may_be_named(post, name):
    assert post("scale:predict", {"signature_name": name, "inputs": [ROW]})["outputs"]["sum"] == [20.0]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    x=hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(4)), elements=FLOATS),
    rows=st.booleans(),
    threaded=st.booleans(),
)
def test_floats_in_rows_and_in_columns_give_what_the_model_gives(x, rows, threaded):
    with pytest.MonkeyPatch.context() as patch:
        if threaded:
            patch.setattr(tfserving, "THREAD_BYTES", 0)
        key = "instances" if rows else "inputs"
        answer = ask_of(MadeUpModels(), "POST", "scale:predict", json={key: x.tolist()}).json()
    y = [row["y"] for row in answer["predictions"]] if rows else answer["outputs"]["y"]
    sums = [row["sum"] for row in answer["predictions"]] if rows else answer["outputs"]["sum"]
    assert np.array_equal(np.array(y, np.float32), x * np.float32(2))
    assert np.array_equal(np.array(sums, np.float32), (x * np.float32(2)).sum(axis=1))


@given(x=hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(-(2**30), 2**30)))
def test_whole_numbers_stay_exact(x):
    info = TensorInfo("x", "INT32", (None, None))
    assert np.array_equal(array_of(x.tolist(), info), x)
    assert json.loads(write_predict({"x": x}, rows=True))["predictions"] == x.tolist()


# -- predict: what numbers and strings become -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinities_are_taken_and_given(ask, value):
    response = ask("POST", "scale:predict", json={"inputs": [[0, value, 0.0, 0]]})
    assert response.status_code == 200
    assert json.dumps(value) in response.text
    assert np.array_equal(response.json()["outputs"]["y"], [[0, value, 0, 0]], equal_nan=True)


def test_whole_numbers_become_floats_of_a_float_input(server, post):
    post("scale:predict", {"instances": [[1, 2.5, -3, 4]]})
    ((_, inputs, outputs, timeout_s),) = server.asked
    assert inputs["x"].dtype == np.float32
    assert inputs["x"].tolist() == [[1, 2.5, -3, 4]]
    assert outputs == ()
    assert timeout_s is None


@pytest.mark.parametrize(
    ("datatype", "fits", "does_not"),
    [
        ("INT8", [-128, 127], [128, -129, 1.5, 1.0, True, "1", None]),
        ("UINT8", [0, 255], [-1, 256]),
        ("UINT16", [0, 65535], [-1, 65536]),
        ("INT32", [-(2**31), 2**31 - 1], [2**31, 10**30, float("nan")]),
        ("INT64", [-(2**63), 2**63 - 1], [2**63, -(2**63) - 1]),
        ("UINT64", [0, 2**64 - 1], [-1, 2**64]),
        ("FP16", [65504.0, float("inf")], [70000, 1e5, True]),
        ("FP32", [3.4e38, 0, -float("inf")], [3.5e38, 10**39, 10**400, True, "1.0", None, {}]),
        ("FP64", [1e308, 2**64], [10**400, False, {"b64": "AA=="}]),
        ("BOOL", [True, False], [0, 1, "true", None]),
        ("BYTES", ["a", ""], [1, True, None, {"b65": "AA=="}, {"b64": 1}, {}, {"b64": "AA==", "more": 1}]),
    ],
)
def test_a_value_becomes_the_inputs_datatype_or_is_refused(datatype, fits, does_not):
    info = TensorInfo("some-input", datatype, (None,))
    server = OneModel(inputs=(info,))
    assert ask_of(server, "POST", "m:predict", json={"inputs": fits}).status_code == 200
    taken = server.asked.pop()[1]["some-input"]
    assert taken.dtype == dtype_of(datatype)
    assert np.array_equal(taken, np.array([one.encode() if isinstance(one, str) else one for one in fits], taken.dtype))
    for value in does_not:
        for body in ({"instances": [value]}, {"inputs": [*fits, value]}, {"inputs": {"some-input": [value]}}):
            said = refused(ask_of(server, "POST", "m:predict", json=body))
            assert "some-input" in said or "instances" in said
    assert server.asked == []


@pytest.mark.parametrize("number", ["1e999", "-1e999", "[Infinity, 1e999]"])
def test_a_number_that_no_float_holds_is_no_infinity(number):
    server = OneModel(inputs=(TensorInfo("x", "FP64", (None,)),))
    assert "cannot hold" in refused(ask_of(server, "POST", "m:predict", content=f'{{"inputs": {number}}}'))


def test_binary_strings_are_decoded_wherever_they_are(server, post):
    body = {"instances": [b64(b"abc"), "d\u00e9f", {"b64": "YWI"}, {"b64": "YWJj\nYWJj"}]}
    post("letters:predict", body)
    post("letters:predict", {"instances": [{"text": b64(b"\xff\x00")}]})
    post("letters:predict", {"inputs": [b64(b"\xff")]})
    post("letters:predict", {"inputs": {"text": [b64(b"x")]}})
    given = [inputs["text"].tolist() for _, inputs, _, _ in server.asked]
    assert given == [[b"abc", "d\u00e9f".encode(), b"ab", b"abcabc"], [b"\xff\x00"], [b"\xff"], [b"x"]]


@pytest.mark.parametrize("wrong", ["a", "a!bc", "é", "AA==AA"])
def test_what_is_no_base64_is_refused(ask, wrong):
    assert "base64" in refused(ask("POST", "letters:predict", json={"instances": [{"b64": wrong}]}))


def test_a_lone_surrogate_is_no_string(ask):
    response = ask("POST", "letters:predict", content=rb'{"instances": ["\ud800"]}')
    assert "Unicode" in refused(response)


def test_strings_are_given_as_text_if_they_are_utf_8_and_as_base64_if_not(post):
    answer = post("letters:predict", {"instances": ["abc", b64(b"\xff")]})
    assert answer == {"predictions": [{"upper": "ABC", "length": 3}, {"upper": b64(b"\xff"), "length": 1}]}


def test_outputs_that_are_named_bytes_are_given_as_base64():
    outputs = {"image_bytes": text(b"abc", b"d").reshape(1, 2), "some_bytes": np.ones((1, 1), np.float32)}
    answer = ask_of(OneModel(outputs), "POST", "m:predict", json={"instances": [[1]]}).json()
    assert answer == {"predictions": [{"image_bytes": [b64(b"abc"), b64(b"d")], "some_bytes": [1.0]}]}


@pytest.mark.parametrize(
    ("array", "written"),
    [
        (np.float32([0.1, 0.2, 16777216, 1e-7, 3.4028235e38, 1e-45, -0.0]), None),
        (np.array([0.1, 1e300]), "[0.1,1e+300]"),
        (np.float16([0.5, 1 / 3]), None),
        (np.array([2**53 + 1, -1]), "[9007199254740993,-1]"),
        (np.array([True, False]), "[true,false]"),
        (np.float32(0.5).reshape(()), "0.5"),
        (np.zeros((2, 0), np.float32), "[[],[]]"),
    ],
)
def test_numbers_are_written_so_that_they_are_read_as_the_same(array, written):
    said = write_predict({"y": array}, rows=False).decode()
    assert np.array_equal(np.array(json.loads(said)["outputs"], array.dtype), array)
    if written:
        assert said == f'{{"outputs":{written}}}'


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=2)))
def test_every_float_is_written_so_that_it_is_read_as_the_same(array):
    said = json.loads(write_predict({"y": array}, rows=False))["outputs"]
    assert np.array_equal(np.array(said, np.float64).astype(np.float32), array, equal_nan=True)


def test_a_float_is_written_as_short_as_it_can_be_told_apart():
    written = write_predict({"y": np.float32([0.2, 0.1, 123.456, 1 / 3])}, rows=False)
    assert written == b'{"outputs":[0.2,0.1,123.456,0.33333334]}'


# -- predict: what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "nothing to predict"),
        ({"instance": [ROW]}, "nothing to predict"),
        ({"instances": [ROW], "inputs": [ROW]}, "both"),
        ({"instances": []}, "`instances` is empty"),
        ({"instances": {}}, "`instances` is an object"),
        ({"instances": None}, "`instances` is null"),
        ({"instances": "abcd"}, "`instances` is a string"),
        ({"instances": [ROW, ROW[:3]]}, "ragged: 3 to 4 values at level 2"),
        ({"instances": [ROW, 1]}, "ragged: lists beside values at level 2"),
        ({"instances": [1, ROW]}, "a list among its values"),
        ({"instances": [[1, 2, 3, [4]]]}, "a list among its values"),
        ({"instances": [ROW, {"x": ROW}]}, "lists beside values"),
        ({"instances": [{"x": ROW}, ROW]}, "`instances[1]` is a list, not an object"),
        ({"instances": [{"x": ROW}, {"x": ROW, "z": 1}]}, "`instances[1]` has z, which is no input"),
        ({"instances": [{"z": ROW}]}, "`instances[0]` lacks x"),
        ({"instances": [{}]}, "`instances[0]` lacks x"),
        ({"instances": [[ROW]]}, "the model takes x (any, 4) FP32"),
        ({"instances": [ROW[:3]]}, "the model takes x (any, 4) FP32"),
        ({"inputs": {"x": [ROW], "z": 1}}, "`inputs` has z"),
        ({"inputs": {}}, "`inputs` lacks x"),
        ({"inputs": 1.0}, "the model takes x (any, 4) FP32"),
        ({"inputs": None}, "null among its values"),
        ({"inputs": [None, True]}, "null and true or false among its values"),
        ({"inputs": [[]]}, "the model takes x (any, 4) FP32"),
        ({"signature_name": "other", "inputs": [ROW]}, "no signature 'other'"),
        ({"signature_name": 1, "inputs": [ROW]}, "no signature 1"),
        ({"signature_name": ["serving_default"], "inputs": [ROW]}, "no signature"),
    ],
)
def test_what_the_model_cannot_be_given_is_refused_with_what_is_wrong(server, ask, body, says):
    assert says in refused(ask("POST", "scale:predict", json=body))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"instances": [[1, 2], [3, 4]]}, "`instances[0]` is a list, not an object"),
        ({"instances": [{"a": [1]}, {"a": [1]}]}, "`instances[0]` lacks b (the model takes a, b, by name)"),
        ({"instances": [{"a": [1], "b": [2]}] * 3}, "the model takes a (2, any) INT32"),
        ({"inputs": [[1], [2]]}, "`inputs` is a list, not an object"),
        ({"inputs": {"a": [[1], [2]]}}, "`inputs` lacks b"),
    ],
)
def test_inputs_of_a_model_with_several_are_named(ask, body, says):
    assert says in refused(ask("POST", "pair:predict", json=body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"instances",
        b"[]",
        b"null",
        b"1",
        b'"instances"',
        b'{"instances": [1,]}',
        b'{"instances": [nan]}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"inputs": ' + b"[" * 40 + b"1" + b"]" * 40 + b"}",
        b'{"inputs": ' + b"9" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("verb", ["predict", "classify", "regress"])
def test_what_is_no_request_is_refused(ask, body, verb):
    assert refused(ask("POST", f"scale:{verb}", content=body))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"b64": "YWI="}),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "a", "b", "text", "b64"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    path=st.sampled_from(["scale", "letters", "pair"]),
    verb=st.sampled_from(["predict", "classify", "regress"]),
    body=st.dictionaries(
        st.sampled_from(["instances", "inputs", "examples", "context", "signature_name"]), JSON, max_size=2
    ),
)
def test_no_request_makes_the_server_fail(path, verb, body):
    response = ask_of(MadeUpModels(), "POST", f"{path}:{verb}", json=body)
    failed = response.status_code == 500 and "a number is negative" in response.text  # as the model is made up
    assert response.status_code in {200, 400} or failed


def test_outputs_that_are_no_rows_are_given_in_columns_only():
    server = OneModel({"y": np.zeros((2, 1), np.float32), "mean": np.zeros(1, np.float32)})
    assert "are no rows: y [2, 1], mean [1]" in refused(ask_of(server, "POST", "m:predict", json={"instances": [[1]]}))
    answer = ask_of(server, "POST", "m:predict", json={"inputs": [[1]]}).json()
    assert answer == {"outputs": {"y": [[0.0], [0.0]], "mean": [0.0]}}


def test_an_output_without_rows_is_given_in_columns_only():
    server = OneModel({"y": np.float32(7).reshape(())})
    assert "are no rows" in refused(ask_of(server, "POST", "m:predict", json={"instances": [[1]]}))
    assert ask_of(server, "POST", "m:predict", json={"inputs": [[1]]}).json() == {"outputs": 7.0}


# -- classify and regress -------------------------------------------------------------------------------------------


def test_classify_gives_each_example_its_classes_with_scores(server, post):
    answer = post("scale:classify", {"examples": [{"x": ROW}, {"x": [0, 0.5, 0, 0]}]})
    assert answer == {
        "results": [
            [["red", 2.0], ["green", 4.0], ["blue", 6.0], ["black", 8.0]],
            [["red", 0.0], ["green", 1.0], ["blue", 0.0], ["black", 0.0]],
        ]
    }
    assert server.asked[0][2] == ("y",)
    assert LABELS == ("red", "green", "blue", "black")


def test_regress_gives_each_example_a_number(post):
    assert post("scale:regress", {"examples": [{"x": ROW}, {"x": [0, 0, 0, 0]}]}) == {"results": [20.0, 0.0]}


def test_a_regressed_whole_number_is_given_as_a_decimal(ask):
    response = ask("POST", "letters:regress", json={"examples": [{"text": "abc"}, {"text": [b64(b"\xff")]}]})
    assert response.text == '{"results":[3.0,1.0]}'


@pytest.mark.parametrize(("place", "factor"), [("", 2), ("/versions/1", 1), ("/labels/stable", 2)])
def test_examples_are_asked_of_the_version_that_is_named(post, place, factor):
    assert post(f"scale{place}:regress", {"examples": [{"x": ROW}]}) == {"results": [10.0 * factor]}
    assert post(f"scale{place}:classify", {"examples": [{"x": ROW}]})["results"][0][0] == ["red", 1.0 * factor]


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_the_name_of_the_method_may_be_given_as_signature(ask, verb):
    for name, status in ((f"tensorflow/serving/{verb}", 200), ("serving_default", 200), ("tensorflow/serving/x", 400)):
        body = {"signature_name": name, "examples": [{"x": ROW}]}
        assert ask("POST", f"scale:{verb}", json=body).status_code == status


def test_features_in_the_context_are_those_of_every_example():
    inputs = (TensorInfo("x", "FP32", (None, 2)), TensorInfo("lang", "BYTES", (None,)))
    server = OneModel({"scores": np.zeros((2, 1), np.float32)}, inputs=inputs)
    body = {"context": {"lang": "de"}, "examples": [{"x": [1, 2]}, {"x": [3, 4]}]}
    assert ask_of(server, "POST", "m:classify", json=body).json() == {"results": [[["0", 0.0]], [["0", 0.0]]]}
    assert server.asked[0][1]["lang"].tolist() == [b"de", b"de"]
    body["examples"][1]["lang"] = "en"
    said = refused(ask_of(server, "POST", "m:classify", json=body))
    assert "lang is in `context` and in `examples[1]`" in said


@pytest.mark.parametrize(
    ("shape", "values", "becomes"),
    [
        ((None,), [1, [2]], [1, 2]),
        ((None, 1), [1, [2]], [[1], [2]]),
        ((None, 2, 2), [[1, 2, 3, 4]], [[[1, 2], [3, 4]]]),
        ((None, 2, None), [[1, 2, 3, 4]], [[[1, 2], [3, 4]]]),
        ((None, None), [[1, 2, 3]], [[1, 2, 3]]),
        ((None, None, None), [[1, 2, 3]], [[1, 2, 3]]),  # the model says what is wrong
    ],
)
def test_the_values_of_a_feature_are_folded_to_the_shape_of_the_input(shape, values, becomes):
    outputs = {"outputs": np.zeros(len(values), np.float32)}
    server = OneModel(outputs, inputs=(TensorInfo("x", "FP32", shape),))
    body = {"examples": [{"x": value} for value in values]}
    assert ask_of(server, "POST", "m:regress", json=body).status_code == 200
    assert server.asked[0][1]["x"].tolist() == becomes


@pytest.mark.parametrize("verb", ["classify", "regress"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "`examples` is missing"),
        ({"instances": [ROW]}, "`examples` is missing"),
        ({"examples": []}, "`examples` is empty"),
        ({"examples": {"x": ROW}}, "`examples` is an object"),
        ({"examples": [ROW]}, "`examples[0]` is a list, not an object"),
        ({"examples": [{"x": ROW}, {}]}, "`examples[1]` lacks x"),
        ({"examples": [{"x": ROW, "z": 1}]}, "`examples[0]` has z"),
        ({"examples": [{"x": [ROW]}]}, "a feature is a value or a flat list"),
        ({"examples": [{"x": ROW[:3]}]}, "[3] values for each example, the model takes x (any, 4)"),
        ({"examples": [{"x": ROW}, {"x": ROW[:3]}]}, "ragged"),
        ({"examples": [{"x": []}]}, "[0] values for each example"),
        ({"examples": [{"x": ["a", "b", "c", "d"]}]}, "a string among its values"),
        ({"examples": [{"x": ROW}], "context": [1]}, "`context` is a list"),
        ({"examples": [1], "context": {"x": ROW}}, "`examples[0]` is a whole number"),
    ],
)
def test_examples_that_the_model_cannot_be_given_are_refused(ask, verb, body, says):
    assert says in refused(ask("POST", f"scale:{verb}", json=body))


def one_example(server, verb):
    return ask_of(server, "POST", f"m:{verb}", json={"examples": [{"x": [1]}]})


@pytest.mark.parametrize(
    ("outputs", "labels", "results"),
    [
        ({"scores": [[1, 2]], "other": [[3, 4]]}, (), [["0", 1.0], ["1", 2.0]]),
        ({"other": [[3, 4]], "probabilities": [[1, 2]]}, ("a", "b"), [["a", 1.0], ["b", 2.0]]),
        ({"one": [[9]], "two": [[1, 2]]}, ("a", "b"), [["a", 1.0], ["b", 2.0]]),
        ({"only": [[1, 2]]}, ("a",), [["a", 1.0], ["1", 2.0]]),
        ({"only": [[1]]}, ("a", "b"), [["a", 1.0]]),
        ({"scores": [[1]], "probabilities": [[2]]}, (), [["0", 1.0]]),
    ],
)
def test_scores_are_found_by_name_then_by_the_number_of_classes_and_then_as_the_only_output(outputs, labels, results):
    server = OneModel({name: np.float32(values) for name, values in outputs.items()}, labels=labels)
    assert one_example(server, "classify").json() == {"results": [results]}


def test_a_model_without_scores_or_values_is_not_asked_for_them():
    server = OneModel({"a": np.zeros((1, 3), np.float32), "b": np.zeros((1, 3), np.float32)})
    for verb in ("classify", "regress"):
        assert "it could be any of a (any, 3) FP32, b (any, 3) FP32" in refused(one_example(server, verb))
    assert server.asked == []


@pytest.mark.parametrize("verb", ["classify", "regress"])
@pytest.mark.parametrize("output", [np.zeros((1, 2, 2), np.float32), text(b"a"), np.zeros((3, 3), np.float32)])
def test_an_output_that_is_no_answer_to_the_examples_is_refused(verb, output):
    assert "cannot be asked to" in refused(one_example(OneModel({"y": output}), verb))


def test_values_of_one_column_are_numbers():
    server = OneModel({"y": np.float32([[0.25]])})
    assert one_example(server, "regress").json() == {"results": [0.25]}


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInput("serving.wrong-inputs", "no", hint="other"), 400),
        (Denied("a.b", "no"), 403),
        (Missing("serving.no-version", "no"), 404),
        (Conflict("a.b", "no"), 409),
        (Busy("serving.expired", "no", retry_after_s=2.1), 503),
        (Busy("runtimes.queue-full", "no", retry_after_s=2.1), 429),
        (Broken("runtimes.run-failed", "no"), 500),
    ],
)
def test_an_error_is_its_message_and_hint_with_the_status_of_its_family(error, status):
    response = ask_of(OneModel(error=error), "POST", "m:predict", json={"instances": [[1]]})
    assert refused(response, status) == str(error)
    assert response.headers.get("retry-after") == ("3" if isinstance(error, Busy) else None)
    assert response.headers.get("retry-after-ms") == ("2100" if isinstance(error, Busy) else None)


def test_a_model_that_fails_is_a_500_that_says_so(ask):
    assert "the model failed" in refused(ask("POST", "scale:predict", json={"instances": [[-1, 0, 0, 0]]}), 500)


@pytest.mark.parametrize("verb", ["predict", "classify", "regress"])
def test_what_there_is_not_cannot_be_asked(ask, verb):
    for path in ("other", "scale/versions/9", "scale/versions/3", "scale/labels/other"):
        assert refused(ask("POST", f"{path}:{verb}", json={"instances": [ROW]}), 404)
    response = ask("POST", f"slow:{verb}", json={"instances": [ROW]})
    assert refused(response, 503)
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["scale", "scale/versions/1", "scale/labels/stable/metadata"])
def test_status_and_metadata_are_got(ask, method, path):
    response = ask(method, path)
    assert "use GET" in refused(response, 405)
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["scale:predict", "scale/versions/1:classify", "scale/labels/stable:regress"])
def test_models_are_asked_by_post(ask, method, path):
    response = ask(method, path)
    assert "use POST" in refused(response, 405)
    assert response.headers["allow"] == "POST"


def test_the_log_names_the_path_by_its_template_and_the_error_by_its_code(server):
    with structlog.testing.capture_logs() as lines:
        ask_of(server, "POST", "scale/versions/9:predict", json={"inputs": 1}, around=Border)
    (line,) = lines
    assert (line["path"], line["status"]) == ("/v1/models/{model}/versions/{version}:predict", 404)
    assert line["code"] == "serving.no-version"


# -- size and compression -------------------------------------------------------------------------------------------


async def endless(size, sent):
    while True:
        sent.append(size)
        yield b" " * size


@pytest.mark.parametrize("headers", [{}, {"content-length": "1001"}, {"content-encoding": "gzip"}])
def test_a_body_that_is_too_large_is_refused_while_it_is_read(server, headers):
    sent = []
    response = ask_of(
        server, "POST", "scale:predict", max_bytes=1000, content=endless(400, sent), headers={"x-a": "b", **headers}
    )
    assert "1,000 bytes" in refused(response, 413)
    assert len(sent) <= 3


def test_a_body_of_just_the_limit_is_read(server):
    body = json.dumps({"instances": [ROW]}).encode()
    assert ask_of(server, "POST", "scale:predict", content=body, max_bytes=len(body)).status_code == 200
    refused(ask_of(server, "POST", "scale:predict", content=body, max_bytes=len(body) - 1), 413)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_a_packed_body_is_read(ask, encoding):
    body = gzip.compress(json.dumps({"instances": [ROW]}).encode())
    response = ask("POST", "scale:predict", content=body, headers={"content-encoding": encoding})
    assert response.json() == {"predictions": [{"y": [2.0, 4.0, 6.0, 8.0], "sum": 20.0}]}


@pytest.mark.parametrize("copies", [1, 1000])
def test_a_packed_body_that_becomes_too_long_is_refused(ask, copies):
    bomb = gzip.compress(b" " * (2 * MAX_BYTES // copies)) * copies
    assert len(bomb) < MAX_BYTES
    assert "1,000,000 bytes" in refused(
        ask("POST", "scale:predict", content=bomb, headers={"content-encoding": "gzip"}), 413
    )


@pytest.mark.parametrize(
    "body", [b"{}", b"", gzip.compress(b"{}", mtime=0)[:-4], gzip.compress(b"{}", mtime=0) + b"more"]
)
def test_what_is_no_gzip_is_refused(ask, body):
    refused(ask("POST", "scale:predict", content=body, headers={"content-encoding": "gzip"}))


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_another_encoding_is_refused(ask, encoding):
    response = ask("POST", "scale:predict", content=b"{}", headers={"content-encoding": encoding})
    assert "gzip" in refused(response, 415)


@pytest.mark.parametrize(
    ("accepted", "rows", "packed"),
    [
        ("gzip", 500, True),
        ("gzip", 100_000 // 4 // 4, True),
        ("br, gzip;q=0.5", 500, True),
        ("gzip", 2, False),
        ("", 500, False),
        ("identity", 500, False),
        ("br, gzip;q=0", 500, False),
        ("gzip; q=0.000", 500, False),
    ],
)
def test_a_long_answer_is_packed_if_the_client_takes_gzip(ask, accepted, rows, packed):
    body = {"instances": [ROW] * rows}
    response = ask("POST", "scale:predict", json=body, headers={"accept-encoding": accepted})
    assert response.headers.get("content-encoding") == ("gzip" if packed else None)
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.json() == {"predictions": [{"y": [2.0, 4.0, 6.0, 8.0], "sum": 20.0}] * rows}


def test_long_bodies_and_answers_do_not_hold_the_event_loop(monkeypatch):
    threads = set()
    for name in ("read_predict", "write_predict"):
        work = getattr(tfserving, name)

        def noted(*given, work=work, **options):
            threads.add(threading.current_thread() is threading.main_thread())
            return work(*given, **options)

        monkeypatch.setattr(tfserving, name, noted)
    ask_of(MadeUpModels(), "POST", "scale:predict", json={"instances": [ROW]})
    assert threads == {True}
    threads.clear()
    ask_of(MadeUpModels(), "POST", "scale:predict", json={"instances": [ROW] * 5000})
    assert threads == {False}


# -- a client of somebody else's ------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(app):
    """The port at which an application is served."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def client():
    ovmsclient = pytest.importorskip("ovmsclient", reason="pip install ovmsclient")
    with listening(Starlette(routes=tfserving_routes(MadeUpModels(), max_bytes=MAX_BYTES))) as port:
        yield ovmsclient.make_http_client(f"127.0.0.1:{port}")


def test_openvinos_client_predicts(client):
    x = np.float32([ROW, [0.1, 0.2, 0.3, 0.4]])
    found = client.predict({"x": x}, "scale")
    assert np.array_equal(found["y"].astype(np.float32), x * 2)
    assert np.array_equal(client.predict({"x": x}, "scale", 1)["y"].astype(np.float32), x)
    assert client.predict({"a": np.int32([[1], [2]]), "b": np.int32([[3], [4]])}, "pair").tolist() == [[4], [6]]
    assert client.predict({"text": [b"abc", b"d"]}, "letters")["upper"].tolist() == ["ABC", "D"]


def test_openvinos_client_reads_status_and_metadata(client):
    status = client.get_model_status("scale")
    assert {version: one["state"] for version, one in status.items()} == {3: "END", 2: "AVAILABLE", 1: "AVAILABLE"}
    assert status[3]["error_message"] == str(FAILED)
    assert status[3]["error_code"] == 13  # INTERNAL
    assert list(client.get_model_status("scale", 1)) == [1]
    assert client.get_model_metadata("scale")["model_spec"]["version"] == "2"


def test_openvinos_client_understands_errors(client):
    errors = pytest.importorskip("ovmsclient.tfs_compat.base.errors")
    with pytest.raises(errors.ModelNotFoundError, match="there is no model 'other'"):
        client.predict({"x": [ROW]}, "other")
    with pytest.raises(errors.InvalidInputError, match="the model takes x"):
        client.predict({"x": [ROW[:3]]}, "scale")
    with pytest.raises(ConnectionError, match="is being loaded"):
        client.predict({"x": [ROW]}, "slow")


@pytest.mark.parametrize(
    "body", [{"instances": [b64(b"one"), b64(b"two")]}, {"inputs": {"x": [b64(b"one"), b64(b"two")]}}]
)
def test_binary_strings_for_numbers_are_pictures_and_handed_on_as_bytes(body):
    server = OneModel(inputs=(TensorInfo("x", "FP32", (None, 3, 8, 8)),))
    answer = ask_of(server, "POST", "m:predict", json=body)
    assert answer.status_code == 200
    [(_, inputs, _, _)] = server.asked
    assert inputs["x"].tolist() == [b"one", b"two"]


def test_numbers_beside_a_picture_are_refused():
    answer = ask_of(OneModel(), "POST", "m:predict", json={"instances": [b64(b"one"), 1.0]})
    assert answer.status_code == 400
