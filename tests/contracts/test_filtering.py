"""Conditions on objects mean the same on every catalog, and what a reader of the listing would say they mean."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from relens.errors import BadInput
from relens.gallery import stage
from relens.gallery.filtering import matching
from relens.gallery.galleries import lock
from relens.narrowing import Condition, Where, read_condition, read_hints, read_where
from relens.store.schema import items as item_rows
from relens.store.schema import labels as label_rows
from relens.store.schema import objects
from relens.testing.rows import a_gallery, a_picture, a_plan

ITEMS = {
    "red": {"title": "Red shoe", "price": 19.5, "shop": "north", "data": {"size": "42", "colour": "rosé", "n": 7}},
    "blue": {"title": "Blue shoe", "price": 80.0, "shop": "south", "data": {"size": 43.5, "n": "seven"}},
    "plain": {"title": None, "price": None, "shop": None, "data": {"size": None, "deep": {"a": 1}, "n": True}},
    "off": {"title": "Old shoe", "price": 5.0, "shop": "north", "off_shelf": True, "data": {"size": "1e3"}},
}


def fill(tx):
    """A gallery with one object for each item, one that two items show, and one that none shows: key to object id."""
    gallery = a_gallery(tx)
    plan = a_plan(tx, gallery)
    lock(tx, gallery.id)
    names = [*ITEMS, "both", "bare"]
    ids = stage(tx, gallery.id, plan, [a_picture(name) for name in names], space="s", model="m")
    shown = [(key, key) for key in ITEMS] + [("both-on", "both"), ("both-off", "both")]
    for key, name in shown:
        told = {"off_shelf": False, "title": None, "price": 1.0, "shop": "west", "data": {}} | ITEMS.get(key, {})
        picture = next(i for sha, i in ids.items() if i == list(ids.values())[names.index(name)])
        row = told | {"off_shelf": told["off_shelf"] or key == "both-off"}
        tx.execute(
            sa.insert(item_rows).values(
                gallery=gallery.id,
                key=key,
                picture=picture,
                uri=f"file:///{key}",
                day="2026-01-01",
                updated_at=0.0,
                **row,
            )
        )
    rows = tx.execute(sa.select(objects.c.id, objects.c.picture))
    by_picture = {row.picture: row.id for row in rows}
    return gallery.id, {name: by_picture[picture] for name, picture in zip(names, ids.values(), strict=True)}


def names_of(catalog, where, among=None):
    with catalog.begin() as tx:
        gallery, ids = fill(tx)
        chosen = None if among is None else [ids[name] for name in among]
        found = matching(tx, gallery, where, chosen)
        tx.rollback()
    return sorted(name for name, one in ids.items() if one in found)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), ["bare", "blue", "both", "plain", "red"]),
        (Where(off_shelf=True), ["bare", "blue", "both", "off", "plain", "red"]),
        (read_where(items=["shop=north"]), ["red"]),
        (read_where(items=["shop=north"], off_shelf=True), ["off", "red"]),
        (read_where(items=["shop=north|south"]), ["blue", "red"]),
        (read_where(items=["price=..20"]), ["both", "red"]),
        (read_where(items=["price=20..100"]), ["blue"]),
        (read_where(items=["price=80"]), ["blue"]),
        (read_where(items=["price=cheap"]), []),
        (read_where(items=["size=42"]), ["red"]),
        (read_where(items=["size=43.5"]), ["blue"]),
        (read_where(items=["size=40..50"]), ["blue", "red"]),
        (read_where(items=["size=500..5000"], off_shelf=True), ["off"]),
        (read_where(items=["colour=rosé"]), ["red"]),
        (read_where(items=["n=7"]), ["red"]),
        (read_where(items=["n=6..8"]), ["red"]),
        (read_where(items=["n=true"]), ["plain"]),
        (read_where(items=["n=1"]), []),
        (read_where(items=["nothing=7"]), []),
        (read_where(items=["title=Red shoe", "shop=north", "price=10..20"]), ["red"]),
        (read_where(items=["title=Red shoe", "shop=south"]), []),
        (read_where(items=["id=red"]), ["red"]),
        (read_where(label="RED 0"), ["red"]),
        (read_where(label="nobody"), []),
    ],
)
def test_a_condition_means_what_it_says(catalog, where, expected):
    assert names_of(catalog, where) == expected


SQL = (
    "' OR 1=1 --",
    '"; DROP TABLE objects; --',
    "%",
    "_",
    "\\",
    "north' OR '1'='1",
    "$.size",
    "\U0001f45f",
    "x" * 5000,
)


@pytest.mark.parametrize("column", ["id", "shop", "price", "size", *SQL])
def test_what_looks_like_sql_is_a_value_like_any_other(catalog, column):
    for value in SQL:
        assert names_of(catalog, Where(items=(Condition(column, choices=(value,)),))) == []
        assert names_of(catalog, Where(label=value)) == []


@pytest.mark.parametrize("name", ["É 0", "é 0", "İ", "ß", "'; --", "ǅ"])
def test_a_name_is_found_as_it_is_written(catalog, name):
    with catalog.begin() as tx:
        gallery, ids = fill(tx)
        named = sa.update(label_rows).where(label_rows.c.object == ids["red"])
        tx.execute(named.values(labels=[{"name": name, "index": 0, "score": 1.0}]))
        found = matching(tx, gallery, Where(label=name))
        tx.rollback()
    assert found == {ids["red"]}


@pytest.mark.parametrize(
    "value", ["0." + "0" * 400 + "1", "1" * 300, "1e-99", "-.5e99", "9" * 200 + "e99", "NaN", "1_0"]
)
def test_a_range_is_asked_of_columns_that_hold_anything(catalog, value):
    with catalog.begin() as tx:
        gallery, ids = fill(tx)
        tx.execute(sa.update(item_rows).where(item_rows.c.key == "red").values(data={"size": value}))
        found = matching(tx, gallery, Where(items=(Condition("size", least=-1e300, most=1e300),)))
        tx.rollback()
    assert found >= {ids["blue"]}


@pytest.mark.parametrize("word", ["a\0b", "\udcff"])
def test_what_no_catalog_can_hold_is_refused(word):
    for make in (
        lambda: Condition(word, choices=("x",)),
        lambda: Condition("x", choices=("y", word)),
        lambda: Where(label=word),
        lambda: Where(category=word),
    ):
        with pytest.raises(BadInput) as caught:
            make()
        assert caught.value.code == "narrowing.bad-condition"


def test_only_what_is_asked_about_is_looked_at(catalog):
    assert names_of(catalog, Where(), among=["red", "off", "bare"]) == ["bare", "red"]
    assert names_of(catalog, Where(), among=[]) == []


def test_a_column_may_have_any_name(catalog):
    for column in ("a'b", 'a"b', "a.b", "$", "[0]", "%", "é", " "):
        assert names_of(catalog, Where(items=(Condition(column, choices=("x",)),))) == []
        assert names_of(catalog, Where(items=(Condition(column, least=1.0),))) == []


@pytest.mark.parametrize("written", ["", "shop", "=north", "shop=", "price=9..1"])
def test_what_is_no_condition_is_refused(written):
    with pytest.raises(BadInput) as caught:
        read_condition(written)
    assert caught.value.code == "narrowing.bad-condition"


@pytest.mark.parametrize("days", ["january", "2026-02-01..2026-01-01", "2026-1-1..", "\u0662\u0660\u0662\u0666-01-01"])
def test_what_are_no_days_is_refused(days):
    with pytest.raises(BadInput):
        read_where(days=days)


def test_days_are_a_range_with_open_ends():
    where = read_where(days="2026-01-02..2026-01-03")
    assert [day for day in ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04") if where.takes_day(day)] == [
        "2026-01-02",
        "2026-01-03",
    ]
    assert read_where(days="2026-01-02..").takes_day("9999-01-01")
    assert read_where(days="2026-01-02").days == ("2026-01-02", "2026-01-02")


WORDS = (
    st.text(st.characters(exclude_characters="=|\0", exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)
)
ENDS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=50)
@given(column=WORDS, choices=st.lists(WORDS, min_size=1, max_size=3), ends=st.tuples(ENDS, ENDS).map(sorted))
def test_where_survives_its_json(column, choices, ends):
    conditions = (
        Condition(column, tuple(choices)),
        Condition(column, least=ends[0], most=ends[1]),
        Condition(column, least=1),
    )
    for label, days, off in itertools.product((None, column), ((None, None), ("2026-01-01", None)), (True, False)):
        where = Where(label=label, days=days, items=conditions, off_shelf=off)
        assert Where.from_json(where.to_json()) == where


def test_hints_are_words_and_columns():
    hints = read_hints(["text=red shoe", "price=20"])
    assert (hints.text, dict(hints.columns)) == ("red shoe", {"price": "20"})
    for wrong in (["red shoe"], ["=red"], ["price=1", "price=2"]):
        with pytest.raises(BadInput):
            read_hints(wrong)
