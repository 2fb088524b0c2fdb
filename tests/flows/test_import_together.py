"""Imports at once: into one gallery, of one folder, about one picture."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from relens import bulk, wiring
from relens.errors import Missing
from relens.testing.homes import books, fill
from relens.testing.moments import once, wait_a_moment, work
from relens.testing.pictures import draw, write_pictures
from relens.values import digest_of

ALL = {f"{letter}.jpg": seed for seed, letter in enumerate("abcdef", 1)}


def test_two_imports_at_once_into_one_gallery_both_count(new_home, tmp_path):
    home = new_home(pack_size=4)
    fill(tmp_path / "one", {"shared.jpg": 0} | {f"{seed}.jpg": seed for seed in range(1, 20)})
    fill(tmp_path / "two", {"also shared.jpg": 0} | {f"{seed}.jpg": seed for seed in range(20, 40)})
    sources = [tmp_path / "one", tmp_path / "two"]
    home.local().parts.catalog  # noqa: B018 - the schema is there before they start
    start = threading.Barrier(2)

    def run(source):
        local = wiring.open_local(home.path)
        plan = local.start_import(source, gallery="album").plan
        start.wait()
        local.work(plan)
        shown = local.plan(plan)
        local.close()
        return shown

    open_gallery(home)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, sources)
    assert [one["state"], two["state"]] == ["done", "done"]
    assert sorted([one["sequence"], two["sequence"]]) == [1, 2]
    assert sum(books(plan)["embed"][1] for plan in (one, two)) == 40
    assert {reason for plan in (one, two) for reason in books(plan)["read"][2]} <= {
        "already-in-gallery",
        "waits-for-plan-1",
        "waits-for-plan-2",
    }
    assert len(home.found()) == 40
    best = home.search(draw(0))[0]
    assert sorted(item["id"] for item in best.items) == ["also shared.jpg", "shared.jpg"]
    assert home.local().gallery("album")["counts"] == {"pictures": 40, "items": 41, "objects": 40}


def test_many_workers_work_one_plan_off_together(new_home, folder):
    home = new_home(pack_size=3)
    write_pictures(folder, 40)
    plan = home.local().start_import(folder, gallery="album").plan

    def run(_):
        local = wiring.open_local(home.path)
        local.work(plan)
        local.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    shown = home.local().plan(plan)
    assert (shown["state"], books(shown)["embed"]) == ("done", (40, 40, {}, 0, 40))
    assert len(home.found()) == 40


def test_the_same_import_typed_twice_at_once_is_one_plan(home, folder):
    fill(folder, ALL)
    open_gallery(home)
    start = threading.Barrier(4)

    def run(_):
        local = wiring.open_local(home.path)
        start.wait()
        plan = local.start_import(folder, gallery="album").plan
        local.close()
        return plan

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(run, range(4)))) == 1


def test_one_folder_into_two_galleries_at_once_is_two_plans(home, folder, monkeypatch):
    """Their listing is one blob."""
    fill(folder, ALL)
    open_gallery(home, "one")
    open_gallery(home, "two")
    first, second = home.local(), home.local()
    with ThreadPoolExecutor(1) as pool:
        meanwhile = []

        def start():
            meanwhile.append(pool.submit(second.start_import, folder, gallery="two"))
            wait_a_moment()

        once(monkeypatch, bulk.importing.plans, "create", start)
        one = first.start_import(folder, gallery="one").plan
        two = meanwhile[0].result(timeout=10).plan
    assert one != two


def test_what_an_import_says_of_an_item_becomes_so_when_it_is_sealed(home, tmp_path):
    """The first brings a picture; before it is sealed, the second gives the item another picture, and is sealed."""
    listing = tmp_path / "listing.csv"
    fill(tmp_path, {"old.jpg": 1, "new.jpg": 2, "other.jpg": 3})
    listing.write_text("uri,id\nold.jpg,thing\n")
    local = home.local()
    first = local.start_import(listing, gallery="album").plan
    work(local, first, packs_done=1)
    assert home.items() == {}
    correction = tmp_path / "correction.csv"
    correction.write_text("uri,id\nnew.jpg,thing\n")
    assert home.run(correction)["state"] == "done"
    assert home.items() == {"thing": digest_of(draw(2))}
    (new,) = home.found()
    local.work(first)
    assert local.plan(first)["state"] == "done"
    assert (books(local.plan(first))["seal"], local.plan(first)["released"]) == ((1, 1, {}, 0, 1), 1)
    with pytest.raises(Missing):
        local.object(new)
    assert home.items() == {"thing": digest_of(draw(1))}
    assert home.found() == [home.object_of("thing")]


def test_a_pack_that_counted_on_a_picture_which_another_import_released_runs_again(home, tmp_path, monkeypatch):
    fill(tmp_path, {"old.jpg": 1, "new.jpg": 2})
    (tmp_path / "first.csv").write_text("uri,id\nold.jpg,thing\n")
    (tmp_path / "second.csv").write_text("uri,id\nnew.jpg,thing\n")
    (tmp_path / "third.csv").write_text("uri,id\nold.jpg,another thing\nnew.jpg,thing\n")
    home.run(tmp_path / "first.csv")
    released = home.object_of("thing")
    local = home.local()
    plan = local.start_import(tmp_path / "third.csv", gallery="album").plan
    once(monkeypatch, bulk.packs, "write_vectors", lambda: home.run(tmp_path / "second.csv"))
    local.work(plan)
    assert local.plan(plan)["state"] == "done"
    assert home.items() == {"another thing": digest_of(draw(1)), "thing": digest_of(draw(2))}
    assert released not in home.found()
    assert len(home.found()) == 2


def open_gallery(home, name="album"):
    """An empty gallery with the lens of the recipe."""
    local = home.local()
    lens = local.parts.book.lens("photos")
    with local.parts.catalog.begin() as tx:
        wiring.releases.open_gallery(tx, name, lens, 0.0)
