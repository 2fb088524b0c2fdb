"""A line to another server: HTTP over a few kept connections, with timeouts for each wait and for the whole.

It tries again when a connection fails and when the server says that it is busy, never after an answer or a silence:
that would only add to the load. Tensors are unknown here.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping

import httpx

from relens.errors import Broken
from relens.runtimes.remote import Address

MAX_ANSWER_BYTES = 1 << 28
FIRST_PAUSE_S = 0.1
BUSY = 503


class Line:
    """Calls to one server, over a few connections that are kept."""

    def __init__(self, address: Address) -> None:
        self._address = address
        limits = httpx.Limits(max_connections=address.pool, max_keepalive_connections=address.pool)
        self._client = httpx.Client(base_url=address.url, limits=limits)
        self._lock = threading.Lock()
        self._runs = 0
        self._closed = False

    def enter(self) -> bool:
        """Say that a run begins. False if the line was closed."""
        with self._lock:
            self._runs += not self._closed
            return not self._closed

    def leave(self) -> None:
        """Say that a run has ended."""
        with self._lock:
            self._runs -= 1
            ended = self._closed and not self._runs
        if ended:
            self._client.close()

    def close(self) -> None:
        """No further runs; the connections are closed when the last one has ended."""
        with self._lock:
            ended = not self._closed and not self._runs
            self._closed = True
        if ended:
            self._client.close()

    def call(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
        """Headers and body of the answer; without a body it is a GET. Broken if there is none, with what to look at."""
        deadline = time.monotonic() + self._address.timeout_s
        pause = FIRST_PAUSE_S
        for left in reversed(range(self._address.retries + 1)):
            try:
                return self._once(path, body, headers, deadline)
            except (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError, _Refused) as error:
                final = isinstance(error, _Refused) and error.status != BUSY
                wait = pause * random.uniform(0.5, 1)  # noqa: S311 - so that clients do not come back together
                if final or not left or time.monotonic() + wait >= deadline:
                    raise self._failed(path, error) from error
                time.sleep(wait)
                pause *= 2
            except (httpx.HTTPError, httpx.StreamError, _TooLong) as error:
                raise self._failed(path, error) from error
        raise AssertionError("the last try returns or raises")

    def _once(
        self, path: str, body: bytes | None, headers: Mapping[str, str], deadline: float
    ) -> tuple[Mapping[str, str], bytes]:
        address = self._address
        rest = max(0.001, deadline - time.monotonic())
        quiet = min(address.response_timeout_s, rest)
        timeout = httpx.Timeout(quiet, connect=min(address.connect_timeout_s, rest), pool=rest)
        method = "GET" if body is None else "POST"
        with self._client.stream(method, path, content=body, headers=dict(headers), timeout=timeout) as answer:
            parts: list[bytes] = []
            size = 0
            for part in answer.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise _TooLong(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")
                if time.monotonic() > deadline:
                    raise _TooLong(f"no whole answer within {address.timeout_s:g} s")
            data = b"".join(parts)
            if not answer.is_success:
                raise _Refused(answer.status_code, data)
            return answer.headers, data

    def _failed(self, path: str, error: Exception) -> Broken:
        address = self._address
        if isinstance(error, _Refused):
            hint = "the server's own log says more; does the card name the model, tensors and shape that it serves?"
        elif isinstance(error, _TooLong | httpx.TimeoutException):
            hint = (
                "the server is too slow or too busy: give it longer (`response_timeout_s`, `timeout_s`), or more of it"
            )
        else:
            hint = "is the server up, and its address right? `url` is in the model's file"
        why = str(error) or type(error).__name__
        return Broken(
            "runtimes.remote-failed", f"{address.model} on {address.url} did not answer {path}: {why}", hint=hint
        )


class _Refused(Exception):
    """The server answered, with an error."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"status {status}: {body[:500].decode('utf-8', 'replace').strip()}")
        self.status = status


class _TooLong(Exception):
    """An answer that takes too long, or is too long."""
