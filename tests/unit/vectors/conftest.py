"""A store, and segments of random unit vectors in it."""

import numpy as np
import pytest

from relens.store import LocalBlobs
from relens.vectors import build_segment


@pytest.fixture
def blobs(tmp_path):
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def unit_rows():
    def rows(count, dim, *, seed=0):
        values = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    return rows


@pytest.fixture
def build(blobs):
    """Manifest of a segment of these ids and vectors."""

    def make(ids, vectors, **changed):
        said = {"gallery": 1, "category": "all", "day": "2025-06-01", "space": "s1", "as_of": 7}
        said |= {"parts": [(ids, vectors)], "count": len(ids), "dim": vectors.shape[1]}
        return build_segment(blobs, **said | changed)

    return make
