"""What a server listens on, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Coroutine, Iterator
from typing import Any

import uvicorn
import uvloop

from relens.errors import Conflict

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Server(uvicorn.Server):
    """Ends on SIGINT or SIGTERM and returns, so that workers and engines can be ended in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The library's own raises the signal again at the end, which would end this process before it has tidied up.
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(serving: Coroutine[Any, Any, None]) -> None:
    """Run what serves to its end, on an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


async def serve(app: Any, listener: socket.socket) -> None:
    """Serve an ASGI application on a socket until SIGINT or SIGTERM."""
    gc.collect()
    gc.freeze()  # what is there by now stays: to look through it again and again took a twentieth of the time
    way = uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=10)
    await Server(way).serve(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; 0 takes a free port. Conflict if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # what only has a port shares it with others, and refuses who comes at once
    except OSError as error:
        listener.close()
        raise Conflict(
            "wiring.port-taken", f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another with --port"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
