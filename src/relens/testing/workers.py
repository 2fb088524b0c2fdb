"""What the life of a worker must be on every catalog, around handlers that fail in every way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from relens.errors import Broken
from relens.jobs import MAX_LOSSES, Claim, Hold, Interrupted, leases, plans, run_worker
from relens.store import Catalog
from relens.store.schema import packs
from relens.testing.jobs import LEASE_S, claim, finish, lose, make_plan, must_claim, states, write
from relens.testing.rows import KIND, NOW, SEAL, WORK, a_worker


class WorkerContract:
    """Subclass it as `TestX`, with the fixture `catalog`."""

    def test_a_worker_does_everything_in_order_and_ends_with_the_plan(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=3)
        seen: list[tuple[str, int]] = []

        def handle(hold: Hold) -> None:
            seen.append((hold.claim.stage, hold.claim.number))
            finish(catalog, hold.claim)
            if hold.claim.stage == SEAL:
                write(catalog, lambda tx: plans.end(tx, plan, "done", NOW))

        run(catalog, handle, plan=plan)
        assert seen == [(WORK, 1), (WORK, 2), (WORK, 3), (SEAL, 1)]

    @pytest.mark.parametrize("error", [Broken("x.y", "no disk"), OSError("no disk"), MemoryError()], ids=repr)
    def test_an_error_puts_the_pack_aside_and_the_worker_lives(self, catalog: Catalog, error: Exception) -> None:
        plan = make_plan(catalog, packs=2)
        seen: list[int] = []

        def handle(hold: Hold) -> None:
            seen.append(hold.claim.number)
            if hold.claim.number == 1:
                raise error
            finish(catalog, hold.claim)

        run(catalog, handle, until=lambda: len(seen) == 2)  # noqa: PLR2004 - both packs
        assert [state for _, state, _ in states(catalog, plan)] == ["open", "done", "open"]
        with catalog.read() as tx:
            assert plans.progress(tx, plan)["error"]
            query = sa.select(packs.c.attempts).where(packs.c.stage == WORK).order_by(packs.c.number)
            assert list(tx.execute(query).scalars()) == [1, 0]

    def test_a_worker_that_is_told_to_stop_gives_the_pack_back(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=1)
        stopped = threading.Event()

        def handle(hold: Hold) -> None:
            stopped.set()
            with pytest.raises(Interrupted):
                hold.take_in_hand("1")
            raise Interrupted

        run(catalog, handle, until=stopped.is_set)
        assert states(catalog, plan)[0] == (1, "open", 1)
        assert must_claim(catalog, now=real_time(catalog)).careful is False

    def test_the_lease_is_kept_while_a_handler_works(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=1)
        over = threading.Event()

        def handle(_hold: Hold) -> None:
            over.wait(0.8)
            assert claim(catalog, now=real_time(catalog)) is None
            over.set()

        run(catalog, handle, until=over.is_set, lease_s=0.4)

    def test_a_handler_that_lost_its_lease_is_told_and_leaves_no_trace(self, catalog: Catalog) -> None:
        plan = make_plan(catalog, packs=1)
        over = threading.Event()
        thieves: list[Claim] = []

        def handle(hold: Hold) -> None:
            thieves.append(must_claim(catalog, now=real_time(catalog) + LEASE_S))
            over.wait(0.5)
            over.set()
            hold.take_in_hand("1")

        run(catalog, handle, until=over.is_set, lease_s=0.3)
        assert states(catalog, plan)[0] == (1, "running", thieves[0].epoch)
        with catalog.read() as tx:
            assert plans.progress(tx, plan)["error"] is None

    def test_a_catalog_that_does_not_serve_for_a_while_is_waited_for(
        self, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = make_plan(catalog, packs=1)
        down = [True, True]
        original = leases.claim

        def claim_or_not(*args: Any, **options: Any) -> Claim | None:
            if down:
                down.pop()
                raise Broken("store.catalog", "the catalog does not serve")
            return original(*args, **options)

        monkeypatch.setattr(leases, "claim", claim_or_not)
        monkeypatch.setattr("relens.jobs.loop.time.sleep", lambda _s: None)
        seen: list[int] = []

        def handle(hold: Hold) -> None:
            seen.append(hold.claim.number)
            finish(catalog, hold.claim)

        run(catalog, handle, until=lambda: bool(seen))
        assert states(catalog, plan)[0] == (1, "done", 1)

    def test_only_a_careful_worker_writes_down_what_it_has_in_hand(self, catalog: Catalog) -> None:
        make_plan(catalog, packs=1)
        noted: list[str | None] = []

        def handle(hold: Hold) -> None:
            hold.take_in_hand("7")
            with catalog.read() as tx:
                noted.append(tx.execute(sa.select(packs.c.in_hand).where(packs.c.stage == WORK)).scalar_one())
            if len(noted) == MAX_LOSSES:
                finish(catalog, hold.claim)
            else:
                lose(catalog, hold.claim)

        run(catalog, handle, until=lambda: len(noted) == MAX_LOSSES)
        assert noted == [None, "7", "7"]


def real_time(catalog: Catalog) -> float:
    with catalog.read() as tx:
        return catalog.now(tx)


def run(
    catalog: Catalog,
    handle: Callable[[Hold], None],
    *,
    plan: int | None = None,
    until: Callable[[], bool] = lambda: False,
    lease_s: float = LEASE_S,
) -> None:
    """A worker's life with one handler for everything."""
    handlers = {(KIND, WORK): handle, (KIND, SEAL): handle}
    run_worker(catalog, a_worker(), handlers, lease_s=lease_s, stop=until, idle_s=0, plan=plan)
