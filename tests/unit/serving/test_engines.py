"""The front and its engines: real sockets and processes, a made-up engine behind them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.errors import BadInput, Broken, Busy
from relens.runtimes.frames import Frames, error_from_header, error_to_header, head_of, receive_frames, send_frame
from relens.serving import Engines, Question, front

# An engine's process that does what the picture's bytes say, with the real loop around it.
SCRIPT = textwrap.dedent(
    """
    import os, socket, sys, time
    from relens.errors import BadInput, Broken
    from relens.serving import Description
    from relens.serving.process import serve
    from relens.values import PictureInfo, Recognition

    class Lens:
        digest = sys.argv[sys.argv.index("--lens") + 1]

    class Engine:
        lens = Lens()

        def answer(self, question):
            word, _, rest = question.data.partition(b" ")
            if word == b"sleep":
                time.sleep(float(rest))
            elif word == b"die":
                os._exit(9)
            elif word == b"die-once" and not os.path.exists(rest):
                open(rest, "w").close()
                os._exit(9)
            elif word == b"bad":
                raise BadInput("vision.broken-picture", "no picture", hint="send one")
            elif word == b"fault":
                raise ZeroDivisionError("oops")
            info = PictureInfo(str(len(question.data)), os.getpid(), 1)
            if question.use == "describe":
                return Description(Lens.digest, info, (), {}, {})
            return Recognition(question.release, "r", info, (), {})

    def start():
        if Lens.digest == "broken":
            raise Broken("models.corrupt", "the model is damaged", hint="fetch it again")
        if Lens.digest == "crash":
            os._exit(3)
        return Engine()

    fd = int(sys.argv[sys.argv.index("--fd") + 1])
    sys.exit(serve(socket.socket(fileno=fd), start, threads=1, queue=2))
    """
)


@pytest.fixture
def engines():
    made = Engines(lambda: [sys.executable, "-c", SCRIPT])
    yield made
    made.close()


def ask(engines: Engines, data: bytes, *, lens: str = "lens", timeout_s: float = 30.0, use="recognize"):
    return engines.ask(lens, Question(use, "release-1", data, timeout_s=timeout_s))


def test_an_engine_is_started_when_it_is_first_asked_and_answers_under_the_release(engines):
    assert engines.running() == []
    answer = ask(engines, b"x" * 300_000)
    assert answer.release == "release-1"
    assert answer.picture.sha256 == "300000"
    assert [engine["state"] for engine in engines.running()] == ["ready"]
    assert ask(engines, b"again").picture.width == answer.picture.width  # the same process


def test_each_lens_has_an_engine_of_its_own(engines):
    assert ask(engines, b"a", lens="one").picture.width != ask(engines, b"a", lens="two").picture.width


def test_errors_come_back_as_they_were_raised(engines):
    with pytest.raises(BadInput) as caught:
        ask(engines, b"bad")
    assert (caught.value.code, caught.value.hint) == ("vision.broken-picture", "send one")
    with pytest.raises(Broken, match="ZeroDivisionError: oops"):
        ask(engines, b"fault")
    assert ask(engines, b"fine")


def test_a_question_whose_engine_dies_is_asked_once_more_of_a_new_one(engines, tmp_path):
    first = ask(engines, b"x").picture.width
    again = ask(engines, b"die-once " + str(tmp_path / "died").encode())
    assert again.picture.width != first


def test_a_question_that_kills_every_engine_fails_and_the_next_one_is_answered(engines):
    with pytest.raises(Broken) as caught:
        ask(engines, b"die")
    assert caught.value.code == "serving.engine-died"
    assert ask(engines, b"fine")


def test_an_engine_killed_while_idle_is_replaced(engines):
    pid = ask(engines, b"x").picture.width
    os.kill(pid, signal.SIGKILL)
    assert ask(engines, b"x").picture.width != pid


def test_an_engine_that_cannot_start_says_why(engines):
    with pytest.raises(Broken) as caught:
        ask(engines, b"x", lens="broken")
    assert (caught.value.code, caught.value.hint) == ("models.corrupt", "fetch it again")
    with pytest.raises(Broken) as caught:
        ask(engines, b"x", lens="crash")
    assert caught.value.code == "serving.engine-died"
    assert engines.running() == []


def test_many_ask_at_once_and_one_engine_is_started(engines):
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda number: ask(engines, b"x" * number), range(2)))
    assert [answer.picture.sha256 for answer in answers] == ["0", "1"]
    assert len({answer.picture.width for answer in answers}) == 1


def test_a_full_queue_refuses_and_an_expired_question_is_never_run(engines, tmp_path):
    ask(engines, b"x")
    with ThreadPoolExecutor(4) as pool:
        busy = pool.submit(ask, engines, b"sleep 1.5")
        time.sleep(0.3)
        expired = pool.submit(ask, engines, b"die-once " + str(tmp_path / "ran").encode(), timeout_s=0.2)
        waiting = pool.submit(ask, engines, b"fine")
        time.sleep(0.1)
        with pytest.raises(Busy) as caught:
            ask(engines, b"one too many")
        assert caught.value.code == "runtimes.queue-full"
        assert caught.value.retry_after_s > 0
        with pytest.raises(Busy) as caught:
            expired.result()
        assert caught.value.code == "serving.expired"
        assert busy.result()
        assert waiting.result()
    assert not (tmp_path / "ran").exists()


def test_an_enrolment_waits_for_no_search(engines):
    ask(engines, b"x")
    with ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(ask, engines, b"sleep 1.5") for _ in range(2)]
        assert ask(engines, b"new", use="describe").picture.sha256 == "3"
        assert not any(one.done() for one in busy)
        assert all(one.result() for one in busy)


def test_an_engine_that_does_not_read_is_replaced(engines, monkeypatch):
    monkeypatch.setattr(front, "SEND_TIMEOUT_S", 1)
    pid = ask(engines, b"x").picture.width
    os.kill(pid, signal.SIGSTOP)
    answer = ask(engines, b"x" * 5_000_000, timeout_s=5.0)  # more than a socket holds
    assert answer.picture.width != pid


def test_a_question_after_the_end_is_refused_and_starts_nothing(engines):
    engines.close()
    with pytest.raises(Busy) as caught:
        ask(engines, b"x")
    assert caught.value.code == "serving.closing"
    assert engines.running() == []


def test_closing_ends_the_processes(engines):
    pid = ask(engines, b"x").picture.width
    engines.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_frames_travel_whole_until_the_other_side_ends():
    here, there = socket.socketpair()
    sent = [({"id": 1, "text": "grüße"}, os.urandom(3_000_000)), ({}, b""), ({"id": 2}, b"x")]

    def send():
        for frame in sent:
            send_frame(here, *frame)
        here.sendall(head_of({"cut": "off"}, b"body"))
        here.close()

    threading.Thread(target=send).start()
    assert list(receive_frames(there)) == sent


@given(st.lists(st.tuples(st.dictionaries(st.text(), st.integers()), st.binary())), st.lists(st.integers(1, 40)))
def test_frames_are_the_same_wherever_the_pieces_of_the_stream_end(sent, sizes):
    stream = b"".join(head_of(*frame) + frame[1] for frame in sent)
    frames, found, sizes = Frames(), [], iter([*sizes, *[1] * len(stream)])
    while stream:
        size = next(sizes)
        found += frames.feed(memoryview(stream[:size]))
        stream = stream[size:]
    assert found == sent


def test_an_error_travels_with_all_that_it_carries():
    error = Busy("a.b", "message", hint="hint", retry_after_s=2.5)
    back = error_from_header(error_to_header(error))
    assert (type(back), back.code, back.message, back.hint) == (Busy, "a.b", "message", "hint")
    assert back.retry_after_s == 2.5


def test_an_engine_that_nobody_asks_is_ended_and_started_again_when_somebody_does(engines):
    first = ask(engines, b"x").picture.width
    engines.rest(3600.0)
    assert ask(engines, b"x").picture.width == first
    engines.rest(0.0)
    assert engines.running() == []
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert ask(engines, b"x").picture.width != first


def test_an_engine_with_a_question_does_not_go_to_rest(engines):
    ask(engines, b"x")
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, engines, b"sleep 0.5")
        while not engines.running()[0]["waiting"]:
            time.sleep(0.01)
        engines.rest(0.0)
        assert asked.result(60).picture.width == engines.running()[0]["pid"]


def test_an_engine_that_hangs_is_ended_and_another_answers(engines, monkeypatch):
    monkeypatch.setattr(front, "SLACK_S", 0.1)
    monkeypatch.setattr(front, "HANGS_S", 0.05)
    first = ask(engines, b"x").picture.width
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(Busy):
        ask(engines, b"x", timeout_s=0.04)
    assert ask(engines, b"x").picture.width != first
