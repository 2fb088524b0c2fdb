"""How requests are run: each by itself, one a thread, or together in batches that are put together as they come."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import structlog

from relens.errors import Broken, RelensError
from relens.hosted.model import Model, Outputs, Prepared
from relens.runtimes.frames import Outlet, expired
from relens.runtimes.queue import WorkQueue
from relens.tensors import Array

AHEAD = 2
"""How many batches are prepared before they are run, which bounds memory."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Way:
    """How requests are run.

    threads  requests that are prepared at a time; with no batches, also run
    rows     of a batch, at most; 1: no batches
    delay_s  how long the first request of a batch waits for others
    sizes    rows that a batch may have, ascending: it is filled up to the next; none: any number
    nice     niceness of what prepares and runs
    """

    threads: int = 1
    rows: int = 1
    delay_s: float = 0.0
    sizes: tuple[int, ...] = ()
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came in, at `since` of the monotonic clock. After `until` it is not run any more."""

    id: int
    header: dict[str, Any]
    body: bytes
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class _Ready:
    """A request that is prepared, which took so many seconds."""

    request: Request
    prepared: Prepared
    took_s: float


class Runner:
    """Takes requests from a queue, and answers them. Its threads end with the queue."""

    def __init__(self, model: Model, waiting: WorkQueue[Request], outlet: Outlet, way: Way) -> None:
        self._model = model
        self._waiting = waiting
        self._outlet = outlet
        self._way = way
        self._room = threading.Semaphore(way.rows * AHEAD)
        self._ready: WorkQueue[_Ready] = WorkQueue(way.rows * AHEAD, on_expired=self._expire)

    def start(self) -> None:
        """Begin to answer."""
        together = self._way.rows > 1 and _is_batched(self._model)
        works = [self._prepare_ahead if together else self._run_each] * self._way.threads
        for number, work in enumerate([*works, *([self._run_batches] if together else [])]):
            threading.Thread(target=work, name=f"run-{number}", daemon=True).start()

    def drop(self, number: int) -> bool:
        """Do not run a request that nobody waits for any more, if it has not begun. Whether it had not."""
        waiting = self._waiting.drop(lambda one: one.id == number)
        ready = self._ready.drop(lambda one: one.request.id == number)
        for _ in range(ready):
            self._room.release()
        return waiting + ready > 0

    # -- each by itself

    def _run_each(self) -> None:
        _lower(self._way.nice)
        while (one := self._waiting.take(None)) is not None:
            if (ready := self._prepare(one)) is not None:
                self._run_alone(ready)

    def _prepare(self, one: Request) -> _Ready | None:
        """A request prepared; None if that cannot be done, and it was answered so."""
        start = time.monotonic()
        with _Answering(self._outlet, one):
            prepared = self._model.prepare(one.header, one.body)
            return _Ready(one, prepared, time.monotonic() - start)
        return None

    def _run_alone(self, ready: _Ready) -> None:
        begun = time.monotonic()
        with _Answering(self._outlet, ready.request):
            outputs = self._model.graph.run(ready.prepared.inputs, ready.prepared.wanted)
            self._answer(ready, outputs, begun, time.monotonic(), rows=_rows(ready))

    # -- together

    def _prepare_ahead(self) -> None:
        _lower(self._way.nice)
        while True:
            self._room.acquire()
            one = self._waiting.take(None)
            ready = None if one is None else self._prepare(one)
            if ready is None:
                self._room.release()
            else:
                level = ready.request.header["level"]
                self._ready.put(ready, deadline=ready.request.until, level=level)  # for which there is room
            if one is None:
                return

    def _run_batches(self) -> None:
        _lower(self._way.nice)
        while (first := self._ready.take(None)) is not None:
            together = _is_even(first)
            batch = [first, *self._others(first)] if together else [first]
            for _ in batch:
                self._room.release()
            if len(batch) == 1 and not (together and self._way.sizes):
                self._run_alone(first)
            else:
                self._run_together(batch)

    def _others(self, first: _Ready) -> list[_Ready]:
        """More requests that can be run with one: of the same shapes and outputs, as many as fit."""
        left = self._way.rows - _rows(first)
        kind = _kind(first)

        def fits(one: _Ready) -> bool:
            return _is_even(one) and _kind(one) == kind

        return self._ready.take_also(fits, most=left, wait_s=self._way.delay_s, size=_rows) if left > 0 else []

    def _run_together(self, batch: Sequence[_Ready]) -> None:
        begun = time.monotonic()
        try:
            parts = self._forward([one.prepared for one in batch])
        except Exception:  # whatever it is, each then has an error of its own, or none
            log.warning("a batch failed; its requests are run one by one", exc_info=True)
            for one in batch:
                self._run_alone(one)
            return
        ended = time.monotonic()
        rows = sum(map(_rows, batch))
        for one, outputs in zip(batch, parts, strict=True):
            with _Answering(self._outlet, one.request):
                self._answer(one, outputs, begun, ended, rows=rows)

    def _forward(self, requests: Sequence[Prepared]) -> list[Outputs]:
        """The outputs of each, of one forward of all."""
        counts = [_side(one) for one in requests]
        total = sum(counts)
        size = next((size for size in self._way.sizes if size >= total), total)
        inputs = {name: _joined([one.inputs[name] for one in requests], size) for name in requests[0].inputs}
        made = self._model.graph.run(inputs, requests[0].wanted)
        if wrong := [name for name, array in made.items() if array.shape[:1] != (size,)]:
            why = f"{wrong[0]} has not one row for each input: serve the model without batches"
            raise Broken("hosted.no-batches", why, hint="profile: fair")
        ends = accumulate(counts)
        return [
            {name: array[end - count : end] for name, array in made.items()}
            for count, end in zip(counts, ends, strict=True)
        ]

    # -- answers

    def _answer(self, ready: _Ready, outputs: Outputs, begun: float, ended: float, *, rows: int) -> None:
        """Send what a request asked for: it was run from `begun` to `ended`, with so many rows."""
        said, body = ready.prepared.finish(outputs)
        waited_s = begun - ready.request.since - ready.took_s
        phases = {"queue": waited_s, "prepare": ready.took_s, "run": ended - begun}
        timings = {name: round(seconds * 1e3, 3) for name, seconds in phases.items()}
        self._outlet.send({"id": ready.request.id, **said, "timings_ms": timings, "rows": rows}, body)

    def _expire(self, ready: _Ready) -> None:
        self._room.release()
        self._outlet.fail(ready.request.id, expired())


class _Answering:
    """Whatever goes wrong within answers the request."""

    def __init__(self, outlet: Outlet, one: Request) -> None:
        self._outlet = outlet
        self._one = one

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        if not isinstance(error, RelensError):
            log.error("a request failed", exc_info=error)
            error = Broken("serving.failed", f"the engine failed: {type(error).__name__}: {error}")
        self._outlet.fail(self._one.id, error)
        return True


def _is_batched(model: Model) -> bool:
    """Whether all tensors have a free first side, which is the batch."""
    graph = model.graph
    return len(graph.inputs) > 0 and all(info.shape[:1] == (None,) for info in (*graph.inputs, *graph.outputs))


def _is_even(one: _Ready) -> bool:
    """Whether all inputs have equally many rows, and some: others are run as they are."""
    sides = {array.shape[0] for array in one.prepared.inputs.values()}
    return len(sides) == 1 and 0 not in sides


def _side(prepared: Prepared) -> int:
    shapes = [array.shape for array in prepared.inputs.values()]
    return int(shapes[0][0]) if shapes and shapes[0] else 1


def _rows(one: _Ready) -> int:
    return _side(one.prepared)


def _kind(one: _Ready) -> Any:
    return one.prepared.wanted, {name: (array.dtype, array.shape[1:]) for name, array in one.prepared.inputs.items()}


def _joined(parts: Sequence[Array], rows: int) -> Array:
    """One after the other, and the last one's last row again until there are so many."""
    lacking = rows - sum(len(part) for part in parts)
    filled = [*parts, np.repeat(parts[-1][-1:], lacking, axis=0)] if lacking else list(parts)
    return filled[0] if len(filled) == 1 else np.concatenate(filled)


def _lower(nice: int) -> None:
    if nice and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
