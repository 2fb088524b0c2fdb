"""The queue admits, bounds and drops; nothing is run late, lost or run twice."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.errors import BadInput, Busy
from relens.runtimes import WorkQueue


class Clock:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def expired():
    return []


@pytest.fixture
def queue(clock, expired):
    return WorkQueue(2, on_expired=expired.append, now=clock)


def test_jobs_come_out_in_the_order_they_went_in(queue):
    queue.put("a", deadline=None)
    queue.put("b", deadline=None)
    assert len(queue) == 2
    assert [queue.take(0), queue.take(0), queue.take(0)] == ["a", "b", None]


@given(st.lists(st.integers(0, 3)))
def test_lower_levels_come_out_first_and_each_in_the_order_it_went_in(levels):
    queue = WorkQueue(len(levels) + 1, on_expired=print)
    for number, level in enumerate(levels):
        queue.put((level, number), deadline=None, level=level)
    assert [queue.take(0) for _ in levels] == sorted((level, number) for number, level in enumerate(levels))


def test_what_expires_while_others_go_before_it_is_reported_when_they_do(queue, clock, expired):
    queue.put("low", deadline=clock.time + 1, level=2)
    queue.put("high", deadline=None, level=1)
    clock.time += 2
    assert queue.take(0) == "high"
    assert expired == ["low"]
    assert queue.take(0) is None


def test_a_full_queue_refuses_and_says_when_to_come_again(queue, clock):
    queue.put("a", deadline=None)
    clock.time += 1.5
    queue.put("b", deadline=None)
    clock.time += 1
    with pytest.raises(Busy) as caught:
        queue.put("c", deadline=None)
    assert caught.value.code == "runtimes.queue-full"
    assert caught.value.retry_after_s == pytest.approx(2.5)
    assert queue.take(0) == "a"
    queue.put("c", deadline=None)


def test_an_expired_job_is_never_taken_but_reported(queue, clock, expired):
    queue.put("late", deadline=clock.time + 1)
    queue.put("patient", deadline=None)
    clock.time += 1.01
    assert queue.take(0) == "patient"
    assert expired == ["late"]
    assert queue.take(0) is None


def test_a_job_is_taken_up_to_its_deadline(queue, clock, expired):
    queue.put("just", deadline=clock.time + 1)
    clock.time += 1
    assert queue.take(0) == "just"
    assert not expired


def test_a_deadline_of_zero_is_a_deadline(queue, expired):
    queue.put("old", deadline=0.0)
    assert queue.take(0) is None
    assert expired == ["old"]


def test_expired_jobs_make_room_for_new_ones(queue, clock, expired):
    queue.put("a", deadline=clock.time + 1)
    queue.put("b", deadline=clock.time + 9)
    clock.time += 2
    queue.put("c", deadline=None)
    assert expired == ["a"]
    assert [queue.take(0), queue.take(0)] == ["b", "c"]


def test_the_callback_may_use_the_queue(clock):
    queue = WorkQueue(1, on_expired=lambda job: queue.put(job + "again", deadline=None), now=clock)
    queue.put("a", deadline=clock.time - 1)
    assert queue.take(0) == "aagain"


def test_a_closed_queue_gives_what_is_left_and_takes_nothing_new(queue):
    queue.put("a", deadline=None)
    queue.close()
    assert queue.closed
    with pytest.raises(Busy) as caught:
        queue.put("b", deadline=None)
    assert caught.value.code == "runtimes.queue-closed"
    assert queue.take(None) == "a"
    assert queue.take(None) is None


def test_closing_wakes_every_waiting_taker(queue):
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(queue.take, None) for _ in range(3)]
        queue.close()
        assert [taker.result(timeout=10) for taker in waiting] == [None] * 3


def test_a_waiting_taker_gets_what_is_put(queue):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.take, 10)
        queue.put("a", deadline=None)
        assert waiting.result(timeout=10) == "a"


def test_a_taker_gives_up_in_time(queue):
    assert queue.take(0.01) is None


def test_a_queue_without_places_is_refused():
    with pytest.raises(BadInput):
        WorkQueue(0, on_expired=print)


def test_every_admitted_job_is_taken_once_or_expires_once():
    """Four put as fast as they can, three take, a third of the jobs come too late."""
    gone, taken, refused = [], [], []
    queue = WorkQueue(5, on_expired=gone.append)

    def put_many(first):
        for job in range(first, first + 500):
            try:
                queue.put(job, deadline=0.0 if job % 3 == 0 else None)
            except Busy:
                refused.append(job)

    def take_all():
        while (job := queue.take(None)) is not None:
            taken.append(job)

    takers = [threading.Thread(target=take_all) for _ in range(3)]
    putters = [threading.Thread(target=put_many, args=(first,)) for first in range(1, 2001, 500)]
    for thread in takers + putters:
        thread.start()
    for thread in putters:
        thread.join()
    queue.close()
    for thread in takers:
        thread.join()
    assert sorted(gone + taken + refused) == list(range(1, 2001))
    assert all(job % 3 == 0 for job in gone)
    assert all(job % 3 for job in taken)


@given(steps=st.lists(st.one_of(st.integers(0, 5), st.sampled_from(["take", "tick"])), max_size=40))
def test_it_behaves_like_a_list_with_deadlines(steps):
    clock, gone = Clock(), []
    queue, model = WorkQueue(3, on_expired=gone.append, now=clock), []
    for number, step in enumerate(steps):
        alive = [(job, deadline) for job, deadline in model if deadline >= clock.time]
        if step == "tick":
            clock.time += 1
        elif step == "take":
            assert queue.take(0) == (alive[0][0] if alive else None)
            model = alive[1:]
        else:
            if len(model) == 3:
                model = alive
            if len(model) == 3:
                with pytest.raises(Busy):
                    queue.put(number, deadline=clock.time + step)
            else:
                queue.put(number, deadline=clock.time + step)
                model.append((number, clock.time + step))
    assert len(set(gone)) == len(gone)


def test_jobs_that_fit_are_taken_together_and_others_stay_in_their_order(clock, expired):
    queue = WorkQueue(10, on_expired=expired.append, now=clock)
    for job in ("a1", "b1", "a2", "b2", "a3", "a4"):
        queue.put(job, deadline=None)
    assert queue.take(0) == "a1"
    assert queue.take_also(lambda job: job.startswith("a"), most=2, wait_s=0) == ["a2", "a3"]
    assert [queue.take(0) for _ in range(4)] == ["b1", "b2", "a4", None]


def test_who_has_gathered_as_much_as_there_is_room_for_waits_no_longer():
    queue = WorkQueue(10, on_expired=print)
    for job in (3, 5, 4, 1):
        queue.put(job, deadline=None)
    with ThreadPoolExecutor(1) as threads:
        gathered = threads.submit(queue.take_also, lambda _: True, most=7, wait_s=60, size=lambda job: job)
        assert gathered.result(30) == [3, 4]
    assert [queue.take(0) for _ in range(2)] == [5, 1]


def test_what_has_expired_is_not_taken_with_others(queue, clock, expired):
    queue.put("late", deadline=clock.time + 1)
    queue.put("patient", deadline=None)
    clock.time += 2
    assert queue.take_also(lambda _: True, most=5, wait_s=0) == ["patient"]
    assert queue.take(0) is None
    assert expired == ["late"]


def test_who_gathers_gets_what_comes_meanwhile_and_leaves_the_rest_to_others():
    queue = WorkQueue(10, on_expired=print)
    with ThreadPoolExecutor(2) as threads:
        gathered = threads.submit(queue.take_also, lambda job: job.startswith("a"), most=2, wait_s=60)
        other = threads.submit(queue.take, 60)
        for job in ("b1", "a1", "a2"):
            queue.put(job, deadline=None)
        assert other.result(60) == "b1"
        assert gathered.result(60) == ["a1", "a2"]


def test_the_end_of_the_queue_ends_gathering():
    queue = WorkQueue(10, on_expired=print)
    with ThreadPoolExecutor(1) as threads:
        gathered = threads.submit(queue.take_also, lambda _: True, most=2, wait_s=60)
        queue.put("a", deadline=None)
        queue.close()
        assert gathered.result(60) == ["a"]


def test_jobs_that_nobody_waits_for_any_more_are_forgotten(queue, expired):
    queue.put("a", deadline=None)
    queue.put("b", deadline=None)
    queue.drop(lambda job: job == "a")
    assert queue.take(0) == "b"
    assert queue.take(0) is None
    assert expired == []
