"""Small tensors beside Triton and MLServer: 49 KB of FP32 to a network that costs 0.1 ms, 8 clients without a pause.

`peers` says how each server was set up, `asking` how it is asked: the client is one lean process, whose CPU is told.
Client and servers share the cores, so that a rate is what is left of them; CPU for a request is the server's alone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from tritonclient.grpc import service_pb2

from bench import peers
from bench.asking import Order, Taken, Way, ask, rows
from bench.figures import Figure, Report, Setup, Target, at_least, microseconds, milliseconds
from bench.peers import Running, Tensors
from relens.testing import networks

MODEL, SIDE, CLASSES = "classes", 64, 5
ROW = np.random.default_rng(0).random((1, 3, SIDE, SIDE), np.float32)
OF_MLSERVER, OF_TRITON = 2.0, 0.5
RELENS_GRPC, RELENS_HTTP = "relens, gRPC", "relens, binary HTTP"
LOGGED_GRPC, LOGGED_HTTP = "relens, gRPC, with its log of requests", "relens, binary HTTP, with its log of requests"
TRITON_GRPC, TRITON_HTTP = "Triton, gRPC", "Triton, binary HTTP"
MLSERVER_GRPC = "MLServer, gRPC"


def measure(setup: Setup) -> Report:
    count, rounds = setup.choose(8_000, 1_000), setup.choose(5, 2)
    root = setup.folder / "peer-tensors"
    shutil.rmtree(root, ignore_errors=True)
    model = root / MODEL / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(networks.classifier(side_px=SIDE, classes=CLASSES))
    tensors = Tensors(MODEL, model, "images", "scores", ROW.shape, (1, CLASSES))
    remarks = [why for name in ("triton", "mlserver") if (why := peers.missing(setup, name))]
    with contextlib.ExitStack() as stack:
        ways: dict[str, tuple[Running, Way]] = {}
        ours = stack.enter_context(peers.relens(root))
        ways |= {RELENS_GRPC: (ours, raw(ours.grpc)), RELENS_HTTP: (ours, binary(ours.http))}
        ours = stack.enter_context(peers.relens(root, logs=True))
        ways |= {LOGGED_GRPC: (ours, raw(ours.grpc)), LOGGED_HTTP: (ours, binary(ours.http))}
        if not peers.missing(setup, "triton"):
            theirs = stack.enter_context(peers.triton(setup, tensors))
            ways |= {TRITON_GRPC: (theirs, raw(theirs.grpc)), TRITON_HTTP: (theirs, binary(theirs.http))}
        if not peers.missing(setup, "mlserver"):
            theirs = stack.enter_context(peers.mlserver(setup, tensors))
            ways[MLSERVER_GRPC] = theirs, raw(theirs.grpc)
        memory = {name: server.memory() for name, (server, _) in ways.items()}
        taken = [
            {name: ask(Order(way, count), server.cpu_s) for name, (server, way) in ways.items()}
            for _ in range(rounds + 1)
        ]
    return _report(taken[1:], memory, remarks)


def binary(port: int) -> Way:
    """The row as a binary tensor over HTTP."""
    described = {"name": "images", "datatype": "FP32", "shape": ROW.shape}
    asked = {
        "inputs": [described | {"parameters": {"binary_data_size": ROW.nbytes}}],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(asked).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Way(port, f"/v2/models/{MODEL}/infer", [head + ROW.tobytes()], headers)


def raw(port: int | None) -> Way:
    """The row as raw bytes over gRPC."""
    assert port is not None
    request = service_pb2.ModelInferRequest(model_name=MODEL, raw_input_contents=[ROW.tobytes()])
    request.inputs.add(name="images", datatype="FP32", shape=ROW.shape)
    request.outputs.add(name="scores")
    return Way(port, "/inference.GRPCInferenceService/ModelInfer", [request.SerializeToString()], grpc=True)


def _report(rounds: Sequence[Mapping[str, Taken]], memory: Mapping[str, int], remarks: Sequence[str]) -> Report:
    pairs = [
        (RELENS_GRPC, MLSERVER_GRPC, OF_MLSERVER),
        (RELENS_HTTP, MLSERVER_GRPC, OF_MLSERVER),
        (RELENS_GRPC, TRITON_GRPC, OF_TRITON),
        (RELENS_HTTP, TRITON_HTTP, OF_TRITON),
    ]
    figures = [_figure(rounds, *pair) for pair in pairs if {*pair[:2]} <= rounds[0].keys()]
    failed = sum(one.failed for some in rounds for one in some.values())
    figures.append(Figure("49 KB tensor, 8 clients: failed requests", str(failed), target=Target("0", failed == 0)))
    return Report(
        tuple(figures),
        {
            "A 49 KB tensor, 8 clients: requests/s, medians": rows(rounds, lambda one: one.rate, "{:,.0f}".format),
            "CPU of the server for each": rows(rounds, lambda one: one.cpu_s, microseconds),
            "Cores that the client used meanwhile": rows(rounds, lambda one: one.share, "{:.2f}".format),
            "99th percentile": rows(rounds, lambda one: one.percentile(99), milliseconds),
            "Memory when it is ready": {name: f"{size / 1e6:,.0f} MB" for name, size in memory.items()},
        },
        tuple(remarks),
    )


def _figure(rounds: Sequence[Mapping[str, Taken]], ours: str, theirs: str, least: float) -> Figure:
    own, other = (statistics.median(one[name].rate for one in rounds) for name in (ours, theirs))
    ratio = statistics.median(one[ours].rate / one[theirs].rate for one in rounds)
    what = f"49 KB tensor, 8 clients: {ours}"
    return Figure(what, f"{own:,.0f}/s", f"{other:,.0f}/s {theirs}", ratio, at_least(ratio, least))
