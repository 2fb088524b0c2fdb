"""The bytes that a URI names: files and members of archives at once, what is far away fetched ahead.

A pack that is worked off fetches some of its pictures while others are computed. What was fetched lies in files of the
home until the pack is committed, so that a worker that is killed costs no second download; of a gallery that keeps
nothing it lies in files without a name, which end with their process.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import stat
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from relens.bulk import members
from relens.bulk.addresses import Resolve, resolve
from relens.bulk.listings import path_of
from relens.bulk.objects import Objects
from relens.bulk.runs import Run, disk_errors, idle_run
from relens.config import Fetch
from relens.errors import BadInput
from relens.values import digest_of

if TYPE_CHECKING:
    from relens.bulk.fetching import Fetcher

THREADS = 8
AHEAD = 32
"""Pictures of a pack that are fetched, or under way, before they are asked for."""
LOOK_UP_S = 0.2
WEB = ("http://", "https://")
FAR = (*WEB, "s3://", members.FAR)


class Reader:
    """Reads what URIs name. One per worker process."""

    def __init__(self, settings: Fetch, folder: Path, *, max_bytes: int, resolve: Resolve = resolve) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._settings = settings
        self._resolve = resolve
        self._opened: Fetcher | None = None
        self._opening = threading.Lock()
        self._objects = Objects(settings)

    def open(self, plan: int, pack: int, uris: Iterable[str], *, keep: bool = True) -> Reading:
        """The reading of a pack, whose URIs are asked for in this order. `keep`: fetched bytes may lie in files."""
        far = [uri for uri in dict.fromkeys(uris) if _is_far(uri)]
        files = _Fetched(self._folder, f"{plan}/{pack}" if keep else None)
        run = self._fetcher().start(far) if any(uri.lower().startswith(WEB) for uri in far) else idle_run()
        return Reading(self, run, far, files)

    def sweep(self, unfinished: Callable[[], Iterable[int]]) -> None:
        """Remove what was fetched for plans that are over. Which are not, is asked after looking what there is."""
        folders = list(self._folder.iterdir()) if self._folder.is_dir() else []
        kept = {str(plan) for plan in unfinished()} if folders else set()
        for folder in folders:
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def read_near(self, uri: str) -> bytes:
        """The bytes of a file, or of a member of an archive, on this machine. BadInput, OSError."""
        if uri.lower().startswith(members.NEAR):
            return members.read(uri, max_bytes=self._max_bytes)
        path = path_of(uri)
        found = os.stat(path)  # noqa: PTH116 - bytes: names need not be valid text
        if not stat.S_ISREG(found.st_mode):  # a pipe is waited for, and some devices never end
            raise BadInput("bulk.unreadable", f"no file: {uri}")
        if (size := found.st_size) > self._max_bytes:
            raise BadInput("vision.too-large", f"{size} bytes; the limit (limits.max_bytes) is {self._max_bytes}")
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()

    def fetch(self, uri: str, into: IO[bytes], run: Run) -> None:
        """Fetch into a file. BadInput, Broken."""
        scheme = uri.partition(":")[0].lower()
        if scheme in {"http", "https"}:
            self._fetcher().fetch(uri, into, run, max_bytes=self._max_bytes)
        elif scheme == "s3":
            _write(into, self._objects.read(uri, max_bytes=self._max_bytes))
        else:
            _write(into, members.read(uri, max_bytes=self._max_bytes, read_range=self._read_range))

    def _read_range(self, uri: str, offset: int, length: int) -> bytes:
        return self._objects.read(uri, offset, length, max_bytes=length)

    def _fetcher(self) -> Fetcher:
        """Made when the first URL comes: the HTTP library takes a fifth of a second to load."""
        from relens.bulk.fetching import Fetcher  # noqa: PLC0415

        with self._opening:
            if self._opened is None:
                self._opened = Fetcher(self._settings, resolve=self._resolve)
            return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


class Reading:
    """What one run of a pack reads. Leaving the context ends what is under way; `forget` when the pack is committed."""

    def __init__(self, reader: Reader, run: Run, far: list[str], files: _Fetched) -> None:
        self._reader = reader
        self._run = run
        self._waiting = iter(far)
        self._files = files
        self._under_way: dict[str, Future[IO[bytes]]] = {}
        self._threads = ThreadPoolExecutor(THREADS, "fetch")  # starts no thread before there is work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._run.closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for future in self._under_way.values():
            future.add_done_callback(_close)

    def read(self, uri: str, go_on: Callable[[], None] = lambda: None) -> bytes:
        """The bytes that a URI names; `go_on` is called now and then while they are waited for, and may raise.

        BadInput if it is the picture's fault, Broken if it is not; OSError of a file on this machine.
        """
        if not _is_far(uri):
            return self._reader.read_near(uri)
        self._fetch_ahead()
        future = self._under_way.pop(uri, None) or self._threads.submit(self._bring, uri)
        self._fetch_ahead()
        try:
            while not wait((future,), LOOK_UP_S).done:
                go_on()
        except BaseException:
            self._under_way[uri] = future
            raise
        with future.result() as file:
            file.seek(0)
            return file.read()

    def forget(self) -> None:
        """Remove what was fetched: the pack is committed."""
        self._files.clear()

    def _fetch_ahead(self) -> None:
        for uri in itertools.islice(self._waiting, max(0, AHEAD - len(self._under_way))):
            self._under_way[uri] = self._threads.submit(self._bring, uri)

    def _bring(self, uri: str) -> IO[bytes]:
        return self._files.find(uri) or self._files.add(uri, lambda into: self._reader.fetch(uri, into, self._run))


class _Fetched:
    """Files of what was fetched for a pack, named by the digests of URI and content; without names if for no pack."""

    def __init__(self, root: Path, pack: str | None) -> None:
        self._root = root
        self._folder = None if pack is None else root / pack
        self._names: dict[str, str] = {}
        if self._folder is not None and self._folder.is_dir():
            self._names = {path.name.partition("-")[0]: path.name for path in self._folder.iterdir()}

    def find(self, uri: str) -> IO[bytes] | None:
        """What was fetched before, if it is whole: a computer may have lost power."""
        name = self._names.get(_digest(uri))
        if name is None or self._folder is None:
            return None
        with contextlib.suppress(FileNotFoundError):
            file = (self._folder / name).open("rb")
            if hashlib.file_digest(file, "sha256").hexdigest() == name.partition("-")[2]:
                return file
            file.close()
        return None

    def add(self, uri: str, fetch: Callable[[IO[bytes]], None]) -> IO[bytes]:
        """Fetch into a new file."""
        with disk_errors():
            file = self._new()
        try:
            fetch(file)
            with disk_errors():
                file.flush()
                self._name(uri, file)
        except BaseException:
            file.close()
            if self._folder is not None:
                Path(file.name).unlink(missing_ok=True)
            raise
        return file

    def _new(self) -> IO[bytes]:
        (self._folder or self._root).mkdir(parents=True, exist_ok=True)
        if self._folder is None:
            return tempfile.TemporaryFile(dir=self._root)
        # Closed by who reads it; what a killed worker leaves goes with the folder.
        return open(self._folder / f".{uuid.uuid4().hex}", "x+b")  # noqa: PTH123

    def _name(self, uri: str, file: IO[bytes]) -> None:
        if self._folder is not None:
            with open(file.name, "rb") as whole:  # noqa: PTH123
                name = f"{_digest(uri)}-{hashlib.file_digest(whole, 'sha256').hexdigest()}"
            Path(file.name).rename(self._folder / name)
            self._names[_digest(uri)] = name

    def clear(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # other packs of the plan are not committed yet
                self._folder.parent.rmdir()


def _digest(uri: str) -> str:
    return digest_of(uri.encode("utf-8", "surrogatepass"))


def _close(future: Future[IO[bytes]]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


def _write(into: IO[bytes], data: bytes) -> None:
    with disk_errors():
        into.write(data)


def _is_far(uri: str) -> bool:
    return uri.lower().startswith(FAR)
