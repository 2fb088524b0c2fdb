"""JPEG in, classes out, beside Triton, MLServer and LitServe: EfficientNet-lite0, VGA pictures, 8 clients.

Peers prepare pictures in their Python, once as it is usually written and once with as little work as relens takes
(`theirs.looking`: plain and careful); `peers` says how each was set up. Beside it, what one picture costs on one core
and on two, and what the bare parts cost in one process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
from tritonclient.grpc import service_pb2

from bench import homes, parts, peers, pictures
from bench.asking import Order, Taken, Way, ask, rows
from bench.clock import mean_of_steps
from bench.figures import Figure, Report, Setup, Target, at_least, at_most, microseconds, milliseconds
from bench.peers import Pictures, Running
from relens.models import Artifact

MODEL = "effnet-lite0"
DIFFERENT = 64
OURS, ONE_CORE, BARE = "relens", "relens, one core", "bare parts"
PREPARED = {"plain": "Pillow", "careful": "as careful as relens"}
LEAST_OF_BARE, MOST_OF_ONE_CORE = 0.9, 1.15


def measure(setup: Setup) -> Report:
    count, rounds = setup.choose(800, 160), setup.choose(5, 2)
    root = served(setup, "peer-pictures")
    jpegs = pictures.jpegs(setup.choose(DIFFERENT, 16), seed=6_000_000)
    remarks = [why for name in peers.PEERS if (why := peers.missing(setup, name))]
    _, model = homes.load(setup)
    chain = _chain(model.artifact)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(peers.relens(root))
        remarks.append(f"relens runs it by {_backend(ours)}")
        ways: dict[str, tuple[Running, Way]] = {OURS: (ours, looking(ours.http, jpegs))}
        for name, start in peers.PEERS.items():
            for way, called in PREPARED.items() if not peers.missing(setup, name) else ():
                work = Pictures(root / MODEL / "1", way)
                theirs = stack.enter_context(start(setup, work))
                ways[f"{name}, {called}"] = theirs, ASKED[name](theirs, jpegs)
        taken: list[dict[str, Taken]] = []
        bare: list[float] = []
        for _ in range(rounds + 1):
            some = {name: ask(Order(way, count), server.cpu_s) for name, (server, way) in ways.items()}
            with _on_one_core(ours):
                some[ONE_CORE] = ask(Order(ways[OURS][1], count), ours.cpu_s)
            taken.append(some)
            bare.append(sum(mean_of_steps(chain, jpegs).values()))
    return _report(taken[1:], bare[1:], remarks)


def served(setup: Setup, name: str) -> Path:
    """A folder of models with the built-in one alone."""
    root = setup.folder / name
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(homes.base_home(setup) / "models" / MODEL, root / MODEL)
    return root


def looking(port: int, jpegs: Sequence[bytes]) -> Way:
    """Pictures to relens as they are."""
    return Way(port, f"/v1/models/{MODEL}:recognize", jpegs, {"Content-Type": "image/jpeg"})


def _backend(server: Running) -> str:
    with contextlib.closing(homes.Server(server.pid, f"http://127.0.0.1:{server.http}", 0.0).connect()) as connection:
        return str(homes.ask(connection, "GET", f"/v2/models/{MODEL}")["platform"])


def _chain(artifact: Artifact) -> tuple[tuple[str, Callable], ...]:
    """From a JPEG to its best names, with nothing around."""
    return (
        ("decode", parts.decoder(artifact.card.preprocessing.resize_px)),
        ("resize, cut and normalise", parts.preparer(artifact.card.preprocessing)),
        ("inference", parts.scorer(artifact)),
        ("best names", lambda scores: np.argsort(-scores)[:5]),
    )


@contextlib.contextmanager
def _on_one_core(server: Running) -> Iterator[None]:
    """All threads of a server on one core, until the context is left. The client may use all."""
    cores = os.sched_getaffinity(0)
    _pin(server, {min(cores)})
    try:
        yield
    finally:
        _pin(server, cores)


def _pin(server: Running, cores: set[int]) -> None:
    for pid in server.pids():
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, cores)


# -- how peers are asked


def _triton(server: Running, jpegs: Sequence[bytes]) -> Way:
    """Over HTTP with binary tensors, which takes Triton less than gRPC."""
    bodies, length = [], 0
    for jpeg in jpegs:
        packed = struct.pack("<I", len(jpeg)) + jpeg
        described = {"name": "jpeg", "datatype": "BYTES", "shape": [1]}
        asked = {
            "inputs": [described | {"parameters": {"binary_data_size": len(packed)}}],
            "outputs": [{"name": "names", "parameters": {"binary_data": True}}],
        }
        head = json.dumps(asked).encode().ljust(300)  # of one length, which is said in a header
        length = len(head)
        bodies.append(head + packed)
    return Way(server.http, "/v2/models/pictures/infer", bodies, {"Inference-Header-Content-Length": str(length)})


def _mlserver(server: Running, jpegs: Sequence[bytes]) -> Way:
    """Over gRPC: over HTTP it takes JSON alone."""
    bodies = []
    for jpeg in jpegs:
        request = service_pb2.ModelInferRequest(model_name="pictures")
        request.inputs.add(name="jpeg", datatype="BYTES", shape=[1]).contents.bytes_contents.append(jpeg)
        bodies.append(request.SerializeToString())
    assert server.grpc is not None
    return Way(server.grpc, "/inference.GRPCInferenceService/ModelInfer", bodies, grpc=True)


def _litserve(server: Running, jpegs: Sequence[bytes]) -> Way:
    """As an uploaded file."""
    edge = "a1b2c3d4e5f6"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="content"; filename="a.jpg"\r\n'
    before, after = f"{head}Content-Type: image/jpeg\r\n\r\n".encode(), f"\r\n--{edge}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    return Way(server.http, "/predict", [before + jpeg + after for jpeg in jpegs], headers)


ASKED: Mapping[str, Callable[[Running, Sequence[bytes]], Way]] = {
    "triton": _triton,
    "mlserver": _mlserver,
    "litserve": _litserve,
}


# -- what is said


def _report(rounds: Sequence[Mapping[str, Taken]], bare: Sequence[float], remarks: Sequence[str]) -> Report:
    names = [name for name in rounds[0] if name not in {OURS, ONE_CORE}]
    figures = [figure for name in names for figure in _beside(rounds, name)]
    one, two, alone = _cpu(rounds, ONE_CORE), _cpu(rounds, OURS), statistics.median(bare)
    cores = statistics.median(some[OURS].cpu_s / some[ONE_CORE].cpu_s for some in rounds)
    whole = statistics.median(limit / some[ONE_CORE].cpu_s for some, limit in zip(rounds, bare, strict=True))
    figures += [
        Figure(
            "CPU for a picture on two cores",
            microseconds(two),
            f"{microseconds(one)} on one",
            cores,
            at_most(cores, MOST_OF_ONE_CORE),
        ),
        Figure(
            "pictures for a CPU second on one core",
            f"{1 / one:.1f}",
            f"{1 / alone:.1f} of decode, resize, inference alone",
            whole,
            at_least(whole, LEAST_OF_BARE),
        ),
    ]
    failed = sum(taken.failed for some in rounds for taken in some.values())
    figures.append(Figure("JPEG in, classes out: failed requests", str(failed), target=Target("0", failed == 0)))
    return Report(
        tuple(figures),
        {
            "JPEG in, classes out, 8 clients: CPU for a picture": {
                **rows(rounds, lambda one: one.cpu_s, microseconds),
                BARE: microseconds(alone),
            },
            "Pictures a second": rows(rounds, lambda one: one.rate, "{:.1f}".format),
            "99th percentile": rows(rounds, lambda one: one.percentile(99), milliseconds),
            "Cores that the client used meanwhile": rows(rounds, lambda one: one.share, "{:.2f}".format),
        },
        tuple(remarks),
    )


def _beside(rounds: Sequence[Mapping[str, Taken]], name: str) -> tuple[Figure, Figure]:
    more = statistics.median(one[name].cpu_s / one[OURS].cpu_s for one in rounds)
    slower = statistics.median(one[OURS].percentile(99) / one[name].percentile(99) for one in rounds)
    own, other = (statistics.median(one[who].percentile(99) for one in rounds) for who in (OURS, name))
    ours, theirs = f"{1 / _cpu(rounds, OURS):.1f}", f"{1 / _cpu(rounds, name):.1f} {name}"
    return (
        Figure("pictures for a CPU second", ours, theirs, more, at_least(more, 1)),
        Figure("99th percentile", milliseconds(own), f"{milliseconds(other)} {name}", slower, at_most(slower, 1)),
    )


def _cpu(rounds: Sequence[Mapping[str, Taken]], name: str) -> float:
    return statistics.median(one[name].cpu_s for one in rounds)
