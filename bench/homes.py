"""Homes to measure in, the commands that run in them, and the lens that they use.

The models are fetched once, into a home that is never used but copied. Servers and imports are the real commands.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import pictures
from bench.figures import Setup
from relens import wiring
from relens.errors import RelensError
from relens.recipes import Lens, LoadedModel

RECIPE = "photos"
GALLERY = "bench"
CPU = "import-cpu-s"
"""File in a filled home: CPU seconds that its import took."""
READY_TIMEOUT_S = 60.0
POLL_S = 0.01

RELENS = (sys.executable, "-m", "relens.cli")


def fresh_home(setup: Setup, name: str) -> Path:
    """A home of this name with models and nothing else."""
    path = setup.folder / name
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(base_home(setup), path)
    return path


def base_home(setup: Setup) -> Path:
    """The home with the models, never to be filled. Made anew if this relens cannot use the one that is there."""
    path = setup.folder / "base"
    if not _can_load(path):
        shutil.rmtree(path, ignore_errors=True)
        run("init", home=path)
        run("model", "fetch", "imagenet", home=path)
    return path


def _can_load(home: Path) -> bool:
    try:
        _load(home)
    except RelensError:
        return False
    return True


def filled_home(setup: Setup, count: int) -> Path:
    """Where the home with a gallery of so many objects is, whether or not it has been filled."""
    return setup.folder / f"gallery-{count}"


def has_gallery(home: Path, count: int) -> bool:
    """Whether the home's gallery was imported to its end, and this relens can answer from it."""
    try:
        gateway = wiring.open_local(home)
        with contextlib.closing(gateway):
            plan = gateway.plans()["plans"][0]
            gateway.search(pictures.jpegs(1)[0], gallery=GALLERY)
    except (RelensError, IndexError):
        return False
    return bool(plan["state"] == "done" and plan["progress"]["done"] == count)


def run(*words: str, home: Path) -> None:
    """A relens command. What it says is shown only if it fails."""
    done = subprocess.run([*RELENS, *words, "--home", str(home)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"relens {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")


def load(setup: Setup) -> tuple[Lens, LoadedModel]:
    """The lens of the recipe, and the model that embeds, loaded in this process."""
    return _load(base_home(setup))


def _load(home: Path) -> tuple[Lens, LoadedModel]:
    parts = wiring.open_parts(home)
    try:
        lens = parts.book.lens(RECIPE)
        name, _, version = lens.recipe.models["embed"].partition("/")
        return lens, parts.onboarding.start(name, int(version), digest=lens.digests["embed"])
    finally:
        parts.catalog.close()


# -- servers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A running `relens up`: its process, and how long it took until it said that it is ready."""

    pid: int
    url: str
    ready_s: float

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=READY_TIMEOUT_S)


@contextlib.contextmanager
def up(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server on the home until the context is left; `settings` are variables."""
    with _serving("--home", str(home), log=home / "up.log", settings=settings) as server:
        yield server


@contextlib.contextmanager
def models_up(root: Path, *more: str, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server of a folder of models until the context is left; `more` are options, `settings` variables."""
    log = root.with_name("-".join([root.name, *(settings or {}).values()]) + ".log")  # each server has one of its own
    with _serving("--models", str(root), *more, log=log, settings=settings) as server:
        yield server


@contextlib.contextmanager
def _serving(*words: str, log: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        start = time.perf_counter()
        argv = [*RELENS, "up", "--port", str(port), *words]
        process = subprocess.Popen(argv, stderr=out, stdout=out, env={**os.environ, **(settings or {})})
        try:
            _wait_ready(url, process, start)
            yield Server(process.pid, url, time.perf_counter() - start)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(READY_TIMEOUT_S)


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> Any:
    """The JSON of an answer over a connection that is kept. RuntimeError for any status but 200."""
    connection.request(method, path, body)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{method} {path} was answered with {answer.status}: {data[:500]!r}")
    return json.loads(data)


def _wait_ready(url: str, process: subprocess.Popen[bytes], start: float) -> None:
    parts = urlsplit(url)
    while time.perf_counter() - start < READY_TIMEOUT_S:
        if process.poll() is not None:
            raise RuntimeError(f"relens up ended with {process.returncode}; its words are in up.log of its home")
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=READY_TIMEOUT_S)
        with contextlib.closing(connection), contextlib.suppress(OSError, RuntimeError):
            ask(connection, "GET", "/health/ready")
            return
        time.sleep(POLL_S)
    raise RuntimeError(f"relens up was not ready within {READY_TIMEOUT_S:g} s")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- workers --------------------------------------------------------------------------------------------------------


def worker_cpu_s(home: Path, source: Path, gallery: str) -> float:
    """CPU seconds of one worker process that imports a folder into a new gallery, from its start to its end."""
    gateway = wiring.open_local(home)
    try:
        plan = gateway.start_import(source, gallery=gallery, recipe=RECIPE, workers=1).plan
        argv = wiring.worker_argv(wiring.open_parts(home).home, plan=plan)
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        state = gateway.plan(plan)["state"]
    finally:
        gateway.close()
    if process.returncode or state != "done":
        raise RuntimeError(f"the worker ended with {process.returncode}, its plan is {state}")
    return used.ru_utime + used.ru_stime
