"""The page about moving from other servers, carried out: its clients, as they are, against a real `relens up`."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from relens import config, telemetry
from relens.config import ServedModel
from relens.testing import networks

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "moving-from.md").read_text()
CLIENTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TOLD = {client: re.findall(r"^ *print\(.*  # (.*)$", client, re.MULTILINE) for client in CLIENTS}
[SERVE] = re.findall(r"RELENS__MODELS__SERVE='(.*?)'", PAGE)
PORTS = re.compile(r"(?<=localhost:)(8000|8080|8501|8001|8081|8500)")
OF_GRPC = {"8001", "8081", "8500"}


def half_plus_two():
    """TensorFlow Serving's example: `x` (n) float32 to `y`."""
    numbers = [numpy_helper.from_array(np.array(value, np.float32), str(value)) for value in (0.5, 2.0)]
    nodes = [helper.make_node("Mul", ["x", "0.5"], ["half"]), helper.make_node("Add", ["half", "2.0"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    graph = helper.make_graph(nodes, "half_plus_two", [x], [y], numbers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model repository as Triton has it, and TensorFlow Serving's example in another folder."""
    root = tmp_path_factory.mktemp("models")
    for where, data in (("triton/boots", networks.classifier()), ("tensorflow/half_plus_two", half_plus_two())):
        file = root / where / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
    boots = root / "triton" / "boots"
    (boots / "config.pbtxt").write_text('name: "boots" platform: "onnxruntime_onnx" max_batch_size: 8')
    (boots / "model-settings.json").write_text('{"name": "boots", "implementation": "mine.Boots"}')
    (boots / "1" / "model.py").write_text("class TritonPythonModel: ...")
    return root


@pytest.fixture(scope="module")
def servers(models):
    """A server of each folder: its ports over HTTP and gRPC."""
    with serving(models / "triton") as triton, serving(models / "tensorflow") as tensorflow:
        yield {"boots": triton, "half_plus_two": tensorflow}


@contextlib.contextmanager
def serving(folder):
    grpc = free_port()
    command = [sys.executable, "-m", "relens.cli", "up", "--models", str(folder), "--port", "0", "--grpc-port", grpc]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    http = next(re.search(r":(\d+), until", line)[1] for line in process.stderr if "until ctrl-C" in line)
    next(line for line in process.stderr if "a version is available" in line)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    yield http, grpc
    process.terminate()
    assert process.wait(30) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: re.search("localhost:([0-9]+)", client)[1])
def test_the_clients_of_the_page_are_answered_as_it_says(client, servers):
    http, grpc = servers["half_plus_two" if "half_plus_two" in client else "boots"]
    here = PORTS.sub(lambda found: grpc if found[1] in OF_GRPC else http, client)
    done = subprocess.run([sys.executable, "-c", here], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    turns = 1 + ("for client in" in client)
    assert done.stdout.splitlines() == TOLD[client] * turns


def test_every_client_of_the_page_says_what_it_prints():
    assert len(CLIENTS) == 5
    assert all(TOLD.values())


def test_settings_that_the_page_names_are_settings(monkeypatch):
    monkeypatch.setenv("RELENS__MODELS__SERVE", SERVE)
    assert config.without_home().models.serve["boots"].labels == {"stable": 3}
    assert set(re.findall(r"`M\.(\w+)[`:]", PAGE)) - {"x"} <= ServedModel.model_fields.keys()
    for section, name in re.findall(r"`(models|server)\.(\w+)`", PAGE):
        assert name in type(getattr(config.without_home(), section)).model_fields


def test_metrics_that_the_page_names_are_counted():
    known = {family.name for family in telemetry.REGISTRY.collect()}
    named = {name.removesuffix("_total") for name in re.findall(r"\b(relens_\w+)", PAGE)}
    assert named
    assert named <= known
