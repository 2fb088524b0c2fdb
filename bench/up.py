"""How long `relens up` takes until it is ready, and until the first search is answered; wall clock."""

from __future__ import annotations

import statistics
import time

from bench import homes, pictures
from bench.figures import Figure, Report, Setup, at_most
from bench.http_search import gallery_home, objects, search

MOST_S = 5.0


def measure(setup: Setup) -> Report:
    count, rounds = objects(setup), setup.choose(5, 3)
    home = gallery_home(setup, count)
    query = pictures.jpegs(1, seed=5_000_000)
    ready, first = [], []
    for _ in range(rounds):
        with homes.up(home) as server:
            ready.append(server.ready_s)
            start = time.perf_counter()
            search(server, query)
            first.append(server.ready_s + time.perf_counter() - start)
    ready_s, first_s = statistics.median(ready), statistics.median(first)
    return Report(
        (
            Figure("relens up, until /health/ready", f"{ready_s:.2f} s", target=at_most(ready_s, MOST_S, " s")),
            Figure(f"relens up, until the first search of {count:,} objects is answered", f"{first_s:.2f} s"),
        )
    )
