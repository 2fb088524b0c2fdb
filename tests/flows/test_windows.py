"""Windows over days, and indexes over what is large: the same answers, from fewer days or with less work."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from relens import releases
from relens.errors import BadInput
from relens.testing.homes import books, fill
from relens.testing.pictures import draw

DAYS = ("2026-01-01", "2026-01-02", "2026-01-05")
EACH = 30


@pytest.fixture
def week(new_home, folder):
    """A home that indexes from 60 rows on, and a way to import a day of 30 pictures."""
    home = new_home()
    settings = home.path / "relens.yaml"
    settings.write_text(settings.read_text() + "search: {exact_rows: 60}\n")

    def bring(number, count=EACH):
        names = [f"{number}-{one}.jpg" for one in range(count)]
        fill(folder, {name: 1000 * number + one for one, name in enumerate(names)})
        listing = folder / f"day-{number}.csv"
        with listing.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["uri", "id", "day"])
            rows.writerows([name, name, DAYS[number]] for name in names)
        return home.run(listing)

    home.bring = bring
    return home


def window(home, **options):
    local = home.local()
    plan = local.start_window("album", **options).plan
    local.work(plan)
    return local.plan(plan)


def found(home, seed=5, k=1000, **options):
    answer = home.local().search(draw(seed), gallery="album", k=k, **options)
    return [(match.id, match.score) for match in answer.objects[0].matches]


def days_of(home):
    answer = home.local().search(draw(5), gallery="album", k=1000)
    return sorted({item["day"] for match in answer.objects[0].matches for item in match.items})


def test_a_window_shows_the_newest_days_and_moves_with_them(week):
    for number in range(2):
        week.bring(number)
    window(week, days=1)
    assert days_of(week) == [DAYS[1]]
    week.bring(2)
    assert days_of(week) == [DAYS[2]]
    window(week, days=4)
    assert days_of(week) == [DAYS[1], DAYS[2]]
    window(week, days=None)
    assert days_of(week) == list(DAYS)
    assert len(found(week)) == 3 * EACH


def test_what_is_large_is_indexed_and_answers_as_before(week):
    for number in range(3):
        week.bring(number)
    before = [found(week, seed, k=10) for seed in range(20)]
    plan = window(week)
    assert plan["state"] == "done"
    assert books(plan) == {"index": (3, 3, {}, 0, 3)}
    [check] = plan["checks"]
    assert (check["name"], check["ok"]) == ("recall", True)
    after = [found(week, seed, k=10) for seed in range(20)]
    shared = [len(set(one) & set(other)) for one, other in zip(before, after, strict=True)]
    assert np.mean(shared) >= 9.5
    for one, other in zip(before, after, strict=True):  # scores are exact, whatever was found
        assert {hit for hit in other if hit[0] in dict(one)} <= set(one)
    assert [ids[0] for ids in before] == [ids[0] for ids in after]


def test_days_that_come_later_are_searched_beside_the_index_and_joined_to_it(week):
    for number in range(2):
        week.bring(number)
    first = window(week)
    assert books(first)["index"][1] == 2
    week.bring(2)
    assert found(week, 2005, k=1)[0][1] > 0.9999
    quantizer, parts = indexes_of(week)
    assert parts == [1, 1, 2]
    window(week)
    assert indexes_of(week) == (quantizer, [1, 1, 1, 2, 3])


def indexes_of(home):
    """The quantizer of the album, and how many segments each of its indexes covers."""
    with home.local().parts.catalog.read() as tx:
        release = releases.resolve(tx, "album")
        space = releases.get_lens(tx, release.lens).space
        quantizer = releases.newest_quantizer(tx, release.view.gallery, space)
        known = releases.known_indexes(tx, release.view.gallery, quantizer)
    return quantizer, sorted(map(len, known.values()))


def test_little_is_searched_exactly(week):
    week.bring(0)
    plan = window(week)
    assert books(plan) == {"index": (1, 0, {"searched-exactly": 1}, 0, 0)}
    assert len(found(week)) == EACH


def test_a_gallery_that_outgrows_exact_search_is_indexed_by_itself_once(week):
    week.bring(0)
    local = week.local()
    assert local.index_large() == []
    week.bring(1)
    [plan] = local.index_large()
    assert local.index_large() == []
    local.work(plan)
    assert local.index_large() == []


def test_centroids_are_learnt_once_and_again_only_when_asked(week):
    for number in range(2):
        week.bring(number)
    window(week)
    first, _ = indexes_of(week)
    window(week, days=3)
    assert indexes_of(week)[0] == first
    again = window(week, retrain=True)
    assert again["state"] == "done"
    assert len(found(week, k=10)) == 10


def test_the_deleted_stay_deleted_under_an_index(week):
    for number in range(2):
        week.bring(number)
    window(week)
    best = found(week, 5, k=5)
    local = week.local()
    local.delete("album", objects=[best[0][0], best[2][0]])
    now = found(week, 5, k=5)
    assert {best[0][0], best[2][0]}.isdisjoint(one for one, _ in now)
    assert now[0] == best[1]
    window(week)
    assert found(week, 5, k=5)[0] == best[1]


@pytest.mark.parametrize("days", [0, -1, 10**9])
def test_what_is_no_window_is_refused(week, days):
    week.bring(0)
    with pytest.raises(BadInput):
        week.local().start_window("album", days=days)
