"""What leased work must do on every catalog: one worker a pack, none that is lost, none that counts twice.

Time is a parameter everywhere, so nothing here waits for a lease to run out.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from relens.errors import Conflict, Missing
from relens.jobs import Claim, Worker, leases, plans, start_time, this_host
from relens.jobs.leases import MAX_ATTEMPTS, MAX_BACKOFF_S
from relens.store import Catalog, Tx
from relens.store.schema import packs, quarantine
from relens.testing.rows import KIND, NOW, SEAL, WORK, a_gallery, a_plan, a_worker, taken_back

THREADS = 8
LEASE_S = 60.0
LATER = NOW + LEASE_S + 1
LOST = "jobs.lease-lost"


class LeaseContract:
    """Claims, leases and what becomes of them. Subclass it as `TestX`, with the fixture `catalog`."""

    # -- who gets a pack

    def test_many_workers_at_once_never_get_the_same_pack(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=40)
        start = threading.Barrier(THREADS)

        def work() -> list[int]:
            start.wait()
            return [held.number for held in iter(lambda: claim(catalog), None)]

        with ThreadPoolExecutor(THREADS) as pool:
            got = [future.result() for future in [pool.submit(work) for _ in range(THREADS)]]
        assert sorted(itertools.chain.from_iterable(got)) == list(range(1, 41))
        assert {state for _, state, _ in states(catalog, plan)} == {"running", "open"}

    def test_packs_come_in_order_of_plans_and_then_of_numbers(self, catalog: Catalog) -> None:
        first, second = make_plan(catalog, "first", packs=2), make_plan(catalog, "second", packs=2)
        got = [(held.plan, held.stage, held.number) for held in iter(lambda: claim(catalog), None)]
        assert got == [(first, WORK, 1), (first, WORK, 2), (second, WORK, 1), (second, WORK, 2)]

    def test_a_worker_for_one_plan_gets_no_other(self, catalog: Catalog) -> None:
        make_plan(catalog, "first")
        second = make_plan(catalog, "second", packs=1)
        assert must_claim(catalog, plan=second).plan == second
        assert claim(catalog, plan=second) is None

    def test_what_has_no_entries_of_its_own_waits_for_nobody_s_import(self, catalog: Catalog) -> None:
        first = make_plan(catalog, packs=2, key="first")
        second = make_plan(catalog, packs=1, key="second")
        finish(catalog, must_claim(catalog, plan=second))
        held = [must_claim(catalog) for _ in range(3)]
        assert [(one.plan, one.stage) for one in held] == [(second, SEAL), (first, WORK), (first, WORK)]

    def test_a_claim_says_what_is_to_be_done(self, catalog: Catalog) -> None:
        plan = make_plan(catalog)
        held = must_claim(catalog)
        assert (held.plan, held.kind, held.stage, held.number) == (plan, KIND, WORK, 1)
        assert (dict(held.spec), held.epoch, held.careful, dict(held.losses)) == ({"number": 1}, 1, False, {})

    def test_sealing_waits_until_all_that_it_seals_is_done_or_cancelled(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=3)
        held = [must_claim(catalog) for _ in range(3)]
        assert claim(catalog) is None  # running
        finish(catalog, held[0])
        write(catalog, lambda tx: leases.give_back(tx, held[1]))
        assert must_claim(catalog).number == held[1].number  # open; and now running again
        assert claim(catalog) is None
        fail_for_good(catalog, held[2])
        assert claim(catalog) is None  # failed
        write(catalog, lambda tx: plans.cancel_open(tx, plan, WORK, NOW))
        assert must_claim(catalog).stage == SEAL

    def test_a_failed_plan_goes_on_with_its_other_packs(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=2)
        fail_for_good(catalog, must_claim(catalog))
        assert get(catalog, plan).state == "failed"
        assert must_claim(catalog).number == 2  # noqa: PLR2004 - the other one
        assert claim(catalog) is None

    # -- keeping and losing a lease

    def test_a_lease_runs_out_by_the_clock_and_not_before(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=1)
        first = must_claim(catalog)
        assert claim(catalog, now=NOW + LEASE_S) is None
        second = must_claim(catalog, now=NOW + LEASE_S + 0.001)
        assert (second.pack, second.epoch) == (first.pack, first.epoch + 1)

    def test_a_heartbeat_keeps_a_lease(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=1)
        held = must_claim(catalog)
        for passed_s in range(0, 300, 50):
            assert heartbeat(catalog, held, NOW + passed_s)
            assert claim(catalog, now=NOW + passed_s + LEASE_S) is None
        with catalog.read() as tx:
            assert plans.progress(tx, plan)["done"] == 7  # noqa: PLR2004 - what the heartbeat said

    def test_a_worker_that_slept_through_his_lease_can_write_nothing_any_more(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=1)
        paused = must_claim(catalog)
        working = must_claim(catalog, now=LATER)
        assert not heartbeat(catalog, paused, LATER)
        writes: list[Callable[[Tx], None]] = [
            lambda tx: leases.take_in_hand(tx, paused, "7"),
            lambda tx: leases.fence(tx, paused),
            lambda tx: leases.finish(tx, paused, LATER),
        ]
        for refused in writes:
            with pytest.raises(Conflict) as caught, catalog.begin() as tx:
                refused(tx)
            assert caught.value.code == LOST
        write(catalog, lambda tx: leases.give_back(tx, paused))
        write(catalog, lambda tx: leases.back_off(tx, paused, LATER, "late"))
        assert states(catalog, plan)[0] == (1, "running", working.epoch)
        finish(catalog, working)
        for refused in writes:
            with pytest.raises(Conflict), catalog.begin() as tx:
                refused(tx)

    def test_what_a_fenced_off_worker_wrote_is_taken_back_with_it(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=1)
        paused = must_claim(catalog)
        must_claim(catalog, now=LATER)
        with contextlib.suppress(Conflict), catalog.begin() as tx:
            quarantine_entry(tx, plan, paused.pack, 1)
            leases.fence(tx, paused)
        with catalog.read() as tx:
            assert plans.quarantined(tx, plan) == []

    def test_taking_over_waits_for_a_commit_that_has_begun(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=1)
        held = must_claim(catalog)
        with ThreadPoolExecutor(1) as pool, catalog.begin() as tx:
            leases.fence(tx, held)
            late = pool.submit(claim, catalog, now=LATER)
            leases.finish(tx, held, NOW)
        taken = late.result(timeout=10)
        assert taken is None or taken.stage == SEAL
        assert states(catalog, plan)[0] == (1, "done", held.epoch)

    def test_a_pack_that_is_given_back_is_free_at_once_and_nobody_is_blamed(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=1)
        lose(catalog, must_claim(catalog))  # careful from now on
        held = must_claim(catalog, now=LATER)
        write(catalog, lambda tx: leases.take_in_hand(tx, held, "7"))
        write(catalog, lambda tx: leases.give_back(tx, held))
        again = must_claim(catalog, now=LATER)
        assert (again.pack, dict(again.losses)) == (held.pack, {})

    # -- dead processes

    @pytest.mark.parametrize("reaped", [True, False])
    def test_a_dead_process_of_this_host_frees_its_pack_at_once(self, catalog: Catalog, *, reaped: bool) -> None:
        make_plan(catalog, packs=1)
        process = subprocess.Popen(["sleep", "60"])  # noqa: S607
        started = start_time(process.pid)
        assert started is not None
        held = must_claim(catalog, Worker(this_host(), process.pid, started))
        neighbour = Worker(this_host(), os.getpid(), start_time(os.getpid()) or "")
        assert claim(catalog, neighbour) is None
        process.kill()
        if reaped:
            process.wait()
        else:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
        freed = must_claim(catalog, neighbour)
        assert (freed.pack, freed.epoch, freed.careful) == (held.pack, held.epoch + 1, True)
        process.wait()

    def test_a_pid_that_another_process_has_now_is_a_dead_worker(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=1)
        before = must_claim(catalog, Worker(this_host(), os.getpid(), "long ago"))
        assert must_claim(catalog, Worker(this_host(), os.getpid(), "now")).epoch == before.epoch + 1

    def test_a_pid_of_another_host_says_nothing(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=1)
        must_claim(catalog, Worker("elsewhere", os.getpid(), "long ago"))
        assert claim(catalog, Worker(this_host(), os.getpid(), "now")) is None
        assert claim(catalog, Worker(this_host(), os.getpid(), "now"), now=LATER) is not None

    # -- who is to blame

    def test_the_first_loss_makes_careful_and_blames_nobody(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=1)
        lose(catalog, must_claim(catalog))
        again = must_claim(catalog, now=LATER)
        assert again.careful
        assert dict(again.losses) == {}

    def test_a_loss_counts_against_the_entry_in_hand_alone(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=2)
        lose(catalog, must_claim(catalog))
        for entry in ("3", "5", "3"):
            held = must_claim(catalog, now=NOW)
            assert held.number == 1
            write(catalog, lambda tx, held=held: leases.take_in_hand(tx, held, "4"))  # type: ignore[misc]
            write(catalog, lambda tx, held=held, entry=entry: leases.take_in_hand(tx, held, entry))  # type: ignore[misc]
            lose(catalog, held)
        assert dict(must_claim(catalog).losses) == {"3": 2, "5": 1}
        other = must_claim(catalog)
        assert (other.number, other.careful, dict(other.losses)) == (2, False, {})

    def test_a_loss_after_everything_was_put_down_blames_nobody(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=1)
        lose(catalog, must_claim(catalog))
        held = must_claim(catalog)
        write(catalog, lambda tx: leases.take_in_hand(tx, held, "7"))
        write(catalog, lambda tx: leases.put_down(tx, held))
        lose(catalog, held)
        assert dict(must_claim(catalog).losses) == {}

    # -- errors that are nobody's picture's

    def test_back_off_doubles_and_ends_in_a_pack_that_rests(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=1)
        waits = []
        now = NOW
        for _ in range(MAX_ATTEMPTS):
            held = must_claim(catalog, now=now)
            write(catalog, lambda tx, held=held, now=now: leases.back_off(tx, held, now, "no disk"))  # type: ignore[misc]
            wait_s = not_before(catalog, held) - now
            assert claim(catalog, now=now + wait_s - 0.001) is None
            waits.append(wait_s)
            now += wait_s
        assert waits == [min(MAX_BACKOFF_S, 2.0**attempt) for attempt in range(MAX_ATTEMPTS)]
        assert claim(catalog, now=now + 10 * MAX_BACKOFF_S) is None
        assert get(catalog, plan).state == "failed"
        assert get(catalog, plan).ended_at is None
        with catalog.read() as tx:
            assert plans.progress(tx, plan)["error"] == "no disk"

    def test_others_are_worked_on_while_one_is_put_aside(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=2)
        held = must_claim(catalog)
        write(catalog, lambda tx: leases.back_off(tx, held, NOW, "busy"))
        assert must_claim(catalog).number == 2  # noqa: PLR2004 - the other one
        assert must_claim(catalog, now=NOW + 1).number == 1

    def test_an_error_blames_no_entry_and_costs_no_care(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=1)
        held = must_claim(catalog)
        write(catalog, lambda tx: leases.take_in_hand(tx, held, "7"))
        write(catalog, lambda tx: leases.back_off(tx, held, NOW, "busy"))
        again = must_claim(catalog, now=LATER)
        assert (again.careful, dict(again.losses)) == (False, {})

    def test_resume_lets_resting_packs_go_on_as_if_new(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=2)
        fail_for_good(catalog, must_claim(catalog))
        waiting = must_claim(catalog)
        write(catalog, lambda tx: leases.back_off(tx, waiting, NOW + 1000, "busy"))
        write(catalog, lambda tx: plans.resume(tx, plan))
        assert get(catalog, plan).state == "running"
        assert {must_claim(catalog).number, must_claim(catalog).number} == {1, 2}
        with catalog.read() as tx:
            assert set(tx.execute(sa.select(packs.c.attempts)).scalars()) == {0}


class PlanContract:
    """Plans as they are written, resumed, cancelled, given up. Subclass it as `TestX`, with the fixture `catalog`."""

    def test_the_same_request_finds_the_unfinished_plan_and_never_makes_a_second(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, "same")
        with catalog.read() as tx:
            assert plans.find_unfinished(tx, KIND, "same") == plan
            assert plans.find_unfinished(tx, KIND, "other") is None
            assert plans.find_unfinished(tx, "migration", "same") is None
        with pytest.raises(sa.exc.IntegrityError):
            make_plan(catalog, "same")
        write(catalog, lambda tx: plans.end(tx, plan, "done", NOW))
        with catalog.read() as tx:
            assert plans.find_unfinished(tx, KIND, "same") is None
        assert make_plan(catalog, "same") > plan

    def test_a_plan_that_could_not_be_written_whole_is_not_there(self, catalog: Catalog) -> None:
        with taken_back(catalog) as tx:
            a_plan(tx, a_gallery(tx))
        with catalog.read() as tx:
            assert plans.newest_first(tx) == []
            assert tx.execute(sa.select(packs)).all() == []

    def test_a_plan_that_is_not_there_is_missing(self, catalog: Catalog) -> None:
        with catalog.read() as tx, pytest.raises(Missing) as caught:
            plans.get(tx, 77)
        assert caught.value.code == "jobs.no-plan"

    def test_newest_plans_come_first_with_their_galleries(self, catalog: Catalog) -> None:
        made = [make_plan(catalog, key) for key in "abc"]
        with catalog.read() as tx:
            assert [(plan.id, name) for plan, name in plans.newest_first(tx)] == [(p, "album") for p in made[::-1]]
            assert [plan.id for plan, _ in plans.newest_first(tx, limit=1)] == made[-1:]
            assert plans.unfinished(tx) == made

    def test_cancelling_takes_what_is_unfinished_from_everybody(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=4)
        done, running, failed = (must_claim(catalog) for _ in range(3))
        finish(catalog, done)
        fail_for_good(catalog, failed)
        with catalog.begin() as tx:
            taken = plans.cancel_open(tx, plan, WORK, NOW)
        assert [spec["number"] for _, spec in sorted(taken)] == [2, 3, 4]
        assert [state for _, state, _ in states(catalog, plan)] == ["done", *["cancelled"] * 3, "open"]
        assert get(catalog, plan).cancelling
        assert not heartbeat(catalog, running, NOW)
        with pytest.raises(Conflict) as caught, catalog.begin() as tx:
            leases.fence(tx, running)
        assert caught.value.code == LOST
        assert must_claim(catalog).stage == SEAL

    def test_a_plan_whose_gallery_goes_away_ends_and_its_workers_write_nothing(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=2)
        running = must_claim(catalog)
        write(catalog, lambda tx: plans.abandon(tx, plan, NOW))
        assert (get(catalog, plan).state, get(catalog, plan).ended_at) == ("cancelled", NOW)
        assert claim(catalog, now=LATER) is None
        with pytest.raises(Conflict), catalog.begin() as tx:
            leases.fence(tx, running)

    def test_what_is_over_cannot_be_resumed(self, catalog: Catalog) -> None:
        for state in ("done", "cancelled"):
            plan = make_plan(catalog, state)
            write(catalog, lambda tx, plan=plan, state=state: plans.end(tx, plan, state, NOW))  # type: ignore[misc]
            with pytest.raises(Conflict) as caught, catalog.begin() as tx:
                plans.resume(tx, plan)
            assert caught.value.code == "jobs.plan-over"

    def test_a_held_plan_rests_and_resume_seals_it_again(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=1)
        finish(catalog, must_claim(catalog))
        sealing = must_claim(catalog)
        with catalog.begin() as tx:
            leases.fence(tx, sealing)
            plans.hold(tx, plan, 1)
            leases.finish(tx, sealing, NOW)
        assert get(catalog, plan).is_over
        assert claim(catalog, now=LATER) is None
        write(catalog, lambda tx: plans.resume(tx, plan))
        assert must_claim(catalog).stage == SEAL
        assert [state for _, state, _ in states(catalog, plan)] == ["done", "running"]

    def test_work_waits_while_a_worker_could_do_something_now_or_later(self, catalog: Catalog) -> None:
        assert not work_waits(catalog)
        plan = make_plan(catalog, packs=1)
        assert work_waits(catalog)
        held = must_claim(catalog)
        assert work_waits(catalog)  # he may die
        write(catalog, lambda tx: leases.back_off(tx, held, NOW, "busy"))
        assert work_waits(catalog)
        fail_for_good(catalog, must_claim(catalog, now=LATER))
        assert not work_waits(catalog)
        write(catalog, lambda tx: plans.resume(tx, plan))
        assert work_waits(catalog)
        write(catalog, lambda tx: plans.end(tx, plan, "cancelled", NOW))
        assert not work_waits(catalog)

    def test_progress_counts_done_packs_whole_and_running_ones_as_far_as_they_are(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=3, size=10)
        done, running = must_claim(catalog), must_claim(catalog)
        finish(catalog, done, now=NOW + 2)
        heartbeat(catalog, running, NOW)
        with catalog.read() as tx:
            assert plans.progress(tx, plan) == {"done": 17, "total": 30, "rate": 5.0, "error": None}

    def test_quarantine_names_entry_task_and_cause_in_the_order_of_the_listing(self, catalog: Catalog) -> None:
        plan = make_plan(catalog)
        held = must_claim(catalog)
        with catalog.begin() as tx:
            for number in (3, 1):
                quarantine_entry(tx, plan, held.pack, number)
        with catalog.read() as tx:
            found = plans.quarantined(tx, plan)
        assert [one["entry"] for one in found] == ["entry 1", "entry 3"]
        assert set(found[0]) == {"entry", "uri", "task", "code", "message"}


def make_plan(catalog: Catalog, key: str = "key", *, packs: int = 3, size: int = 10) -> int:
    with catalog.begin() as tx:
        return a_plan(tx, a_gallery(tx), key=key, packs=packs, size=size)


def claim(catalog: Catalog, worker: Worker | None = None, *, now: float = NOW, plan: int | None = None) -> Claim | None:
    """What a worker gets, who is a stranger unless given."""
    with catalog.begin() as tx:
        return leases.claim(tx, worker or a_worker(), now, LEASE_S, plan=plan)


def must_claim(catalog: Catalog, worker: Worker | None = None, *, now: float = NOW, plan: int | None = None) -> Claim:
    held = claim(catalog, worker, now=now, plan=plan)
    assert held is not None
    return held


def heartbeat(catalog: Catalog, held: Claim, now: float) -> bool:
    with catalog.begin() as tx:
        return leases.heartbeat(tx, held, now, LEASE_S, progress=7)


def finish(catalog: Catalog, held: Claim, *, now: float = NOW) -> None:
    with catalog.begin() as tx:
        leases.fence(tx, held)
        leases.finish(tx, held, now)


def lose(catalog: Catalog, held: Claim) -> None:
    """The worker of a pack is gone, and somebody notices."""
    with catalog.begin() as tx:
        tx.execute(sa.update(packs).where(packs.c.id == held.pack).values(lease_until=0.0))
        assert leases.free_lost(tx, "anywhere", NOW) == 1


def fail_for_good(catalog: Catalog, held: Claim) -> None:
    with catalog.begin() as tx:
        tx.execute(sa.update(packs).where(packs.c.id == held.pack).values(attempts=MAX_ATTEMPTS - 1))
        leases.back_off(tx, held, NOW, "no disk")


def write(catalog: Catalog, some: Callable[[Tx], object]) -> None:
    with catalog.begin() as tx:
        some(tx)


def get(catalog: Catalog, plan: int) -> plans.Plan:
    with catalog.read() as tx:
        return plans.get(tx, plan)


def states(catalog: Catalog, plan: int) -> list[tuple[int, str, int]]:
    """(number, state, epoch) of a plan's packs, in order, the sealing pack last."""
    query = sa.select(packs.c.number, packs.c.state, packs.c.epoch).where(packs.c.plan == plan).order_by(packs.c.id)
    with catalog.read() as tx:
        return [(row.number, row.state, row.epoch) for row in tx.execute(query)]


def not_before(catalog: Catalog, held: Claim) -> float:
    with catalog.read() as tx:
        return float(tx.execute(sa.select(packs.c.not_before).where(packs.c.id == held.pack)).scalar_one())


def work_waits(catalog: Catalog) -> bool:
    with catalog.read() as tx:
        return plans.work_waits(tx)


def quarantine_entry(tx: Tx, plan: int, pack: int, number: int) -> None:
    named = {"entry": f"entry {number}", "uri": f"file:///{number}", "task": "decode", "code": "c", "message": "why"}
    tx.execute(sa.insert(quarantine).values(plan=plan, pack=pack, number=number, at=NOW, **named))
