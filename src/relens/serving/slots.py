"""One version of a served model, from when it was found until it has ended, and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

from relens.errors import Busy, Missing, RelensError
from relens.models.folder import Version
from relens.serving.holding import Holding
from relens.serving.served import Named, Served, State, VersionStatus

OVERWRITTEN = "runtimes.overwritten"


class Slot:
    """One version, from when it was found until it has ended."""

    def __init__(self, model: str, number: int, found: Version) -> None:
        self.model = model
        self.number = number
        self.found = found
        self.state: State = "START"
        self.error: RelensError | None = None
        self.digest = found.digest
        self.served: Served | None = None
        self.leave = asyncio.Event()
        self.life: asyncio.Task[None] | None = None
        self._engine: Holding | None = None
        self._has_engine = asyncio.Event()
        self._waiting = 0  # requests that wait for an engine

    @property
    def name(self) -> str:
        return f"{self.model}/{self.number}"

    @property
    def failed(self) -> bool:
        return self.state == "END" and self.error is not None

    @property
    def overwritten(self) -> bool:
        """Whether its files are not those that it was loaded from: nothing more is loaded from there."""
        return self.error is not None and self.error.code == OVERWRITTEN

    @property
    def bad(self) -> bool:
        """Whether it is known, before it is loaded, that it cannot be."""
        return self.found.problem is not None

    @property
    def in_trouble(self) -> bool:
        """Whether loading it has failed, and is tried again."""
        return self.state == "LOADING" and self.error is not None

    @property
    def pid(self) -> int | None:
        return None if self._engine is None else self._engine.pid

    def status(self) -> VersionStatus:
        if self._engine is None:
            return VersionStatus(self.number, self.state, self.error)
        return VersionStatus(self.number, self.state, self.error, self._engine.waiting, self._engine.memory_bytes)

    def take(self, engine: Holding | None) -> None:
        """The engine that answers from now on; None: there is none, and requests wait for the next."""
        self._engine = engine
        if engine is None:
            self._has_engine.clear()
        else:
            self._has_engine.set()

    def give_up(self, error: RelensError | None) -> None:
        """End, and tell those who wait for an engine."""
        self.state, self.error = "END", error
        self._engine = None
        self._has_engine.set()

    async def engine(self, deadline: float, most: int) -> Holding:
        """The engine, once there is one. Busy if there is none in time; Broken if there will not be any.

        most  requests that may wait for it; one more is Busy at once
        """
        if self._engine is None:
            if self._waiting >= most:
                raise full(self.name, self._waiting)
            self._waiting += 1
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._has_engine.wait(), max(0.0, deadline - time.monotonic()))
            finally:
                self._waiting -= 1
        if self._engine is not None:
            return self._engine
        if self.state == "END":
            raise self.error or Missing("serving.no-version", f"{self.name} has ended", gone=True)
        raise Busy("serving.restarting", f"the engine of {self.name} is being started again", retry_after_s=0.5)


def begun(slots: Mapping[int, Slot]) -> list[Slot]:
    return [slot for slot in slots.values() if slot.life is not None]


def full(name: str, count: int) -> Busy:
    return Busy(
        "runtimes.queue-full",
        f"{count} requests to {name} are not answered yet",
        hint="ask again later, or give the machine more cores",
        retry_after_s=0.5,
    )


def not_available(named: Named, slots: Sequence[Slot]) -> RelensError:
    """Why nothing answers for what was named."""
    if any(slot.state in {"START", "LOADING"} and slot.life is not None for slot in slots):
        return Busy("serving.loading", f"{named} is being loaded", retry_after_s=0.5)
    if reasons := [f"{slot.name}: {slot.error.message}" for slot in slots if slot.error is not None]:
        return Missing("serving.no-version", f"no version of {named} is available", hint="; ".join(reasons))
    return Missing("serving.no-version", f"no version of {named} is available")
