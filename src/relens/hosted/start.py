"""Starts an engine's process: a thread of low priority imports and loads, the main thread serves.

Beside 50 requests a second on two cores a load at usual priority makes the slowest three times as slow. Without root
nothing that was lowered can be raised again, so it is not the process that is lowered. Run as a file, because to import
the package is most of the work: `python -P start.py ARGUMENTS`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

NICENESS = 10
"""A tenth of the share of others. At 19 a load on a machine that is busy with other things takes a minute."""
URGENT = "--urgent"
"""Nothing answers until this is loaded: it is loaded at usual priority."""


def main() -> int:
    """The process; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # ctrl-C and systemd tell all; the front ends us when it has done
        signal.signal(number, signal.SIG_IGN)
    urgent = URGENT in sys.argv
    words = [word for word in sys.argv[1:] if word != URGENT]
    prepared: list[Callable[[], int]] = []

    def prepare() -> None:
        if sys.platform == "linux" and not urgent:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        from relens.hosted import process  # noqa: PLC0415 - here, and not at usual priority

        prepared.append(process.prepare(words))

    thread = threading.Thread(target=prepare, name="prepare")
    thread.start()
    thread.join()
    return prepared[0]() if prepared else 1


if __name__ == "__main__":
    sys.exit(main())
