"""Pictures that come at random, beside a queue that is simulated; and what it takes to hand a request to an engine.

The highest rate is that of 8 clients without a pause. Then pictures come at 70 % of it, at random, whatever becomes of
those before. The queue beside it is an ideal one: as many servers as cores, first come first served, the same arrivals,
and as service times what clients saw, just before and after, who were as many as cores, so that nothing waited.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import uvloop

from bench import peer_pictures, peers, pictures
from bench.asking import Order, Taken, arrivals, ask
from bench.figures import Figure, Report, Setup, Target, at_most, milliseconds
from relens.hosted import start
from relens.hosted.process import sha256_of
from relens.serving.holding import start_holding
from relens.testing import networks

SHARE, MOST_OF_IDEAL = 0.7, 1.3
LENGTH, MOST_HANDING_S = 25_600, 0.3e-3
MODEL = "scale"


def measure(setup: Setup) -> Report:
    count, rounds = setup.choose(1_500, 300), setup.choose(9, 3)
    jpegs = pictures.jpegs(setup.choose(64, 16), seed=7_000_000)
    taken, ideal = [], []
    with peers.relens(peer_pictures.served(setup, "load"), logs=True) as server:
        way = peer_pictures.looking(server.http, jpegs)
        ask(Order(way, count // 4))
        for number in range(rounds):
            alone = Order(way, count // 4, clients=peers.CORES)
            rate = ask(Order(way, count // 2)).rate * SHARE
            before = ask(alone)
            taken.append(ask(Order(way, count, rate=rate, seed=number)))
            after = ask(alone)
            ideal.append(_simulated([*before.seconds, *after.seconds], rate, count, number))
    handing = _handing(setup, setup.choose(4_000, 500))
    return _report(taken, ideal, handing)


def _simulated(service: Sequence[float], rate: float, count: int, seed: int) -> float:
    """The 99th percentile of an ideal queue's seconds, waiting included."""
    chance, seconds = random.Random(seed), []
    free = [0.0] * peers.CORES
    for at in arrivals(rate, count, seed):
        begun = max(at, heapq.heappop(free))
        ended = begun + chance.choice(service)
        heapq.heappush(free, ended)
        seconds.append(ended - at)
    return float(np.percentile(seconds, 99))


def _handing(setup: Setup, calls: int) -> list[float]:
    """Seconds of each request to an engine over what the engine needs to prepare and run it: one at a time, 100 KB."""
    file = setup.folder / "handing" / "model.onnx"
    shutil.rmtree(file.parent, ignore_errors=True)
    file.parent.mkdir(parents=True)
    file.write_bytes(networks.scaler(1, length=LENGTH))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_handed(file, calls))


async def _handed(file: Path, calls: int) -> list[float]:
    row = np.zeros((1, LENGTH), np.float32)
    argv = [sys.executable, "-P", start.__file__, "--model", str(file), "--digest", sha256_of(file)]
    engine = await start_holding(argv, hangs_s=60)
    seconds = []
    try:
        await engine.ready(60)
        for _ in range(calls):
            begun = time.perf_counter()
            ran = await engine.run({"images": row}, ["factor"], wait_s=30)
            inside_ms = ran.timings_ms["prepare"] + ran.timings_ms["run"]
            seconds.append(time.perf_counter() - begun - inside_ms / 1e3)
    finally:
        await engine.stop()
    return seconds


def _report(taken: Sequence[Taken], ideal: Sequence[float], handing: Sequence[float]) -> Report:
    ratio = statistics.median(one.percentile(99) / limit for one, limit in zip(taken, ideal, strict=True))
    own, limit = statistics.median(one.percentile(99) for one in taken), statistics.median(ideal)
    rate = statistics.median(one.rate for one in taken)
    failed = sum(one.failed for one in taken)
    handed_s = statistics.median(handing)
    return Report(
        (
            Figure(
                f"pictures at random, {rate:.0f}/s, {SHARE:.0%} of the highest rate: 99th percentile",
                milliseconds(own),
                f"{milliseconds(limit)} of an ideal queue",
                ratio,
                at_most(ratio, MOST_OF_IDEAL),
            ),
            Figure("the same: failed requests", str(failed), target=Target("0", failed == 0)),
            Figure(
                f"handing {LENGTH * 4 / 1000:.0f} KB to an engine and its answer back, median",
                milliseconds(handed_s),
                f"{milliseconds(float(np.percentile(handing, 99)))} at the 99th percentile",
                target=Target(f"< {milliseconds(MOST_HANDING_S)}", handed_s < MOST_HANDING_S),
            ),
        ),
        {
            "Pictures at random, each run": {
                f"{number + 1}: {one.rate:.0f}/s, median {milliseconds(one.percentile(50))}": (
                    f"{milliseconds(one.percentile(99))}, ideal {milliseconds(best)}"
                )
                for number, (one, best) in enumerate(zip(taken, ideal, strict=True))
            }
        },
    )
