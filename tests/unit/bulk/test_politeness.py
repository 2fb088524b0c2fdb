"""Turns at hosts: how many at once, how far apart, and pauses. Time is a parameter."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from relens.bulk.politeness import REMEMBERED, Closed, Turns

OPEN = threading.Event()


def test_no_more_at_once_at_one_host_than_told_and_hosts_do_not_wait_for_each_other():
    turns = Turns(2, 0.0)
    meet = threading.Barrier(4, timeout=10)  # two of each host have to be there together
    now, most = {"a": 0, "b": 0}, {"a": 0, "b": 0}
    lock = threading.Lock()

    def visit(number):
        host = "ab"[number % 2]
        with turns.turn(host, OPEN):
            with lock:
                now[host] += 1
                most[host] = max(most[host], now[host])
            if number < 4:
                meet.wait()
            with lock:
                now[host] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(40)))
    assert most == {"a": 2, "b": 2}


def test_two_starts_at_a_host_are_apart_and_a_pause_is_kept():
    ticks = itertools.count()
    turns = Turns(9, 5.0, clock=lambda: float(next(ticks)))
    starts = []
    for _ in range(3):
        with turns.turn("a", OPEN):
            starts.append(next(ticks))
    assert all(later - earlier >= 5 for earlier, later in itertools.pairwise(starts))
    turns.pause("a", 30.0)
    turns.pause("a", 1.0)  # the longer one stays
    asked = next(ticks)
    with turns.turn("b", OPEN):
        assert next(ticks) - asked < 5
    with turns.turn("a", OPEN) as waited:
        assert next(ticks) - asked >= 25
        assert waited >= 20


def test_a_turn_is_given_back_whatever_happens_in_it():
    turns = Turns(1, 0.0)
    with pytest.raises(ZeroDivisionError), turns.turn("a", OPEN):
        raise ZeroDivisionError
    with turns.turn("a", OPEN) as waited:
        assert waited >= 0


def test_who_is_not_wanted_any_more_does_not_wait_for_a_turn():
    turns = Turns(1, 0.0)
    closed = threading.Event()
    with turns.turn("a", OPEN), ThreadPoolExecutor(1) as pool:

        def wait():
            with turns.turn("a", closed):
                pass

        waiting = pool.submit(wait)
        closed.set()
        assert isinstance(waiting.exception(timeout=10), Closed)


def test_a_million_hosts_are_not_remembered():
    ticks = itertools.count()
    turns = Turns(1, 1.0, clock=lambda: float(next(ticks)))
    for number in range(3 * REMEMBERED):
        with turns.turn(f"host-{number}", OPEN):
            pass
    assert len(turns._not_before) <= REMEMBERED + 1
    assert turns._taken == {}
