"""Enrolment beside questions: how long it takes until a picture that is sent can be found, on a real server.

A picture can be found when its enrolment is answered: that is what is timed, and each one is then searched for.
Meanwhile searches are sent at a fixed rate whatever becomes of them, so that a slow answer makes none of them later.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import homes, pictures
from bench.figures import Figure, Report, Setup, at_most, milliseconds
from bench.homes import Server
from bench.http_search import first_engine, gallery_home, objects
from relens import wiring

RATE = 50.0  # searches per second
ENROLMENTS = 2.0  # per second
SENDERS = 8  # connections for searches
MOST_MS = 50.0
SLOWEST = 99
CREATED = (http.HTTPStatus.OK, http.HTTPStatus.CREATED)


@dataclass(slots=True)
class Taken:
    """Seconds of each enrolment with its parts as the server says them, of each search beside it, and what was lost."""

    enrolments: list[float] = field(default_factory=list)
    parts: list[Mapping[str, float]] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    not_found: int = 0


def measure(setup: Setup) -> Report:
    count, enrolments = objects(setup), setup.choose(400, 40)
    home = copy_of(gallery_home(setup, count), setup.folder / "enrol")
    queries = pictures.jpegs(52, seed=4_000_000)
    new = pictures.jpegs(enrolments, seed=6_000_000)
    with homes.up(home) as server:
        first_engine(server, queries)
        alone = _alone(server, pictures.jpegs(setup.choose(60, 10), seed=7_000_000))
        taken = _beside(server, queries, new)
    shutil.rmtree(home)
    return _report(count, alone, taken)


def copy_of(home: Path, path: Path) -> Path:
    """A home of its own to write into: what never changes is linked. All cores answer questions."""
    shutil.rmtree(path, ignore_errors=True)
    wiring.open_parts(home).catalog.close()  # its log is in its file then
    path.mkdir()
    for part in home.iterdir():
        if part.name in {"blobs", "models"}:
            shutil.copytree(part, path / part.name, copy_function=_link)
        elif part.is_dir():
            shutil.copytree(part, path / part.name)
        elif not part.name.endswith((".log", "-wal", "-shm")):
            shutil.copy(part, path / part.name)
    settings = path / "relens.yaml"  # one thread of one core would be busy with so many searches alone
    settings.write_text(settings.read_text().replace("\nserver:\n", f"\nserver:\n  threads: {os.cpu_count() or 1}\n"))
    return path


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _alone(server: Server, new: Sequence[bytes]) -> Taken:
    """Enrolments one after the other, with nothing beside them."""
    taken = Taken()
    with contextlib.closing(server.connect()) as connection:
        for data in new:
            _enrol(connection, data, taken)
    return taken


def _beside(server: Server, queries: Sequence[bytes], new: Sequence[bytes]) -> Taken:
    """Enrolments at their rate beside searches at theirs."""
    taken, turns = Taken(), int((len(new) / ENROLMENTS + 2.0) * RATE)
    with ThreadPoolExecutor(SENDERS) as threads:
        start = time.perf_counter() + 1.0
        schedule = [range(number, turns, SENDERS) for number in range(SENDERS)]
        asking = [threads.submit(_ask, server, queries, some, start, taken) for some in schedule]
        with contextlib.closing(server.connect()) as connection:
            for number, data in enumerate(new):
                _wait_until(start + 1.0 + number / ENROLMENTS)
                _enrol(connection, data, taken)
        for one in asking:
            one.result()
    return taken


def _ask(server: Server, queries: Sequence[bytes], turns: range, start: float, taken: Taken) -> None:
    """Some searches of the fixed schedule, over one connection."""
    with contextlib.closing(server.connect()) as connection:
        for turn in turns:
            due = start + turn / RATE
            _wait_until(due)
            taken.late.append(time.perf_counter() - due)
            asked = time.perf_counter()
            homes.ask(connection, "POST", f"/v1/search?gallery={homes.GALLERY}&k=10", queries[turn % len(queries)])
            taken.searches.append(time.perf_counter() - asked)


def _enrol(connection: http.client.HTTPConnection, data: bytes, taken: Taken) -> None:
    """One enrolment, timed; then whether the picture finds itself first."""
    start = time.perf_counter()
    done = _post(connection, f"/v1/galleries/{homes.GALLERY}/objects", data)
    taken.enrolments.append(time.perf_counter() - start)
    taken.parts.append(done["timings_ms"])
    found = _post(connection, f"/v1/search?gallery={homes.GALLERY}&k=1", data)
    best = [match["id"] for one in found["objects"] for match in one["matches"]]
    taken.not_found += best != done["objects"]


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> Any:
    connection.request("POST", path, body)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status not in CREATED:
        raise RuntimeError(f"POST {path} was answered with {answer.status}: {data[:500]!r}")
    return json.loads(data)


def _wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))


def _report(count: int, alone: Taken, taken: Taken) -> Report:
    worst = float(np.percentile(taken.enrolments, SLOWEST))
    lost = taken.not_found + alone.not_found
    sent = f"{len(taken.enrolments)} enrolments, {ENROLMENTS:g} a second, beside {len(taken.searches)} searches"
    remarks = (
        f"{sent} of {count:,} objects; {lost} enrolled pictures did not find themselves first",
        f"99 of 100 searches were sent no more than {milliseconds(float(np.percentile(taken.late, SLOWEST)))} late",
    )
    what = f"enrol to visible beside {RATE:g} searches/s"
    return Report(
        (
            Figure(
                f"{what}, {SLOWEST}th percentile",
                milliseconds(worst),
                f"{milliseconds(float(np.percentile(alone.enrolments, SLOWEST)))} with nothing beside",
                target=at_most(worst * 1e3, MOST_MS, " ms"),
            ),
            Figure(
                f"{what}, median",
                milliseconds(statistics.median(taken.enrolments)),
                f"{milliseconds(statistics.median(alone.enrolments))} with nothing beside",
            ),
            Figure(
                "a search meanwhile, median",
                milliseconds(statistics.median(taken.searches)),
                f"{milliseconds(float(np.percentile(taken.searches, SLOWEST)))} at the {SLOWEST}th percentile",
            ),
        ),
        {
            "Where an enrolment's time goes, medians": _parts(taken),
            "The same with nothing beside": _parts(alone),
        },
        remarks,
    )


def _parts(taken: Taken) -> dict[str, str]:
    """Phases as the server names them; what is left is HTTP, threads and waiting in the client."""
    rows = {name: statistics.median(one.get(name, 0.0) for one in taken.parts) / 1e3 for name in taken.parts[0]}
    whole = statistics.median(taken.enrolments)
    return {name: milliseconds(value) for name, value in rows.items()} | {
        "HTTP and the rest": milliseconds(whole - sum(rows.values())),
        "all": milliseconds(whole),
    }
