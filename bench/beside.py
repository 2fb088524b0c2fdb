"""Searches beside an import on the same cores: what a person who searches feels of it, and what is left for the import.

Searches come at random at a fourth of the rate that the machine can do, whatever becomes of those before. The server is
measured as it is, with its workers at low priority, and with workers at the priority of what answers.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import homes, pictures
from bench.asking import Order, Taken, Way, ask
from bench.enrol import copy_of
from bench.figures import Figure, Report, Setup, milliseconds
from bench.homes import Server
from bench.http_search import first_engine, gallery_home, objects

RATE, CONNECTIONS = 15.0, 16
JPEG = {"Content-Type": "image/jpeg"}
BEGUN = 64  # pictures after which the import is under way
USUAL, EQUAL = "as it is", "workers at the priority of questions"
WAYS: Mapping[str, Mapping[str, str]] = {USUAL: {}, EQUAL: {"RELENS__IMPORTS__NICE": "10"}}


@dataclass(frozen=True, slots=True)
class Round:
    """Searches with nothing beside them and beside an import, and the pictures that this took a second meanwhile."""

    alone: Taken
    beside: Taken
    imported: float


def measure(setup: Setup) -> Report:
    count, rounds = setup.choose(450, 150), setup.choose(3, 1)
    source = pictures.folder(setup.folder / "pictures-beside", setup.choose(6_000, 2_500), seed=8_000_000)
    queries = pictures.jpegs(52, seed=4_000_000)
    filled = gallery_home(setup, objects(setup))
    taken: dict[str, list[Round]] = {name: [] for name in WAYS}
    for number in range(rounds):
        for name, settings in WAYS.items():
            home = copy_of(filled, setup.folder / "beside")
            with homes.up(home, settings) as server:
                first_engine(server, queries)
                way = Way(int(server.url.rpartition(":")[2]), f"/v1/search?gallery={homes.GALLERY}&k=10", queries, JPEG)
                order = Order(way, count, rate=RATE, seed=number, connections=CONNECTIONS)
                taken[name].append(_round(server, home, source, order))
            shutil.rmtree(home)
    return _report(taken)


def _round(server: Server, home: Path, source: Path, order: Order) -> Round:
    alone = ask(order)
    homes.run("import", str(source), "--gallery", "beside", "--recipe", homes.RECIPE, "--detach", home=home)
    while _imported(server) < BEGUN:
        time.sleep(0.1)
    before, start = _imported(server), time.perf_counter()
    beside = ask(order)
    after, took_s = _imported(server), time.perf_counter() - start
    if after == len(list(source.glob("*.jpg"))):
        raise RuntimeError("the import ended before the searches did: it needs more pictures")
    return Round(alone, beside, (after - before) / took_s)


def _imported(server: Server) -> int:
    with contextlib.closing(server.connect()) as connection:
        return int(homes.ask(connection, "GET", "/v1/plans")["plans"][0]["progress"]["done"])


def _report(taken: Mapping[str, Sequence[Round]]) -> Report:
    rows = {name: _row(some) for name, some in taken.items()}
    failed = sum(one.failed for some in taken.values() for each in some for one in (each.alone, each.beside))
    figures = [
        Figure(
            f"{RATE:.0f} searches/s beside an import, {name}: {what}",
            milliseconds(beside),
            f"{milliseconds(alone)} with nothing beside",
            beside / alone,
        )
        for name, row in rows.items()
        for what, (alone, beside) in row.items()
    ]
    parts = {name: f"{statistics.median(each.imported for each in some):.1f}" for name, some in taken.items()}
    return Report(tuple(figures), {"Pictures imported a second meanwhile": parts}, (f"{failed} searches failed",))


def _row(rounds: Sequence[Round]) -> dict[str, tuple[float, float]]:
    return {
        what: (
            statistics.median(one.alone.percentile(percent) for one in rounds),
            statistics.median(one.beside.percentile(percent) for one in rounds),
        )
        for what, percent in (("median", 50), ("95th percentile", 95))
    }
