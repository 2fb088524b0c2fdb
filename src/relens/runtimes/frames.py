"""How a front and its engines talk: length-prefixed frames over a socket pair.

A frame is two big-endian 32-bit lengths, a JSON header and a body of bytes. End of file tells that the other side is
gone.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import structlog

from relens.errors import FAMILIES, Broken, Busy, RelensError

LENGTHS = struct.Struct(">II")
PIECE = 1 << 18
"""Bytes that are received at a time; a socket pair holds fewer."""

Frame = tuple[dict[str, Any], bytes]
"""A header and a body."""

log = structlog.get_logger(__name__)

_text = json.JSONEncoder(separators=(",", ":")).encode


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


def head_of(header: dict[str, Any], body: bytes) -> bytes:
    """What comes before the body of a frame: its lengths and the header."""
    encoded = _text(header).encode()
    return LENGTHS.pack(len(encoded), len(body)) + encoded


def send_frame(connection: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    """Send one frame, whole. Not to be called by two threads at once."""
    connection.sendall(head_of(header, body) + body)


def receive_frames(connection: socket.socket) -> Iterator[Frame]:
    """The frames that come, until the other side ends."""
    frames, buffer = Frames(), memoryview(bytearray(PIECE))
    while count := connection.recv_into(buffer):
        yield from frames.feed(buffer[:count])


class Frames:
    """Frames out of pieces of a stream, wherever those begin and end."""

    def __init__(self) -> None:
        self._held = bytearray()  # the beginning of a frame

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that these bytes end. ValueError if a header is no JSON."""
        if not self._held:
            frames, end = _whole(data)
            self._held += data[end:]
        else:
            self._held += data
            frames, end = _whole(self._held)
            del self._held[:end]
        return frames


def _whole(data: bytes | bytearray | memoryview) -> tuple[list[Frame], int]:
    """The frames that are whole, and where the last one ends."""
    frames: list[Frame] = []
    end = 0
    with memoryview(data) as view:
        while len(view) - end >= LENGTHS.size:
            header, body = LENGTHS.unpack_from(view, end)
            first = end + LENGTHS.size
            second = first + header
            if second + body > len(view):
                break
            end = second + body
            frames.append((json.loads(str(view[first:second], "utf-8")), bytes(view[second:end])))
    return frames, end
