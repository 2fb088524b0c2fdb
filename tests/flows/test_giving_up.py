"""Plans that end before their time, pictures that wait for another plan, and sources that are not what they seem."""

from __future__ import annotations

import pytest

from relens.errors import Conflict, Missing
from relens.models import Shelf, registry
from relens.testing.homes import books, fill, quarantined
from relens.testing.pictures import draw
from relens.values import digest_of


@pytest.fixture
def held(home, folder, monkeypatch):
    """The id of a plan whose view was held, after another that went well."""
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    with monkeypatch.context() as patched:
        patched.setattr("relens.ledger.unbalanced", lambda _tx, _plan: ["made up"])
        plan = home.run(fill(folder, {"b.jpg": 3, "c.jpg": 4}))
    assert plan["state"] == "held"
    return plan["id"]


def test_a_held_plan_that_is_cancelled_is_given_up_and_stands_in_nobody_s_way(home, folder, held):
    cancelled = home.local().cancel(held)
    assert cancelled["state"] == "cancelled"
    assert books(cancelled)["seal"] == (2, 0, {"discarded": 2}, 0, 0)
    assert home.items() == {"a.jpg": digest_of(draw(1)), "b.jpg": digest_of(draw(2))}  # as it was before
    assert len(home.found()) == 2
    with pytest.raises(Conflict):
        home.local().resume(held)
    again = home.run(folder)
    assert again["id"] != held
    assert books(again)["read"] == (3, 2, {"already-in-gallery": 1}, 0, 0)
    assert home.items() == {name: digest_of(draw(seed)) for name, seed in (("a.jpg", 1), ("b.jpg", 3), ("c.jpg", 4))}
    assert len(home.found()) == 3


def test_pictures_that_another_plan_has_not_published_are_said_to_wait_for_it(home, tmp_path, held):
    other = tmp_path / "other"
    other.mkdir()
    plan = home.run(fill(other, {"same.jpg": 4, "new.jpg": 5}))
    assert books(plan)["read"] == (2, 1, {f"waits-for-plan-{held}": 1}, 0, 0)
    local = home.local()
    local.resume(held)
    local.work(held)
    assert set(home.items()) == {"a.jpg", "b.jpg", "c.jpg", "same.jpg", "new.jpg"}
    assert len(home.found()) == 4


def test_a_gallery_with_a_held_plan_can_be_removed(home, folder, held):
    assert home.local().remove_gallery("album")["cancelled_plans"] == [held]
    assert home.local().plan(held)["state"] == "cancelled"
    with pytest.raises(Missing):
        home.local().gallery("album")
    assert books(home.run(folder))["read"][:2] == (3, 3)


def test_what_an_import_released_is_counted_and_shown(home, folder):
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    assert "released" not in home.run(folder)
    assert home.run(fill(folder, {"a.jpg": 3}))["released"] == 1


def test_a_quote_that_nobody_closed_hides_no_line(home, folder):
    names = {f"{number:03}.jpg": number for number in range(60)}
    fill(folder, names)
    lines = [f"{name},{number}" for name, number in names.items()]
    lines[4] = '004.jpg,"12 inch'
    (folder / "listing.csv").write_text("uri,title\n" + "\n".join(lines) + "\n")
    plan = home.run(folder / "listing.csv")
    assert [code for _, _, code in quarantined(plan)] == ["bulk.bad-line"]
    assert "line 6 of the file" in plan["quarantine"][0]["message"]


def test_an_empty_mount_point_puts_packs_aside_and_quarantines_nothing(home, folder, monkeypatch):
    monkeypatch.setattr("relens.jobs.leases.MAX_ATTEMPTS", 1)
    local = home.local()
    waiting = local.start_import(fill(folder, {"a.jpg": 1, "b.jpg": 2}), gallery="album")
    for path in folder.iterdir():
        path.unlink()
    local.work(waiting.plan)
    plan = local.plan(waiting.plan)
    assert plan["state"] == "failed"
    assert "cannot be read" in plan["error"]
    fill(folder, {"a.jpg": 1, "b.jpg": 2})
    local.resume(waiting.plan)
    local.work(waiting.plan)
    assert local.plan(waiting.plan)["state"] == "done"
    assert len(home.found()) == 2


def test_a_damaged_version_is_written_anew_by_fetching_again(home):
    parts = home.local().parts
    labels = parts.shelf.folder("dummy", 1) / "labels.json"
    labels.write_bytes(labels.read_bytes().replace(b"red", b"rad"))
    fetched, _ = parts.onboarding.fetch("dummy")
    assert parts.shelf.open("dummy", 1, verify=True) == fetched
    assert fetched.labels()[0] == "red"


def test_golden_outputs_of_another_machine_are_the_same_version_and_other_weights_are_not(home, tmp_path):
    parts = home.local().parts
    here = parts.shelf.open("dummy", 1)
    files = {
        path.relative_to(here.folder).as_posix(): path.read_bytes() for path in here.folder.rglob("*") if path.is_file()
    }
    for name in ("card.yaml", "manifest.json", "COMPLETE"):
        del files[name]
    there = Shelf(tmp_path / "there").publish(here.card, {**files, "golden/outputs.safetensors": b"other bits"})
    assert there.digest == here.digest
    with parts.catalog.begin() as tx:
        registry.register(tx, there, 0.0)
    other = Shelf(tmp_path / "other").publish(here.card, {**files, "model.json": b"other weights"})
    with pytest.raises(Conflict, match="knows other content"), parts.catalog.begin() as tx:
        registry.register(tx, other, 0.0)
