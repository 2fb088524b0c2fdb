"""The ledger against the contract on SQLite and PostgreSQL, and its arithmetic under any sequence of counts."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from relens.ledger import Tally
from relens.testing.ledgers import LedgerContract

TASK = st.sampled_from(["read", "crop"])
DAY = st.sampled_from(["2025-06-01", "2025-06-02"])
CATEGORY = st.sampled_from(["all", "hats"])
COUNTS = st.lists(st.tuples(st.sampled_from(["passed", "known", "cancelled", "failed"]), TASK, DAY, CATEGORY))


class TestLedger(LedgerContract):
    pass


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
