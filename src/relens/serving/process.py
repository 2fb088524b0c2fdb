"""An engine's process: questions in over a socket pair, answers out. Ends when the other side ends.

The main thread reads frames into a bounded queue; a few threads take, answer and send. A question that waited past its
deadline is answered with an error and never run.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from relens.errors import Broken, Busy, RelensError
from relens.runtimes import WorkQueue
from relens.serving.core import Engine
from relens.serving.questions import Question, error_to_header, pack_answer, receive_frame, send_frame

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    id: int
    question: Question


class _Line:
    """The socket, so that threads send whole frames one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._sending = threading.Lock()

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        with self._sending:
            try:
                send_frame(self.connection, header, body)
            except OSError:
                log.info("the front has gone; an answer is dropped")

    def fail(self, job: _Job, error: RelensError) -> None:
        self.send({"id": job.id, "error": error_to_header(error)})


def serve(connection: socket.socket, start: Callable[[], Engine], *, threads: int, queue: int) -> int:
    """Load the engine, say so, and answer until the other side ends. The exit code."""
    line = _Line(connection)
    try:
        engine = start()
    except RelensError as error:
        line.send({"failed": error_to_header(error)})
        return 1
    line.send({"ready": {"lens": engine.lens.digest}})
    jobs: WorkQueue[_Job] = WorkQueue(queue, on_expired=lambda job: line.fail(job, _expired()))
    for number in range(threads):
        threading.Thread(target=_work, args=(engine, jobs, line), name=f"answer-{number}", daemon=True).start()
    while (frame := receive_frame(connection)) is not None:
        header, body = frame
        job = _Job(header["id"], Question.from_frame(header, body))
        try:
            jobs.put(job, deadline=time.monotonic() + job.question.timeout_s)
        except Busy as error:
            line.fail(job, error)
    jobs.close()
    return 0


def _work(engine: Engine, jobs: WorkQueue[_Job], line: _Line) -> None:
    while True:
        job = jobs.take(None)
        if job is None:
            return
        try:
            answer, body = pack_answer(engine.answer(job.question))
            line.send({"id": job.id, "answer": answer}, body)
        except RelensError as error:
            line.fail(job, error)
        except Exception as error:
            log.exception("a question failed")
            line.fail(job, Broken("serving.failed", f"the engine failed: {type(error).__name__}: {error}"))


def _expired() -> Busy:
    return Busy(
        "serving.expired",
        "the question waited past its deadline and was not run",
        hint="the machine has more to do than it can: ask less often, or give it more cores",
        retry_after_s=1.0,
    )
