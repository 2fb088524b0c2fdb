"""One run of a pack, as those who fetch for it know it. Light: most imports fetch nothing and load no HTTP library."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from relens.bulk.outages import Outages
from relens.errors import Broken


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a pack, or of something else that fetches: what it knows of hosts, and whether it is still wanted."""

    outages: Outages
    closed: threading.Event


def idle_run() -> Run:
    """A run that asks no host."""
    return Run(Outages(lambda _: False, list), threading.Event())


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Around writes to files that hold what was fetched: Broken if the disk does not take it."""
    try:
        yield
    except OSError as error:
        raise Broken(
            "fetch.disk",
            f"cannot keep what was fetched: {error.strerror}",
            hint="is the disk of the home full or read-only?",
        ) from error
