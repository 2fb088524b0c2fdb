"""Commands: one per use. Parse, call, print; nothing is decided here.

Data goes to stdout, progress and logs to stderr. Exit codes: 0 done, 1 failed, 2 wrong use, 3 refused by a gate,
4 partly done, 75 interrupted and resumable.
"""

import os

# One thread a process, before numpy reads it: cores are shared out among processes, and a matrix product that spreads
# itself over all of them takes them from the others.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from relens.cli.app import main  # noqa: E402 - after the threads are set

__all__ = ["main"]
