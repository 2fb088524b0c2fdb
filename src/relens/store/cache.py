"""The cache: copies of remote blobs in a folder of this machine, for all processes of a home.

A copy was compared with its digest when it came. When there are more than the limit allows, those that were used
longest ago go; what was asked for within the last minute stays, whatever the limit says.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from relens.store.blobs import Spool, corrupt_blob, disk_errors, sweep_folder

SURE_S = 60.0
"""So long a copy stays after it was asked for: time enough to open it."""


class Cache:
    """Copies of blobs by digest, `limit_bytes` of them, and room for temporary files beside them.

    When a copy was used last is the time of its file: file systems do not all know when a file was read.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._copies = folder / "blobs"
        self._tmp = folder / "tmp"
        self._locks = folder / "locks"
        self._limit_bytes = limit_bytes

    def temporary(self) -> Path:
        with disk_errors(self._tmp):
            self._tmp.mkdir(parents=True, exist_ok=True)
        return self._tmp / uuid.uuid4().hex

    def find(self, digest: str, *, verify: bool = False) -> Path | None:
        """The copy of a blob. With `verify`, one with other bytes is removed and was not there."""
        path = self._copies / digest
        with self._lock("evict", fcntl.LOCK_SH), disk_errors(path):
            try:
                os.utime(path)
            except FileNotFoundError:
                return None
        if verify and _digest(path) != digest:
            self.drop(digest)
            return None
        return path

    def keep(self, digest: str, fetch: Callable[[], Iterable[bytes]]) -> Path:
        """The copy of a blob, fetched if there is none; others who want it meanwhile wait for it.

        Broken if what came has another digest, twice.
        """
        with self._lock(digest, fcntl.LOCK_EX) as lock:
            if (path := self.find(digest)) is None:
                try:
                    path = self._fetch(digest, fetch)
                finally:
                    lock.unlink(missing_ok=True)  # who waits for it finds the copy, or fetches it himself
                self._evict()
        return path

    def drop(self, digest: str) -> None:
        (self._copies / digest).unlink(missing_ok=True)

    def unused(self, for_s: float) -> list[str]:
        """Digests of copies that nobody has asked for so long."""
        now = time.time()
        return [path.name for used, _, path in self._listed() if now - used > for_s]

    def sweep(self, older_than_s: float) -> int:
        """Remove temporary files of processes that died, older than this. The number removed."""
        return sweep_folder(self._tmp, older_than_s)

    def _fetch(self, digest: str, fetch: Callable[[], Iterable[bytes]]) -> Path:
        for last in (False, True):  # what was cut short on the way is whole the second time
            spool = Spool(self.temporary())
            try:
                for data in fetch():
                    spool.write(data)
                found = spool.named().digest
                if found == digest:
                    spool.move(self._copies / digest)
                    break
                if last:
                    raise corrupt_blob(digest, found)
            finally:
                spool.discard()
        return self._copies / digest

    def _evict(self) -> None:
        with self._lock("evict", fcntl.LOCK_EX):
            listed = sorted(self._listed())
            excess = sum(size for _, size, _ in listed) - self._limit_bytes
            for used, size, path in listed:
                if excess <= 0 or time.time() - used < SURE_S:
                    return
                path.unlink(missing_ok=True)
                excess -= size

    def _listed(self) -> Iterator[tuple[float, int, Path]]:
        """When it was used last, bytes and path of each copy."""
        for path in self._copies.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path

    @contextlib.contextmanager
    def _lock(self, name: str, kind: int) -> Iterator[Path]:
        """A lock among all processes and threads of the home; the system frees it when its holder dies."""
        path = self._locks / name
        with disk_errors(path):
            self._locks.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        with file:
            fcntl.flock(file, kind)
            yield path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
