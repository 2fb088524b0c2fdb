"""Search over HTTP: CPU of front and engine per request, beside the bare parts in one process.

Requests come one after the other over one connection; what client and limit cost in this process is not counted.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench import homes, parts, pictures
from bench.clock import Chain, cpu_s, mean_of_steps, medians
from bench.figures import Figure, Report, Setup, at_most, microseconds
from bench.homes import Server
from bench.parts import Floats
from relens import wiring
from relens.vectors import open_segment

MOST = 1.2
K = 10
QUERIES = 50


def measure(setup: Setup) -> Report:
    count, rounds = setup.choose(20_000, 2_000), setup.choose(15, 5)
    home = gallery_home(setup, count)
    queries = pictures.jpegs(QUERIES, seed=4_000_000)
    lens, model = homes.load(setup)
    vectors = vectors_of(home)
    crop = parts.search_chain(lens.recipe, model.artifact, vectors, K)
    direct = parts.direct_chain(model.artifact, vectors, K)
    front, engine, with_crop, without = [], [], [], []
    with homes.up(home) as server:
        search(server, queries)
        pid = engine_pid(server)
        warm_up(queries, crop, direct)
        for _ in range(rounds):
            before = cpu_s(server.pid), cpu_s(pid)
            search(server, queries)
            front.append((cpu_s(server.pid) - before[0]) / QUERIES)
            engine.append((cpu_s(pid) - before[1]) / QUERIES)
            with_crop.append(mean_of_steps(crop, queries))
            without.append(mean_of_steps(direct, queries))
    return _report(len(vectors), front, engine, with_crop, without)


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


def search(server: Server, queries: Sequence[bytes]) -> None:
    """Ask one after the other over one connection."""
    with contextlib.closing(server.connect()) as connection:
        for query in queries:
            homes.ask(connection, "POST", f"/v1/search?gallery={homes.GALLERY}&k={K}", query)


def engine_pid(server: Server) -> int:
    with contextlib.closing(server.connect()) as connection:
        return int(homes.ask(connection, "GET", "/v1/status")["engines"][0]["pid"])


def warm_up(queries: Sequence[bytes], *chains: Chain) -> None:
    for chain in chains:
        mean_of_steps(chain, queries[:5])


def _report(
    count: int,
    front: list[float],
    engine: list[float],
    with_crop: list[dict[str, float]],
    without: list[dict[str, float]],
) -> Report:
    ours = statistics.median(f + e for f, e in zip(front, engine, strict=True))
    bare, direct = (statistics.median(sum(one.values()) for one in some) for some in (with_crop, without))
    rows = {name: microseconds(seconds) for name, seconds in medians(with_crop).items()}
    rows |= {
        "sum of the parts": microseconds(bare),
        "front (HTTP)": microseconds(statistics.median(front)),
        "engine": microseconds(statistics.median(engine)),
    }
    straight = {name: microseconds(seconds) for name, seconds in medians(without).items()}
    return Report(
        (
            Figure(
                f"HTTP search of {count:,} objects, per request",
                microseconds(ours),
                f"{microseconds(bare)} decode, crop, inference, search",
                ours / bare,
                at_most(ours / bare, MOST),
            ),
            Figure(
                "the same beside parts without the crop's round trip",
                microseconds(ours),
                f"{microseconds(direct)} decode, inference, search",
                ours / direct,
            ),
        ),
        {"One search over HTTP": rows, "Its parts without the crop": straight},
    )
