"""An engine's process: questions in over a socket pair, answers out. Ends when the other side ends.

The main thread reads frames into bounded queues; a few threads take, answer and send. What is being enrolled has a
queue and a thread of its own, to which the others yield: it is rare, short, and found only when it is done. A question
that waited past its deadline is answered with an error and never run.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from relens.errors import Broken, Busy, RelensError
from relens.runtimes import WorkQueue
from relens.runtimes.frames import Outlet, error_to_header, expired, receive_frames
from relens.serving.core import Engine
from relens.serving.questions import Question, pack_answer

log = structlog.get_logger(__name__)

YIELDING = 10
"""Added niceness of the threads that answer questions: with it an enrolment beside 50 searches a second on two cores
takes 48 ms at the 99th percentile instead of 56, and a search no longer than before."""


@dataclass(frozen=True, slots=True)
class _Job:
    id: int
    question: Question


def serve(connection: socket.socket, start: Callable[[], Engine], *, threads: int, queue: int) -> int:
    """Load the engine, say so, and answer until the other side ends. The exit code.

    threads  questions at a time, beside one description
    queue    questions that may wait, and descriptions likewise
    """
    line = Outlet(connection)
    try:
        engine = start()
    except RelensError as error:
        line.send({"failed": error_to_header(error)})
        return 1
    line.send({"ready": {"lens": engine.lens.digest}})
    descriptions = _answering(engine, line, threads=1, queue=queue)
    questions = _answering(engine, line, threads=threads, queue=queue, niceness=YIELDING)
    for header, body in receive_frames(connection):
        job = _Job(header["id"], Question.from_frame(header, body))
        jobs = descriptions if job.question.use == "describe" else questions
        try:
            jobs.put(job, deadline=time.monotonic() + job.question.timeout_s)
        except Busy as error:
            line.fail(job.id, error)
    questions.close()
    descriptions.close()
    return 0


def _answering(engine: Engine, line: Outlet, *, threads: int, queue: int, niceness: int = 0) -> WorkQueue[_Job]:
    """A queue with threads that work on what is put into it; on Linux niceness is a thread's own."""
    jobs: WorkQueue[_Job] = WorkQueue(queue, on_expired=lambda job: line.fail(job.id, expired()))
    for number in range(threads):
        name, given = f"answer-{number}", (engine, jobs, line, niceness)
        threading.Thread(target=_work, args=given, name=name, daemon=True).start()
    return jobs


def _work(engine: Engine, jobs: WorkQueue[_Job], line: Outlet, niceness: int) -> None:
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
    while True:
        job = jobs.take(None)
        if job is None:
            return
        try:
            answer, body = pack_answer(engine.answer(job.question))
            line.send({"id": job.id, "answer": answer}, body)
        except RelensError as error:
            line.fail(job.id, error)
        except Exception as error:
            log.exception("a question failed")
            line.fail(job.id, Broken("serving.failed", f"the engine failed: {type(error).__name__}: {error}"))
