"""Versions that change under load: 50 requests a second to a real model while good and broken versions come in turn.

Requests are sent at a fixed rate whatever becomes of them, each as a binary tensor of the Open Inference Protocol. An
equal run without new versions goes before each run with them; every answer must be from exactly one version.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import helper, numpy_helper

from bench import homes
from bench.figures import Figure, Report, Setup, at_most, milliseconds
from bench.homes import Server

RATE = 50.0  # requests per second
SENDERS = 8
EACH_S = 2.0  # between two versions that come
MOST_RATIO = 2.0
MOST_GROWTH = 1.05
MODEL = "lite0"


@dataclass(slots=True)
class Taken:
    """Seconds of each request, the versions that answered, and what failed."""

    seconds: list[float] = field(default_factory=list)
    versions: set[int] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)


def measure(setup: Setup) -> Report:
    runs, swaps = setup.choose(5, 1), setup.choose(20, 4)
    root = setup.folder / "swap"
    shutil.rmtree(root, ignore_errors=True)
    network = onnx.load(homes.base_home(setup) / "models" / "effnet-lite0" / "1" / "model.onnx")
    _stage(root, 1, _marked(network, 1))
    (root / MODEL / ".1").rename(root / MODEL / "1")
    quiet, swapped, memory = [], [], []
    with homes.models_up(root) as server:
        _load(server, EACH_S * 2)
        for run in range(runs):
            versions = range(2 + run * swaps, 2 + (run + 1) * swaps)
            for number in versions:
                _stage(root, number, b"broken" if number % 2 else _marked(network, number))
            quiet.append(_load(server, EACH_S * swaps))
            over = threading.Event()
            with ThreadPoolExecutor(1) as thread:
                coming = thread.submit(_bring, root, versions, over)
                swapped.append(_load(server, EACH_S * swaps))
                over.set()
                coming.result()
            memory.append(_settled(server))
    shutil.rmtree(root)
    return _report(swaps, quiet, swapped, memory)


def _marked(network: onnx.ModelProto, version: int) -> bytes:
    """The model with an output more, which says its version."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    number = numpy_helper.from_array(np.array([version], np.int64), "its_version")
    model.graph.initializer.append(number)
    model.graph.node.append(helper.make_node("Identity", ["its_version"], ["version"]))
    model.graph.output.append(helper.make_tensor_value_info("version", onnx.TensorProto.INT64, [1]))
    return bytes(model.SerializeToString())


def _stage(root: Path, version: int, data: bytes) -> None:
    """Put a version where it is not seen yet: to write it is not what is measured."""
    folder = root / MODEL / f".{version}"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)


def _bring(root: Path, versions: Sequence[int], over: threading.Event) -> None:
    """Versions that are staged, one after the other."""
    for version in versions:
        (root / MODEL / f".{version}").rename(root / MODEL / str(version))
        if over.wait(EACH_S):
            break


def _load(server: Server, seconds: float) -> Taken:
    """Requests at their rate, for so long."""
    taken, turns = Taken(), int(seconds * RATE)
    with ThreadPoolExecutor(SENDERS) as threads:
        start = time.perf_counter() + 0.2
        schedule = [range(number, turns, SENDERS) for number in range(SENDERS)]
        for one in [threads.submit(_send, server, some, start, taken) for some in schedule]:
            one.result()
    return taken


def _send(server: Server, turns: range, start: float, taken: Taken) -> None:
    body, headers = _request()
    with contextlib.closing(server.connect()) as connection:
        for turn in turns:
            time.sleep(max(0.0, start + turn / RATE - time.perf_counter()))
            asked = time.perf_counter()
            try:
                taken.versions.add(_ask(connection, body, headers))
            except (OSError, http.client.HTTPException, ValueError) as error:
                taken.failed.append(str(error))
                connection.close()
            taken.seconds.append(time.perf_counter() - asked)


def _request() -> tuple[bytes, dict[str, str]]:
    tensor = np.zeros((1, 3, 224, 224), np.float32).tobytes()
    described = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, 224, 224]}
    asked = {
        "inputs": [described | {"parameters": {"binary_data_size": len(tensor)}}],
        "outputs": [{"name": "version"}],
    }
    header = json.dumps(asked).encode()
    return header + tensor, {"Inference-Header-Content-Length": str(len(header))}


def _ask(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> int:
    """The version that answered. ValueError if it failed, or its tensors are of another version than it says."""
    connection.request("POST", f"/v2/models/{MODEL}/infer", body, headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != http.client.OK:
        raise ValueError(f"{answer.status}: {data[:300]!r}")
    told = json.loads(data)
    [number] = told["outputs"][0]["data"]
    if str(number) != told["model_version"]:
        raise ValueError(f"version {told['model_version']} gave the tensors of {number}")
    return int(number)


def _settled(server: Server) -> int:
    """Bytes in memory of the server and its engines, when only one is left."""
    deadline = time.monotonic() + 30
    while True:
        process = psutil.Process(server.pid)
        engines = process.children()
        if len(engines) == 1 or time.monotonic() > deadline:
            return sum(one.memory_info().rss for one in [process, *engines])
        time.sleep(0.1)


def _report(swaps: int, quiet: list[Taken], swapped: list[Taken], memory: list[int]) -> Report:
    ratios = [max(during.seconds) / max(before.seconds) for before, during in zip(quiet, swapped, strict=True)]
    ratio = statistics.median(ratios)
    failed = [why for one in [*quiet, *swapped] for why in one.failed]
    sent = sum(len(one.seconds) for one in swapped)
    versions = len(set().union(*(one.versions for one in swapped)))
    growth = memory[-1] / memory[0]
    ninety_nine = [float(np.percentile([s for one in some for s in one.seconds], 99)) for some in (swapped, quiet)]
    what = f"{swaps} versions under {RATE:g} requests/s, {len(swapped)} runs"
    return Report(
        (
            Figure(f"{what}: failed requests", str(len(failed)), target=at_most(len(failed), 0)),
            Figure(
                f"{what}: slowest answer, beside the slowest without, median of runs",
                milliseconds(statistics.median(max(one.seconds) for one in swapped)),
                f"{milliseconds(statistics.median(max(one.seconds) for one in quiet))} without",
                ratio,
                at_most(ratio, MOST_RATIO),
            ),
            Figure(f"{what}: 99th percentile", milliseconds(ninety_nine[0]), f"{milliseconds(ninety_nine[1])} without"),
            Figure(
                f"memory after {swaps * len(memory)} versions, server and engine",
                f"{memory[-1] / 1e6:.0f} MB",
                f"{memory[0] / 1e6:.0f} MB after {swaps}",
                growth,
                at_most(growth, MOST_GROWTH),
            ),
        ),
        remarks=(f"{sent:,} requests answered by {versions} versions, each answer by one", *failed[:3]),
    )
