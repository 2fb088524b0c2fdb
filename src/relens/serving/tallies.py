"""What versions have done since the server began: how many requests of which outcome, and how long they took.

`Counted` stands before a `ModelServer` and counts what goes through, whichever door it came by. Belongs to one event
loop, as what it stands before.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from relens.errors import RelensError
from relens.serving.served import Inferred, Looked, ModelServer, Named, Recognized, Served, VersionStatus, Wanted
from relens.tensors import Tensors

OUTCOMES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit")
"""What the Open Inference Protocol's statistics count. We have neither a cache nor phases of our own before a run."""

Answer = TypeVar("Answer", Inferred, Recognized)


@dataclass(slots=True)
class Tally:
    """What a version has done."""

    inferred: int = 0
    last_ms: int = 0
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    taken_ns: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, outcome: str, took_ns: float) -> None:
        self.counts[outcome] += 1
        self.taken_ns[outcome] += int(took_ns)

    def durations(self) -> dict[str, dict[str, int]]:
        """Count and nanoseconds of each outcome."""
        return {name: {"count": self.counts.get(name, 0), "ns": self.taken_ns.get(name, 0)} for name in OUTCOMES}


class Counted:
    """A `ModelServer` that counts what another one infers."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._tallies: defaultdict[tuple[str, int], Tally] = defaultdict(Tally)

    def models(self) -> list[str]:
        return self._server.models()

    def versions(self, model: str) -> list[VersionStatus]:
        return self._server.versions(model)

    def labels(self, model: str) -> Mapping[str, int]:
        return self._server.labels(model)

    def choose(self, named: Named) -> Named:
        return self._server.choose(named)

    def describe(self, named: Named) -> Served:
        return self._server.describe(named)

    def configure(self, wanted: Mapping[str, Wanted]) -> None:
        self._server.configure(wanted)

    async def infer(
        self, named: Named, inputs: Tensors, *, outputs: Sequence[str] = (), timeout_s: float | None = None
    ) -> Inferred:
        served = self._server.describe(named)
        work = self._server.infer(named, inputs, outputs=outputs, timeout_s=timeout_s)
        return await self._counted(served, work, _batch(inputs, served))

    async def recognize(
        self, named: Named, picture: bytes, looked: Looked, *, timeout_s: float | None = None
    ) -> Recognized:
        served = self._server.describe(named)
        work = self._server.recognize(named, picture, looked, timeout_s=timeout_s)
        return await self._counted(served, work, 1)

    async def _counted(self, served: Served, work: Awaitable[Answer], rows: int) -> Answer:
        start = time.perf_counter_ns()
        try:
            answer = await work
        except RelensError:
            self._tallies[served.model, served.version].add("fail", time.perf_counter_ns() - start)
            raise
        tally = self._tallies[answer.model, answer.version]
        tally.add("success", time.perf_counter_ns() - start)
        tally.add("compute_infer", answer.timings_ms.get("run", 0) * 1e6)
        tally.inferred += rows
        tally.last_ms = time.time_ns() // 1_000_000
        return answer

    def tally(self, model: str, version: int) -> Tally:
        """What a version has done; nothing, if it was never asked."""
        return self._tallies.get((model, version)) or Tally()


def counted(server: ModelServer) -> Counted:
    """The server, counted: itself, if it is so already, so that all doors tell of the same."""
    return server if isinstance(server, Counted) else Counted(server)


def _batch(inputs: Tensors, served: Served) -> int:
    """How many rows were asked for: the free first side of the first input; 1 if it has none."""
    info = served.inputs[0] if served.inputs else None
    if info is None or info.shape[:1] != (None,) or info.name not in inputs:
        return 1
    return next(iter(inputs[info.name].shape), 1)
