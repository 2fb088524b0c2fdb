"""Requests as bytes on a connection, HTTP/1.1 and gRPC: as little as a client can do, so that it is not measured.

A connection has one request at a time. What the answer says is not read, only whether it is one: status 200, or over
gRPC a message. gRPC is HTTP/2 (RFC 9113) with headers that are never compressed (RFC 7541, literals).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Protocol

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
INITIAL_WINDOW = 4
FRAME_HEAD, FRAME_BYTES, WINDOW = 9, 16_384, 65_535
LARGEST_WINDOW = 2**31 - 1


class Wire(Protocol):
    """One connection's protocol."""

    outgoing: bytearray
    """What is still to be sent. The caller removes what it has sent."""

    def begin(self, body: bytes) -> None:
        """Ask."""

    def receive(self, data: bytes) -> bool | None:
        """Take what came: whether the request was answered well; None while the answer is not all there."""


class Http:
    """`POST path`, over a connection that is kept."""

    def __init__(self, path: str, headers: Mapping[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: ".encode()
        self.outgoing = bytearray()
        self._got = bytearray()

    def begin(self, body: bytes) -> None:
        self.outgoing += b"%b%d\r\n\r\n" % (self._head, len(body)) + body

    def receive(self, data: bytes) -> bool | None:
        self._got += data
        end = self._got.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self._got[:end]).lower()
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if not found:
            raise ValueError(f"an answer without a length: {head[:200]!r}")
        length = int(rest.partition(b"\r\n")[0])
        if len(self._got) < end + 4 + length:
            return None
        self._got.clear()
        return head.split(b" ", 2)[1] == b"200"


class Grpc:
    """One unary method, one stream after the other."""

    def __init__(self, path: str) -> None:
        self._headers = b"\x83\x86" + _literal(4, path) + _literal(1, "127.0.0.1")
        self._headers += _literal(31, "application/grpc") + b"\x00" + _text("te") + _text("trailers")
        settings = struct.pack(">HIHIHI", 1, 0, 2, 0, INITIAL_WINDOW, LARGEST_WINDOW)
        more = struct.pack(">I", LARGEST_WINDOW - WINDOW)
        self.outgoing = bytearray(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, more))
        self._waiting = memoryview(b"")  # of a message, what the windows have no room for yet
        self._stream = -1
        self._first_window = self._window = self._stream_window = WINDOW
        self._got = bytearray()
        self._answered = False

    def begin(self, body: bytes) -> None:
        self._stream += 2
        self._stream_window, self._answered = self._first_window, False
        self.outgoing += _frame(HEADERS, END_HEADERS, self._stream, self._headers)
        self._waiting = memoryview(struct.pack(">BI", 0, len(body)) + body)
        self._send()

    def _send(self) -> None:
        while self._waiting:
            size = min(len(self._waiting), FRAME_BYTES, self._window, self._stream_window)
            if size <= 0:
                return
            piece, self._waiting = self._waiting[:size], self._waiting[size:]
            self._window -= size
            self._stream_window -= size
            self.outgoing += _frame(DATA, 0 if self._waiting else END_STREAM, self._stream, piece)

    def receive(self, data: bytes) -> bool | None:
        self._got += data
        done = None
        while len(self._got) >= FRAME_HEAD:
            size = int.from_bytes(self._got[:3])
            if len(self._got) < FRAME_HEAD + size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._got, 3)
            payload = bytes(self._got[FRAME_HEAD : FRAME_HEAD + size])
            del self._got[: FRAME_HEAD + size]
            if self._take(kind, flags, stream, payload):
                done = self._answered
        self._send()
        return done

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Whether this frame ends the answer."""
        if kind == SETTINGS and not flags & ACK:
            for number, value in struct.iter_unpack(">HI", payload):
                if number == INITIAL_WINDOW:
                    self._stream_window += value - self._first_window
                    self._first_window = value
            self.outgoing += _frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self.outgoing += _frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload)
            if stream == 0:
                self._window += more
            elif stream == self._stream:
                self._stream_window += more
        elif kind == GOAWAY:
            raise ConnectionError(f"the server goes away: {payload[8:][:200]!r}")
        elif stream == self._stream:
            self._answered |= kind == DATA and bool(payload)
            return kind == RESET or (kind in {DATA, HEADERS} and bool(flags & END_STREAM))
        return False


def _frame(kind: int, flags: int, stream: int, payload: bytes | memoryview) -> bytes:
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: int, value: str) -> bytes:
    """A header whose name is in the table of RFC 7541, not to be indexed."""
    return (bytes([name]) if name < 15 else bytes([15, name - 15])) + _text(value)


def _text(value: str) -> bytes:
    if len(value) > 126:
        raise ValueError(f"{value!r} is too long for a length of one byte")
    return bytes([len(value)]) + value.encode()
