"""Turns at a host: not too many at once, not too close to each other, and none while the host asks for a pause.

Shared by all threads of a worker process. Hosts do not wait for each other.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

LOOK_UP_S = 0.25
REMEMBERED = 1024


class Closed(Exception):
    """Nobody waits for the turn any more."""


class Turns:
    """At most `parallel` at a host at a time, `delay_s` between two starts."""

    def __init__(self, parallel: int, delay_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._parallel = parallel
        self._delay_s = delay_s
        self._clock = clock
        self._changed = threading.Condition()
        self._taken: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    @contextlib.contextmanager
    def turn(self, host: str, closed: threading.Event) -> Iterator[float]:
        """A turn at a host: the seconds that were waited for it. `Closed` if it is not wanted any more."""
        waited = self._take(host, closed)
        try:
            yield waited
        finally:
            self._give_back(host)

    def pause(self, host: str, seconds: float) -> None:
        """Leave a host alone for a while. A longer pause stays as it is."""
        with self._changed:
            until = self._clock() + seconds
            self._not_before[host] = max(until, self._not_before.get(host, until))

    def _take(self, host: str, closed: threading.Event) -> float:
        start = self._clock()
        with self._changed:
            while True:
                if closed.is_set():
                    raise Closed
                now = self._clock()
                rest = self._not_before.get(host, now) - now
                if rest <= 0 and self._taken.get(host, 0) < self._parallel:
                    break
                self._changed.wait(min(rest, LOOK_UP_S) if rest > 0 else LOOK_UP_S)
            self._taken[host] = self._taken.get(host, 0) + 1
            self._not_before[host] = now + self._delay_s
            return now - start

    def _give_back(self, host: str) -> None:
        with self._changed:
            self._taken[host] -= 1
            if self._taken[host] == 0:
                del self._taken[host]
                self._forget_old()
            self._changed.notify_all()

    def _forget_old(self) -> None:
        """A listing may name a million hosts."""
        if len(self._not_before) > REMEMBERED:
            now = self._clock()
            self._not_before = {host: at for host, at in self._not_before.items() if at > now}
