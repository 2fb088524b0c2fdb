"""Doubles are those that a reader of the list, from its beginning, would strike out."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from relens.bulk.doubles import find_doubles

DIM, LEAST = 4, 0.999


def unit(random, count, kinds):
    """Vectors of few kinds: some are the same to the last bit, others far away."""
    rows = np.eye(DIM, dtype=np.float32)[random.integers(0, min(kinds, DIM), count)]
    return rows * np.where(random.random((count, 1)) < 0.5, 1, -1).astype(np.float32)


def struck_out(before, ids, vectors):
    stay, doubles = list(before), []
    for one, vector in zip(ids, vectors, strict=True):
        if any(float(vector @ other) >= LEAST for other in stay):
            doubles.append(int(one))
        else:
            stay.append(vector)
    return doubles


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    held=st.integers(0, 6),
    sizes=st.lists(st.integers(0, 8), max_size=4),
    kinds=st.integers(1, 4),
)
def test_the_first_of_its_like_stays(seed, held, sizes, kinds):
    random = np.random.default_rng(seed)
    rows = unit(random, held, kinds)
    known = np.arange(1, held + 1)
    dead = np.flatnonzero(random.random(held) < 0.3) + 1
    batches, at = [], 100
    for size in sizes:
        batches.append((np.arange(at, at + size), unit(random, size, kinds)))
        at += size
    here = held // 2
    found = find_doubles(iter(batches), [(known[:here], rows[:here]), (known[here:], rows[here:])], dead, LEAST)
    ids = [one for some, _ in batches for one in some]
    vectors = [vector for _, some in batches for vector in some]
    living = [row for one, row in zip(known, rows, strict=True) if one not in dead]
    assert found.tolist() == sorted(struck_out(living, ids, vectors))
