"""Search equals brute force, whatever the rows, however they are cut, whoever is dead; and never crosses spaces."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relens.errors import BadInput, Conflict
from relens.values import Vector
from relens.vectors import Manifest, Segment, search
from relens.vectors.exact import CHUNK_ROWS


def segment_of(ids, vectors, *, space="s1", day="2025-06-01"):
    manifest = Manifest(1, "all", day, space, vectors.shape[1], len(ids), 7, "0" * 64, 0)
    return Segment(manifest, np.asarray(ids, np.int64), np.asarray(vectors, np.float32))


def brute_force(segments, query, k, dead):
    """Exact sums of exact products, to the nearest 2^-24."""
    found = [
        (-np.float32(round(math.fsum(np.float64(row) * np.float64(query)) * 2**24) / 2**24), int(one))
        for segment in segments
        for one, row in zip(segment.ids, segment.vectors, strict=True)
        if one not in set(dead.get(segment.digest, ()))
    ]
    return sorted(found)[:k]


def unit(values):
    values = np.asarray(values, np.float64)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@st.composite
def galleries(draw):
    """Segments with many equal and nearly equal rows, a query, k, and for each segment the ids that are dead."""
    dim = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    known = rng.integers(-2, 3, (draw(st.integers(1, 12)), dim)) + rng.choice([0, 1e-7, 1e-3]) * rng.normal(size=dim)
    known[~known.any(axis=1)] = 1
    count = draw(st.integers(0, 60))
    rows = unit(known[rng.integers(0, len(known), count)]) if count else np.empty((0, dim), np.float32)
    ids = rng.permutation(200)[:count]
    cuts = [0, *sorted(draw(st.lists(st.integers(0, count), max_size=4))), count]
    segments, dead = [], {}
    for number, (start, stop) in enumerate(pairwise(cuts)):
        order = np.argsort(ids[start:stop]) + start
        segment = segment_of(ids[order], rows[order], day=f"2025-06-{number + 1:02}")
        segments.append(segment)
        if draw(st.booleans()):
            dead[segment.digest] = rng.integers(0, 200, draw(st.integers(0, 120)))
    query = unit(known[0] if draw(st.booleans()) else rng.normal(size=dim))
    return segments, Vector("s1", query), draw(st.integers(1, 70)), dead


@settings(max_examples=400, deadline=None)
@given(galleries(), st.sampled_from([1, 2, 7, CHUNK_ROWS]))
def test_search_equals_brute_force(given_, chunk_rows):
    segments, query, k, dead = given_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relens.vectors.exact.CHUNK_ROWS", chunk_rows)
        hits = search(segments, query, k, dead=dead)
    expected = brute_force(segments, query.values, k, dead)
    assert hits.ids.tolist() == [one for _, one in expected]
    assert hits.scores.tolist() == [-score for score, _ in expected]
    assert hits.ids.dtype == np.int64
    assert hits.scores.dtype == np.float32


def test_it_equals_brute_force_on_many_long_vectors_too(unit_rows):
    vectors = unit_rows(3000, 512)
    segments = [segment_of(np.arange(2000) * 2, vectors[:2000]), segment_of(np.arange(1000) * 2 + 1, vectors[2000:])]
    for row in (0, 1999, 2000, 2999):
        query = Vector("s1", vectors[row])
        expected = brute_force(segments, query.values, 10, {})
        assert search(segments, query, 10).ids.tolist() == [one for _, one in expected]


def test_equal_vectors_come_by_smaller_id_wherever_they_lie(unit_rows):
    row = unit_rows(1, 100)[0]
    many = [segment_of(np.arange(start, 500, 3), np.tile(row, (len(range(start, 500, 3)), 1))) for start in (2, 0, 1)]
    hits = search(many, Vector("s1", row), 50)
    assert hits.ids.tolist() == list(range(50))
    assert len(set(hits.scores.tolist())) == 1


def test_the_dead_never_push_a_living_one_out(unit_rows):
    vectors = unit_rows(1000, 16)
    segment = segment_of(np.arange(1000), vectors)
    query = Vector("s1", vectors[500])
    order = search([segment], query, 1000).ids
    for count in (1, 10, 990, 1000):
        hits = search([segment], query, 10, dead={segment.digest: order[:count]})
        assert hits.ids.tolist() == order[count : count + 10].tolist()


def test_the_dead_of_one_segment_live_in_another(unit_rows):
    rows = unit_rows(2, 8)
    old, new = segment_of([1], rows[:1], day="a"), segment_of([1], rows[1:], day="b")
    hits = search([old, new], Vector("s1", rows[0]), 5, dead={old.digest: np.array([1])})
    assert hits.ids.tolist() == [1]
    assert hits.scores[0] == pytest.approx(float(rows[0] @ rows[1]), abs=1e-6)


def test_a_row_that_is_not_a_number_is_never_found(unit_rows):
    vectors = unit_rows(20, 8)
    vectors[3] = np.nan
    assert 3 not in search([segment_of(np.arange(20), vectors)], Vector("s1", vectors[0]), 20).ids


def test_nothing_to_search_gives_nothing(unit_rows):
    query = Vector("s1", unit_rows(1, 8)[0])
    assert len(search([], query, 3).ids) == 0
    assert len(search([segment_of([], np.empty((0, 8)))], query, 3, dead={}).scores) == 0


def test_a_segment_of_another_space_is_refused_before_anything_is_searched(unit_rows):
    vectors = unit_rows(2, 8)
    good, bad = segment_of([1, 2], vectors), segment_of([3, 4], vectors, space="held-space")
    with pytest.raises(Conflict) as caught:
        search([good, bad], Vector("s1", vectors[0]), 1)
    assert caught.value.code == "vectors.space-mismatch"
    assert "space s1" in caught.value.message
    assert "held-space" in caught.value.message


def test_an_empty_segment_of_another_space_is_refused_as_well(unit_rows):
    with pytest.raises(Conflict):
        search([segment_of([], np.empty((0, 8)), space="s2")], Vector("s1", unit_rows(1, 8)[0]), 1)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(unit_rows, k):
    with pytest.raises(BadInput) as caught:
        search([], Vector("s1", unit_rows(1, 8)[0]), k)
    assert caught.value.code == "vectors.bad-k"


def test_a_query_of_another_length_is_refused(unit_rows):
    with pytest.raises(BadInput) as caught:
        search([segment_of([1], unit_rows(1, 8))], Vector("s1", unit_rows(1, 9)[0]), 1)
    assert caught.value.code == "vectors.wrong-shape"
