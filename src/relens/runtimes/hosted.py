"""An engine's process that holds one model version as it is: tensors in over a socket pair, tensors out.

It verifies its file, loads it and warms it up, says that it is ready, and answers until the other side ends.
`hosted_start` starts it so that a load disturbs nobody.
"""

from __future__ import annotations

import argparse
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from relens.errors import Broken, Busy, RelensError
from relens.runtimes.frames import Outlet, error_to_header, expired, receive_frame
from relens.runtimes.graph import Graph
from relens.runtimes.queue import WorkQueue
from relens.tensors import TensorInfo, pack, unpack

PIECE = 1 << 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Request:
    id: int
    header: dict[str, Any]
    body: bytes
    since: float


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Load what the arguments name: what serves it then, until the other side ends, and gives the exit code."""
    parser = argparse.ArgumentParser(prog="relens.runtimes.hosted")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--queue", type=int, default=64)
    given = parser.parse_args(argv)
    connection = socket.socket(fileno=given.fd)
    try:
        graph = _load(given.model, given.digest)
    except RelensError as error:
        return partial(_refuse, connection, error)
    return partial(serve, connection, graph, threads=given.threads, queue=given.queue)


def _refuse(connection: socket.socket, error: RelensError) -> int:
    Outlet(connection).send({"failed": error_to_header(error)})
    return 1


def serve(connection: socket.socket, graph: Graph, *, threads: int, queue: int) -> int:
    """Say what the model is, and answer until the other side ends. The exit code.

    threads  requests that are run at a time
    queue    requests that may wait; one more is Busy
    """
    outlet = Outlet(connection)
    outlet.send({"ready": _told(graph)})
    waiting: WorkQueue[_Request] = WorkQueue(queue, on_expired=lambda one: outlet.fail(one.id, expired()))
    for number in range(threads):
        threading.Thread(target=_work, args=(graph, waiting, outlet), name=f"run-{number}", daemon=True).start()
    while (frame := receive_frame(connection)) is not None:
        header, body = frame
        now = time.monotonic()
        try:
            waiting.put(_Request(header["id"], header, body, now), deadline=now + header["wait_s"])
        except Busy as error:
            outlet.fail(header["id"], error)
    waiting.close()
    return 0


def _load(model: Path, digest: str) -> Graph:
    if sha256_of(model) != digest:
        raise Broken(
            "runtimes.overwritten",
            f"{model} is not what it was when its version was found",
            hint="a version never changes: put the new file into a folder with the next number",
        )
    graph = Graph(model)
    graph.warm_up()
    return graph


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


def _told(graph: Graph) -> dict[str, Any]:
    return {"backend": graph.backend, "inputs": _listed(graph.inputs), "outputs": _listed(graph.outputs)}


def _listed(infos: Sequence[TensorInfo]) -> list[list[Any]]:
    return [[info.name, info.datatype, list(info.shape)] for info in infos]


def _work(graph: Graph, waiting: WorkQueue[_Request], outlet: Outlet) -> None:
    while (one := waiting.take(None)) is not None:
        try:
            begun = time.monotonic()
            made = graph.run(unpack(one.header["inputs"], one.body), one.header["outputs"])
            heads, body = pack(made)
            timings = {"queue": (begun - one.since) * 1e3, "run": (time.monotonic() - begun) * 1e3}
            outlet.send({"id": one.id, "outputs": heads, "timings_ms": timings}, body)
        except RelensError as error:
            outlet.fail(one.id, error)
        except Exception as error:
            log.exception("a request failed")
            why = f"the engine failed: {type(error).__name__}: {error}"
            outlet.fail(one.id, Broken("serving.failed", why))
