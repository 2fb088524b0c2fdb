"""Whether it is a host that cannot be reached, or our own network.

A host is at fault if another one can be reached: one that answered before, or that the same pack names. If none can,
few such pictures are quarantined all the same, for a listing may name one host only; but when several follow each other
with nothing reached in between, the network is taken to be down and the pack waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from relens.errors import BadInput, Broken, RelensError

IN_A_ROW = 5
"""Pictures without a way to their hosts, and none reached in between, after which it is the network."""
GIVEN_UP = 3
"""Pictures of a host that failed one after the other, with all their retries, after which it is left alone."""
ALONE_S = 60.0
WITNESSES = 3

Origin = tuple[str, int]
"""Host and port."""


class Outages:
    """What one run of a pack has learnt about hosts. Safe to use from many threads."""

    def __init__(
        self,
        can_connect: Callable[[Origin], bool],
        named: Callable[[], Iterable[Origin]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._can_connect = can_connect
        self._named = named
        self._clock = clock
        self._lock = threading.Lock()
        self._reached: dict[Origin, None] = {}  # the one that answered last is the last
        self._failures: dict[Origin, int] = {}
        self._alone: dict[Origin, tuple[float, str]] = {}
        self._without_way = 0

    def check(self, origin: Origin) -> None:
        """BadInput if the host is to be left alone for now."""
        with self._lock:
            until, why = self._alone.get(origin, (0.0, ""))
            if self._clock() < until:
                raise _unreachable(origin, f"it is left alone for a minute, because {why}")

    def reached(self, origin: Origin) -> None:
        """A host has answered."""
        with self._lock:
            self._reached.pop(origin, None)
            self._reached[origin] = None
            self._failures.pop(origin, None)
            self._without_way = 0

    def blame(self, origin: Origin, why: str, *, no_way: bool) -> RelensError:
        """Whose fault it is that a picture could not be fetched, all retries included: BadInput or Broken."""
        network_works = not no_way or any(self._can_connect(witness) for witness in self._witnesses(origin))
        with self._lock:
            if network_works:
                self._without_way = 0
                self._failures[origin] = self._failures.get(origin, 0) + 1
                if no_way or self._failures[origin] >= GIVEN_UP:
                    self._alone[origin] = (self._clock() + ALONE_S, why)
                return _unreachable(origin, why)
            self._without_way += 1
            if self._without_way < IN_A_ROW:
                return _unreachable(origin, why)
        return Broken(
            "fetch.network-down",
            f"no way to {origin[0]} and {self._without_way - 1} pictures before it ({why})",
            hint="does this machine reach the network? the plan goes on by itself when it does",
        )

    def _witnesses(self, origin: Origin) -> list[Origin]:
        with self._lock:
            reached = [other for other in reversed(self._reached) if other != origin]
            alone = set(self._alone)
        return list(_first(WITNESSES, [*reached, *self._named()], without={origin, *alone}))


def _first(count: int, origins: Iterable[Origin], without: set[Origin]) -> Iterator[Origin]:
    fresh = [origin for origin in dict.fromkeys(origins) if origin not in without]
    return iter(fresh[:count])


def _unreachable(origin: Origin, why: str) -> BadInput:
    return BadInput(
        "fetch.unreachable",
        f"{origin[0]} cannot be reached: {why}",
        hint="the next import of the same source tries it again",
    )
