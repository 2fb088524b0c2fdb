"""Splits: by weight within what chance allows, the same key always to the same name, and few move when weights do."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from relens.errors import BadInput
from relens.serving.splits import Split, pick

KEYS = [f"caller {number}" for number in range(4000)]


def shares(weights, keys=KEYS):
    source = random.Random(7)
    counts = Counter(pick(weights, key, source) for key in keys)
    return {name: counts[name] / len(keys) for name in weights}


@pytest.mark.parametrize("keys", [KEYS, [None] * len(KEYS)], ids=["by key", "by chance"])
@pytest.mark.parametrize(
    "weights",
    [{"stable": 90, "canary": 10}, {"stable": 1, "canary": 1}, {"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 1, "b": 0}],
    ids=str,
)
def test_each_name_gets_its_weight(weights, keys):
    total = sum(weights.values())
    for name, share in shares(weights, keys).items():
        wanted = weights[name] / total
        deviation = math.sqrt(wanted * (1 - wanted) / len(keys))
        assert abs(share - wanted) <= 4 * deviation


def test_a_key_is_given_the_same_name_whatever_chance_says():
    weights = {"stable": 3, "canary": 1}
    first = [pick(weights, key, random.Random(1)) for key in KEYS]
    assert first == [pick(dict(reversed(weights.items())), key, random.Random(2)) for key in KEYS]


def test_when_weights_change_no_key_moves_that_need_not():
    before, after = {"a": 90, "b": 10, "c": 50}, {"a": 90, "b": 30, "c": 50}
    source = random.Random(1)
    moves = Counter((pick(before, key, source), pick(after, key, source)) for key in KEYS)
    moved = {pair: count for pair, count in moves.items() if pair[0] != pair[1]}
    assert {pair[1] for pair in moved} == {"b"}
    wanted = 30 / 170 - 10 / 150
    assert abs(sum(moved.values()) / len(KEYS) - wanted) <= 4 * math.sqrt(wanted / len(KEYS))


def test_when_a_name_goes_only_its_keys_move():
    source = random.Random(1)
    for key in KEYS:
        before = pick({"a": 2, "b": 1, "c": 1}, key, source)
        assert pick({"a": 2, "b": 1}, key, source) == before or before == "c"


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": 1, "b": -1}, {"a": math.nan}, {"a": math.inf}], ids=str)
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(BadInput, match="weights are"):
        Split(weights)


def test_the_stable_version_is_the_first_and_no_shadow():
    assert Split({"stable": 1, "canary": 9}).stable == "stable"
    with pytest.raises(BadInput, match="stable is the stable version"):
        Split({"stable": 1, "canary": 9}, shadow="stable")
