"""Canaries are judged by shares of failures and by latency beside the stable version, and not by a few requests."""

from __future__ import annotations

import pytest

from relens.serving.canaries import Canary, percentile
from relens.serving.splits import Rollback


def test_more_failures_than_the_limit_of_all_requests_are_too_many():
    canary = Canary(Rollback(errors=0.05, requests=200))
    assert [canary.failed() for _ in range(10)] == [None] * 10
    assert canary.failed() == "11 of 11 requests failed; the limit is 0.05 of 200"


def test_failures_of_long_ago_do_not_count():
    canary = Canary(Rollback(errors=0.1, requests=10))
    for _ in range(50):
        assert canary.failed() is None
        assert [canary.answered(0.1) for _ in range(9)] == [None] * 9
    assert canary.failed() is None
    assert canary.failed() == "2 of 10 requests failed; the limit is 0.1 of 10"


def test_a_limit_of_nothing_bears_no_failure_and_no_limit_any():
    assert Canary(Rollback(errors=0.0)).failed() is not None
    boundless = Canary(Rollback(errors=None))
    assert [boundless.failed() for _ in range(1000)] == [None] * 1000


def slow(canary, count, *, took, stable=0.1):
    """What is said after each of so many answers, with one of the stable version before each."""
    said = []
    for _ in range(count):
        canary.stable_answered(stable)
        said.append(canary.answered(took))
    return said


def test_a_canary_that_takes_too_long_is_told_by_its_latency():
    canary = Canary(Rollback(latency=2.0, requests=100))
    *before, last = slow(canary, 100, took=0.21)
    assert before == [None] * 99
    assert "took up to 210.0 ms, of the stable version's 100 up to 100.0 ms; the limit is 2 times that" in last


def test_a_few_slow_answers_and_slowness_of_both_are_no_fault():
    canary = Canary(Rollback(latency=2.0, requests=100))
    for _ in range(5):
        assert slow(canary, 95, took=0.2) + slow(canary, 5, took=9.0) == [None] * 100
    assert slow(canary, 200, took=5.0, stable=4.0) == [None] * 200


def test_what_was_long_ago_says_nothing_of_now():
    canary = Canary(Rollback(latency=2.0, requests=100))
    assert slow(canary, 100, took=1.0, stable=1.0)[-1] is None
    assert slow(canary, 100, took=1.0, stable=0.1)[-1] is not None


def test_without_answers_to_compare_with_nothing_is_said():
    canary = Canary(Rollback(latency=2.0, requests=50))
    for _ in range(19):
        canary.stable_answered(0.1)
    assert [canary.answered(9.0) for _ in range(50)] == [None] * 50


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (2, 2), (20, 19), (100, 95), (101, 96)])
def test_the_percentile_is_a_value_that_there_is(count, wanted):
    assert percentile([float(value) for value in range(count, 0, -1)]) == wanted
