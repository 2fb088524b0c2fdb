"""Clients that do no good: idle connections, slow readers and half-sent bodies, in a process of their own.

Run as `python -m bench.crowd` by `Crowd`, with a pickled order on stdin. It says `there` when all of them are, keeps
them until it is told `go`, reading a little all the while, and ends.
"""

from __future__ import annotations

import pickle
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.wire import Http

ROOT = Path(__file__).parent.parent
AT_ONCE = 32
"""Slow readers that wait for their answers to begin; an engine has more in its queue by far."""
RECEIVE_BYTES = 4096
PAUSE_S = 0.5
READ_BYTES = 1024
WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """How many of which; what a slow reader asks, whose answer is long, and of which others send a half."""

    port: int
    idle: int
    slow: int
    halves: int
    path: str
    body: bytes
    headers: dict[str, str]


class Crowd:
    """The crowd, from when all of it is there until the context is left."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-m", "bench.crowd"], cwd=ROOT, stdin=pipe, stdout=pipe)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(self._order, self._process.stdin)
        self._process.stdin.flush()
        if self._process.stdout.readline() != b"there\n":
            raise RuntimeError("the crowd did not come together")
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate(b"go\n")


def _connect(port: int, receive: int | None = None) -> socket.socket:
    made = socket.socket()
    if receive is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)  # before it connects, so that it is told
    made.settimeout(WAIT_S)
    made.connect(("127.0.0.1", port))
    return made


def _ask_slowly(order: Order) -> list[socket.socket]:
    """Readers whose answers have begun, and are not read on."""
    wire = Http(order.path, order.headers)
    wire.begin(order.body)
    asked = bytes(wire.outgoing)
    readers: list[socket.socket] = []
    while len(readers) < order.slow:
        some = [_connect(order.port, RECEIVE_BYTES) for _ in range(min(AT_ONCE, order.slow - len(readers)))]
        for one in some:
            one.sendall(asked)
        for one in some:
            begun = one.recv(16)
            if not begun.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"a slow reader was answered with {begun!r}")
        readers += some
    return readers


def _send_half(order: Order) -> socket.socket:
    wire = Http(order.path, order.headers)
    wire.begin(order.body)
    made = _connect(order.port)
    made.sendall(memoryview(wire.outgoing)[: len(wire.outgoing) // 2])
    return made


def main() -> None:
    """The process."""
    order: Any = pickle.load(sys.stdin.buffer)
    kept = [_connect(order.port) for _ in range(order.idle)]
    kept += [_send_half(order) for _ in range(order.halves)]
    readers = _ask_slowly(order)
    sys.stdout.buffer.write(b"there\n")
    sys.stdout.buffer.flush()
    while not select.select([sys.stdin], [], [], 0)[0]:
        for reader in readers:
            reader.recv(READ_BYTES)
        time.sleep(PAUSE_S)
    for one in kept + readers:
        one.close()


if __name__ == "__main__":
    main()
