"""One server a home: an advisory lock that ends with its process, and a note of who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import IO, Any

from relens.config import Home
from relens.errors import Conflict
from relens.store.blobs import write_file_durably

LOCK = "up.lock"
NOTE = "up.json"


@contextlib.contextmanager
def server_lock(home: Home) -> Iterator[None]:
    """Hold the home's server lock; children do not inherit it. Conflict, naming the holder's pid, if it is held."""
    home.run.mkdir(parents=True, exist_ok=True)
    with (home.run / LOCK).open("a+") as file:
        if not _try_lock(file):
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
            if _try_lock(file):
                return None
    except FileNotFoundError:
        return None
    return read_note(home) or {}


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
