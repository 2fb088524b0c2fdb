"""What surrounds every request: its id, who may send it, one line in the log, and an answer when all else fails.

Plain ASGI, so that it costs microseconds. Errors that have a family never come here; they are answered further in.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from relens.errors import Broken, Denied, RelensError
from relens.rest.failures import failure
from relens.telemetry import request_id

HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:]+))(?::\d*)?")
OWN_PAGES = frozenset({"same-origin", "none"})
"""What a browser says of requests from our own pages and of those that no page makes; another port is another site."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CLIENT_GONE = 499
"""What is logged for a client that left before its answer; nobody receives it. The number is nginx's."""

log = structlog.get_logger(__name__)


class Border:
    """The outermost layer. Every line that is logged inside carries the request's id as `request`."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Sequence[str] | None = None) -> None:
        self._app = app
        self._allowed = None if allowed_hosts is None else {host.strip("[]").lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = Headers(scope=scope)
        answer = _Answer(request_id(headers.get("x-request-id")), send)
        with bound_contextvars(request=answer.request_id):
            try:
                self._check_sender(scope, headers)
                await self._app(scope, receive, answer.send)
            except RelensError as error:  # of the check alone; others are answered further in
                await failure(error)(scope, receive, answer.send)
            except ClientDisconnect:
                answer.status = CLIENT_GONE
            except Exception:
                log.exception("request failed")
                if answer.status:  # half of another answer is out already
                    raise
                await failure(_unexpected(answer.request_id))(scope, receive, answer.send)
            finally:
                if log.is_enabled_for(logging.INFO):
                    log.info("request", **_line(scope, answer.status, start))

    def _check_sender(self, scope: Scope, headers: Headers) -> None:
        """Denied for a host that is not served, and for what another site's page makes a browser send."""
        if self._allowed is not None:
            host = headers.get("host", "")
            named = HOST.fullmatch(host)
            if named is None or (named[1] or named[2]).lower() not in self._allowed:
                raise Denied(
                    "rest.bad-host",
                    f"host {host!r} is not served here",
                    hint=f"call this server as {', '.join(sorted(self._allowed))}",
                )
        if scope["method"] not in SAFE_METHODS and headers.get("sec-fetch-site", "none") not in OWN_PAGES:
            raise Denied("rest.cross-site", "a page of another site may not send this", hint="call from a program")


class _Answer:
    """The way out: adds the request's id to the headers and notes the status."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.request_id = request_id
        self.status = 0
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
        await self._send(message)


def _unexpected(request_id: str) -> Broken:
    return Broken(
        "rest.failed",
        f"request {request_id} failed for a reason that was not foreseen",
        hint="the log of the server has the cause under this id; please report it",
    )


def _line(scope: Scope, status: int, start: float) -> dict[str, Any]:
    """What is logged of a request: the template of its path, never the path itself."""
    state = scope.get("state", {})
    error = state.get("error")
    said = {
        "method": scope["method"],
        "path": getattr(scope.get("route"), "path", "-"),
        "status": status,
        "ms": round((time.perf_counter() - start) * 1000, 2),
        "release": state.get("release"),
        "code": error.code if error else None,
        "error": str(error) if isinstance(error, Broken) else None,
    }
    return {key: value for key, value in said.items() if value is not None}
