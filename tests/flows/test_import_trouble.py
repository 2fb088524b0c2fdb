"""Import when things go wrong: pictures, engines, disks, workers, and people who change their mind in between."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from relens import bulk, wiring
from relens.bulk import packs as reading_ahead
from relens.errors import BadInput, Broken, Missing
from relens.jobs import Worker, leases, this_host
from relens.recipes import Pipeline
from relens.store import LocalBlobs
from relens.store.schema import packs, suspects
from relens.testing.homes import books, fill, quarantined
from relens.testing.moments import once, put_aside, raising, wait_a_moment, work
from relens.testing.pictures import draw, write_pictures
from relens.values import digest_of

NOBODY = 2**22 + 1  # no process has this pid
ALL = {f"{letter}.jpg": seed for seed, letter in enumerate("abcdef", 1)}


class Killed(BaseException):
    """What ends a worker as a kill does: nothing of ours catches it."""


@pytest.fixture
def mortal(monkeypatch):
    """Workers look like a process that is not there, so that the next one frees what a killed one held."""
    monkeypatch.setattr(wiring, "this_worker", lambda: Worker(this_host(), NOBODY, "then"))


def pixels_of(seed):
    return digest_of(draw(seed))


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "task", "expected"),
    [
        ("decode", "decode", {"decode": (6, 5, {}, 1, 0), "crop": (5, 5, {}, 0, 5), "embed": (5, 5, {}, 0, 5)}),
        ("crop", "crop", {"decode": (6, 6, {}, 0, 0), "crop": (6, 5, {}, 1, 5), "embed": (5, 5, {}, 0, 5)}),
        ("describe_all", "embed", {"decode": (6, 6, {}, 0, 0), "crop": (6, 6, {}, 0, 6), "embed": (6, 5, {}, 1, 5)}),
    ],
)
def test_an_error_of_a_picture_quarantines_it_with_its_cause(home, folder, monkeypatch, method, task, expected):  # noqa: PLR0917
    once(monkeypatch, Pipeline, method, raising(BadInput("test.bad", "it is cursed")), at=2)
    plan = home.run(fill(folder, ALL))
    assert plan["state"] == "done"
    assert books(plan) == {"read": (6, 6, {}, 0, 0), **expected, "seal": (5, 5, {}, 0, 1)}
    [found] = plan["quarantine"]
    assert (found["entry"], found["task"], found["code"], found["message"]) == (
        "b.jpg",
        task,
        "test.bad",
        "it is cursed",
    )
    assert set(home.items()) == set(ALL) - {"b.jpg"}


@pytest.mark.parametrize("error", [Broken("runtimes.run-failed", "engine"), OSError(28, "No space"), MemoryError()])
def test_an_error_that_is_nobody_s_picture_s_puts_the_pack_aside_and_nobody_in_quarantine(
    home, folder, monkeypatch, error
):
    once(monkeypatch, Pipeline, "describe_all", raising(error), at=3)
    local = home.local()
    plan = local.start_import(fill(folder, ALL), gallery="album").plan
    work(local, plan, until=put_aside(local, plan))
    shown = local.plan(plan)
    assert (shown["state"], quarantined(shown), books(shown)["read"][0]) == ("running", [], 0)
    assert str(error) in shown["error"] or type(error).__name__ in shown["error"]
    assert local.start_import(folder, gallery="album").plan == plan  # frees it at once
    local.work(plan)
    assert books(local.plan(plan))["embed"] == (6, 6, {}, 0, 6)
    assert "error" not in local.plan(plan)


@pytest.mark.parametrize("method", ["put", "writer"])
def test_a_disk_that_is_full_puts_the_pack_aside(home, folder, monkeypatch, method):
    local = home.local()
    plan = local.start_import(fill(folder, ALL), gallery="album").plan
    once(monkeypatch, LocalBlobs, method, raising(OSError(28, "No space left on device")))
    work(local, plan, until=put_aside(local, plan))
    assert "No space left" in local.plan(plan)["error"]
    local.resume(plan)
    local.work(plan)
    assert local.plan(plan)["state"] == "done"
    assert set(home.items()) == set(ALL)


def test_a_source_that_goes_away_in_the_middle_is_waited_for(new_home, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(reading_ahead, "CHUNK", 4)
    home = new_home(pack_size=40)
    write_pictures(folder, 40)
    away = tmp_path / "away"
    once(monkeypatch, Pipeline, "describe_all", lambda: folder.rename(away), at=5)
    local = home.local()
    plan = local.start_import(folder, gallery="album").plan
    work(local, plan, until=put_aside(local, plan))
    shown = local.plan(plan)
    assert (quarantined(shown), books(shown)["read"][0]) == ([], 0)
    assert str(folder) in shown["error"]
    away.rename(folder)
    local.resume(plan)
    local.work(plan)
    assert books(local.plan(plan))["read"] == (40, 40, {}, 0, 0)


def test_a_picture_that_goes_away_alone_is_quarantined(home, folder):
    local = home.local()
    plan = local.start_import(fill(folder, ALL), gallery="album").plan
    (folder / "c.jpg").unlink()
    local.work(plan)
    assert books(local.plan(plan))["read"] == (6, 5, {}, 1, 0)
    assert quarantined(local.plan(plan)) == [("c.jpg", "read", "bulk.unreadable")]


def test_a_picture_over_the_limit_of_bytes_is_not_even_read(home, folder, monkeypatch):
    monkeypatch.setenv("RELENS__LIMITS__MAX_BYTES", "2000")
    plan = home.run(fill(folder, {"a.jpg": draw(1)[:1500], "b.jpg": draw(1) + b" " * 2000}))
    assert quarantined(plan)[1] == ("b.jpg", "read", "vision.too-large")


def test_a_plan_whose_view_fails_its_checks_is_held_and_resume_seals_it(home, folder, monkeypatch):
    home.run(fill(folder, {"a.jpg": 1}))
    before = home.found()
    with monkeypatch.context() as patched:
        patched.setattr("relens.ledger.unbalanced", lambda _tx, _plan: ["crop gave 3, embed took 2"])
        held = home.run(fill(folder, {"b.jpg": 2}))
    assert held["state"] == "held"
    assert [(check["name"], check["detail"]) for check in held["checks"] if not check["ok"]] == [
        ("ledger balances", "crop gave 3, embed took 2")
    ]
    assert home.found() == before
    assert home.local().gallery("album")["sequence"] == 1
    local = home.local()
    local.resume(held["id"])
    local.work(held["id"])
    assert local.plan(held["id"])["state"] == "done"
    assert len(home.found()) == 2


# -- workers that die -----------------------------------------------------------------------------------------------


def lives(home, plan, *, most=20):
    """Work on a plan in one life after another, until it is over. The number of lives."""
    for life in range(1, most):
        local = home.local()
        try:
            local.work(plan)
        except Killed:
            home.close()
        else:
            return life
    raise AssertionError(f"not over after {most} lives")


def test_a_picture_that_kills_three_workers_is_quarantined_and_the_others_pass(home, folder, mortal, monkeypatch):
    write_pictures(folder, 20)
    fill(folder, {"deadly.jpg": 1000})
    original = Pipeline.decode

    def decode(self, data):
        if digest_of(data) == pixels_of(1000):
            raise Killed
        return original(self, data)

    monkeypatch.setattr(Pipeline, "decode", decode)
    plan = home.local().start_import(folder, gallery="album").plan
    assert lives(home, plan) == 5  # the first loss makes careful, three count
    shown = home.local().plan(plan)
    assert shown["state"] == "done"
    assert quarantined(shown) == [("deadly.jpg", "read", "bulk.kills-workers")]
    assert books(shown)["read"] == (21, 20, {}, 1, 0)
    assert len(home.found()) == 20


def test_two_pictures_that_kill_are_both_found_out(home, folder, mortal, monkeypatch):
    fill(folder, ALL)
    original = Pipeline.describe_all
    deadly = []

    def describe(self, crops, **options):
        if not deadly:
            deadly.extend(self.crop(self.decode(draw(seed)))[0].jpeg for seed in (2, 4))
        if crops[0].jpeg in deadly:
            raise Killed
        return original(self, crops, **options)

    monkeypatch.setattr(Pipeline, "describe_all", describe)
    plan = home.local().start_import(folder, gallery="album").plan
    lives(home, plan)
    shown = home.local().plan(plan)
    assert quarantined(shown) == [(key, "read", "bulk.kills-workers") for key in ("b.jpg", "d.jpg")]
    assert set(home.items()) == set(ALL) - {"b.jpg", "d.jpg"}


def test_workers_that_die_while_they_commit_blame_no_picture(home, folder, mortal, monkeypatch):
    plan = home.local().start_import(fill(folder, ALL), gallery="album").plan
    with monkeypatch.context() as patched:
        patched.setattr(leases, "fence", lambda _tx, _held: raising(Killed)())
        for _ in range(6):
            with pytest.raises(Killed):
                home.local().work(plan)
            home.close()
    home.local().work(plan)
    assert quarantined(home.local().plan(plan)) == []
    assert set(home.items()) == set(ALL)


def test_workers_that_die_between_pictures_blame_none_twice(home, folder, mortal, monkeypatch):
    """What was in hand comes last in the next life, so that bad luck does not strike the same picture again."""
    write_pictures(folder, 8)
    plan = home.local().start_import(folder, gallery="album").plan
    for _ in range(6):
        with monkeypatch.context() as patched:
            once(patched, Pipeline, "describe_all", raising(Killed))
            with pytest.raises(Killed):
                home.local().work(plan)
        home.close()
    local = home.local()
    with local.parts.catalog.read() as tx:
        assert set(tx.execute(sa.select(suspects.c.losses)).scalars()) == {1}
    local.work(plan)
    assert quarantined(local.plan(plan)) == []


# -- people who change their mind -----------------------------------------------------------------------------------


def test_cancel_books_what_did_not_run_and_seals_what_did(home, folder):
    write_pictures(folder, 30)
    local = home.local()
    plan = local.start_import(folder, gallery="album").plan
    work(local, plan, packs_done=1)
    done = books(local.plan(plan))["read"][0]
    assert 0 < done < 30
    shown = local.cancel(plan)
    assert (shown["state"], books(shown)["read"]) == ("running", (30, done, {"cancelled": 30 - done}, 0, 0))
    local.work(plan)
    shown = local.plan(plan)
    assert (shown["state"], shown["sequence"]) == ("cancelled", 1)
    assert books(shown)["seal"] == (done, done, {}, 0, 1)
    assert all(check["ok"] for check in shown["checks"])
    assert len(home.found()) == done
    rest = home.run(folder)  # typed again it is a new plan, which takes in the rest
    assert books(rest)["read"] == (30, 30 - done, {"already-in-gallery": done}, 0, 0)


def test_cancel_before_anything_ran_leaves_an_empty_view(home, folder):
    local = home.local()
    plan = local.start_import(fill(folder, ALL), gallery="album").plan
    local.cancel(plan)
    local.work(plan)
    assert books(local.plan(plan))["read"] == (6, 0, {"cancelled": 6}, 0, 0)
    assert home.found() == []


def test_cancel_in_the_middle_of_a_pack_drops_what_its_worker_brings(home, folder, monkeypatch):
    local, other = home.local(), home.local()
    plan = local.start_import(fill(folder, ALL), gallery="album").plan
    once(monkeypatch, Pipeline, "describe_all", lambda: other.cancel(plan), at=3)
    local.work(plan)
    assert local.plan(plan)["state"] == "cancelled"
    assert books(local.plan(plan))["read"] == (6, 0, {"cancelled": 6}, 0, 0)
    assert home.found() == []


def test_cancel_while_a_pack_commits_waits_for_it_and_keeps_it(new_home, folder, monkeypatch):
    home = new_home(pack_size=1)
    local, other = home.local(), home.local()
    plan = local.start_import(write_pictures(folder, 40), gallery="album").plan
    with ThreadPoolExecutor(1) as pool:
        cancelling = []

        def cancel():
            cancelling.append(pool.submit(other.cancel, plan))
            wait_a_moment()

        once(monkeypatch, bulk.packs, "stage_items", cancel)
        local.work(plan)
        cancelling[0].result(timeout=10)
    shown = local.plan(plan)
    entered, out, dropped, failed, _ = books(shown)["read"]
    assert (shown["state"], entered, failed) == ("cancelled", 40, 0)
    assert out >= 1
    assert dropped == {"cancelled": 40 - out}
    assert "error" not in shown
    assert len(home.found()) == out


def test_a_gallery_that_is_removed_during_an_import_stays_removed(home, folder, monkeypatch):
    local, other = home.local(), home.local()
    plan = local.start_import(fill(folder, ALL), gallery="album").plan
    once(monkeypatch, Pipeline, "describe_all", lambda: other.remove_gallery("album"), at=3)
    local.work(plan)
    assert local.plan(plan)["state"] == "cancelled"
    assert local.galleries() == {"galleries": []}
    with pytest.raises(Missing):
        local.search(draw(1), gallery="album")
    after = home.run(folder)  # a new gallery of that name has nothing of the old one
    assert after["id"] != plan
    assert books(after)["read"] == (6, 6, {}, 0, 0)
    assert after["sequence"] == 1


@pytest.mark.parametrize("stage", ["import", "seal"])
def test_a_gallery_that_is_removed_during_a_commit_is_removed_after_it(new_home, folder, monkeypatch, stage):
    home = new_home(pack_size=1)
    local, other = home.local(), home.local()
    plan = local.start_import(write_pictures(folder, 40 if stage == "import" else 2), gallery="album").plan
    original = leases.fence
    with ThreadPoolExecutor(1) as pool:
        removing = []

        def fence(tx, held):
            original(tx, held)
            if held.stage == stage and not removing:
                removing.append(pool.submit(other.remove_gallery, "album"))
                wait_a_moment()

        monkeypatch.setattr(leases, "fence", fence)
        local.work(plan)
        removing[0].result(timeout=10)
    assert local.galleries() == {"galleries": []}
    assert "error" not in local.plan(plan)
    assert local.plan(plan)["state"] in {"done", "cancelled"}


# -- files of ours that are gone


def test_blobs_that_were_damaged_before_sealing_put_the_sealing_aside(home, folder):
    local = home.local()
    plan = local.start_import(fill(folder, ALL), gallery="album").plan
    work(local, plan, packs_done=1)
    blobs = home.path / "blobs"
    kept = home.path / "kept"
    shutil.copytree(blobs, kept)
    with local.parts.catalog.read() as tx:
        file = tx.execute(sa.text("SELECT digest FROM blobs WHERE kind = 'vectors'")).scalar_one()
    (blobs / file[:2] / file).write_bytes(b"damaged")
    work(local, plan, until=put_aside(local, plan))
    assert local.plan(plan)["state"] == "running"
    assert home.found() == []
    shutil.copytree(kept, blobs, dirs_exist_ok=True)
    local.resume(plan)
    local.work(plan)
    assert local.plan(plan)["state"] == "done"
    assert len(home.found()) == 6


def test_a_worker_without_its_recipe_s_model_puts_packs_aside_until_it_is_back(home, folder):
    local = home.local()
    plan = local.start_import(fill(folder, ALL), gallery="album").plan
    models = home.path / "models"
    models.rename(home.path / "away")
    work(local, plan, until=put_aside(local, plan))
    with local.parts.catalog.read() as tx:
        assert tx.execute(sa.select(packs.c.state).where(packs.c.after.is_(None))).scalars().all() == ["open"]
    shutil.rmtree(models, ignore_errors=True)
    (home.path / "away").rename(models)
    local.resume(plan)
    local.work(plan)
    assert local.plan(plan)["state"] == "done"
