"""Joined indexes are what building in one go makes, and what cannot be joined without harm is refused."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens.errors import BadInput, Conflict
from relens.values import Vector
from relens.vectors import (
    build_index,
    build_segment,
    merge_indexes,
    open_index,
    open_segment,
    search,
    train_quantizer,
)

DIM = 12
ABOUT = {"gallery": 1, "category": "all", "day": "0", "space": "s1", "as_of": 7, "dim": DIM}


@pytest.fixture
def days(opened, clustered):
    """Three days of 100 rows each, with ids one after the other."""
    rows = clustered(300, DIM, seed=5)
    return [
        opened(np.arange(day * 100, day * 100 + 100), rows[day * 100 : day * 100 + 100], day=str(day))
        for day in range(3)
    ]


@st.composite
def histories(draw):
    """How rows are cut into days, who died before parts were built and since, how many parts are joined at a time."""
    return {
        "seed": draw(st.integers(0, 2**20)),
        "cuts": [0, *sorted(draw(st.lists(st.integers(0, 240), max_size=4))), 240],
        "mixed": draw(st.booleans()),
        "dead_before": draw(st.sampled_from([0, 0.3])),
        "dead_now": draw(st.sampled_from([0, 0.3, 1])),
        "at_a_time": draw(st.integers(2, 5)),
    }


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(history=histories())
def test_joining_parts_makes_what_building_in_one_go_makes(blobs, clustered, quantizer, history):
    rng = np.random.default_rng(history["seed"])
    rows, ids = clustered(240, DIM, seed=history["seed"]), np.sort(rng.choice(900, 240, replace=False))
    order = rng.permutation(240) if history["mixed"] else np.arange(240)
    segments = []
    for day, (start, stop) in enumerate(pairwise(history["cuts"])):
        mine = np.sort(order[start:stop])
        built = build_segment(blobs, **ABOUT | {"day": f"{day}"}, parts=[(ids[mine], rows[mine])], count=len(mine))
        segments.append(open_segment(blobs, built.digest, verify=False))
    before = {one.digest: one.ids[rng.random(len(one.ids)) < history["dead_before"]] for one in segments}
    since = {one.digest: one.ids[rng.random(len(one.ids)) < history["dead_now"]] for one in segments}
    dead = {digest: np.append(gone, since[digest]) for digest, gone in before.items()}
    held = [([one], build_index(blobs, quantizer, [one], dead=before)) for one in segments]
    while len(held) > 1:  # some at a time, and what was joined is joined again
        now, held = held[: history["at_a_time"]], held[history["at_a_time"] :]
        covered = [segment for of, _ in now for segment in of]
        indexes = [open_index(blobs, manifest.digest, verify=False) for _, manifest in now]
        held.append((covered, merge_indexes(blobs, indexes, covered, dead=before)))
    index = open_index(blobs, held[0][1].digest, verify=True)
    joined = merge_indexes(blobs, [index], segments, dead=dead)
    assert joined == build_index(blobs, quantizer, segments, dead=dead)
    kept = open_index(blobs, joined.digest, verify=True).lists.ids()
    assert len(np.unique(kept)) == len(kept) == joined.count


def test_the_joined_index_finds_what_the_one_built_in_one_go_finds(blobs, days, quantizer, indexed, clustered):
    parts = [indexed(day) for day in days]
    joined = open_index(blobs, merge_indexes(blobs, parts, days).digest, verify=True)
    whole = indexed(*days)
    assert joined.manifest.recall >= 0.95
    for row in clustered(30, DIM, seed=8):
        query = Vector("s1", row)
        for nprobe in (None, 1, 16):
            one, other = (search(days, query, 10, indexes=[index], nprobe=nprobe) for index in (joined, whole))
            assert one.ids.tolist() == other.ids.tolist()
            assert one.scores.tolist() == other.scores.tolist()


def test_a_window_moves_by_joining_the_new_day_and_dropping_the_old(blobs, days, quantizer, indexed):
    window = open_index(blobs, merge_indexes(blobs, [indexed(day) for day in days[:2]], days[:2]).digest, verify=True)
    moved = merge_indexes(blobs, [window, indexed(days[2])], days[1:])
    assert moved == build_index(blobs, quantizer, days[1:])
    assert moved.covers == tuple(sorted(day.digest for day in days[1:]))


def test_recall_can_be_taken_over_from_the_parts(blobs, days, indexed):
    parts = [indexed(day) for day in days]
    joined = merge_indexes(blobs, parts, days, remeasure=False)
    assert joined.data == merge_indexes(blobs, parts, days).data
    assert joined.nprobe == max(part.manifest.nprobe for part in parts)
    assert joined.recall == min(part.manifest.recall for part in parts)


def test_an_index_that_covers_nothing_of_the_result_gives_nothing(blobs, days, quantizer, indexed):
    parts = [indexed(day) for day in days]
    assert merge_indexes(blobs, parts, days[:2]) == build_index(blobs, quantizer, days[:2])


@pytest.mark.parametrize("changed", [{"seed": 2}, {"space": "s2"}, {"gallery": 2}, {"nlist": 8}])
def test_indexes_of_two_quantizers_are_refused_and_both_are_named(blobs, days, indexed, clustered, changed):
    said = {"gallery": 1, "space": "s1", "nlist": 16, "seed": 1} | changed
    other = train_quantizer(blobs, clustered(800, DIM, seed=99), **said)
    rows = [(np.arange(1000, 1100), clustered(100, DIM))]
    segment = build_segment(blobs, **ABOUT | {"space": said["space"]}, parts=rows, count=100)
    theirs = build_index(blobs, other, [open_segment(blobs, segment.digest, verify=False)])
    ours, theirs = indexed(days[0]), open_index(blobs, theirs.digest, verify=True)
    before = set(blobs.digests())
    with pytest.raises(Conflict) as caught:
        merge_indexes(blobs, [ours, theirs], days[:2])
    assert caught.value.code == "vectors.other-quantizer"
    for named in (ours.manifest.quantizer, other.digest, "s1", said["space"]):
        assert named in caught.value.message
    assert set(blobs.digests()) == before


def test_segments_of_another_space_than_the_indexes_are_refused(blobs, days, indexed, opened, clustered):
    theirs = opened(np.arange(5), clustered(5, DIM), space="s2")
    with pytest.raises(Conflict) as caught:
        merge_indexes(blobs, [indexed(days[0])], [theirs])
    assert caught.value.code == "vectors.space-mismatch"


def test_a_segment_that_no_index_covers_or_that_two_cover_is_refused(blobs, days, indexed):
    for indexes, code in (
        ([indexed(days[0])], "vectors.not-covered"),
        ([indexed(*days[:2]), indexed(days[1])], "vectors.covered-twice"),
    ):
        with pytest.raises(Conflict) as caught:
            merge_indexes(blobs, indexes, days[:2])
        assert caught.value.code == code


def test_an_index_that_lacks_somebody_who_lives_is_refused(blobs, days, indexed):
    poor = indexed(days[0], dead={days[0].digest: np.array([7])})
    with pytest.raises(Conflict) as caught:
        merge_indexes(blobs, [poor, indexed(days[1])], days[:2])
    assert caught.value.code == "vectors.incomplete-index"
    assert "99 of the 100" in caught.value.message
    assert merge_indexes(blobs, [poor], days[:1], dead={days[0].digest: np.array([7, 8])}).count == 98


def test_an_id_that_lives_in_two_parts_is_refused(blobs, opened, clustered, indexed):
    rows = clustered(8, DIM)
    one, two = opened(np.arange(4), rows[:4], day="a"), opened(np.arange(3, 7), rows[4:], day="b")
    with pytest.raises(BadInput) as caught:
        merge_indexes(blobs, [indexed(one), indexed(two)], [one, two])
    assert caught.value.code == "vectors.repeated-id"
    assert merge_indexes(blobs, [indexed(one), indexed(two)], [one, two], dead={one.digest: np.array([3])}).count == 7


def test_nothing_to_join_is_refused(blobs, days):
    with pytest.raises(BadInput) as caught:
        merge_indexes(blobs, [], days)
    assert caught.value.code == "vectors.no-indexes"
