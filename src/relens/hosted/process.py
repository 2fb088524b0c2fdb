"""What an engine's process does: tensors in over a socket pair, tensors out.

It verifies its file, loads it and warms it up, says that it is ready, and answers until the other side ends. A model of
pictures also takes them as bytes, in place of its input.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from relens.errors import Broken, Busy, RelensError
from relens.hosted.model import Model
from relens.hosted.running import Request, Runner, Way
from relens.hosted.trial import rows_stand_alone
from relens.hosted.warming import run_recorded
from relens.runtimes.frames import Outlet, error_to_header, expired, receive_frames
from relens.runtimes.graph import Graph
from relens.runtimes.queue import WorkQueue
from relens.telemetry import start_logging
from relens.tensors import TensorInfo

PIECE = 1 << 20

log = structlog.get_logger(__name__)


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Load what the arguments name: what serves it then, until the other side ends, and gives the exit code."""
    parser = argparse.ArgumentParser(prog="relens.hosted")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--cores", type=int, default=1, help="that one forward uses")
    parser.add_argument("--backend", choices=["onnxruntime", "openvino", "measured"], default="onnxruntime")
    parser.add_argument("--cache", type=Path, help="for what OpenVINO has compiled")
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--way", type=json.loads, default={})
    parser.add_argument("--limits", type=json.loads, default={})
    parser.add_argument("--logs", nargs=2, metavar=("LEVEL", "FORMAT"), default=("info", "json"))
    given = parser.parse_args(argv)
    start_logging(*given.logs, for_good=True)
    connection = socket.socket(fileno=given.fd)
    way = Way(**{**given.way, "sizes": tuple(given.way.get("sizes", ()))})
    try:
        model = _load(given, way)
    except RelensError as error:
        return partial(_refuse, connection, error)
    if way.rows > 1 and not rows_stand_alone(model.graph):
        log.warning("requests are not run together: what a row gives depends on others", model=str(given.model))
        way = replace(way, rows=1, sizes=())
    return partial(serve, connection, model, way, queue=given.queue, digest=given.digest)


def _refuse(connection: socket.socket, error: RelensError) -> int:
    Outlet(connection).send({"failed": error_to_header(error)})
    return 1


def serve(connection: socket.socket, model: Model, way: Way, *, queue: int, digest: str) -> int:
    """Say what the model is, and answer until the other side ends. The exit code.

    queue   requests that may wait; one more is Busy
    digest  SHA-256 of the model's file
    """
    outlet = Outlet(connection)
    outlet.send({"ready": _told(model, digest)})
    waiting: WorkQueue[Request] = WorkQueue(queue, on_expired=lambda one: outlet.fail(one.id, expired()))
    runner = Runner(model, waiting, outlet, way)
    runner.start()
    for header, body in receive_frames(connection):
        if "drop" in header:
            if runner.drop(header["drop"]):
                outlet.send({"id": header["drop"], "dropped": True})
            continue
        now = time.monotonic()
        until = now + header["wait_s"]
        try:
            waiting.put(Request(header["id"], header, body, now, until), deadline=until, level=header["level"])
        except Busy as error:
            outlet.fail(header["id"], error)
    waiting.close()
    return 0


def _load(given: argparse.Namespace, way: Way) -> Model:
    file: Path = given.model
    if sha256_of(file) != given.digest:
        raise Broken(
            "runtimes.overwritten",
            f"{file} is not what it was when its version was found",
            hint="a version never changes: put the new file into a folder with the next number",
        )
    graph = Graph(file, threads=given.cores)
    model = Model(graph, file, **given.limits)  # golden pictures are repeated by what they were made with
    if given.backend != graph.backend:
        from relens.hosted.choosing import choose_backend  # noqa: PLC0415 - others do without what it imports

        streams = 1 if way.rows > 1 else way.threads
        choose_backend(graph, file, given.backend, cores=given.cores, streams=streams, cache=given.cache)
    graph.warm_up()
    run_recorded(model, file.parent)
    return model


def sha256_of(path: Path) -> str:
    """The digest of a file. Broken if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    except OSError as error:
        raise Broken("runtimes.load-failed", f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _told(model: Model, digest: str) -> dict[str, Any]:
    graph = model.graph
    return {
        "backend": graph.backend,
        "inputs": _listed(graph.inputs),
        "outputs": _listed(graph.outputs),
        "labels": model.labels,
        "pictures": model.pictures,
        "space": model.space(digest),
    }


def _listed(infos: Sequence[TensorInfo]) -> list[list[Any]]:
    return [[info.name, info.datatype, list(info.shape)] for info in infos]
