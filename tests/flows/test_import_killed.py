"""A worker killed at random moments, again and again: in the end all is as if it had never been killed.

What is compared: objects as (picture, box, items, names, crop, vector), the books, the quarantine, what a search finds.
"""

import functools
import itertools
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens.testing.deaths import Killed, deadly
from relens.testing.homes import DummyHome, books, fill, quarantined
from relens.testing.pictures import draw

FILES = {f"{letter}.jpg": seed for seed, letter in enumerate("abcdefghij", 1)}
FILES |= {"copy of a.jpg": 1, "d again.jpg": 4, "broken.jpg": draw(20)[:300], "z/copy of b.jpg": 2}
MOMENTS = 70
"""About as many moments as an import has at which it can be killed here; kills at later ones do not happen."""


def live_until_done(home, folder, moments):
    """Type the same import again after every death. How often it died."""
    deaths = 0
    with deadly(moments):
        while True:
            try:
                home.run(folder)
            except Killed:
                deaths += 1
                home.close()
            else:
                return deaths


def outcome(home):
    """What an import left, without what may differ: ids, and when it was."""
    contents = home.contents()
    plans = home.local().plans()["plans"]
    first = home.local().plan(plans[-1]["id"])
    assert sorted(one["id"] for one in contents) == home.found()
    assert all(plan["state"] == "done" for plan in plans)
    assert all(check["ok"] for check in first["checks"])
    for seed in (1, 7):
        assert home.search(draw(seed), k=1)[0].score > 0.999
    return {
        "objects": [{key: value for key, value in one.items() if key != "id"} for one in contents],
        "books": books(first),
        "quarantine": quarantined(first),
        "counts": home.local().gallery("album")["counts"],
    }


@pytest.fixture
def die(databases, tmp_path):
    """Runs one import in a new home, killed at these moments: its outcome, and how often it died."""
    folder = fill(tmp_path / "pictures", FILES)
    numbers = itertools.count()

    @functools.cache
    def run(*moments):
        home = DummyHome(tmp_path / f"home-{next(numbers)}", databases.ready(), pack_size=5)
        try:
            deaths = live_until_done(home, folder, moments)
            return outcome(home), deaths
        finally:
            home.close()
            shutil.rmtree(home.path)

    return run


def test_an_import_that_nobody_kills_is_the_measure(die):
    expected, deaths = die()
    assert deaths == 0
    assert expected["books"]["read"] == (14, 11, {"already-in-gallery": 3}, 0, 0)
    assert [entry for entry, _, _ in expected["quarantine"]] == ["broken.jpg"]
    assert expected["counts"] == {"pictures": 10, "items": 13, "objects": 10}
    assert die(1)[1] == 1
    assert die(MOMENTS * 10)[1] == 0


RANDOM = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
KILLS = st.lists(st.integers(1, MOMENTS), min_size=1, max_size=3)
"""Not more: the first loss makes careful, and three more with one picture in hand are to put that in quarantine."""


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
@settings(max_examples=30, **RANDOM)
@given(moments=KILLS)
def test_however_it_is_killed_it_ends_as_if_it_had_not_been(die, moments):
    assert die(*moments)[0] == die()[0]


@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
@settings(max_examples=6, **RANDOM)
@given(moments=KILLS)
def test_the_same_on_a_server(die, moments):
    assert die(*moments)[0] == die()[0]
