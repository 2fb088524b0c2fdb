"""How one canary does beside the stable version: whether it fails too often, or takes too long.

Judged by figures alone, each of them over as many requests as the limits say; nothing here knows of versions or time.
"""

from __future__ import annotations

import math
from collections import deque

from relens.serving.splits import Rollback

PERCENTILE = 0.95
LEAST_COMPARED = 20
"""Answers of the stable version that its percentile takes at least."""
KEPT = 10
"""For each answer of the canary so many of the stable version are kept, at most: those of the last of the time."""


class Canary:
    """What came of the requests that one canary was asked."""

    def __init__(self, limits: Rollback) -> None:
        self._limits = limits
        self._failed: deque[bool] = deque(maxlen=limits.requests)
        self._took: list[float] = []
        self._stable_took: deque[float] = deque(maxlen=KEPT * limits.requests)

    def answered(self, seconds: float) -> str | None:
        """It answered: why it is to be asked no more, or None."""
        self._failed.append(False)
        if self._limits.latency is None:
            return None
        self._took.append(seconds)
        return self._too_slow(self._limits.latency) if len(self._took) == self._limits.requests else None

    def failed(self) -> str | None:
        """It failed: as of `answered`. As many failures as are too many for all requests are so for fewer."""
        self._failed.append(True)
        count, limit = sum(self._failed), self._limits.errors
        if limit is None or count <= limit * self._limits.requests:
            return None
        return f"{count} of {len(self._failed)} requests failed; the limit is {limit:g} of {self._limits.requests}"

    def stable_answered(self, seconds: float) -> None:
        """The stable version answered, at the time of this canary."""
        self._stable_took.append(seconds)

    def _too_slow(self, limit: float) -> str | None:
        """Compare what was kept, and begin anew."""
        own, stable = self._took, self._stable_took
        self._took, self._stable_took = [], deque(maxlen=stable.maxlen)
        if len(stable) < min(LEAST_COMPARED, len(own)):
            return None
        took, usual = percentile(own), percentile(stable)
        if took <= limit * usual:
            return None
        return (
            f"95 % of {len(own)} requests took up to {took * 1000:.1f} ms, of the stable version's {len(stable)} up to "
            f"{usual * 1000:.1f} ms; the limit is {limit:g} times that"
        )


def percentile(values: list[float] | deque[float]) -> float:
    """What 95 % of these are not above."""
    return sorted(values)[math.ceil(PERCENTILE * len(values)) - 1]
