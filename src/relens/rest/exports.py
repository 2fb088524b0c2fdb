"""Exports on their way to a client: JSON lines, made as fast as they are taken.

Each holds a snapshot of the catalog open until its end, so that there are only a few at a time, and one that nobody
takes any more is closed at once.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Generator
from itertools import islice
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from relens.errors import Busy

KIND = "application/x-ndjson"
AT_A_TIME = 4
CHUNK = 200
"""Objects that are made in one go: 3 MB, with vectors of a thousand values."""

Records = Generator[dict[str, Any]]
Made = TypeVar("Made")


class Exports:
    """The exports of a server. One more than `at_a_time` is Busy at once."""

    def __init__(self, at_a_time: int = AT_A_TIME) -> None:
        self._free = at_a_time
        self._size = at_a_time
        self._limiter = CapacityLimiter(at_a_time)

    async def start(self, records: Records) -> StreamingResponse:
        """The response that an export becomes. What refuses its first record is raised here."""
        if not self._free:
            raise Busy("rest.too-many-exports", f"{self._size} exports are on their way already", retry_after_s=5)
        self._free -= 1
        try:
            first = await self._run(lambda: _lines(records, 1))
        except BaseException:
            await self._end(records)
            raise
        return _Response(self._chunks(first, records), lambda: self._end(records))

    async def _chunks(self, first: bytes, records: Records) -> AsyncIterator[bytes]:
        chunk = first
        while chunk:
            yield chunk
            chunk = await self._run(lambda: _lines(records, CHUNK))

    async def _end(self, records: Records) -> None:
        self._free += 1
        with CancelScope(shield=True):
            await self._run(records.close)

    async def _run(self, work: Callable[[], Made]) -> Made:
        return await to_thread.run_sync(work, limiter=self._limiter)


class _Response(StreamingResponse):
    """A stream that says when it is over, however it ends."""

    def __init__(self, chunks: AsyncIterator[bytes], end: Callable[[], Any]) -> None:
        super().__init__(chunks, media_type=KIND)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._end()


def _lines(records: Records, count: int) -> bytes:
    """The next few records; nothing if there are none left."""
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in islice(records, count))
