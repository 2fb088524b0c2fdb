"""A store, and segments of random unit vectors in it."""

import numpy as np
import pytest

from relens.store import LocalBlobs
from relens.vectors import build_index, build_segment, open_index, open_segment, train_quantizer


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


@pytest.fixture
def opened(blobs, build):
    """An open segment of these ids and vectors."""

    def make(ids, vectors, **changed):
        return open_segment(blobs, build(ids, vectors, **changed).digest, verify=True)

    return make


@pytest.fixture
def clustered():
    """Unit rows around some centres: what approximate search is for."""

    def rows(count, dim, *, seed=0, centres=20, spread=0.3):
        rng = np.random.default_rng(seed)
        middle = np.random.default_rng(7).normal(size=(centres, dim))
        values = middle[rng.integers(0, centres, count)] + spread * rng.normal(size=(count, dim))
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)

    return rows


@pytest.fixture
def quantizer(blobs, clustered):
    """16 lists of 12 dimensions in space s1."""
    return train_quantizer(blobs, clustered(800, 12, seed=99), gallery=1, space="s1", nlist=16, seed=1)


@pytest.fixture
def indexed(blobs, quantizer):
    """An open index of these segments."""

    def make(*segments, **given):
        return open_index(blobs, build_index(blobs, quantizer, segments, **given).digest, verify=True)

    return make
