"""The ledger against the contract on SQLite and PostgreSQL, and its arithmetic under any sequence of counts."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from relens import ledger
from relens.jobs import leases
from relens.ledger import Line, Tally
from relens.testing.ledgers import LedgerContract, plan_with_packs
from relens.testing.rows import NOW, a_worker

TASK = st.sampled_from(["read", "crop"])
DAY = st.sampled_from(["2025-06-01", "2025-06-02"])
CATEGORY = st.sampled_from(["all", "hats"])
COUNTS = st.lists(st.tuples(st.sampled_from(["passed", "known", "cancelled", "failed"]), TASK, DAY, CATEGORY))


class TestLedger(LedgerContract):
    def test_entries_that_a_finished_pack_did_not_book_are_missed(self, catalog):
        with catalog.begin() as tx:
            plan, work = plan_with_packs(tx)
            for pack in work:
                held = leases.claim(tx, a_worker(), NOW, 60.0)
                assert held.pack == pack
                took = 9 if pack == work[1] else 10
                lines = [Line("read", took, took), Line("crop", took, took, made=took), Line("embed", took, took)]
                ledger.book(tx, plan, pack, lines)
                leases.finish(tx, held, NOW)
            assert ledger.unbalanced(tx, plan)


@given(COUNTS)
def test_whatever_is_counted_is_in_exactly_one_line_and_all_lines_balance(counts):
    tally = Tally()
    for what, task, day, category in counts:
        if what == "passed":
            tally.passed(task, day, made=2, category=category)
        elif what == "failed":
            tally.failed(task, day, category=category)
        else:
            tally.dropped(task, day, what, category=category)
    lines = tally.lines()
    counted = Counter()
    for line in lines:
        key = line.task, line.day, line.category
        counted.update({("passed", *key): line.out, ("failed", *key): line.failed})
        counted.update({(reason, *key): number for reason, number in line.dropped.items()})
        assert line.entered == line.out + sum(line.dropped.values()) + line.failed
        assert line.made == 2 * line.out
    assert +counted == Counter(counts)
    assert len({(line.task, line.day, line.category) for line in lines}) == len(lines)
