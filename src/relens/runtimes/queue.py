"""A bounded queue between the threads that receive requests and the threads that run them: admit, order, bound, drop.

What is full refuses at once, and says when to come again; what waited past its deadline is never run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from relens.errors import BadInput, Busy

SOONEST_RETRY_S = 0.1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    job: T
    since: float
    deadline: float | None
    level: int

    def expired(self, now: float) -> bool:
        return self.deadline is not None and now > self.deadline


class WorkQueue(Generic[T]):
    """Low levels first; of a level, first in, first out.

    Each job that was put is taken once or has expired, unless nobody takes it any more.
    """

    def __init__(
        self, capacity: int, *, on_expired: Callable[[T], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        """`on_expired` gets the jobs that will not run, in the thread that noticed. `now` is the clock of deadlines."""
        if capacity < 1:
            raise BadInput("runtimes.bad-capacity", f"a queue holds at least one job, not {capacity}")
        self._capacity = capacity
        self._on_expired = on_expired
        self._now = now
        self._waiting: deque[_Waiting[T]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._gathering = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, job: T, *, deadline: float | None, level: int = 0) -> None:
        """Admit a job that must have begun by `deadline`, if that is given. Busy if the queue is full or closed."""
        expired: list[_Waiting[T]] = []
        try:
            with self._changed:
                if self._closed:
                    raise Busy("runtimes.queue-closed", "nothing new is taken here any more")
                now = self._now()
                if len(self._waiting) >= self._capacity:
                    expired = self._remove_expired(now)
                if len(self._waiting) >= self._capacity:
                    raise self._full(now)
                self._insert(_Waiting(job, now, deadline, level))
                # One is enough, unless it is one that gathers and has no use for this job.
                self._changed.notify(len(self._waiting) + self._gathering)
        finally:
            for waiting in expired:
                self._on_expired(waiting.job)

    def take(self, timeout_s: float | None) -> T | None:
        """The oldest job of the lowest level whose deadline has not passed.

        None after `timeout_s` without one, or when closed and empty. Waits without an end if `timeout_s` is None.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while (found := self._next(until)) is not None:
            first, expired = found
            for waiting in expired:
                self._on_expired(waiting.job)
            if not first.expired(self._now()):
                return first.job
            self._on_expired(first.job)
        return None

    def take_also(
        self, fits: Callable[[T], bool], *, most: int, wait_s: float, size: Callable[[T], int] = lambda _: 1
    ) -> list[T]:
        """More jobs, to be run together with one that was taken: in the queue's order, of `most` in size at most.

        fits    what does not fit stays where it is; it may be asked of a job more than once
        wait_s  how long to wait for more, as long as there is room
        size    of a job; by default 1
        """
        until = time.monotonic() + wait_s
        found: list[T] = []
        with self._changed:
            self._gathering += 1
            try:
                while True:
                    found += self._pick(fits, size, most - sum(map(size, found)))
                    left = until - time.monotonic()
                    if sum(map(size, found)) >= most or left <= 0 or self._closed:
                        return found
                    self._changed.wait(left)
            finally:
                self._gathering -= 1

    def drop(self, unwanted: Callable[[T], bool]) -> int:
        """Forget jobs that nobody waits for any more: how many."""
        with self._changed:
            before = len(self._waiting)
            self._waiting = deque(waiting for waiting in self._waiting if not unwanted(waiting.job))
            return before - len(self._waiting)

    def close(self) -> None:
        """Take nothing new and wake all takers; they get what is left, then None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self, until: float | None) -> tuple[_Waiting[T], list[_Waiting[T]]] | None:
        """The first job, and what has expired among those that others go before again and again."""
        left = None if until is None else max(0.0, until - time.monotonic())
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, left)
            if not self._waiting:
                return None
            first = self._waiting.popleft()
            passed = bool(self._waiting) and self._waiting[-1].level > first.level
            return first, self._remove_expired(self._now()) if passed else []

    def _insert(self, new: _Waiting[T]) -> None:
        at = len(self._waiting)
        while at and self._waiting[at - 1].level > new.level:
            at -= 1
        self._waiting.insert(at, new)

    def _pick(self, fits: Callable[[T], bool], size: Callable[[T], int], room: int) -> list[T]:
        now = self._now()
        picked: list[T] = []
        kept = deque[_Waiting[T]]()
        for waiting in self._waiting:
            if room > 0 and not waiting.expired(now) and fits(waiting.job) and size(waiting.job) <= room:
                picked.append(waiting.job)
                room -= size(waiting.job)
            else:
                kept.append(waiting)
        self._waiting = kept
        return picked

    def _remove_expired(self, now: float) -> list[_Waiting[T]]:
        expired = [waiting for waiting in self._waiting if waiting.expired(now)]
        self._waiting = deque(waiting for waiting in self._waiting if not waiting.expired(now))
        return expired

    def _full(self, now: float) -> Busy:
        # as long as a full queue takes to be worked off
        waited_s = now - min(waiting.since for waiting in self._waiting)
        return Busy(
            "runtimes.queue-full",
            f"{self._capacity} requests are waiting, the oldest for {waited_s:.1f} s",
            hint="ask again later, or give the machine more cores",
            retry_after_s=max(SOONEST_RETRY_S, waited_s),
        )
