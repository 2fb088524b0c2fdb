"""A server with 10,000 idle connections, 1,000 slow readers and half-sent bodies: what others feel, and its memory.

Others ask for 2 KB at a fixed rate, at random. A slow reader reads a kilobyte or two a second of an answer of 600 KB; a
half-sent body is half of a 600 KB request whose other half never comes. What the kernel holds for them is not counted.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench import peers
from bench.asking import Order, Taken, Way, ask
from bench.crowd import Crowd
from bench.crowd import Order as CrowdOrder
from bench.figures import Figure, Report, Setup, Target, at_most, milliseconds
from bench.peers import Running
from relens.testing import networks

LARGE, SMALL = 150_528, 512
RATE = 100.0
MOST_SLOWER, MOST_GROWTH = 1.5, 1.1
SPARE_FILES = 500
SETTLE_S = 2.0
MB = 1e6


@dataclass(frozen=True, slots=True)
class Round:
    """What others saw without the crowd and beside it, and the server's bytes before, beside and after; twice."""

    quiet: Taken
    beside: Taken
    before: int
    meanwhile: int
    after: int
    after_two: int


def measure(setup: Setup) -> Report:
    idle, slow, halves = setup.choose(10_000, 1_000), setup.choose(1_000, 100), setup.choose(500, 50)
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    remarks = []
    if idle + slow + halves + SPARE_FILES > most:
        idle = most - slow - halves - SPARE_FILES
        remarks.append(f"only {idle:,} idle connections: a process may have {most:,} files open (ulimit -n)")
    root = setup.folder / "connections"
    shutil.rmtree(root, ignore_errors=True)
    for name, length in (("large", LARGE), ("small", SMALL)):
        file = root / name / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(networks.scaler(1, length=length))
    rounds = []
    for number in range(setup.choose(3, 1)):
        with peers.relens(root, logs=True) as server:
            rounds.append(_round(server, setup, (idle, slow, halves), number))
    what = f"{idle:,} idle connections, {slow:,} slow readers, {halves:,} half-sent bodies"
    return _report(what, rounds, slow, halves, remarks)


def _round(server: Running, setup: Setup, crowd: tuple[int, int, int], number: int) -> Round:
    small, large = _way(server.http, "small", SMALL), _way(server.http, "large", LARGE)
    order = Order(small, setup.choose(3_000, 500), rate=RATE, seed=number)
    ask(Order(large, 200))
    before = server.memory()
    quiet = ask(order, server.cpu_s)
    bad = CrowdOrder(server.http, *crowd, large.path, large.bodies[0], dict(large.headers))
    with Crowd(bad):
        beside = ask(order, server.cpu_s)
        meanwhile = server.memory()
    after = _settled(server, large)
    with Crowd(bad):
        pass
    return Round(quiet, beside, before, meanwhile, after, _settled(server, large))


def _settled(server: Running, large: Way) -> int:
    """Bytes in memory once the crowd has gone and the server has worked again."""
    time.sleep(SETTLE_S)
    ask(Order(large, 200))
    return server.memory()


def _way(port: int, model: str, length: int) -> Way:
    row = np.zeros((1, length), np.float32)
    asked = {
        "inputs": [
            {
                "name": "images",
                "datatype": "FP32",
                "shape": row.shape,
                "parameters": {"binary_data_size": row.nbytes},
            }
        ],
        "outputs": [{"name": "scaled", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(asked).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Way(port, f"/v2/models/{model}/infer", [head + row.tobytes()], headers)


def _report(what: str, rounds: Sequence[Round], slow: int, halves: int, remarks: Sequence[str]) -> Report:
    slower = statistics.median(one.beside.percentile(99) / one.quiet.percentile(99) for one in rounds)
    quiet, beside = (
        statistics.median(getattr(one, name).percentile(99) for one in rounds) for name in ("quiet", "beside")
    )
    failed = sum(one.beside.failed for one in rounds)
    grown = statistics.median(one.meanwhile - one.before for one in rounds)
    bound = (slow + halves / 2) * LARGE * 4
    growth = statistics.median(one.after_two / one.after for one in rounds)
    names = ("before", "after", "after_two")
    first, one, two = (statistics.median(getattr(some, name) for some in rounds) / MB for name in names)
    return Report(
        (
            Figure(f"{what}: failed requests of others", str(failed), target=Target("0", failed == 0)),
            Figure(
                f"others' 99th percentile meanwhile, {RATE:.0f} requests/s",
                milliseconds(beside),
                f"{milliseconds(quiet)} without",
                slower,
                at_most(slower, MOST_SLOWER),
            ),
            Figure(
                "memory meanwhile, more than before",
                f"{grown / MB:,.0f} MB",
                f"{bound / MB:,.0f} MB that the crowd has asked for and sent",
                grown / bound,
                at_most(grown / bound, 1),
            ),
            Figure(
                f"memory after a second such crowd has left ({first:,.0f} MB before the first)",
                f"{two:,.0f} MB",
                f"{one:,.0f} MB after the first",
                growth,
                at_most(growth, MOST_GROWTH),
            ),
        ),
        remarks=tuple(remarks),
    )
