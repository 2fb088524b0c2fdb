"""Clients that leave before their answer: what they asked for is given up, so that no core works for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

WATCHED_AFTER_S = 0.02
"""To watch for the end of a connection costs more than most answers take."""

Done = TypeVar("Done")


async def unless_gone(request: Request, work: Coroutine[Any, Any, Done]) -> Done:
    """What the work gives. It is cancelled when the client leaves: ClientDisconnect. The body was read before."""
    watch = _Watch(request)
    try:
        return await work
    except asyncio.CancelledError:
        if watch.client_left():
            raise ClientDisconnect from None
        raise
    finally:
        watch.end()


class _Watch:
    """Cancels the task that it is made in when the client leaves; it begins to look after a moment."""

    def __init__(self, request: Request) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._request = request
        self._task = task
        self._looking: asyncio.Task[None] | None = None
        self._left = False
        self._timer = asyncio.get_running_loop().call_later(WATCHED_AFTER_S, self._begin)

    def client_left(self) -> bool:
        """Whether it was this that has cancelled the task, which then is not cancelled any more."""
        if self._left:
            self._task.uncancel()
        return self._left

    def end(self) -> None:
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _begin(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._task.cancel()
