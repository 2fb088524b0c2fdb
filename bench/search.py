"""Exact search beside the memory's own speed.

The limit is the time that one thread needs to read the same vectors once: a maximum over all values, which numpy does
at the memory's pace. Segments are mapped from files, as everywhere.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from bench.clock import in_turn
from bench.figures import Figure, Report, Setup, at_most, milliseconds
from relens.store import LocalBlobs
from relens.values import Vector
from relens.vectors import Segment, build_segment, open_segment, search

DIM, K = 1280, 10
SPACE = "bench"
MOST = 2.0


def measure(setup: Setup) -> Report:
    count, rounds = setup.choose(50_000, 20_000), setup.choose(31, 11)
    with tempfile.TemporaryDirectory(dir=setup.folder) as folder:
        segment = build(Path(folder), count, DIM)
        query = Vector(SPACE, np.array(segment.vectors[count // 2]))
        works = {
            "read": segment.vectors.reshape(-1).max,
            "product": lambda: segment.vectors @ query.values,
            "search": lambda: search([segment], query, K),
        }
        spent = in_turn(works, rounds)
    ratio = spent["search"] / spent["read"]
    gigabytes = count * DIM * 4 / 1e9
    figure = Figure(
        f"exact search, {count:,} x {DIM} float32, one query",
        milliseconds(spent["search"]),
        f"{milliseconds(spent['read'])} to read them",
        ratio,
        at_most(ratio, MOST),
    )
    rows = {
        f"read {gigabytes:.3f} GB ({gigabytes / spent['read']:.1f} GB/s)": milliseconds(spent["read"]),
        "bare product with the query": milliseconds(spent["product"]),
        f"search, k = {K}": milliseconds(spent["search"]),
    }
    return Report((figure,), {"Exact search": rows})


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
