"""Traffic between versions of a model: who names no version is answered by one of several, by weight.

Stands before a `ModelServer`. What a canary fails, the stable version is asked once more; a canary that fails too often
or takes too long gets no more. A shadow is asked too, after the answer. Who names a version or label is answered by it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from relens.errors import BadInput, Missing, RelensError
from relens.serving.served import Inferred, Looked, ModelServer, Named, Recognized, Served, VersionStatus, Wanted
from relens.serving.sharing import Sharing
from relens.serving.splits import Split
from relens.telemetry import MODEL_RETRIES
from relens.tensors import Tensors

CANARY_WAITS = 0.5
"""Of the time that a request may wait: what a canary has of it, so that there is some for the stable version."""

Answer = TypeVar("Answer", Inferred, Recognized)
_Ask = Callable[[Named, float | None], Awaitable[Answer]]
"""A request of a version, which may wait so many seconds; None: as the server is set up."""


class Living(ModelServer, Protocol):
    """A server that is opened and closed."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class Traffic:
    """A `ModelServer` that splits requests among versions of another one.

    splits  model to its split; other models are served as they are
    wait_s  how long a request may wait, if it does not say
    source  of chance
    clock   seconds, monotonic
    now     seconds since 1970
    """

    def __init__(
        self,
        server: Living,
        splits: Mapping[str, Split],
        *,
        wait_s: float,
        source: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._wait_s = wait_s
        self._clock = clock
        chance = source or random.SystemRandom()
        self._sharings = {
            model: Sharing(server, model, split, source=chance, now=now) for model, split in splits.items()
        }

    async def open(self) -> None:
        await self._server.open()

    async def close(self) -> None:
        for sharing in self._sharings.values():
            await sharing.shadows.close()
        await self._server.close()

    def models(self) -> list[str]:
        return self._server.models()

    def versions(self, model: str) -> list[VersionStatus]:
        found = self._server.versions(model)
        sharing = self._sharings.get(model)
        if sharing is None:
            return found
        shares = sharing.shares()
        return [replace(one, traffic=shares.get(one.version)) for one in found]

    def labels(self, model: str) -> Mapping[str, int]:
        return self._server.labels(model)

    def configure(self, wanted: Mapping[str, Wanted]) -> None:
        self._server.configure(wanted)

    def choose(self, named: Named) -> Named:
        sharing = self._sharing(named)
        version = None if sharing is None else sharing.choose(named.sticky)
        return named if version is None else replace(named, version=version, chosen=True)

    def describe(self, named: Named) -> Served:
        """Of what names no version, the stable one; or the one that answers this caller, if it says who it is."""
        if named.chosen:
            try:
                return self._server.describe(named)
            except Missing:  # it has just ended
                return self._server.describe(self._anew(named))
        sharing = self._sharing(named)
        if sharing is not None and named.sticky is None and (stable := sharing.stable()) is not None:
            return self._server.describe(replace(named, version=stable))
        return self._server.describe(self.choose(named))

    async def infer(
        self, named: Named, inputs: Tensors, *, outputs: Sequence[str] = (), timeout_s: float | None = None
    ) -> Inferred:
        def ask(one: Named, wait_s: float | None) -> Awaitable[Inferred]:
            return self._server.infer(one, inputs, outputs=outputs, timeout_s=wait_s)

        return await self._answered(named, ask, timeout_s)

    async def recognize(
        self, named: Named, picture: bytes, looked: Looked, *, timeout_s: float | None = None
    ) -> Recognized:
        def ask(one: Named, wait_s: float | None) -> Awaitable[Recognized]:
            return self._server.recognize(one, picture, looked, timeout_s=wait_s)

        return await self._answered(named, ask, timeout_s)

    def _sharing(self, named: Named) -> Sharing | None:
        """Who shares a request; None if nobody does, or it says which version is to answer."""
        said = named.version is not None or named.label is not None
        return None if said else self._sharings.get(named.model)

    def _anew(self, named: Named) -> Named:
        """Another choice for what was chosen."""
        return self.choose(replace(named, version=None, chosen=False))

    async def _answered(self, named: Named, ask: _Ask[Answer], timeout_s: float | None) -> Answer:
        chosen = self.choose(named)
        if not chosen.chosen:
            return await ask(chosen, timeout_s)
        sharing = self._sharings[chosen.model]
        if sharing.is_canary(chosen.version):
            answer = await self._of_canary(sharing, chosen, ask, timeout_s)
        else:
            answer = await self._of_stable(sharing, chosen, ask, timeout_s)
        shadow = sharing.shadow()
        if shadow is not None and shadow != answer.version:
            also = Named(chosen.model, shadow, priority=chosen.priority)
            sharing.shadows.follow(answer, shadow, lambda: ask(also, None))
        return answer

    async def _of_stable(self, sharing: Sharing, chosen: Named, ask: _Ask[Answer], timeout_s: float | None) -> Answer:
        try:
            return await self._timed(sharing, chosen, ask, timeout_s)
        except Missing:  # it has just ended
            again = self._anew(chosen)
            if again == chosen:
                raise
            return await self._timed(sharing, again, ask, timeout_s)

    async def _of_canary(self, sharing: Sharing, chosen: Named, ask: _Ask[Answer], timeout_s: float | None) -> Answer:
        """What the canary answers, else the stable version: then the fault was the canary's."""
        assert chosen.version is not None
        wait_s = timeout_s or self._wait_s
        until = self._clock() + wait_s
        alone = sharing.stable() is None
        try:
            return await self._timed(sharing, chosen, ask, timeout_s if alone else wait_s * CANARY_WAITS)
        except RelensError as error:
            left_s, stable = until - self._clock(), sharing.stable()
            if stable is None or left_s <= 0:
                if not isinstance(error, BadInput | Missing):
                    sharing.failed(chosen.version)
                raise
            failure = error
        MODEL_RETRIES.labels(chosen.model, str(chosen.version)).inc()
        try:
            answer = await self._timed(sharing, replace(chosen, version=stable), ask, left_s)
        except BadInput:
            if isinstance(failure, BadInput):
                raise
            sharing.failed(chosen.version)  # the request was made for the canary
            raise failure from None
        if not isinstance(failure, Missing):
            sharing.failed(chosen.version)
        return answer

    async def _timed(self, sharing: Sharing, named: Named, ask: _Ask[Answer], wait_s: float | None) -> Answer:
        start = self._clock()
        answer = await ask(named, wait_s)
        sharing.answered(answer.version, self._clock() - start)
        return answer
