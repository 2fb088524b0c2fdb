"""CPU time, of this process and of others, of works that are taken in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Chain = Sequence[tuple[str, Callable[[Any], Any]]]
"""Named steps, each of which takes what the one before gave."""


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each work, in this process. A noisy moment hits them all; a first round does not count."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            spent[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in spent.items()}


def mean_of_steps(chain: Chain, inputs: Iterable[Any]) -> dict[str, float]:
    """CPU seconds per input of each step, every input taken through the whole chain before the next."""
    spent = dict.fromkeys((name for name, _ in chain), 0.0)
    count = 0
    for given in inputs:
        value = given
        count += 1
        for name, step in chain:
            start = time.process_time()
            value = step(value)
            spent[name] += time.process_time() - start
    return {name: seconds / count for name, seconds in spent.items()}


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By name over several rounds."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used with all its threads, to the nanosecond.

    /proc counts in ticks of 10 ms. This is clock_getcpuclockid(3), which Python does not offer.
    """
    return time.clock_gettime((~pid << 3) | 2)
