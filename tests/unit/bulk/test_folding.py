"""Which segments are merged: few copies of each row, few segments, and none that is mostly dead."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relens.bulk.folding import MOST_PARTS, Part, choose


def part(count, living=None, name=""):
    return Part(f"{name or count}", count, np.arange(count if living is None else living))


@st.composite
def parts(draw):
    sizes = draw(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), max_size=20))
    return [part(count, round(count * alive), f"s{number}") for number, (count, alive) in enumerate(sizes)]


@given(some=parts(), fresh=st.integers(0, 300))
def test_worn_segments_are_always_merged_and_few_are_left(some, fresh):
    chosen = {one.digest for one in choose(some, fresh)}
    left = [one for one in some if one.digest not in chosen]
    assert not [one for one in left if one.is_worn]
    assert len(left) <= MOST_PARTS


def test_a_large_segment_is_left_alone_by_a_few_new_rows():
    large, small = part(10_000), part(150)
    assert choose([large], 100) == []
    assert choose([large, small], 100) == [small]


@given(steps=st.integers(1, 400))
def test_each_row_is_copied_no_more_often_than_the_gallery_doubles(steps):
    segments, copied = [], 0
    for number in range(steps):
        merged = choose(segments, 10)
        rows = 10 + sum(len(one.living) for one in merged)
        copied += rows
        names = {one.digest for one in merged}
        segments = [one for one in segments if one.digest not in names] + [part(rows, name=f"n{number}")]
    assert copied <= 10 * steps * (2 + math.log2(steps))
    assert len(segments) <= 2 + math.log2(steps)
