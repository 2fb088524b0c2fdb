"""How a front and its engines talk: length-prefixed frames over a socket pair.

A frame is two big-endian 32-bit lengths, a JSON header and a body of bytes. End of file tells that the other side is
gone.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from typing import Any

import structlog

from relens.errors import FAMILIES, Broken, Busy, RelensError

LENGTHS = struct.Struct(">II")

log = structlog.get_logger(__name__)


class Outlet:
    """An engine's side of the socket, over which threads send whole frames one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send a frame; without anybody to read it, it is dropped."""
        with self._sending:
            try:
                send_frame(self._connection, header, body)
            except OSError:
                log.info("the front has gone; an answer is dropped")

    def fail(self, number: int, error: RelensError) -> None:
        """Answer a request with an error."""
        self.send({"id": number, "error": error_to_header(error)})


def expired() -> Busy:
    """What a request is answered with that waited past its deadline and was not run."""
    return Busy(
        "serving.expired",
        "the question waited past its deadline and was not run",
        hint="the machine has more to do than it can: ask less often, or give it more cores",
        retry_after_s=1.0,
    )


def error_to_header(error: RelensError) -> dict[str, Any]:
    """An error as part of a frame's header."""
    state = {key: value for key, value in vars(error).items() if key not in {"code", "message", "hint"}}
    return {
        "family": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "state": state,
    }


def error_from_header(given: dict[str, Any]) -> RelensError:
    """The inverse of `error_to_header`."""
    error = FAMILIES.get(given["family"], Broken)(given["code"], given["message"], hint=given["hint"])
    vars(error).update(given["state"])
    return error


def send_frame(connection: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    """Send one frame, whole. Not to be called by two threads at once."""
    encoded = json.dumps(header, separators=(",", ":")).encode()
    connection.sendall(b"".join([LENGTHS.pack(len(encoded), len(body)), encoded, body]))


def receive_frame(connection: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """The next frame; None if the other side has ended."""
    lengths = _receive(connection, LENGTHS.size)
    if lengths is None:
        return None
    header_length, body_length = LENGTHS.unpack(lengths)
    header = _receive(connection, header_length)
    body = _receive(connection, body_length) if body_length else b""
    if header is None or body is None:
        return None
    return json.loads(header), bytes(body)


def _receive(connection: socket.socket, length: int) -> bytearray | None:
    data = bytearray(length)
    view = memoryview(data)
    received = 0
    while received < length:
        count = connection.recv_into(view[received:])
        if count == 0:
            return None
        received += count
    return data
