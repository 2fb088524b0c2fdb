"""What the ledger must do on every catalog: every line balances, a pack counts once, gaps are found."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from relens import ledger
from relens.errors import Broken
from relens.jobs import leases
from relens.ledger import Line, Tally
from relens.store import Catalog, Tx
from relens.store.schema import packs
from relens.testing.rows import DAY, NOW, a_gallery, a_plan, a_worker, taken_back

OTHER_DAY = "2025-06-02"


class LedgerContract:
    """Subclass it as `TestX`, with the fixture `catalog`."""

    @pytest.mark.parametrize(
        ("entered", "out", "dropped", "failed"), [(2, 1, {}, 0), (1, 1, {"known": 1}, 0), (0, 0, {}, 1), (3, 2, {}, 0)]
    )
    def test_a_line_that_does_not_balance_cannot_be_made(
        self, entered: int, out: int, dropped: dict[str, int], failed: int
    ) -> None:
        with pytest.raises(Broken) as caught:
            Line("read", entered, out, dropped=dropped, failed=failed)
        assert caught.value.code == "ledger.unbalanced"
        assert "read" in caught.value.message

    def test_what_a_pack_counted_comes_back_by_task_category_and_day(self, catalog: Catalog) -> None:
        tally = Tally()
        tally.passed("read", DAY)
        tally.dropped("read", DAY, "known")
        tally.failed("read", OTHER_DAY)
        tally.passed("crop", DAY, made=2)
        tally.passed("embed", DAY, made=1, category="shoes")
        tally.passed("embed", DAY, made=1, category="hats")
        with catalog.begin() as tx:
            plan, work = plan_with_packs(tx)
            ledger.book(tx, plan, work[0], tally.lines())
        with catalog.read() as tx:
            assert ledger.lines_of(tx, plan) == [
                Line("crop", 1, 1, day=DAY, made=2),
                Line("embed", 1, 1, category="hats", day=DAY, made=1),
                Line("embed", 1, 1, category="shoes", day=DAY, made=1),
                Line("read", 2, 1, day=DAY, dropped={"known": 1}),
                Line("read", 1, 0, day=OTHER_DAY, failed=1),
            ]

    def test_packs_add_up(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            plan, work = plan_with_packs(tx)
            for pack in work:
                line = Line("read", 9, 4, day=DAY, dropped={"known": 2, "cancelled": 1}, failed=2, made=5)
                ledger.book(tx, plan, pack, [line])
        with catalog.read() as tx:
            total = Line("read", 27, 12, day=DAY, dropped={"known": 6, "cancelled": 3}, failed=6, made=15)
            assert ledger.lines_of(tx, plan) == [total]

    def test_a_pack_is_booked_once(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            plan, work = plan_with_packs(tx)
            ledger.book(tx, plan, work[0], [Line("read", 1, 1, day=DAY)])
        with pytest.raises(sa.exc.IntegrityError), catalog.begin() as tx:
            ledger.book(tx, plan, work[0], [Line("read", 5, 5, day=DAY)])
        with catalog.read() as tx:
            assert ledger.lines_of(tx, plan) == [Line("read", 1, 1, day=DAY)]

    def test_books_of_a_transaction_that_was_taken_back_are_not_there(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            plan, work = plan_with_packs(tx)
        with taken_back(catalog) as tx:
            ledger.book(tx, plan, work[0], [Line("read", 1, 1, day=DAY)])
        with catalog.read() as tx:
            assert ledger.lines_of(tx, plan) == []

    def test_plans_have_books_of_their_own(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            plan, work = plan_with_packs(tx)
            other, _ = plan_with_packs(tx, "other")
            ledger.book(tx, plan, work[0], [Line("read", 1, 1, day=DAY)])
        with catalog.read() as tx:
            assert ledger.lines_of(tx, other) == []
            assert [task["in"] for task in ledger.funnel(tx, other)] == [0, 0, 0, 0]

    def test_the_funnel_has_every_task_in_order_with_its_packs(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            plan, work = plan_with_packs(tx)
            dropped = {"known": 1, "cancelled": 2}
            ledger.book(tx, plan, work[0], [Line("read", 6, 3, day=DAY, dropped=dropped), Line("crop", 3, 3, made=4)])
            ledger.book(tx, plan, work[1], [Line("read", 1, 0, day=OTHER_DAY, failed=1)])
            held = leases.claim(tx, a_worker(), NOW, 60.0)
            assert held is not None
            leases.finish(tx, held, NOW)
        with catalog.read() as tx:
            funnel = ledger.funnel(tx, plan)
        assert [(task["name"], task["unit"]) for task in funnel] == [
            ("read", "entry"),
            ("crop", "entry"),
            ("embed", "object"),
            ("seal", "object"),
        ]
        assert funnel[0] == {
            "name": "read",
            "stage": "import",
            "unit": "entry",
            "in": 7,
            "out": 3,
            "dropped": {"cancelled": 2, "known": 1},
            "failed": 1,
            "made": 0,
            "packs": {"total": 3, "done": 1, "failed": 0},
        }
        assert list(funnel[0]["dropped"]) == ["cancelled", "known"]
        assert funnel[1]["made"] == 4  # noqa: PLR2004
        assert funnel[3]["packs"] == {"total": 1, "done": 0, "failed": 0}

    def test_books_in_which_each_task_takes_what_the_one_before_gave_are_in_order(self, catalog: Catalog) -> None:
        good = [
            Line("read", 5, 3, day=DAY, dropped={"known": 1}, failed=1),
            Line("crop", 3, 2, day=DAY, failed=1, made=7),
            Line("embed", 4, 4, category="hats", day=DAY, made=4),
            Line("embed", 3, 1, category="shoes", day=DAY, failed=2, made=1),
        ]
        assert problems(catalog, good) == []

    @pytest.mark.parametrize(
        ("lines", "names"),
        [
            ([Line("read", 5, 5), Line("crop", 4, 4, made=4), Line("embed", 4, 4)], ("read", "crop")),
            ([Line("read", 5, 5), Line("crop", 5, 5, made=6), Line("embed", 5, 5)], ("crop", "embed")),
            ([Line("crop", 1, 1, made=1), Line("embed", 1, 1)], ("read", "crop")),
            ([Line("read", 1, 1)], ("read", "crop")),
        ],
    )
    def test_a_gap_between_tasks_is_found_and_names_both(
        self, catalog: Catalog, lines: list[Line], names: tuple[str, str]
    ) -> None:
        found = problems(catalog, lines)
        assert len(found) == 1
        assert all(name in found[0] for name in names)


def plan_with_packs(tx: Tx, key: str = "key") -> tuple[int, list[int]]:
    """A plan, and the ids of its three packs."""
    plan = a_plan(tx, a_gallery(tx), key=key)
    query = sa.select(packs.c.id).where(packs.c.plan == plan, packs.c.after.is_(None)).order_by(packs.c.id)
    return plan, list(tx.execute(query).scalars())


def problems(catalog: Catalog, lines: list[Line]) -> list[str]:
    with catalog.begin() as tx:
        plan, work = plan_with_packs(tx)
        size = sum(line.entered for line in lines if line.task == "read")
        tx.execute(sa.update(packs).where(packs.c.id == work[0]).values(state="done", size=size))
        ledger.book(tx, plan, work[0], lines)
        return ledger.unbalanced(tx, plan)
