"""Requests to a shadow: what another version has answered is asked once more, compared, counted and dropped.

Nobody waits for them. Of one model only a few are pending at a time; what comes meanwhile is skipped.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping

import structlog

from relens.errors import BadInput, RelensError
from relens.serving.differences import Difference, difference
from relens.serving.served import Inferred, Recognized
from relens.telemetry import MODEL_SHADOW_CLASSES, MODEL_SHADOW_OFF, MODEL_SHADOWED

PENDING = 8
AFTER_S = 0.005
"""After an answer: it is written first."""

log = structlog.get_logger(__name__)

Answer = Inferred | Recognized


class Shadows:
    """The requests to shadows of one model. Belongs to one event loop."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._pending: set[asyncio.Task[None]] = set()
        self._outcomes: dict[int, Counter[str]] = defaultdict(Counter)

    def outcomes(self, version: int) -> Mapping[str, int]:
        """What came of the requests to this version."""
        return self._outcomes.get(version, {})

    def follow(self, answer: Answer, version: int, ask: Callable[[], Awaitable[Answer]]) -> None:
        """Ask this version too, soon, and compare what it says with the answer."""
        if len(self._pending) >= PENDING:
            self._count(version, "skipped")
            return
        task = asyncio.create_task(self._ask(answer, version, ask), name=f"shadow of {self._model}")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def close(self) -> None:
        """Drop what is pending."""
        pending = list(self._pending)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _ask(self, answer: Answer, version: int, ask: Callable[[], Awaitable[Answer]]) -> None:
        await asyncio.sleep(AFTER_S)
        try:
            self._compared(version, await asyncio.to_thread(difference, answer, await ask()))
        except BadInput:  # what the other version took and gave
            self._compared(version, Difference(form=True))
        except RelensError:
            self._count(version, "failed")
        except Exception:  # nobody else would hear of it
            log.exception("a shadow cannot be compared", model=self._model, version=version)
            self._count(version, "failed")

    def _compared(self, version: int, found: Difference) -> None:
        self._count(version, found.outcome)
        if not found.form:
            MODEL_SHADOW_OFF.labels(self._model, str(version)).observe(found.off)
        for outcome, count in (("same", found.same), ("other", found.other)):
            if count:
                MODEL_SHADOW_CLASSES.labels(self._model, str(version), outcome).inc(count)
                self._outcomes[version][f"class_{outcome}"] += count

    def _count(self, version: int, outcome: str) -> None:
        MODEL_SHADOWED.labels(self._model, str(version), outcome).inc()
        self._outcomes[version][outcome] += 1
