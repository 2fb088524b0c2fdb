"""A narrowed search answers what a search among those alone that meet the condition would answer."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relens.serving.narrowed import search_narrowed
from relens.vectors import Hits


def ranked(count, seed):
    """Ids in the order of their likeness, with falling scores."""
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    return Hits(order, np.linspace(1, 0, count, dtype=np.float32))


@given(
    count=st.integers(0, 3000),
    k=st.integers(1, 60),
    share=st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 9),
    picky=st.booleans(),
)
def test_it_is_the_search_among_what_meets_the_condition(count, k, share, seed, picky):
    every = ranked(count, seed)
    good = {int(one) for one in every.ids if np.random.default_rng([seed, int(one)]).random() < share}
    looked_up = []

    def find(depth, allowed):
        rows = range(count) if allowed is None else [row for row in range(count) if every.ids[row] in set(allowed)]
        rows = list(rows)[:depth]
        return Hits(every.ids[rows], every.scores[rows])

    def matching(among):
        looked_up.append(None if among is None else len(among))
        return good if among is None else good & set(among)

    found = search_narrowed(find, matching, k, picky=picky)
    expected = [int(one) for one in every.ids if int(one) in good][:k]
    assert found.ids.tolist() == expected
    assert len(found.scores) == len(expected)
    assert len(looked_up) <= 12


def test_what_is_not_picky_looks_no_further_than_it_must():
    depths = []

    def find(depth, allowed):
        depths.append(depth)
        return Hits(np.arange(depth), np.ones(depth, np.float32))

    search_narrowed(find, lambda among: set(among or ()), 10, picky=False)
    assert depths == [10]
