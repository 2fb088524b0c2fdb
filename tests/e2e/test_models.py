"""`relens up --models`: a folder of models behind one port, for clients of two protocols, while versions change."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time

import grpc
import httpx
import numpy as np
import ovmsclient
import psutil
import pytest
import tritonclient.grpc as triton
import yaml
from ovmsclient.tfs_compat.base.errors import InvalidInputError

from relens.rpc.messages import MODEL, methods
from relens.testing import networks
from relens.testing.pictures import draw
from relens.testing.stores import KEY, SECRET, s3_server, webdav_server


@pytest.fixture
def server(tmp_path):
    """A folder with version 1 of `scale`, the server of it, and its URL."""
    root = tmp_path / "models"
    put(root, 1, networks.scaler(1))
    with serving(root) as (process, client, _):
        wait_for(client, {"1": "AVAILABLE"})
        yield root, process, client


@pytest.fixture
def rpc(tmp_path):
    """The same, and where it answers gRPC."""
    root = tmp_path / "models"
    put(root, 1, networks.scaler(1))
    with serving(root, "--grpc-port", "0") as (process, client, address):
        wait_for(client, {"1": "AVAILABLE"})
        yield root, process, client, address


@contextlib.contextmanager
def serving(*arguments, **environment):
    """A server of models, a client of it, and where it answers gRPC, until the context ends."""
    command = [sys.executable, "-m", "relens.cli", "up", "--models", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    ready = next(line for line in process.stderr if "until ctrl-C" in line)
    address, url = re.search(r"(?:gRPC on (\S+), )?(http:\S+),", ready).groups()
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            yield process, client, address
    finally:
        process.terminate()
        assert process.wait(30) == 0


def put(root, version, data, model="scale"):
    folder = root / model / f".{version}"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)
    folder.rename(root / model / str(version))


def wait_for(client, wanted, model="scale"):
    deadline = time.monotonic() + 60
    while True:
        told = client.get(f"/v1/models/{model}").json().get("model_version_status", [])
        if {one["version"]: one["state"] for one in told} == wanted:
            return
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


class Asking:
    """Clients that ask without a pause, half of them in each protocol: factors that they were given, and failures."""

    def __init__(self, address, kinds=None):
        self.address = address
        self.given = []
        self.failed = []
        self._over = threading.Event()
        kinds = kinds or [(over_http, tfserving), (over_http, oip)] * 2
        self._threads = [threading.Thread(target=self._ask, args=kind) for kind in kinds]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, connect, kind):
        with connect(self.address) as client:
            while not self._over.is_set():
                try:
                    self.given.append(kind(client))
                except Exception as error:  # noqa: BLE001 - told to the test
                    self.failed.append(error)


def over_http(url):
    return httpx.Client(base_url=url, timeout=30)


def over_grpc(address):
    return contextlib.nullcontext(ovmsclient.make_grpc_client(address))


ROW = np.array([[1, 2, 3, 4]], np.float32)


def predicted(client):
    outputs = client.predict({"images": ROW}, "scale", timeout=30)
    [factor] = outputs["factor"]
    assert (outputs["scaled"] == ROW * factor).all()
    return float(factor)


def inferred(client):
    images = triton.InferInput("images", [1, 4], "FP32")
    images.set_data_from_numpy(ROW)
    result = client.infer("scale", [images], client_timeout=30)
    [factor] = result.as_numpy("factor")
    assert (result.as_numpy("scaled") == ROW * factor).all()
    assert result.get_response().model_version == str(int(factor))
    return float(factor)


RPC = [(over_grpc, predicted), (triton.InferenceServerClient, inferred)] * 2


def tfserving(client):
    answer = client.post("/v1/models/scale:predict", json={"inputs": [[1, 2, 3, 4]]})
    assert answer.status_code == 200, answer.text
    outputs = answer.json()["outputs"]
    [factor] = outputs["factor"]
    assert outputs["scaled"] == [[factor * one for one in (1, 2, 3, 4)]]
    return factor


def oip(client):
    images = {"name": "images", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    answer = client.post("/v2/models/scale/infer", json={"inputs": [images]})
    assert answer.status_code == 200, answer.text
    outputs = {one["name"]: one["data"] for one in answer.json()["outputs"]}
    [factor] = outputs["factor"]
    assert outputs["scaled"] == [factor * one for one in (1, 2, 3, 4)]
    assert answer.json()["model_version"] == str(int(factor))
    return factor


def test_versions_good_and_broken_come_under_load_and_no_request_fails(server):
    root, _, client = server
    with Asking(str(client.base_url)) as asking:
        for version in (2, 4):
            put(root, version, networks.scaler(version))
            wait_for(client, {str(version): "AVAILABLE"} | {str(n): "END" for n in range(3, version, 2)})
            put(root, version + 1, b"broken")
            wait_for(client, {str(version): "AVAILABLE"} | {str(n): "END" for n in range(3, version + 2, 2)})
    assert asking.failed == []
    assert set(asking.given) == {1.0, 2.0, 4.0}


def test_a_version_that_comes_under_load_over_grpc_fails_no_call(rpc):
    root, _, client, address = rpc
    with Asking(address, RPC) as asking:
        for version in (2, 3):
            put(root, version, networks.scaler(version))
            wait_for(client, {str(version): "AVAILABLE"})
            answered(asking, 50)
    assert asking.failed == []
    assert set(asking.given) == {1.0, 2.0, 3.0}


def test_engines_that_are_killed_under_load_fail_no_request(server):
    _, process, client = server
    with Asking(str(client.base_url)) as asking:
        kill_engines(process, asking)
    assert asking.failed == []


def test_engines_that_are_killed_under_load_fail_no_call_over_grpc(rpc):
    _, process, _, address = rpc
    with Asking(address, RPC) as asking:
        kill_engines(process, asking)
    assert asking.failed == []


def kill_engines(process, asking):
    for _ in range(3):
        [engine] = [one for one in psutil.Process(process.pid).children() if "hosted" in " ".join(one.cmdline())]
        before = len(asking.given)
        os.kill(engine.pid, signal.SIGKILL)
        answered(asking, 50, before)


def answered(asking, count, before=None):
    """Wait until so many more were answered."""
    before = len(asking.given) if before is None else before
    deadline = time.monotonic() + 60
    while len(asking.given) < before + count:
        assert time.monotonic() < deadline, asking.failed[:1]
        time.sleep(0.02)


def test_a_picture_is_taken_over_grpc_by_both_protocols(rpc):
    root, _, client, address = rpc
    put(root, 1, networks.classifier(), model="looks")
    wait_for(client, {"1": "AVAILABLE"}, model="looks")
    picture = draw(1)
    row = {"b64": base64.b64encode(picture).decode()}
    [expected] = client.post("/v1/models/looks:predict", json={"instances": [row]}).json()["predictions"]
    tensorflow = ovmsclient.make_grpc_client(address)
    assert tensorflow.predict({"images": picture}, "looks")[0] == pytest.approx(expected, abs=1e-6)
    images = triton.InferInput("images", [1], "BYTES")
    images.set_data_from_numpy(np.array([picture], object))
    with triton.InferenceServerClient(address) as inference:
        [name] = [one.name for one in inference.get_model_metadata("looks").outputs]
        result = inference.infer("looks", [images])
        assert result.as_numpy(name)[0] == pytest.approx(expected, abs=1e-6)
        assert inference.get_inference_statistics("looks").model_stats[0].inference_count == 3
    with pytest.raises(InvalidInputError, match="picture 0"):
        tensorflow.predict({"images": b"no picture"}, "looks")


def test_a_picture_is_taken_by_both_protocols(server):
    root, _, client = server
    put(root, 1, networks.classifier(), model="looks")
    wait_for(client, {"1": "AVAILABLE"}, model="looks")
    picture = draw(1)
    row = {"b64": base64.b64encode(picture).decode()}
    one = client.post("/v1/models/looks:predict", json={"instances": [row]}).json()["predictions"]
    size = len(picture) + 4
    images = {"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [images]}).encode()
    body = head + struct.pack("<I", len(picture)) + picture
    headers = {"Inference-Header-Content-Length": str(len(head))}
    [other] = client.post("/v2/models/looks/infer", content=body, headers=headers).json()["outputs"]
    assert one[0] == pytest.approx(other["data"], abs=1e-6)
    named = client.post("/v1/models/looks:predict", json={"signature_name": "pictures", "instances": [row]})
    assert named.json()["predictions"] == one
    [classes] = client.post("/v1/models/looks:classify", json={"examples": [{"images": row}]}).json()["results"]
    assert [score for _, score in classes] == one[0]
    assert client.get("/v2/models/looks").json()["properties"] == {"pictures": "images"}
    signatures = client.get("/v1/models/looks/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert signatures["pictures"]["inputs"]["images"]["dtype"] == "DT_STRING"
    [whole] = client.post("/v1/models/looks:recognize?names=1", content=picture).json()["objects"]
    assert whole["labels"][0]["score"] == pytest.approx(max(one[0]), abs=1e-5)
    refused = client.post("/v1/models/looks:predict", json={"instances": [{"b64": "AAAA"}]})
    assert refused.status_code in {400, 415}
    assert "picture 0" in refused.json()["error"]


def test_health_and_metrics_tell_how_it_is(server):
    _, _, client = server
    assert client.get("/health/ready").json() == {"ready": True}
    assert client.get("/v2/health/ready").status_code == 200
    assert tfserving(client) == 1.0
    told = client.get("/metrics").text
    assert 'relens_model_requests_total{model="scale",outcome="answered",version="1"} 1.0' in told
    assert 'relens_model_phase_seconds_count{model="scale",phase="run",version="1"} 1.0' in told
    assert 'relens_model_state{model="scale",state="AVAILABLE",version="1"} 1.0' in told
    [memory] = [line for line in told.splitlines() if line.startswith("relens_model_memory_bytes{")]
    assert float(memory.split()[-1]) > 10_000_000
    [model] = client.get("/v1/status").json()["served"]
    assert model["versions"][0]["memory_bytes"] > 10_000_000


def test_what_is_served_is_said_over_grpc(rpc):
    root, _, client, address = rpc
    put(root, 2, networks.scaler(2))
    wait_for(client, {"2": "AVAILABLE"})
    reload(address, {"name": "scale", "model_version_policy": {"all": {}}})
    wait_for(client, {"2": "AVAILABLE", "1": "AVAILABLE"})
    one = {"name": "scale", "model_version_policy": {"specific": {"versions": [1]}}, "version_labels": {"gold": 1}}
    reload(address, one)
    wait_for(client, {"1": "AVAILABLE"})
    assert predicted(ovmsclient.make_grpc_client(address)) == 1.0
    assert client.get("/v1/models/scale/labels/gold").status_code == 200
    with pytest.raises(grpc.RpcError) as caught:
        reload(address, {"name": "none"})
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    reload(address)
    wait_for(client, {})


def reload(address, *models):
    request, answer = methods(MODEL)["HandleReloadConfigRequest"]
    asked = request(config={"model_config_list": {"config": models}}).SerializeToString()
    with grpc.insecure_channel(address) as channel:
        told = answer.FromString(channel.unary_unary(f"/{MODEL}/HandleReloadConfigRequest")(asked, timeout=30))
    assert told.status.error_code == 0


def test_a_grpc_port_that_is_taken_is_a_conflict_and_says_so(rpc):
    root, _, _, address = rpc
    taken = address.rpartition(":")[2]
    command = [sys.executable, "-m", "relens.cli", "up", "--models", root, "--port", "0", "--grpc-port", taken]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "choose another with --grpc-port" in done.stderr


def test_a_grpc_port_without_models_is_refused(tmp_path):
    command = [sys.executable, "-m", "relens.cli", "up", "--grpc-port", "0", "--home", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "--models" in done.stderr


def test_models_on_s3_are_served_with_what_the_environment_says_and_on_when_the_store_is_away(tmp_path):
    with s3_server() as store:
        url = store.url()
        store.write(url, "scale/1/model.onnx", networks.scaler(1))
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        with serving(url, "--poll", "0.1", **environment) as (process, client, _):
            wait_for(client, {"1": "AVAILABLE"})
            store.write(url, "scale/2/model.onnx", networks.scaler(2))
            wait_for(client, {"2": "AVAILABLE"})
            store.down()
            for engine in psutil.Process(process.pid).children():
                os.kill(engine.pid, signal.SIGKILL)
            assert tfserving(client) == 2.0
    assert len(list((tmp_path / "cache").glob("relens/models/*/scale-*/model.onnx"))) == 2


def test_models_on_webdav_are_served_for_user_and_password_of_the_environment(tmp_path):
    folder = tmp_path / "dav"
    folder.mkdir()
    with webdav_server(folder) as store:
        url = store.url()
        put(store.folder(url), 1, networks.scaler(1))
        environment = {
            "RELENS__BLOB_STORE__KEY": KEY,
            "RELENS__BLOB_STORE__SECRET": SECRET,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        with serving(url, **environment) as (_, client, _):
            wait_for(client, {"1": "AVAILABLE"})
            assert tfserving(client) == 1.0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--models", "s3://"], 2, "names no bucket"),
        (["--models", "s3://bucket/models", "--poll", "0"], 2, "--poll"),
        (["--poll", "5"], 2, "--models"),
    ],
    ids=["url", "zero", "alone"],
)
def test_what_cannot_be_served_is_refused_at_the_start(arguments, code, said):
    command = [sys.executable, "-m", "relens.cli", "up", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_a_folder_that_is_not_there_and_a_home_beside_it_are_refused(tmp_path):
    for more, code in (([], 1), (["--home", tmp_path], 2)):
        command = [sys.executable, "-m", "relens.cli", "up", "--models", tmp_path / "nowhere", *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr


def grpc_address(home):
    lines = (home.path / "up.log").read_text().splitlines()
    [up] = [line for line in map(json.loads, filter(lambda line: line.startswith("{"), lines)) if line["event"] == "up"]
    return up["grpc"]


def test_models_are_served_beside_a_home_as_its_settings_say(home):
    root = home.path / "served"
    for version in (1, 2):
        put(root, version, networks.scaler(version))
    put(root, 1, networks.scaler(1), model="other")
    scale = {"latest": 2, "labels": {"stable": 1}}
    (home.path / "relens.yaml").write_text(
        yaml.safe_dump({"models": {"folder": "served", "others": False, "grpc_port": 0, "serve": {"scale": scale}}})
    )
    process, url = home.up()
    with httpx.Client(base_url=url, timeout=30) as client:
        wait_for(client, {"2": "AVAILABLE", "1": "AVAILABLE"})
        assert tfserving(client) == 2.0
        answer = client.post("/v1/models/scale/labels/stable:predict", json={"inputs": [[1, 2, 3, 4]]})
        assert answer.json()["outputs"]["factor"] == [1.0]
        assert predicted(ovmsclient.make_grpc_client(grpc_address(home))) == 2.0
        assert client.get("/v1/models").json()["models"]
        assert client.get("/v1/models/dummy").status_code == 200  # a model of the home, told of as ever
        assert client.get("/v1/models/other").status_code == 404
        ready = client.get("/health/ready").json()
        assert not [one for one in ready.get("missing", ()) if "scale" in one]
    [told] = home.json("status")["served"]
    assert (told["model"], told["labels"]) == ("scale", {"stable": 1})
    assert [(one["version"], one["state"]) for one in told["versions"]] == [(2, "AVAILABLE"), (1, "AVAILABLE")]
    assert "stable" in home.run("status").stdout
    process.terminate()
    assert process.wait(30) == 0
