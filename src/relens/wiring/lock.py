"""One server a home: an advisory lock that ends with its process, and a note of who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import IO, Any

from relens.config import Home
from relens.errors import Conflict
from relens.store.blobs import write_file_durably

LOCK = "up.lock"
NOTE = "up.json"
PATIENCE_S = 1.0


@contextlib.contextmanager
def server_lock(home: Home) -> Iterator[None]:
    """Hold the home's server lock; children do not inherit it. Conflict, naming the holder's pid, if it is held."""
    home.run.mkdir(parents=True, exist_ok=True)
    with (home.run / LOCK).open("a+") as file:
        if not _wait_for_lock(file):
            pid = (read_note(home) or {}).get("pid", "unknown")
            raise Conflict(
                "wiring.already-up",
                f"relens is already up on {home.path}, as process {pid}",
                hint="use that one, or end it with `relens down`",
            )
        (home.run / NOTE).unlink(missing_ok=True)
        try:
            yield
        finally:
            (home.run / NOTE).unlink(missing_ok=True)


def write_note(home: Home, url: str) -> None:
    """Say where the server of this process answers."""
    note = {"pid": os.getpid(), "url": url}
    write_file_durably(home.run / NOTE, json.dumps(note).encode())


def read_note(home: Home) -> dict[str, Any] | None:
    """Pid and URL of the server that was noted last; it may have died since."""
    try:
        note: dict[str, Any] = json.loads((home.run / NOTE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return note


def running_server(home: Home) -> dict[str, Any] | None:
    """`{"pid", "url"}` of the server that holds the home's lock now; None if there is none, `{}` while it starts."""
    try:
        with (home.run / LOCK).open("a+") as file:
            if _try_lock(file, fcntl.LOCK_SH):  # shared: those who only look do not see each other
                return None
    except FileNotFoundError:
        return None
    return read_note(home) or {}


def _wait_for_lock(file: IO[str]) -> bool:
    """Take the lock, with a little patience for those who only look whether it is taken."""
    deadline = time.monotonic() + PATIENCE_S
    while not _try_lock(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
