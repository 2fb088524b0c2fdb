"""Worker processes of one parent: start as many as wanted, start again what died, end them politely.

A worker that dies is a lost lease, which the catalog handles; here it is only replaced. Workers that cannot even start
are not tried for ever.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence

import structlog

from relens.errors import Broken

GRACE_S = 15.0
START_S = 5.0
MAX_BAD_STARTS = 5

log = structlog.get_logger(__name__)


class WorkerPool:
    """Up to `count` processes started from `argv`; `--parent` with this process's pid is added to it."""

    def __init__(self, argv: Sequence[str], count: int) -> None:
        self._argv = [*argv, "--parent", str(os.getpid())]
        self._count = count
        self._running: dict[subprocess.Popen[bytes], float] = {}
        self._bad_starts = 0

    def fill(self) -> None:
        """Start what is missing. Broken if workers end with an error right after their start, again and again."""
        self.reap()
        if self._bad_starts >= MAX_BAD_STARTS:
            raise Broken(
                "jobs.workers-die",
                f"{MAX_BAD_STARTS} workers ended with an error right after their start",
                hint="their last words are above; `relens doctor` looks for the usual causes",
            )
        while len(self._running) < self._count:
            # A group of their own: ctrl-C reaches the parent alone, which then ends them. But not a session of their
            # own: Linux shares cores equally among sessions (autogroups), and niceness counts only within one.
            process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603
            self._running[process] = time.monotonic()

    def reap(self) -> int:
        """Forget those that ended. The number that still runs."""
        ended = {process: started for process, started in self._running.items() if process.poll() is not None}
        bad = False
        for process, started in ended.items():
            del self._running[process]
            if process.returncode != 0:
                log.warning("worker ended", pid=process.pid, code=process.returncode)
            bad = bad or (process.returncode > 0 and time.monotonic() - started < START_S)
        if ended:  # those that end together have one cause
            self._bad_starts = self._bad_starts + 1 if bad else 0
        return len(self._running)

    def forgive(self) -> None:
        """Try again after workers could not start."""
        self._bad_starts = 0

    def stop(self) -> None:
        """Ask all to give back what they hold; after a grace, end them by force."""
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for process in list(self._running):
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()


def parent_is_gone(parent: int | None) -> bool:
    """Whether the process that started this one has ended. Nobody is waited for if nobody is named."""
    return parent is not None and os.getppid() != parent
