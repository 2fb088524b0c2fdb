"""What an engine's process does: tensors in over a socket pair, tensors out.

It verifies its file, loads it and warms it up, says that it is ready, and answers until the other side ends. A model of
pictures also takes them as bytes, in place of its input.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from relens.errors import BadInput, Broken, Busy, RelensError
from relens.runtimes.frames import Outlet, error_to_header, expired, receive_frame
from relens.runtimes.graph import Graph
from relens.runtimes.queue import WorkQueue
from relens.tensors import BYTES, Array, TensorInfo, Tensors, pack, unpack

if TYPE_CHECKING:
    from relens.hosted.pictures import Pictures

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
    """A loaded model, and what it does with pictures if it takes some."""

    def __init__(self, graph: Graph, file: Path, **limits: int) -> None:
        """Verify what a manifest says, and find out how pictures are taken; `limits` as of `vision.Limits`.

        Broken if the version is not what its manifest says.
        """
        self.graph = graph
        self._pictures: Pictures | None = None
        self._why_not: RelensError = BadInput(
            "hosted.no-pictures",
            f"the model takes {'; '.join(map(str, graph.inputs))}, and no pictures",
            hint="send numbers; pictures are taken where the only input is a batch of 1 or 3 channels",
        )
        if is_of_pictures(graph.inputs):
            # Other models start in a third of the time without all that pictures need.
            from relens.hosted.pictures import Pictures, known_of, verify_version  # noqa: PLC0415
            from relens.vision import Limits  # noqa: PLC0415

            verify_version(graph, file)
            try:
                self._pictures = Pictures(graph, known_of(file), Limits(**limits))
            except RelensError as error:
                self._why_not = error

    @property
    def pictures(self) -> str | None:
        """Name of the input that takes pictures as well."""
        return None if self._pictures is None else self.graph.inputs[0].name

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by index, if they are known."""
        return () if self._pictures is None else self._pictures.known.labels

    def run(self, inputs: Tensors, wanted: Sequence[str]) -> dict[str, Array]:
        """One forward, of tensors as they are, or of pictures in place of the only input. Errors as of `Graph.run`."""
        [*infos] = self.graph.inputs
        given = inputs.get(infos[0].name) if len(infos) == 1 else None
        if given is None or given.dtype != np.dtype(object) or infos[0].datatype == BYTES:
            return self.graph.run(inputs, wanted)
        return self.graph.run({**inputs, infos[0].name: self._of_pictures().batch(given)}, wanted)

    def recognize(self, picture: bytes, wanted: dict[str, Any]) -> dict[str, Any]:
        """What is in a picture: see `Pictures.recognize`."""
        return self._of_pictures().recognize(picture, wanted)

    def _of_pictures(self) -> Pictures:
        if self._pictures is None:
            why = self._why_not
            raise type(why)(why.code, why.message, hint=why.hint)
        return self._pictures


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Load what the arguments name: what serves it then, until the other side ends, and gives the exit code."""
    parser = argparse.ArgumentParser(prog="relens.hosted")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--limits", type=json.loads, default={})
    given = parser.parse_args(argv)
    connection = socket.socket(fileno=given.fd)
    try:
        model = _load(given.model, given.digest, given.limits)
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
    outlet.send({"ready": _told(model)})
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


def _load(file: Path, digest: str, limits: dict[str, int]) -> Model:
    if sha256_of(file) != digest:
        raise Broken(
            "runtimes.overwritten",
            f"{file} is not what it was when its version was found",
            hint="a version never changes: put the new file into a folder with the next number",
        )
    graph = Graph(file)
    graph.warm_up()
    return Model(graph, file, **limits)


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


def _told(model: Model) -> dict[str, Any]:
    graph = model.graph
    return {
        "backend": graph.backend,
        "inputs": _listed(graph.inputs),
        "outputs": _listed(graph.outputs),
        "labels": model.labels,
        "pictures": model.pictures,
    }


def _listed(infos: Sequence[TensorInfo]) -> list[list[Any]]:
    return [[info.name, info.datatype, list(info.shape)] for info in infos]


def _work(model: Model, waiting: WorkQueue[_Request], outlet: Outlet) -> None:
    while (one := waiting.take(None)) is not None:
        try:
            begun = time.monotonic()
            said, body = _answer(model, one)
            timings = {"queue": (begun - one.since) * 1e3, "run": (time.monotonic() - begun) * 1e3}
            outlet.send({"id": one.id, **said, "timings_ms": timings}, body)
        except RelensError as error:
            outlet.fail(one.id, error)
        except Exception as error:
            log.exception("a request failed")
            why = f"the engine failed: {type(error).__name__}: {error}"
            outlet.fail(one.id, Broken("serving.failed", why))


def _answer(model: Model, one: _Request) -> tuple[dict[str, Any], bytes]:
    """Header and body of what answers a request."""
    if "recognize" in one.header:
        return {"recognized": model.recognize(one.body, one.header["recognize"])}, b""
    heads, body = pack(model.run(unpack(one.header["inputs"], one.body), one.header["outputs"]))
    return {"outputs": heads}, body
