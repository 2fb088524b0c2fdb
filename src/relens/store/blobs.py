"""Blobs: immutable bytes named by their SHA-256.

What is named by a digest is complete and on the disk: bytes go to a temporary file, are synced, renamed and the folder
is synced. A crash leaves at most a temporary file. Which blob means what is the catalog's to know, not ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from relens.errors import Broken, Missing

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob: SHA-256 in hex, and its size in bytes."""

    digest: str
    size: int


class BlobWriter(Protocol):
    """A blob in the making. Nothing is stored until `finish`."""

    def write(self, data: bytes | memoryview) -> int: ...

    def tell(self) -> int:
        """Bytes written so far: the offset of what is written next."""

    def finish(self) -> Blob:
        """Store what was written, durably, and name it."""


class Blobs(Protocol):
    """A store of blobs. Every implementation passes `relens.testing.blobs`."""

    def put(self, data: bytes) -> Blob:
        """Store bytes durably. Storing the same bytes again changes nothing."""

    def writer(self) -> contextlib.AbstractContextManager[BlobWriter]:
        """For bytes too many to hold at once. Leaving the context without `finish` stores nothing."""

    def read(self, digest: str, offset: int = 0, length: int | None = None) -> bytes:
        """A range of a blob, or all of it. Missing if there is none; Broken if it is shorter than asked."""

    def path(self, digest: str) -> Path:
        """A local file with the blob's bytes, for mapping into memory. Never to be written to. Missing if none."""

    def size(self, digest: str) -> int:
        """Bytes of a blob. Missing if there is none."""

    def verify(self, digest: str) -> None:
        """Read all of it; Broken if the bytes are not those that the digest names, Missing if there are none."""

    def digests(self) -> Iterator[str]:
        """Every stored digest, in no order."""

    def sweep(self, older_than_s: float) -> int:
        """Remove temporary files of writers that died, older than this. The number removed."""


class LocalBlobs:
    """Blobs in a folder: `ab/cdef…`, with `tmp/` beside them on the same file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tmp = root / "tmp"

    def put(self, data: bytes) -> Blob:
        with self.writer() as writer:
            writer.write(data)
            return writer.finish()

    @contextlib.contextmanager
    def writer(self) -> Iterator[_LocalWriter]:
        writer = _LocalWriter(self)
        try:
            yield writer
        finally:
            writer.discard()

    def read(self, digest: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._open(digest) as file:
            file.seek(offset)
            data = file.read() if length is None else file.read(length)
        if length is not None and len(data) != length:
            raise Broken(
                "store.short-blob",
                f"blob {digest} ends before byte {offset + length}",
                hint="`relens doctor --deep` lists what is damaged; restore that file from a backup",
            )
        return data

    def path(self, digest: str) -> Path:
        path = self.location(digest)
        if not path.is_file():
            raise _missing(digest)
        return path

    def size(self, digest: str) -> int:
        try:
            return self.location(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def verify(self, digest: str) -> None:
        with self.path(digest).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise Broken(
                "store.corrupt-blob",
                f"blob {digest} has other bytes than its digest names (they hash to {found})",
                hint="the disk or a person changed it; restore that file from a backup",
            )

    def digests(self) -> Iterator[str]:
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            for path in folder.iterdir():
                yield path.name

    def sweep(self, older_than_s: float) -> int:
        removed = 0
        for path in self._tmp.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()
                    removed += 1
        return removed

    def location(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    def temporary(self) -> Path:
        self._tmp.mkdir(parents=True, exist_ok=True)
        return self._tmp / uuid.uuid4().hex

    def _open(self, digest: str) -> BinaryIO:
        try:
            return self.location(digest).open("rb")
        except FileNotFoundError:
            raise _missing(digest) from None


class _LocalWriter:
    def __init__(self, store: LocalBlobs) -> None:
        self._store = store
        self._path = store.temporary()
        with _disk_errors(self._path):
            self._file = self._path.open("xb")
        self._hash = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self._hash.update(data)
        with _disk_errors(self._path):
            return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def finish(self) -> Blob:
        size = self._file.tell()
        digest = self._hash.hexdigest()
        target = self._store.location(digest)
        with _disk_errors(target):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            target.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(target)
            sync_folder(target.parent)
            sync_folder(target.parent.parent)  # another writer may have made the folder and not synced its name yet
        return Blob(digest, size)

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: what could not be written is thrown away anyway
            self._file.close()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Broken(
            "store.disk", f"cannot write {path}: {error.strerror}", hint="is the disk full, read-only or gone?"
        ) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file_durably(path: Path, data: bytes) -> None:
    """Write a small file in one step: readers see the old bytes or the new ones, also after a crash."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _missing(digest: str) -> Missing:
    return Missing(
        "store.missing-blob",
        f"there is no blob {digest}",
        hint="`relens doctor --deep` lists what is missing; restore that file from a backup",
    )
