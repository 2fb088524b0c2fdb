"""Searches that are narrowed and ranked: what meets the conditions, in the order of all or of the recipe."""

from __future__ import annotations

import csv

import pytest
import sqlalchemy as sa

from relens.errors import BadInput
from relens.narrowing import read_hints, read_where
from relens.store.schema import items
from relens.testing.homes import fill
from relens.testing.pictures import draw

SHOPS = ("north", "south", "west")
COUNT = 40


@pytest.fixture
def shop(home, folder):
    """A gallery of 40 pictures: shop, price and size of each by its number; two days."""
    fill(folder, {f"{number}.jpg": number for number in range(COUNT)})
    listing = folder / "listing.csv"
    with listing.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "id", "title", "price", "shop", "size", "day"])
        for number in range(COUNT):
            day = f"2026-01-0{1 + number % 2}"
            title = "red shoe" if number % 5 == 0 else "blue boot"
            rows.writerow([f"{number}.jpg", f"item {number}", title, number, SHOPS[number % 3], "SML"[number % 3], day])
    home.run(listing)
    return home


def numbers(answer):
    return [int(match.items[0]["id"].split()[1]) for match in answer.objects[0].matches]


@pytest.mark.parametrize(
    ("narrowed", "meets"),
    [
        ({"items": ["shop=north"]}, lambda n: n % 3 == 0),
        ({"items": ["price=10..19"]}, lambda n: 10 <= n <= 19),
        ({"items": ["shop=north|west", "price=..20"]}, lambda n: n % 3 != 1 and n <= 20),
        ({"items": ["id=item 7"]}, lambda n: n == 7),
        ({"items": ["size=M"], "days": "2026-01-02"}, lambda n: n % 3 == 1 and n % 2 == 1),
        ({"days": "..2026-01-01"}, lambda n: n % 2 == 0),
        ({"items": ["shop=nowhere"]}, lambda _: False),
    ],
)
def test_it_is_the_order_of_the_whole_search_without_what_does_not_meet(shop, narrowed, meets):
    local = shop.local()
    whole = numbers(local.search(draw(5), gallery="album", k=1000))
    assert sorted(whole) == list(range(COUNT))
    for k in (1, 4, 1000):
        answer = local.search(draw(5), gallery="album", k=k, where=read_where(**narrowed))
        assert numbers(answer) == [number for number in whole if meets(number)][:k]


def test_a_label_narrows_to_what_looks_like_that(shop):
    local = shop.local()
    whole = local.search(draw(5), gallery="album", k=1000).objects[0].matches
    name = whole[3].labels[0].name
    answer = local.search(draw(5), gallery="album", k=1000, where=read_where(label=name.upper()))
    assert [match.id for match in answer.objects[0].matches] == [m.id for m in whole if m.labels[0].name == name]


def test_what_is_off_the_shelf_is_no_answer_unless_it_is_asked_for(shop):
    local = shop.local()
    whole = numbers(local.search(draw(5), gallery="album", k=1000))
    with local.parts.catalog.begin() as tx:
        gone = [f"item {number}" for number in whole[:6]]
        tx.execute(sa.update(items).where(items.c.key.in_(gone)).values(off_shelf=True))
    assert numbers(local.search(draw(5), gallery="album", k=5)) == whole[6:11]
    everything = local.search(draw(5), gallery="album", k=5, where=read_where(off_shelf=True))
    assert numbers(everything) == whole[:5]
    assert everything.objects[0].matches[0].items[0]["off_shelf"] is True


def test_a_gallery_has_a_threshold_of_its_own_from_the_next_answer_on(shop):
    local = shop.local()

    def matched(**asked):
        return local.search(draw(999), gallery="album", k=2, **asked).objects[0].matched

    assert matched() is None
    assert local.set_threshold("album", 0.9999)["thresholds"] == {"all": 0.9999}
    assert matched() is False
    assert matched(threshold=-0.5) is True
    assert local.set_threshold("album", -1.0, category="all")["thresholds"] == {"all": -1.0}
    assert matched() is True
    assert local.set_threshold("album", None)["thresholds"] == {}
    assert matched() is None
    for wrong in ({"threshold": 2.0}, {"threshold": 0.5, "category": "cars"}):
        with pytest.raises(BadInput):
            local.set_threshold("album", **wrong)


@pytest.mark.parametrize(("threshold", "matched"), [(None, None), (-0.5, True), (0.9999, False)])
def test_under_the_threshold_nothing_matches_and_it_is_shown_all_the_same(shop, threshold, matched):
    answer = shop.local().search(draw(999), gallery="album", k=2, threshold=threshold)
    assert answer.objects[0].matched is matched
    assert len(answer.objects[0].matches) == 2
    assert ("matched" in answer.to_json()["objects"][0]) == (matched is not None)


def test_the_recipe_ranks_by_what_is_known_of_the_items(new_home, folder):
    home = new_home()
    home.recipe.write_text(
        home.recipe.read_text()
        + "search:\n  threshold: 0.5\n  rerank:\n"
        + "    - near: {field: price, within: 0.5, weight: 1}\n"
        + "    - text: {field: title, weight: 0.5}\n"
    )
    fill(folder, {f"{number}.jpg": number for number in range(6)})
    listing = folder / "listing.csv"
    rows = [f"{number}.jpg,item {number},{10 * number},{'red shoe' if number == 2 else 'boot'}" for number in range(6)]
    listing.write_text("\n".join(["uri,id,price,title", *rows]) + "\n")
    home.run(listing)
    local = home.local()
    plain = local.search(draw(0), gallery="album", k=6)
    assert numbers(plain)[0] == 0
    assert plain.objects[0].matched is True
    priced = local.search(draw(0), gallery="album", k=6, hints=read_hints(["price=40"]))
    assert numbers(priced)[0] == 4
    best = priced.objects[0].matches[0]
    assert best.rank == pytest.approx(best.score + 1)
    told = local.search(draw(0), gallery="album", k=1, hints=read_hints(["price=30", "text=red shoe"]))
    assert {numbers(told)[0]} <= {2, 3}
