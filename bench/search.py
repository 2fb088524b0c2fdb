"""Exact search beside the memory's own speed: `python -m bench.search` prints one line with the ratio.

The limit is the time that one thread needs to read the same vectors once (a maximum over all values, which numpy does
at the memory's pace). Both are measured in turn, in one process, on a segment that is mapped from a file.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np

from relens.store import LocalBlobs
from relens.values import Vector
from relens.vectors import Segment, build_segment, open_segment, search

COUNT, DIM, K, ROUNDS = 50_000, 1280, 10, 15
SPACE = "bench"


def build(root: Path, count: int, dim: int) -> Segment:
    """A segment of random unit vectors, read once."""
    vectors = np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    blobs = LocalBlobs(root)
    manifest = build_segment(
        blobs,
        gallery=1,
        category="all",
        day="2025-01-01",
        space=SPACE,
        as_of=1,
        parts=[(np.arange(count), vectors)],
        count=count,
        dim=dim,
    )
    return open_segment(blobs, manifest.digest, verify=True)


def best_ms(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Shortest time of each, taken in turn so that a noisy moment hits them all."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], (time.perf_counter() - start) * 1000)
    return best


def measure(count: int = COUNT, dim: int = DIM, k: int = K, rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds for reading, for the bare product and for a search; the ratio of search to reading."""
    with tempfile.TemporaryDirectory() as folder:
        segment = build(Path(folder), count, dim)
        query = Vector(SPACE, np.array(segment.vectors[count // 2]))
        works: dict[str, Callable[[], object]] = {
            "read": segment.vectors.reshape(-1).max,
            "product": lambda: segment.vectors @ query.values,
            "search": lambda: search([segment], query, k),
        }
        figures = best_ms(works, rounds)
    return figures | {"ratio": figures["search"] / figures["read"]}


def main() -> None:
    figures = measure()
    gigabytes = COUNT * DIM * 4 / 1e9
    print(
        f"exact search, {COUNT} x {DIM} float32, k = {K}: {figures['search']:.1f} ms; the memory is read in "
        f"{figures['read']:.1f} ms ({gigabytes / figures['read'] * 1000:.1f} GB/s), the bare product takes "
        f"{figures['product']:.1f} ms; ratio {figures['ratio']:.2f}"
    )


if __name__ == "__main__":
    main()
