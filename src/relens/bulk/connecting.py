"""Connections to addresses that were checked, and an end for every wait.

The network under the HTTP client: it resolves a name, connects to what `Guard` admits of it, and ends each read, write
and handshake when the time of the whole try is over, however busily a server drips. Names and certificates stay those
of the URL.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import httpcore

from relens.bulk.addresses import Guard, Resolve, resolve_within
from relens.errors import BadInput, Broken

SLICE_S = 0.25
"""A wait looks up this often, to see whether it is still wanted."""

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", -5), getattr(socket, "EAI_ADDRFAMILY", -9)})
_NO_WAY = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.ETIMEDOUT,
        errno.EPERM,
        errno.EACCES,
        errno.EADDRNOTAVAIL,
    }
)
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class NoWayError(httpcore.ConnectError):
    """No way to a host: the name server is silent, there is no route, or nobody takes up the connection.

    The host may be at fault, or our own network.
    """


class Deadline:
    """When a try ends. `closed` ends it at once."""

    def __init__(self, timeout_s: float, closed: threading.Event) -> None:
        self._at = time.monotonic() + timeout_s
        self._closed = closed

    def left(self) -> float:
        """Seconds left. `httpcore.ReadTimeout` if there are none."""
        left = self._at - time.monotonic()
        if left <= 0 or self._closed.is_set():
            raise httpcore.ReadTimeout("the time is over")
        return left

    def extend(self, by_s: float) -> None:
        self._at += by_s


DEADLINE: ContextVar[Deadline] = ContextVar("DEADLINE")
"""The end of what this thread fetches: connections are kept and used again, under another one each time."""


class CheckedNetwork(httpcore.NetworkBackend):
    """Connects to admitted addresses only. Call it with `DEADLINE` set."""

    def __init__(self, guard: Guard, resolve: Resolve, connect_timeout_s: float) -> None:
        self._guard = guard
        self._resolve = resolve
        self._timeout_s = connect_timeout_s
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - ours is shared by all addresses
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection. BadInput for a host that does not exist or must not be connected to; NoWayError."""
        end = time.monotonic() + min(self._timeout_s, DEADLINE.get().left())
        failures: list[httpcore.ConnectError] = []
        for address in self._guard.admit(host, self._addresses(host, port, end - time.monotonic())):
            try:
                left = max(0.001, end - time.monotonic())
                return _TimedStream(
                    self._sockets.connect_tcp(
                        address, port, timeout=left, local_address=local_address, socket_options=socket_options
                    )
                )
            except httpcore.ConnectTimeout:
                failures.append(NoWayError(f"{address} did not answer within {self._timeout_s:g} s"))
            except httpcore.ConnectError as error:
                failures.append(_told_apart(error, address))
        # One that refused has answered: there is a way.
        raise next((failure for failure in failures if not isinstance(failure, NoWayError)), failures[0])

    def _addresses(self, host: str, port: int, timeout_s: float) -> list[str]:
        try:
            return list(resolve_within(timeout_s, self._resolve, host, port))
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME:
                raise BadInput("fetch.no-such-host", f"there is no host {host}") from error
            raise NoWayError(f"no name server knows {host} now: {error.strerror}") from error
        except TimeoutError as error:
            raise NoWayError(str(error)) from error
        except UnicodeError as error:
            raise BadInput("fetch.bad-url", f"{host!r} is no name of a host") from error


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every wait ends with the try that uses it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        while True:
            try:
                return self._stream.read(max_bytes, min(SLICE_S, DEADLINE.get().left()))
            except httpcore.ReadTimeout:
                DEADLINE.get().left()

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, DEADLINE.get().left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        try:
            return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, DEADLINE.get().left()))
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise BadInput(
                    "fetch.untrusted",
                    f"the certificate of {server_hostname} is not trusted: {error.__cause__.verify_message}",
                    hint="SSL_CERT_FILE names the authorities of a private network",
                ) from error
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _told_apart(error: httpcore.ConnectError, address: str) -> httpcore.ConnectError:
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if number in _OURS:
        raise Broken("fetch.no-resources", f"cannot open a connection: {error}", hint="raise the limit of open files")
    if number in _NO_WAY:
        return NoWayError(f"{address}: {error}")
    return error
