"""The front's side of engines: start one per lens when it is first asked for, send questions, notice death.

A dead engine is known by the end of its socket. Its unanswered questions are asked once more of a new one; an engine
that cannot start is left alone for a moment, and the reason is told.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import structlog

from relens.errors import Broken, Busy, RelensError
from relens.runtimes.frames import error_from_header, receive_frames, send_frame
from relens.serving.questions import Answer, Question, read_answer
from relens.telemetry import ENGINE_STARTS, ENGINES

START_TIMEOUT_S = 60.0
REST_S = 2.0
GRACE_S = 5.0
SEND_TIMEOUT_S = 5
HANGS_S = 60.0
"""An engine that has questions and has been silent for so long, and for longer than one may wait, is ended."""
SLACK_S = 5.0
"""How much longer than a question may wait the front waits for its answer: the time to run one."""

log = structlog.get_logger(__name__)


class Died(Exception):
    """The engine's process ended before it answered."""


class EngineProcess:
    """One engine process and the questions that it has not answered yet."""

    def __init__(self, argv: Sequence[str], lens: str) -> None:
        """`argv` starts an engine; `--lens` and `--fd` are added to it."""
        self.lens = lens
        self.started_at = time.time()
        here, there = socket.socketpair()
        # An engine that does not read is as good as dead: nobody waits for it without end.
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))
        self._connection = here
        command = [*argv, "--lens", lens, "--fd", str(there.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603
        there.close()
        self.pid = self._process.pid
        self._ids = itertools.count()
        self._pending: dict[int, Future[tuple[dict[str, Any], bytes]]] = {}
        self._lock = threading.Lock()
        self._ready: Future[dict[str, Any]] = Future()
        self.dead = False
        self.asked_at = time.monotonic()
        self._sign = self.asked_at  # when it last said anything, or was last asked while it had nothing to do
        threading.Thread(target=self._listen, name=f"engine-{self.pid}", daemon=True).start()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the engine is loaded. Raises why it could not."""
        try:
            first = self._ready.result(timeout_s)
        except FutureTimeout:
            raise Broken(
                "serving.slow-start",
                f"the engine of lens {self.lens[:12]} was not loaded within {timeout_s:g} s",
                hint="is the machine very busy, or the disk very slow? it is tried again with the next question",
            ) from None
        except Died:
            raise Broken(
                "serving.engine-died",
                f"the engine of lens {self.lens[:12]} ended while it was loading",
                hint="its last words are in the log; `relens doctor --deep` checks models and segments",
            ) from None
        if "failed" in first:
            raise error_from_header(first["failed"])

    def ask(self, question: Question) -> Answer:
        """Ask and wait. Died if the engine ends first; Busy if the answer does not come in time."""
        future: Future[tuple[dict[str, Any], bytes]] = Future()
        with self._lock:
            if self.dead:
                raise Died
            number = next(self._ids)
            self.asked_at = time.monotonic()
            self._sign = self._sign if self._pending else self.asked_at
            self._pending[number] = future
            try:
                send_frame(self._connection, {"id": number, **question.header()}, question.data)
            except OSError:
                self._pending.pop(number, None)
                self.dead = True
                self._process.kill()
                raise Died from None
        try:
            answer, body = future.result(question.timeout_s + SLACK_S)
        except FutureTimeout:
            self._pending.pop(number, None)
            self._end_if_hung(max(HANGS_S, question.timeout_s))
            raise Busy("serving.timeout", f"no answer within {question.timeout_s:g} s") from None
        if "error" in answer:
            raise error_from_header(answer["error"])
        return read_answer(question.use, answer["answer"], body)

    def idle_s(self) -> float:
        """Seconds without a question; 0 while there is one."""
        return 0.0 if self._pending else time.monotonic() - self.asked_at

    def _end_if_hung(self, silent_s: float) -> None:
        """End an engine that has questions and has not said a word for so long."""
        if time.monotonic() - self._sign > silent_s:
            log.error("an engine hangs and is ended", pid=self.pid, lens=self.lens)
            self._process.kill()

    def to_json(self) -> dict[str, Any]:
        state = "dead" if self.dead else "ready" if self._ready.done() else "loading"
        return {"lens": self.lens, "pid": self.pid, "state": state, "waiting": len(self._pending)}

    def stop(self) -> None:
        """End the process: first by closing its socket, then by force."""
        with contextlib.suppress(OSError):  # it has ended by itself
            self._connection.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self) -> None:
        try:
            for header, body in receive_frames(self._connection):
                self._sign = time.monotonic()
                if "id" not in header:
                    self._ready.set_result(header)
                    continue
                waiting = self._pending.pop(header["id"], None)
                if waiting is not None:
                    waiting.set_result((header, body))
        except (OSError, ValueError) as error:
            log.warning("the line to an engine broke", pid=self.pid, error=str(error))
        finally:
            self._bury()

    def _bury(self) -> None:
        with self._lock:
            self.dead = True
            pending, self._pending = self._pending, {}
        if not self._ready.done():
            self._ready.set_exception(Died())
        for waiting in pending.values():
            waiting.set_exception(Died())
        self._process.kill()  # without a line it is of no use to anybody
        self._process.wait()


class Engines:
    """Engine processes by lens, started when they are first asked for."""

    def __init__(self, argv: Callable[[], Sequence[str]]) -> None:
        self._argv = argv
        self._running: dict[str, EngineProcess] = {}
        self._failed: dict[str, tuple[float, RelensError]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, lens: str, question: Question) -> Answer:
        """Answer by the lens's engine; asked once more of a new engine if that one dies."""
        for _ in range(2):
            try:
                return self._engine(lens).ask(question)
            except Died:
                log.warning("engine died; asking a new one", lens=lens)
        raise Broken(
            "serving.engine-died",
            "two engines died over this question",
            hint="if it is always the same picture, keep it and report it; the log has the engines' last words",
        )

    def running(self) -> list[dict[str, Any]]:
        with self._lock:
            return [engine.to_json() for engine in self._running.values()]

    def rest(self, idle_s: float) -> None:
        """End the engines that nobody has asked for so long; the next question starts one again."""
        with self._lock:
            idle = [lens for lens, engine in self._running.items() if engine.idle_s() > idle_s]
            engines = [self._running.pop(lens) for lens in idle]
            ENGINES.set(len(self._running))
        for engine in engines:
            log.info("an engine that nobody asks is ended", lens=engine.lens, pid=engine.pid)
            engine.stop()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            engines, self._running = list(self._running.values()), {}
        for engine in engines:
            engine.stop()
        ENGINES.set(0)

    def _engine(self, lens: str) -> EngineProcess:
        with self._lock:
            engine = self._running.get(lens)
            if engine is not None:
                engine.asked_at = time.monotonic()  # so that it does not go to rest just now
            starting = self._locks.setdefault(lens, threading.Lock())
        if engine is not None and not engine.dead:
            engine.wait_ready(START_TIMEOUT_S)
            return engine
        with starting:
            return self._start(lens)

    def _start(self, lens: str) -> EngineProcess:
        with self._lock:
            engine = self._running.get(lens)
        if engine is not None and not engine.dead:
            return engine
        failed_at, error = self._failed.get(lens, (-REST_S, None))
        if error is not None and time.monotonic() - failed_at < REST_S:
            raise error
        if self._is_closed():
            raise Busy("serving.closing", "the server is ending", retry_after_s=5.0)
        engine = EngineProcess(self._argv(), lens)
        ENGINE_STARTS.inc()
        try:
            engine.wait_ready(START_TIMEOUT_S)
        except RelensError as reason:
            self._failed[lens] = (time.monotonic(), reason)
            engine.stop()
            raise
        with self._lock:
            self._running[lens] = engine
            ENGINES.set(len(self._running))
        if self._is_closed():  # it was meanwhile
            engine.stop()
        return engine

    def _is_closed(self) -> bool:
        return self._closed
