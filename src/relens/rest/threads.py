"""The threads in which questions are answered: apart from those of lists and health checks, and only so many."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.responses import Response

from relens.errors import Busy
from relens.telemetry import REQUESTS

Answered = TypeVar("Answered", bound=Response)


class Threads:
    """The threads of questions. What cannot have one is Busy at once: a second queue would hide an overload."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._limiter = CapacityLimiter(size)

    async def run(self, use: str, work: Callable[[], Answered]) -> Answered:
        if self._taken >= self._size:
            error = Busy(
                "rest.too-many-questions",
                f"{self._size} questions are being answered already",
                hint="ask again in a moment, or less often",
            )
            REQUESTS.labels(use, error.code).inc()
            raise error
        self._taken += 1
        try:
            return await to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._taken -= 1
