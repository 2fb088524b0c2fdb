"""Each check fails for what it is there for, and for nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from relens.vectors import Segment, check_vectors, checks


def failed(segment, *, sample=1000):
    return {check.name: check.detail for check in check_vectors(segment, sample=sample, seed=1) if not check.ok}


def test_a_good_segment_passes_every_check(opened, unit_rows):
    verdicts = check_vectors(opened(np.arange(50), unit_rows(50, 12)), sample=20, seed=1)
    assert [check.name for check in verdicts] == ["counts", "finite", "non-zero", "unit-length", "self-match"]
    assert all(check.ok for check in verdicts)
    assert all(check.detail.startswith("all 2025-06-01: ") for check in verdicts)


def test_an_empty_segment_passes(opened):
    assert not failed(opened(np.empty(0, np.int64), np.empty((0, 4), np.float32)))


def test_equal_and_nearly_equal_vectors_pass(opened, unit_rows):
    vectors = np.repeat(unit_rows(5, 12), 8, axis=0)
    vectors[::3] += 3e-5  # what one step of float16 is at such values
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert not failed(opened(np.arange(40), vectors))


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (np.nan, {"finite", "unit-length", "self-match"}),
        (np.inf, {"finite", "unit-length", "self-match"}),
        (0, {"non-zero", "unit-length", "self-match"}),
        (1, {"unit-length", "self-match"}),
    ],
)
def test_a_bad_row_is_found_wherever_it_is_and_named_by_id(opened, unit_rows, monkeypatch, value, names):
    monkeypatch.setattr(checks, "CHUNK_ROWS", 8)
    vectors = unit_rows(50, 12)
    vectors[37] = value
    found = failed(opened(np.arange(50) * 10, vectors))
    assert names <= set(found)
    assert all("id 370" in found[name] for name in names & {"finite", "non-zero", "unit-length"})


def test_one_value_that_is_not_finite_is_enough(opened, unit_rows):
    vectors = unit_rows(50, 12)
    vectors[7, 3] = -np.inf
    assert "finite" in failed(opened(np.arange(50), vectors), sample=0)


def test_counts_that_differ_from_the_manifest_are_found(opened, unit_rows):
    segment = opened(np.arange(5), unit_rows(5, 4))
    assert "counts" in failed(Segment(replace(segment.manifest, count=6), segment.ids, segment.vectors))
    assert "counts" in failed(Segment(segment.manifest, segment.ids[::-1], segment.vectors), sample=0)


def test_a_search_that_finds_another_row_is_noticed(opened, unit_rows, monkeypatch):
    segment = opened(np.arange(50), unit_rows(50, 12))
    right = checks.search
    monkeypatch.setattr(
        checks, "search", lambda segments, query, k: replace(right(segments, query, k), ids=np.array([49]))
    )
    assert set(failed(segment)) == {"self-match"}


def test_the_sample_follows_from_the_seed(opened, unit_rows, monkeypatch):
    segment = opened(np.arange(50), unit_rows(50, 12))
    asked = []
    right = checks.search
    monkeypatch.setattr(checks, "search", lambda s, query, k: asked.append(query.values[0]) or right(s, query, k))
    for seed in (1, 1, 2):
        check_vectors(segment, sample=5, seed=seed)
    assert asked[:5] == asked[5:10]
    assert asked[:5] != asked[10:]
