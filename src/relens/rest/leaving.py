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
    doing = asyncio.ensure_future(work)
    try:
        await asyncio.wait({doing}, timeout=WATCHED_AFTER_S)
        if not doing.done():
            leaving = asyncio.ensure_future(_gone(request))
            await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        doing.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
