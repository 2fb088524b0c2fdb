"""Calls over gRPC beside requests over HTTP and the engine alone: 49 KB of FP32 to a model that does next to nothing.

Eight clients ask without a pause, as threads of this process, with bytes that are made beforehand; what they cost
themselves is in calls per second, not in the CPU of the server. All ways are taken in turn in each round.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import psutil
import uvloop

from bench import bare_rpc, homes
from bench.clock import cpu_s, mean_of_steps
from bench.figures import Figure, Report, Setup, microseconds, milliseconds
from bench.homes import Server
from relens.rpc.infer_tensors import read_request, write_response
from relens.rpc.messages import PREDICTION, message
from relens.rpc.tensor_protos import read_tensor
from relens.serving.holding import start_holding
from relens.serving.oip import Asked
from relens.serving.served import Inferred, Served
from relens.tensors import pack
from relens.testing import networks

CLIENTS = 8
LENGTH = 12_250
MODEL = "scale"
ROW = np.linspace(0, 1, LENGTH, dtype=np.float32)[None]
FACTOR = {"factor": np.ones(1, np.float32)}
ModelInferRequest = message("inference.ModelInferRequest")
PredictRequest = message("tensorflow.serving.PredictRequest")

Ask = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Taken:
    """Calls per second, seconds of each, and CPU seconds of front and engine for each."""

    rate: float
    seconds: list[float]
    front_s: float = 0.0
    engine_s: float = 0.0


def measure(setup: Setup) -> Report:
    calls, rounds = setup.choose(4000, 800), setup.choose(5, 2)
    root = setup.folder / "rpc"
    shutil.rmtree(root, ignore_errors=True)
    file = root / MODEL / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(networks.scaler(1, length=LENGTH))
    port = homes.free_port()
    taken: dict[str, list[Taken]] = {name: [] for name in (*WAYS, BARE, ALONE)}
    with homes.models_up(root, "--grpc-port", str(port)) as server, _bare_server() as bare:
        [engine] = psutil.Process(server.pid).children()
        argv = engine.cmdline()[:-2]  # without its socket
        for _ in range(rounds):
            for name, connect in WAYS.items():
                ways = [functools.partial(connect, server, port)] * CLIENTS
                taken[name].append(_over(ways, [server.pid, engine.pid], calls))
            taken[BARE].append(_over([functools.partial(_nothing, bare.port)] * CLIENTS, [bare.pid, bare.pid], calls))
    for _ in range(rounds):
        taken[ALONE].append(_alone(argv, calls))
    return _report(taken, calls)


# -- ways to ask


@contextlib.contextmanager
def _raw(_server: Server, port: int) -> Iterator[Ask]:
    request = ModelInferRequest(model_name=MODEL, raw_input_contents=[ROW.tobytes()])
    request.inputs.add(name="images", datatype="FP32", shape=ROW.shape)
    request.outputs.add(name="factor")
    with _called(port, "/inference.GRPCInferenceService/ModelInfer", request) as ask:
        yield ask


@contextlib.contextmanager
def _content(_server: Server, port: int) -> Iterator[Ask]:
    with _called(port, f"/{PREDICTION}/Predict", _predict()) as ask:
        yield ask


@contextlib.contextmanager
def _nothing(port: int) -> Iterator[Ask]:
    with _called(port, f"/{bare_rpc.SERVICE}/{bare_rpc.METHOD}", _predict()) as ask:
        yield ask


@dataclass(frozen=True, slots=True)
class _Bare:
    pid: int
    port: int


@contextlib.contextmanager
def _bare_server() -> Iterator[_Bare]:
    process = subprocess.Popen([sys.executable, "-m", "bench.bare_rpc"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield _Bare(process.pid, int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _called(port: int, path: str, request: Any) -> Iterator[Ask]:
    data = request.SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each client
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call = channel.unary_unary(path)
        yield lambda: call(data)


@contextlib.contextmanager
def _binary(server: Server, _port: int) -> Iterator[Ask]:
    described = {"name": "images", "datatype": "FP32", "shape": ROW.shape}
    asked = {
        "inputs": [described | {"parameters": {"binary_data_size": ROW.nbytes}}],
        "outputs": [{"name": "factor", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(asked).encode()
    body, headers = head + ROW.tobytes(), {"Inference-Header-Content-Length": str(len(head))}
    with contextlib.closing(server.connect()) as connection:

        def ask() -> None:
            connection.request("POST", f"/v2/models/{MODEL}/infer", body, headers)
            answer = connection.getresponse()
            if answer.read() and answer.status != http.client.OK:
                raise RuntimeError(f"answered with {answer.status}")

        yield ask


def _predict() -> Any:
    request = PredictRequest(model_spec={"name": MODEL}, output_filter=["factor"])
    proto = request.inputs["images"]
    proto.dtype, proto.tensor_content = 1, ROW.tobytes()
    for side in ROW.shape:
        proto.tensor_shape.dim.add(size=side)
    return request


BASE = "HTTP, binary"
ALONE = "the engine alone"
BARE = "gRPC that does nothing"
WAYS: Mapping[str, Callable[[Server, int], AbstractContextManager[Ask]]] = {
    "gRPC, raw bytes": _raw,
    "gRPC, TensorFlow Serving": _content,
    BASE: _binary,
}


# -- measuring


def _over(ways: Sequence[Callable[[], AbstractContextManager[Ask]]], pids: Sequence[int], calls: int) -> Taken:
    """What clients take of the processes of front and engine."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect()) for connect in ways]
        for ask in clients:
            ask()
        with ThreadPoolExecutor(CLIENTS) as threads:
            before, begun = [cpu_s(pid) for pid in pids], time.perf_counter()
            works = [threads.submit(_again_and_again, ask, calls // CLIENTS) for ask in clients]
            seconds = [one for work in works for one in work.result()]
            took = time.perf_counter() - begun
            front, run = (cpu_s(pid) - was for pid, was in zip(pids, before, strict=True))
    return Taken(len(seconds) / took, seconds, front / len(seconds), run / len(seconds))


def _again_and_again(ask: Ask, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - begun)
    return taken


def _alone(argv: Sequence[str], calls: int) -> Taken:
    """An engine, asked by this process over its own socket."""

    async def work() -> Taken:
        engine = await start_holding(argv, hangs_s=60)
        try:
            await engine.ready(60)
            seconds: list[float] = []

            async def ask() -> None:
                for _ in range(calls // CLIENTS):
                    begun = time.perf_counter()
                    await engine.run({"images": ROW}, ["factor"], wait_s=30)
                    seconds.append(time.perf_counter() - begun)

            before, begun = (time.process_time(), cpu_s(engine.pid)), time.perf_counter()
            await asyncio.gather(*(ask() for _ in range(CLIENTS)))
            took = time.perf_counter() - begun
            front, run = time.process_time() - before[0], cpu_s(engine.pid) - before[1]
        finally:
            await engine.stop()
        return Taken(calls / took, seconds, front / calls, run / calls)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


# -- what is said


def _report(taken: Mapping[str, list[Taken]], calls: int) -> Report:
    rates = {name: statistics.median(one.rate for one in some) for name, some in taken.items()}
    figures = [
        Figure(
            f"{name}: calls per second of {CLIENTS} clients with {ROW.nbytes / 1000:.0f} KB",
            f"{rates[name]:,.0f}",
            "" if name == BASE else f"{rates[BASE]:,.0f} over HTTP",
            None if name == BASE else rates[name] / rates[BASE],
        )
        for name in taken
    ]
    for name, some in taken.items():
        seconds = [one for each in some for one in each.seconds]
        half, last = np.percentile(seconds, [50, 99])
        figures.append(Figure(f"{name}: median call", f"{milliseconds(half)}, 99th percentile {milliseconds(last)}"))
    spent = {
        f"{name}: {part}": microseconds(statistics.median(value(one) for one in some))
        for name, some in taken.items()
        for part, value in (("front", lambda one: one.front_s), ("engine", lambda one: one.engine_s))
        if name != BARE or part == "front"
    }
    return Report(
        tuple(figures),
        parts={"CPU for each call": spent, "of which bytes to values, and back": _steps()},
        remarks=(f"{len(taken[BASE])} rounds of {calls:,} calls each way, taken in turn",),
    )


def _steps() -> dict[str, str]:
    served = Served(MODEL, 1, (), (), "onnxruntime")
    inferred = Inferred(MODEL, 1, FACTOR, {})
    infer = ModelInferRequest(model_name=MODEL, raw_input_contents=[ROW.tobytes()])
    infer.inputs.add(name="images", datatype="FP32", shape=ROW.shape)
    raw = mean_of_steps(
        [
            ("raw: parse", ModelInferRequest.FromString),
            ("raw: to arrays", read_request),
            ("raw: to the engine's frame", lambda asked: pack(asked.inputs)),
            ("raw: the answer's message", lambda _: write_response(Asked({}, binary=True), inferred, served)),
            ("raw: its bytes", lambda answer: answer.SerializeToString()),
        ],
        [infer.SerializeToString()] * 2000,
    )
    predict = mean_of_steps(
        [
            ("TensorFlow Serving: parse", PredictRequest.FromString),
            ("TensorFlow Serving: to arrays", lambda one: read_tensor(one.inputs["images"], max_bytes=1 << 20)),
        ],
        [_predict().SerializeToString()] * 2000,
    )
    return {name: microseconds(seconds) for name, seconds in (raw | predict).items()}
