"""Search over HTTP: CPU of front and engine per request, beside the bare parts in one process.

What client and limit cost in this process is not counted. Over one connection the engine waits between requests, and
comes back to colder caches than the bare parts ever have; over four it has always something to do.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import homes, parts, pictures
from bench.clock import cpu_s, mean_of_steps, medians
from bench.figures import Figure, Report, Setup, at_most, microseconds
from bench.homes import Server
from bench.parts import Floats
from relens import wiring
from relens.vectors import open_segment

MOST = 1.2
K = 10
QUERIES = 52
BUSY = 4  # connections at once

FRONT, ENGINE = "front, that is HTTP", "engine"


@dataclass(frozen=True, slots=True)
class Round:
    """CPU seconds per request of front and engine over one connection and over four, and of the bare parts."""

    one: Mapping[str, float]
    four: Mapping[str, float]
    bare: Mapping[str, float]
    direct: Mapping[str, float]


def measure(setup: Setup) -> Report:
    count, rounds = objects(setup), setup.choose(15, 3)
    home = gallery_home(setup, count)
    queries = pictures.jpegs(QUERIES, seed=4_000_000)
    lens, model = homes.load(setup)
    vectors = vectors_of(home)
    bare = parts.search_chain(lens.recipe, model.artifact, vectors, K)
    direct = parts.direct_chain(model.artifact, vectors, K)
    with homes.up(home) as server:
        engine = first_engine(server, queries)
        taken = [
            Round(
                one=asked(server, engine, queries, 1),
                bare=mean_of_steps(bare, queries),
                four=asked(server, engine, queries, BUSY),
                direct=mean_of_steps(direct, queries),
            )
            for _ in range(rounds + 1)
        ]
    return _report(len(vectors), taken[1:])


def objects(setup: Setup) -> int:
    """How many objects are searched."""
    return setup.choose(20_000, 1_000)


def gallery_home(setup: Setup, count: int) -> Path:
    """A home with a gallery of so many objects: that of the memory benchmark, or one made now with all cores."""
    home = homes.filled_home(setup, count)
    if not homes.has_gallery(home, count):
        source = pictures.folder(setup.folder / f"pictures-{count}", count)
        homes.fresh_home(setup, home.name)
        homes.run("import", str(source), "--gallery", homes.GALLERY, home=home)
    return home


def vectors_of(home: Path) -> Floats:
    """All vectors of the gallery, in plain memory."""
    local = wiring.open_parts(home)
    gateway = local.in_process()
    try:
        release = gateway.release(gateway.gallery(homes.GALLERY)["release"])
        return np.concatenate([open_segment(local.blobs, one, verify=False).vectors for one in release["segments"]])
    finally:
        gateway.close()


def asked(server: Server, engine: int, queries: Sequence[bytes], connections: int) -> dict[str, float]:
    """CPU seconds per request of front and engine, while the queries are asked over so many connections."""
    before = cpu_s(server.pid), cpu_s(engine)
    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(lambda n: search(server, queries[n::connections]), range(connections)))
    after = cpu_s(server.pid), cpu_s(engine)
    return {name: (a - b) / len(queries) for name, a, b in zip((FRONT, ENGINE), after, before, strict=True)}


def search(server: Server, queries: Sequence[bytes]) -> None:
    """Ask one after the other over one connection that is kept."""
    with contextlib.closing(server.connect()) as connection:
        for query in queries:
            homes.ask(connection, "POST", f"/v1/search?gallery={homes.GALLERY}&k={K}", query)


def first_engine(server: Server, queries: Sequence[bytes]) -> int:
    """The pid of the engine, which the first question starts."""
    search(server, queries[:1])
    with contextlib.closing(server.connect()) as connection:
        return int(homes.ask(connection, "GET", "/v1/status")["engines"][0]["pid"])


def _report(count: int, rounds: Sequence[Round]) -> Report:
    one, four, bare, direct = (
        statistics.median(sum(taken.values()) for taken in some)
        for some in zip(*((r.one, r.four, r.bare, r.direct) for r in rounds), strict=True)
    )
    whole = f"{microseconds(bare)} decode, crop, inference, search"
    rows = _rows([r.bare for r in rounds]) | {"sum of the parts": microseconds(bare)}
    rows |= {f"{name}, one connection": value for name, value in _rows([r.one for r in rounds]).items()}
    rows |= {f"{name}, {BUSY} connections": value for name, value in _rows([r.four for r in rounds]).items()}
    return Report(
        (
            Figure(
                f"HTTP search of {count:,} objects, one connection, per request",
                microseconds(one),
                whole,
                one / bare,
                at_most(one / bare, MOST),
            ),
            Figure(
                f"the same over {BUSY} connections",
                microseconds(four),
                whole,
                four / bare,
                at_most(four / bare, MOST),
            ),
            Figure(
                "one connection, beside parts that make no crop",
                microseconds(one),
                f"{microseconds(direct)} decode, inference, search",
                one / direct,
            ),
        ),
        {
            "One search over HTTP": rows,
            "The parts of a search that makes no crop": _rows([r.direct for r in rounds]),
        },
    )


def _rows(rounds: Sequence[Mapping[str, float]]) -> dict[str, str]:
    return {name: microseconds(seconds) for name, seconds in medians(rounds).items()}
