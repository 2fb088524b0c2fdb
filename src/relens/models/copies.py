"""Copies of far model versions on this machine: a folder each, complete or absent, shared by all processes.

A copy that is held stays. One that is damaged is found when a process holds it for the first time, and made again. What
a copy is made from is not known here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

from relens.errors import Broken, Busy
from relens.models.folder import NOT_FETCHED

FACTS = ".copied.json"
"""In a copy: bytes and SHA-256 of each of its files."""

WAIT_S = 0.1
"""From one look to the next whether another process has ended what it does with a copy."""

Fill = Callable[[Path], Mapping[str, str]]
"""Puts the files of a version into a folder, which may have some already: their names, each with its SHA-256."""


class Copies:
    """Copies by name: `<name>/`, `<name>.part/` while it is made, and `<name>.lock`.

    Who makes or removes a copy has the lock alone; who uses it shares it. The system frees it when a process dies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, IO[bytes]] = {}
        self._sound: set[str] = set()  # of which every byte has been read
        self._mutex = threading.Lock()

    def path(self, name: str) -> Path:
        return self._folder / name

    def check(self) -> None:
        """Broken if this machine's disk takes no copies."""
        with self._disk_errors():
            self._folder.mkdir(parents=True, exist_ok=True)

    def hold(self, name: str, fill: Fill, given_up: Callable[[], bool]) -> None:
        """Make a copy if there is none, and keep it from being removed until it is released.

        Busy soon after it is given up; Broken if the disk does not take it. What `fill` raises is passed on.
        """
        with self._disk_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            while not self._take(name, given_up):
                if not self._make(name, fill):
                    time.sleep(WAIT_S)

    def release(self, name: str) -> None:
        """A copy may be removed again, for all that this process cares."""
        with self._mutex:
            held = self._held.pop(name, None)
        if held is not None:
            held.close()

    def sweep(self, keep: Collection[str], *, unused_s: float = 0.0) -> None:
        """Remove copies, also half ones, that nobody holds, are not to be kept, and were not held for so long."""
        for path in self._folder.glob("*.lock"):
            name = path.name.removesuffix(".lock")
            if name in keep or time.time() - _changed(path) < unused_s:
                continue
            with contextlib.suppress(OSError), _closing(self._lock(name, fcntl.LOCK_EX)) as alone:
                if alone is not None:
                    self._sound.discard(name)
                    shutil.rmtree(self.path(name), ignore_errors=True)
                    shutil.rmtree(self.path(f"{name}.part"), ignore_errors=True)
                    path.unlink(missing_ok=True)

    def _take(self, name: str, given_up: Callable[[], bool]) -> bool:
        """Hold a copy that is there and sound."""
        lock = self._lock(name, fcntl.LOCK_SH)
        sound = lock is not None and self._is_sound(name)
        with self._mutex:
            before = self._held.pop(name, None)
            if sound and lock is not None and not given_up():
                self._held[name] = lock
                os.utime(self.path(f"{name}.lock"))
                lock = None
        for file in (lock, before):
            if file is not None:
                file.close()
        if given_up():
            raise let_go()
        return sound

    def _make(self, name: str, fill: Fill) -> bool:
        """Make a copy unless there is one that is sound. Whether it was ours to do."""
        target, part = self.path(name), self.path(f"{name}.part")
        with _closing(self._lock(name, fcntl.LOCK_EX)) as alone:
            if alone is None:
                return False
            if self._is_sound(name):
                return True
            shutil.rmtree(target, ignore_errors=True)
            part.mkdir(exist_ok=True)
            digests = fill(part)
            facts = {file: {"bytes": (part / file).stat().st_size, "sha256": sha} for file, sha in digests.items()}
            (part / FACTS).write_text(json.dumps(facts), encoding="utf-8")
            part.rename(target)
            self._sound.add(name)
            return True

    def _is_sound(self, name: str) -> bool:
        """Whether there is a copy, in its sizes; when it is asked for the first time, every byte is compared."""
        path = self.path(name)
        try:
            facts = json.loads((path / FACTS).read_bytes())
            if any((path / file).stat().st_size != fact["bytes"] for file, fact in facts.items()):
                return False
            if name not in self._sound and any(
                sha256_of(path / file) != fact["sha256"] for file, fact in facts.items()
            ):
                return False
        except (OSError, ValueError):
            return False
        self._sound.add(name)
        return True

    def _lock(self, name: str, kind: int) -> IO[bytes] | None:
        """The lock of a copy; None if others have it."""
        path = self.path(f"{name}.lock")
        while True:
            file = path.open("ab")
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except OSError as error:
                file.close()
                if isinstance(error, BlockingIOError):
                    return None
                raise
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # it was removed, with its copy, before it was ours

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Broken(
                NOT_FETCHED,
                f"no copy of a model can be kept in {self._folder}: {error.strerror or error}",
                hint="is the disk full, or not ours to write to? XDG_CACHE_HOME names another",
            ) from error


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def let_go() -> Busy:
    """What was being fetched is not wanted any more."""
    return Busy("serving.let-go", "the version is not wanted any more")


@contextlib.contextmanager
def _closing(file: IO[bytes] | None) -> Iterator[IO[bytes] | None]:
    try:
        yield file
    finally:
        if file is not None:
            file.close()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
