"""Rules of ranking: what they add."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.narrowing import Hints
from relens.recipes.ranking import Ranking
from relens.recipes.recipe import Rule

RED = {"title": "Red running shoe", "price": 20.0, "shop": "north"}
BLUE = {"title": "Blaue Schuhe", "price": "40", "shop": "south"}


@pytest.mark.parametrize(
    ("rule", "hints", "items", "expected"),
    [
        (Rule("text", {"field": "title", "weight": 0.5}), Hints("RED shoe"), [RED], 0.5),
        (Rule("text", {"field": "title", "weight": 0.5}), Hints("réd boot"), [RED], 0.25),
        (Rule("text", {"field": "title", "weight": 0.5}), Hints(), [RED], 0.0),
        (Rule("text", {"field": "nothing", "weight": 0.5}), Hints("red"), [RED], 0.0),
        (Rule("near", {"field": "price", "within": 0.5, "weight": 0.2}), Hints(columns={"price": "20"}), [RED], 0.2),
        (Rule("near", {"field": "price", "within": 0.5, "weight": 0.2}), Hints(columns={"price": "16"}), [RED], 0.1),
        (Rule("near", {"field": "price", "within": 0.5, "weight": 0.2}), Hints(columns={"price": "1"}), [RED], 0.0),
        (
            Rule("near", {"field": "price", "within": 0.5, "weight": 0.2}),
            Hints(columns={"price": "40"}),
            [RED, BLUE],
            0.2,
        ),
        (Rule("near", {"field": "price", "within": 0.5, "weight": 0.2}), Hints(columns={"price": "cheap"}), [RED], 0.0),
        (Rule("prefer", {"field": "shop", "value": "north", "weight": 0.1}), Hints(), [BLUE, RED], 0.1),
        (Rule("prefer", {"field": "shop", "value": "north", "weight": -0.1}), Hints(), [RED], -0.1),
        (Rule("prefer", {"field": "shop", "value": "north", "weight": 0.1}), Hints(), [], 0.0),
        (Rule("prefer", {"field": "price", "value": 20, "weight": 0.1}), Hints(), [RED], 0.1),
        (Rule("prefer", {"field": "price", "value": "40", "weight": 0.1}), Hints(), [BLUE], 0.1),
        (Rule("prefer", {"field": "new", "value": True, "weight": 0.1}), Hints(), [{"new": True}], 0.1),
        (Rule("prefer", {"field": "new", "value": True, "weight": 0.1}), Hints(), [{"new": "true"}], 0.1),
        (Rule("prefer", {"field": "new", "value": True, "weight": 0.1}), Hints(), [{"new": 1}], 0.0),
    ],
)
def test_a_rule_adds_its_weight_times_how_well_the_best_item_fits(rule, hints, items, expected):
    assert Ranking([rule]).boost(items, hints) == pytest.approx(expected)


def test_rules_add_up_and_none_change_nothing():
    rules = [
        Rule("prefer", {"field": "shop", "value": "north", "weight": 0.1}),
        Rule("text", {"field": "title", "weight": 0.2}),
    ]
    assert Ranking(rules).boost([RED], Hints("shoe")) == pytest.approx(0.3)
    assert not Ranking([])
    assert Ranking([]).boost([RED], Hints("shoe")) == 0


HOSTILE = st.sampled_from(["nan", "inf", "-inf", "1e400", "", "\0", "-0", 10**400, 0, -5, True, None, [1], {"a": 1}])


@given(wanted=HOSTILE.map(str), given_=HOSTILE, within=st.floats(0, 100), text=st.text())
def test_whatever_stands_in_an_item_a_rule_adds_no_more_than_its_weight(wanted, given_, within, text):
    rules = [
        Rule("near", {"field": "price", "within": within, "weight": 1.0}),
        Rule("text", {"field": "price", "weight": 1.0}),
        Rule("prefer", {"field": "price", "value": text, "weight": 1.0}),
    ]
    for rule in rules:
        assert 0 <= Ranking([rule]).boost([{"price": given_}], Hints(text, {"price": wanted})) <= 1
