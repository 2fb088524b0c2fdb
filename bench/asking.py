"""A client that asks over many connections and costs little: one thread, prepared bytes, in a process of its own.

Run as `python -m bench.asking` by `Asker`. In a closed loop each connection asks again as soon as it was answered. In
an open loop requests come at random (Poisson) at a rate, whatever becomes of those before; the seconds of each count
from when it should have been sent.
"""

from __future__ import annotations

import itertools
import pickle
import random
import select
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.wire import Grpc, Http, Wire

ROOT = Path(__file__).parent.parent
READ_BYTES = 1 << 18
STUCK_S = 60.0


@dataclass(frozen=True, slots=True)
class Way:
    """How a server is asked: over HTTP with these headers, or over gRPC."""

    port: int
    path: str
    bodies: Sequence[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    grpc: bool = False

    def wire(self) -> Wire:
        return Grpc(self.path) if self.grpc else Http(self.path, self.headers)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be asked: so many requests by so many clients, or at this rate over as many connections as needed.

    connections  that are open then. Servers close one that has had nothing to do for some seconds
    """

    way: Way
    count: int
    clients: int = 8
    rate: float | None = None
    seed: int = 0
    connections: int = 64


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of it: seconds of each request in the order they ended, of everything, and CPU of client and server."""

    seconds: Sequence[float]
    failed: int
    took_s: float
    client_s: float
    server_s: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.took_s

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the server for a request."""
        return self.server_s / len(self.seconds)

    @property
    def share(self) -> float:
        """Of one core, that the client used."""
        return self.client_s / self.took_s

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent))


def ask(order: Order, read: Callable[[], float] = lambda: 0.0) -> Taken:
    """Ask, from a process of its own. `read` tells what the server has used of CPU so far."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.asking"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        pickle.dump(order, process.stdin)
        process.stdin.flush()
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the client ended before it began")
        before = read()
        process.stdin.write(b"go\n")
        process.stdin.flush()
        if process.stdout.readline() != b"over\n":
            raise RuntimeError("the client did not come to its end")
        spent = read() - before
        seconds, failed, took_s, client_s = pickle.load(process.stdout)
    return Taken(seconds, failed, took_s, client_s, spent)


def rows(
    rounds: Sequence[Mapping[str, Taken]], value: Callable[[Taken], float], form: Callable[[float], str]
) -> dict[str, str]:
    """The median of a value over rounds, by name, for a report."""
    return {name: form(statistics.median(value(one[name]) for one in rounds)) for name in rounds[0]}


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """Seconds at which so many requests come at random, at a rate; for a seed always the same."""
    chance = random.Random(seed)
    return list(itertools.accumulate(chance.expovariate(rate) for _ in range(count)))


class _Connection:
    def __init__(self, way: Way) -> None:
        self.wire = way.wire()
        self.socket = socket.create_connection(("127.0.0.1", way.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.since = 0.0
        self.writing = False

    def send(self) -> None:
        """As much as goes."""
        out = self.wire.outgoing
        while out:
            try:
                sent = self.socket.send(out)
            except BlockingIOError:
                return
            del out[:sent]


class _Asking:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._poll = select.epoll()
        count = order.clients if order.rate is None else order.connections
        made = [_Connection(order.way) for _ in range(count)]
        self._connections = {one.socket.fileno(): one for one in made}
        for number in self._connections:
            self._poll.register(number, select.EPOLLIN)
        self._idle = deque(made)
        self._bodies = order.way.bodies
        self.seconds: list[float] = []
        self.failed = 0
        self._begun = 0

    def warm(self) -> None:
        """Each connection asks once; nothing of it counts."""
        for connection in list(self._idle):
            self._begin(connection, time.perf_counter())
            while len(self._idle) < len(self._connections):
                self._turn(STUCK_S)
        if self.failed:
            raise RuntimeError(f"{self.failed} of {len(self._connections)} requests failed before it began")
        self.seconds.clear()
        self._begun = 0

    def closed(self) -> None:
        """So many requests, each connection one after the other."""
        count = self._order.count
        while len(self.seconds) + self.failed < count:
            while self._idle and self._begun < count:
                self._begin(self._idle.popleft(), time.perf_counter(), taken=True)
            self._turn(STUCK_S)

    def open(self, rate: float) -> None:
        """So many requests at random times."""
        begun = time.perf_counter() + 0.01
        due = [begun + at for at in arrivals(rate, self._order.count, self._order.seed)]
        while len(self.seconds) + self.failed < self._order.count:
            while self._idle and self._begun < len(due) and due[self._begun] <= time.perf_counter():
                self._begin(self._idle.popleft(), due[self._begun], taken=True)
            more = self._begun < len(due) and bool(self._idle)
            self._turn(max(0.0, due[self._begun] - time.perf_counter()) if more else STUCK_S, patient=more)

    def _begin(self, connection: _Connection, since: float, *, taken: bool = False) -> None:
        if not taken:
            self._idle.remove(connection)
        connection.since = since
        connection.wire.begin(self._bodies[self._begun % len(self._bodies)])
        self._begun += 1
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        connection.send()
        left = bool(connection.wire.outgoing)
        if left != connection.writing:
            connection.writing = left
            events = select.EPOLLIN | (select.EPOLLOUT if left else 0)
            self._poll.modify(connection.socket.fileno(), events)

    def _turn(self, wait_s: float, *, patient: bool = False) -> None:
        events = self._poll.poll(wait_s)
        if not events and not patient:
            raise TimeoutError(f"no answer within {wait_s:g} s")
        for number, event in events:
            connection = self._connections[number]
            if event & ~select.EPOLLOUT:
                data = connection.socket.recv(READ_BYTES)
                if not data:
                    raise ConnectionError("the server closed a connection")
                self._took(connection, connection.wire.receive(data))
            self._send(connection)

    def _took(self, connection: _Connection, answered: bool | None) -> None:
        if answered is None:
            return
        if answered:
            self.seconds.append(time.perf_counter() - connection.since)
        else:
            self.failed += 1
        self._idle.append(connection)


def main() -> None:
    """The process: an order on stdin, what was taken on stdout."""
    order: Order = pickle.load(sys.stdin.buffer)
    asking = _Asking(order)
    asking.warm()
    out = sys.stdout.buffer
    out.write(b"ready\n")
    out.flush()
    sys.stdin.buffer.readline()
    start, cpu = time.perf_counter(), time.process_time()
    if order.rate is None:
        asking.closed()
    else:
        asking.open(order.rate)
    took_s, client_s = time.perf_counter() - start, time.process_time() - cpu
    out.write(b"over\n")
    out.flush()
    pickle.dump((asking.seconds, asking.failed, took_s, client_s), out)


if __name__ == "__main__":
    main()
