"""What an engine's process does: tensors in over a socket pair, tensors out.

It verifies its file, loads it and warms it up, says that it is ready, and answers until the other side ends. A model of
pictures also takes them as bytes, in place of its input.
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

import numpy as np
import structlog

from relens.errors import BadInput, Broken, Busy, RelensError
from relens.runtimes.frames import Outlet, error_to_header, expired, receive_frame
from relens.runtimes.graph import Graph
from relens.runtimes.queue import WorkQueue
from relens.tensors import BYTES, Array, TensorInfo, Tensors, pack, unpack

PIECE = 1 << 20
SIDES = 4
"""Of a batch of pictures: how many, channels, height, width."""
CHANNELS = (1, 3)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Request:
    id: int
    header: dict[str, Any]
    body: bytes
    since: float


def is_of_pictures(inputs: tuple[TensorInfo, ...]) -> bool:
    """Whether a model has one input that could be a batch of pictures."""
    if len(inputs) != 1 or inputs[0].datatype == BYTES or len(inputs[0].shape) != SIDES:
        return False
    _batch, second, _third, last = inputs[0].shape
    return second in CHANNELS or last in CHANNELS


class Model:
    """A loaded model, and what makes its input of pictures if it takes some."""

    def __init__(self, graph: Graph, file: Path) -> None:
        self.graph = graph
        self._pictures: Callable[[Array], Array] | None = None
        self._why_not: RelensError | None = None
        if is_of_pictures(graph.inputs):
            # Other models start in a third of the time without all that pictures need.
            from relens.hosted.pictures import pictures_for  # noqa: PLC0415

            try:
                self._pictures = pictures_for(file, graph.inputs)
            except RelensError as error:
                self._why_not = error

    def run(self, inputs: Tensors, wanted: Sequence[str]) -> dict[str, Array]:
        """One forward, of tensors as they are, or of pictures in place of the only input. Errors as of `Graph.run`."""
        [*infos] = self.graph.inputs
        given = inputs.get(infos[0].name) if len(infos) == 1 else None
        if given is None or given.dtype != np.dtype(object) or infos[0].datatype == BYTES:
            return self.graph.run(inputs, wanted)
        if self._pictures is None:
            raise self._why_not or BadInput(
                "hosted.no-pictures",
                f"the model takes {infos[0]}, and no pictures",
                hint="send numbers; pictures are taken where the input is a batch of 1 or 3 channels",
            )
        return self.graph.run({**inputs, infos[0].name: self._pictures(given)}, wanted)


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Load what the arguments name: what serves it then, until the other side ends, and gives the exit code."""
    parser = argparse.ArgumentParser(prog="relens.hosted")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--queue", type=int, default=64)
    given = parser.parse_args(argv)
    connection = socket.socket(fileno=given.fd)
    try:
        model = _load(given.model, given.digest)
    except RelensError as error:
        return partial(_refuse, connection, error)
    return partial(serve, connection, model, threads=given.threads, queue=given.queue)


def _refuse(connection: socket.socket, error: RelensError) -> int:
    Outlet(connection).send({"failed": error_to_header(error)})
    return 1


def serve(connection: socket.socket, model: Model, *, threads: int, queue: int) -> int:
    """Say what the model is, and answer until the other side ends. The exit code.

    threads  requests that are run at a time
    queue    requests that may wait; one more is Busy
    """
    outlet = Outlet(connection)
    outlet.send({"ready": _told(model.graph)})
    waiting: WorkQueue[_Request] = WorkQueue(queue, on_expired=lambda one: outlet.fail(one.id, expired()))
    for number in range(threads):
        threading.Thread(target=_work, args=(model, waiting, outlet), name=f"run-{number}", daemon=True).start()
    while (frame := receive_frame(connection)) is not None:
        header, body = frame
        now = time.monotonic()
        try:
            waiting.put(_Request(header["id"], header, body, now), deadline=now + header["wait_s"])
        except Busy as error:
            outlet.fail(header["id"], error)
    waiting.close()
    return 0


def _load(file: Path, digest: str) -> Model:
    if sha256_of(file) != digest:
        raise Broken(
            "runtimes.overwritten",
            f"{file} is not what it was when its version was found",
            hint="a version never changes: put the new file into a folder with the next number",
        )
    graph = Graph(file)
    graph.warm_up()
    return Model(graph, file)


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


def _work(model: Model, waiting: WorkQueue[_Request], outlet: Outlet) -> None:
    while (one := waiting.take(None)) is not None:
        try:
            begun = time.monotonic()
            made = model.run(unpack(one.header["inputs"], one.body), one.header["outputs"])
            heads, body = pack(made)
            timings = {"queue": (begun - one.since) * 1e3, "run": (time.monotonic() - begun) * 1e3}
            outlet.send({"id": one.id, "outputs": heads, "timings_ms": timings}, body)
        except RelensError as error:
            outlet.fail(one.id, error)
        except Exception as error:
            log.exception("a request failed")
            why = f"the engine failed: {type(error).__name__}: {error}"
            outlet.fail(one.id, Broken("serving.failed", why))
