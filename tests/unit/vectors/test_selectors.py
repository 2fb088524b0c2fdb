"""Selectors say of each id what a set would, whether ids are dense or not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.vectors.selectors import all_but, both, only

DENSE = st.lists(st.integers(0, 300), unique=True)
SPARSE = st.lists(st.integers(0, 2**62), unique=True)


def members(selector, ids):
    return {one for one in ids if selector.is_member(one)}


@given(DENSE | SPARSE, st.lists(st.integers(-3, 2**62)), st.lists(st.integers(-300, -1)))
def test_a_selector_has_the_members_of_the_set(chosen, others, negative):
    selector = only(np.array(sorted({*chosen, *negative}), np.int64))
    asked = {*chosen, *others, *(one + 1 for one in chosen), *range(20)}
    assert members(selector, asked) == set(chosen)


@given(DENSE, DENSE)
def test_selectors_can_be_turned_round_and_joined(one, other):
    asked = range(310)
    chosen, left_out = np.array(sorted(one), np.int64), np.array(sorted(other), np.int64)
    assert members(all_but(left_out), asked) == set(asked) - set(other)
    assert members(both(only(chosen), all_but(left_out)), asked) == set(one) - set(other)


def test_nothing_to_select_by_selects_everything():
    selector = only(np.array([1]))
    assert both(None, None) is None
    assert both(selector, None) is both(None, selector) is selector


@pytest.mark.parametrize("ids", [[], [5], [0, 2**40]])
def test_few_ids_take_little_memory_however_large_they_are(ids):
    assert members(only(np.array(ids, np.int64)), [0, 5, 6, 2**40]) == set(ids)
