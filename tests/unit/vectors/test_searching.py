"""Search with indexes answers from the truth alone: exact scores, in order, nobody dead and nobody who may not."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens.errors import BadInput, Conflict
from relens.values import Vector
from relens.vectors import (
    Manifest,
    Searchable,
    Segment,
    build_index,
    build_segment,
    covered,
    exact,
    merge_indexes,
    open_index,
    open_segment,
    search,
    train_quantizer,
)

DIM, NLIST = 12, 16
SHARED = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


def query_of(rows, seed):
    rng = np.random.default_rng(seed)
    values = rows[rng.integers(0, len(rows))] + 0.1 * rng.normal(size=DIM) if len(rows) else rng.normal(size=DIM)
    return Vector("s1", (values / np.linalg.norm(values)).astype(np.float32))


def as_pairs(hits):
    return list(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True))


@pytest.fixture
def recall_in_a_moment(monkeypatch):
    """Few rows are asked for their neighbours: these tests build hundreds of indexes."""
    monkeypatch.setattr("relens.vectors.recall.SAMPLE_ROWS", 3)


@st.composite
def plans(draw):
    """How rows are cut into segments, which of those have an index of their own, share one, or none; who is dead."""
    count = draw(st.integers(1, 250))
    cuts = [0, *sorted(draw(st.lists(st.integers(0, count), max_size=4))), count]
    groups = [draw(st.sampled_from(["alone", "merged", "exact"])) for _ in pairwise(cuts)]
    return {
        "seed": draw(st.integers(0, 2**20)),
        "owner": draw(st.sampled_from(["days", "mixed"])),
        "cuts": cuts,
        "groups": groups,
        "dead_before": draw(st.sampled_from([0, 0, 0.2])),
        "dead_after": draw(st.sampled_from([0, 0.1, 0.9])),
        "allowed": draw(st.sampled_from([None, 0, 0.02, 0.3, 1])),
        "dropped": draw(st.booleans()),
        "k": draw(st.integers(1, 40)),
    }


def lay_out(blobs, clustered, quantizer, plan):
    """Segments, indexes over some of them, the dead, the allowed, and the rows by id."""
    rng = np.random.default_rng(plan["seed"])
    rows = clustered(plan["cuts"][-1], DIM, seed=plan["seed"])
    ids = np.sort(rng.choice(3 * len(rows), len(rows), replace=False)).astype(np.int64)
    order = np.arange(len(rows)) if plan["owner"] == "days" else rng.permutation(len(rows))
    segments = []
    for day, (start, stop) in enumerate(pairwise(plan["cuts"])):
        mine = np.sort(order[start:stop])
        said = {"gallery": 1, "category": "all", "day": f"{day}", "space": "s1", "as_of": 7, "dim": DIM}
        built = build_segment(blobs, **said, parts=[(ids[mine], rows[mine])], count=len(mine))
        segments.append(open_segment(blobs, built.digest, verify=False))

    def dead(share):
        return {one.digest: rng.permutation(one.ids[rng.random(len(one.ids)) < share]) for one in segments}

    before = dead(plan["dead_before"])
    grouped = list(zip(segments, plan["groups"], strict=True))
    alone, merged = ([segment for segment, group in grouped if group == name] for name in ("alone", "merged"))
    parts = [build_index(blobs, quantizer, [segment], dead=before) for segment in alone + merged]
    indexes = [open_index(blobs, part.digest, verify=False) for part in parts]
    if merged:
        joined = merge_indexes(blobs, indexes[len(alone) :], merged, dead=before)
        indexes = [*indexes[: len(alone)], open_index(blobs, joined.digest, verify=True)]
    later = dead(plan["dead_after"])
    after = {digest: np.concatenate([gone, later[digest]]) for digest, gone in before.items()}
    allowed = None
    if plan["allowed"] is not None:
        allowed = np.array([-3, *ids[rng.random(len(ids)) < plan["allowed"]], 10**7])
    searched = segments[1:] if plan["dropped"] and len(segments) > 1 else segments
    return searched, indexes, after, allowed, rows


@settings(max_examples=120, **SHARED)
@given(plan=plans())
def test_what_is_found_is_true_and_searching_every_list_finds_all(
    blobs, clustered, quantizer, recall_in_a_moment, plan
):
    segments, indexes, dead, allowed, rows = lay_out(blobs, clustered, quantizer, plan)
    query = query_of(rows, plan["seed"])
    truth = as_pairs(search(segments, query, 10**6, dead=dead, allowed=allowed))
    generous = [replace(index, manifest=replace(index.manifest, overfetch=300)) for index in indexes]
    told = {"dead": dead, "allowed": allowed}
    found = as_pairs(search(segments, query, plan["k"], indexes=indexes, **told))
    one_list = as_pairs(search(segments, query, plan["k"], indexes=indexes, nprobe=1, **told))
    whole = as_pairs(search(segments, query, plan["k"], indexes=generous, nprobe=NLIST, **told))
    assert whole == truth[: plan["k"]]
    assert len(found) == len(whole)
    for answer in (found, one_list):
        assert set(answer) <= set(truth)
        assert answer == sorted(answer, key=lambda hit: (-hit[1], hit[0]))


@settings(max_examples=150, **SHARED)
@given(plan=plans(), picked=st.sampled_from([0, 0.2, 1]))
def test_exact_search_among_allowed_rows_is_the_truth_without_the_others(blobs, clustered, plan, picked):
    segments, _, dead, allowed, rows = lay_out(
        blobs, clustered, None, plan | {"groups": ["exact"] * len(plan["groups"])}
    )
    query = query_of(rows, plan["seed"])
    truth = as_pairs(search(segments, query, 10**6, dead=dead))
    chosen = None if allowed is None else set(allowed.tolist())
    expected = [hit for hit in truth if chosen is None or hit[0] in chosen]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "PICKED_SHARE", picked)
        patch.setattr(exact, "PICKED_ROWS", 7)
        assert as_pairs(search(segments, query, plan["k"], dead=dead, allowed=allowed)) == expected[: plan["k"]]


def test_recall_is_as_measured_for_queries_that_it_has_not_seen(opened, clustered, indexed):
    segment = opened(np.arange(6000), clustered(6000, DIM, seed=3, centres=200))
    index = indexed(segment)
    searchable = Searchable([segment], indexes=[index])
    found = 0
    for row in clustered(100, DIM, seed=4, centres=200):
        query = Vector("s1", row)
        found += len(set(searchable.search(query, 10).ids) & set(search([segment], query, 10).ids))
    assert found >= 930
    assert index.manifest.recall >= 0.95


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_recall_holds_among_few_allowed_rows(opened, clustered, indexed, share):
    segment = opened(np.arange(6000), clustered(6000, DIM, seed=3, centres=200))
    searchable = Searchable([segment], indexes=[indexed(segment)])
    allowed = np.flatnonzero(np.random.default_rng(1).random(6000) < share)
    found = 0
    for row in clustered(50, DIM, seed=4, centres=200):
        query = Vector("s1", row)
        truth = search([segment], query, 10, allowed=allowed)
        found += len(set(searchable.search(query, 10, allowed=allowed).ids) & set(truth.ids))
    assert found >= 465


def test_more_neighbours_are_found_as_well_as_ten(opened, clustered, indexed):
    segment = opened(np.arange(6000), clustered(6000, DIM, seed=3, centres=200))
    index = indexed(segment)
    query = Vector("s1", clustered(1, DIM, seed=4, centres=200)[0])
    for k in (100, 1000):
        found = set(search([segment], query, k, indexes=[index]).ids)
        assert len(found) == k
        assert len(found & set(search([segment], query, k).ids)) >= 0.9 * k


def test_allowed_rows_that_lie_far_from_the_query_are_found_nevertheless(opened, clustered, indexed, monkeypatch):
    monkeypatch.setattr(covered, "PICKED_COST", 10**9)  # the index is asked, not the rows
    rows = clustered(2000, DIM, seed=3)
    segment = opened(np.arange(2000), rows)
    query = Vector("s1", rows[0])
    farthest = np.sort(np.argsort(rows @ rows[0])[:5])
    hits = search([segment], query, 5, indexes=[indexed(segment)], allowed=farthest)
    assert as_pairs(hits) == as_pairs(search([segment], query, 5, allowed=farthest))
    assert len(hits.ids) == 5


def test_the_dead_of_one_covered_segment_live_in_another(opened, clustered, indexed):
    rows = clustered(40, DIM)
    old, new = opened(np.arange(20), rows[:20], day="a"), opened(np.arange(20), rows[20:], day="b")
    dead = {old.digest: np.arange(10), new.digest: np.arange(10, 20)}
    index = indexed(old, new, dead=dead)
    for row in range(40):
        query = Vector("s1", rows[row])
        expected = as_pairs(search([old, new], query, 20, dead=dead))
        assert as_pairs(search([old, new], query, 20, dead=dead, indexes=[index], nprobe=NLIST)) == expected


def test_an_index_that_lacks_somebody_who_lives_is_not_asked(opened, clustered, indexed):
    rows = clustered(40, DIM)
    segment = opened(np.arange(40), rows)
    poor = indexed(segment, dead={segment.digest: np.array([7])})
    assert search([segment], Vector("s1", rows[7]), 1, indexes=[poor]).ids.tolist() == [7]


def test_of_two_indexes_over_a_segment_only_one_answers(opened, clustered, indexed):
    rows = clustered(60, DIM)
    one, two = opened(np.arange(30), rows[:30], day="a"), opened(np.arange(30, 60), rows[30:], day="b")
    both, alone = indexed(one, two), indexed(one)
    for indexes in ([both, alone], [alone, both], [both, both]):
        hits = search([one, two], Vector("s1", rows[0]), 60, indexes=indexes)
        assert sorted(hits.ids) == list(range(60))


def test_a_dropped_day_of_an_index_is_not_answered_from(opened, clustered, indexed):
    rows = clustered(300, DIM, seed=3)
    days = [opened(np.arange(day, 300, 3), rows[day::3], day=str(day)) for day in range(3)]
    index = indexed(*days)
    query = Vector("s1", rows[0])
    hits = search(days[1:], query, 200, indexes=[index])
    assert as_pairs(hits) == as_pairs(search(days[1:], query, 200))
    assert not any(one % 3 == 0 for one in hits.ids)


def test_rows_of_a_dropped_day_take_no_candidate_from_the_others(opened, clustered, indexed):
    near = np.repeat(clustered(1, DIM), 200, axis=0)
    far = clustered(20, DIM, seed=1)
    days = [opened(np.arange(200), near, day="a"), opened(np.arange(200, 220), far, day="b")]
    query = Vector("s1", near[0])
    hits = search(days[1:], query, 5, indexes=[indexed(*days)], nprobe=NLIST)
    assert as_pairs(hits) == as_pairs(search(days[1:], query, 5))


def test_allowed_ids_below_zero_are_nobodys(opened, clustered, indexed, monkeypatch):
    monkeypatch.setattr(covered, "PICKED_COST", 10**9)
    segment = opened(np.arange(8), clustered(8, DIM))
    query = Vector("s1", clustered(8, DIM)[6])
    allowed = np.array([-2, 1, 5])
    assert sorted(search([segment], query, 8, indexes=[indexed(segment)], allowed=allowed).ids) == [1, 5]


def test_a_row_that_is_not_a_number_is_never_found(opened, clustered, indexed):
    rows = clustered(100, DIM)
    rows[3] = np.nan
    segment = opened(np.arange(100), rows)
    assert 3 not in search([segment], Vector("s1", rows[0]), 100, indexes=[indexed(segment)]).ids


def test_segments_without_an_index_are_searched_beside_those_that_have_one(opened, clustered, indexed):
    rows = clustered(100, DIM)
    old, fresh = opened(np.arange(90), rows[:90]), opened(np.arange(90, 100), rows[90:], day="b")
    tail = Segment(Manifest(1, "all", "", "s1", DIM, 1, 9, "", 0), np.array([100]), rows[:1])
    hits = search([old, fresh, tail], Vector("s1", rows[0]), 101, indexes=[indexed(old)], nprobe=NLIST)
    assert sorted(hits.ids) == list(range(101))
    assert hits.ids[:2].tolist() == [0, 100]


def test_many_threads_find_what_one_finds(opened, clustered, indexed):
    rows = clustered(3000, DIM, seed=3)
    segment = opened(np.arange(3000), rows)
    searchable = Searchable([segment], dead={segment.digest: np.arange(0, 3000, 7)}, indexes=[indexed(segment)])
    allowed = np.arange(0, 3000, 2)

    def ask(row):
        query = Vector("s1", rows[row])
        return as_pairs(searchable.search(query, 10)), as_pairs(searchable.search(query, 10, allowed=allowed))

    alone = [ask(row) for row in range(200)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(200))) == alone


def test_an_index_of_another_space_is_refused(blobs, opened, clustered, build):
    rows = clustered(100, DIM)
    quantizer = train_quantizer(blobs, rows, gallery=1, space="held-space", nlist=4, seed=1)
    theirs = opened(np.arange(100), rows, space="held-space")
    index = open_index(blobs, build_index(blobs, quantizer, [theirs]).digest, verify=False)
    with pytest.raises(Conflict) as caught:
        search([opened(np.arange(100), rows)], Vector("s1", rows[0]), 1, indexes=[index])
    assert caught.value.code == "vectors.space-mismatch"
    assert "s1" in caught.value.message
    assert "held-space" in caught.value.message


@pytest.mark.parametrize("allowed", [np.array([2, 1]), np.array([1, 1]), np.array([1, 2], np.int32), np.array([1.0])])
def test_allowed_ids_that_do_not_increase_are_refused(opened, clustered, allowed):
    with pytest.raises(BadInput) as caught:
        search([opened(np.arange(5), clustered(5, DIM))], Vector("s1", clustered(1, DIM)[0]), 1, allowed=allowed)
    assert caught.value.code == "vectors.unordered-ids"


def test_searching_no_list_is_refused(clustered):
    with pytest.raises(BadInput) as caught:
        search([], Vector("s1", clustered(1, DIM)[0]), 1, nprobe=0)
    assert caught.value.code == "vectors.bad-nprobe"


def test_who_searches_exactly_never_loads_faiss():
    code = """
import sys, numpy as np
from relens.values import Vector
from relens.vectors import Manifest, Segment, search
rows = np.eye(4, dtype=np.float32)
segment = Segment(Manifest(1, "all", "d", "s", 4, 4, 1, "", 0), np.arange(4), rows)
assert search([segment], Vector("s", rows[2]), 1, allowed=np.arange(4)).ids.tolist() == [2]
assert "faiss" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
