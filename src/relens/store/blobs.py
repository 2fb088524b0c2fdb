"""Blobs: immutable bytes named by their SHA-256.

What is named by a digest is complete and on the disk: bytes go to a temporary file, are synced, renamed and the folder
is synced. A crash leaves at most a temporary file. Which blob means what is the catalog's to know, not ours. Here is
the store in a folder; that at a URL is in `remote`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
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
        """Store bytes durably. Storing the same bytes again changes nothing but `modified`."""

    def writer(self) -> contextlib.AbstractContextManager[BlobWriter]:
        """For bytes too many to hold at once. Leaving the context without `finish` stores nothing."""

    def read(self, digest: str, offset: int = 0, length: int | None = None) -> bytes:
        """A range of a blob, or all of it. Missing if there is none; Broken if it is shorter than asked."""

    def path(self, digest: str, *, verify: bool = False) -> Path:
        """A local file with the blob's bytes, for mapping into memory. Never to be written to. Missing if none.

        It is there for a minute at least; what is open or mapped by then lasts. With `verify` every byte of the file is
        read: Broken if they are not those that the digest names.
        """

    def size(self, digest: str) -> int:
        """Bytes of a blob. Missing if there is none."""

    def modified(self, digest: str) -> float:
        """When it was last stored, by the store's clock: seconds since 1970, some stores know only whole ones.

        Missing if there is none.
        """

    def verify(self, digest: str) -> None:
        """Read all of what is stored; Broken if it is not what the digest names, Missing if there is nothing."""

    def remove(self, digest: str) -> None:
        """Remove a blob; one that is not there is no error. Whoever has it open or mapped keeps it."""

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
            raise short_blob(digest, offset + length)
        return data

    def path(self, digest: str, *, verify: bool = False) -> Path:
        path = self.location(digest)
        if not path.is_file():
            raise missing_blob(digest)
        if verify:
            self.verify(digest)
        return path

    def size(self, digest: str) -> int:
        return self._stat(digest).st_size

    def modified(self, digest: str) -> float:
        return self._stat(digest).st_mtime

    def verify(self, digest: str) -> None:
        with self._open(digest) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise corrupt_blob(digest, found)

    def remove(self, digest: str) -> None:
        path = self.location(digest)
        with disk_errors(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)

    def digests(self) -> Iterator[str]:
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            for path in folder.iterdir():
                yield path.name

    def sweep(self, older_than_s: float) -> int:
        return sweep_folder(self._tmp, older_than_s)

    def location(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    def temporary(self) -> Path:
        self._tmp.mkdir(parents=True, exist_ok=True)
        return self._tmp / uuid.uuid4().hex

    def _open(self, digest: str) -> io.BufferedReader:
        try:
            return self.location(digest).open("rb")
        except FileNotFoundError:
            raise missing_blob(digest) from None

    def _stat(self, digest: str) -> os.stat_result:
        try:
            return self.location(digest).stat()
        except FileNotFoundError:
            raise missing_blob(digest) from None


class Spool:
    """A new temporary file, hashed while it is written. Broken if the disk does not take it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        with disk_errors(path):
            self._file = path.open("x+b")

    def write(self, data: bytes | memoryview) -> int:
        self._hash.update(data)
        with disk_errors(self._path):
            return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def named(self) -> Blob:
        """What was written so far."""
        return Blob(self._hash.hexdigest(), self._file.tell())

    def rewound(self) -> BinaryIO:
        """The file, to be read from its beginning."""
        with disk_errors(self._path):
            self._file.seek(0)
        return self._file

    def move(self, target: Path) -> None:
        """Put the file in its place, durably and as of now."""
        with disk_errors(target):
            self._file.flush()
            os.utime(self._file.fileno())  # the last write may be long ago
            os.fsync(self._file.fileno())
            self._file.close()
            target.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(target)
            sync_folder(target.parent)
            sync_folder(target.parent.parent)  # another writer may have made the folder and not synced its name yet

    def discard(self) -> None:
        """Close and remove it, if it was not moved."""
        with contextlib.suppress(OSError):  # a full disk: what could not be written is thrown away anyway
            self._file.close()
        self._path.unlink(missing_ok=True)


class _LocalWriter(Spool):
    def __init__(self, store: LocalBlobs) -> None:
        super().__init__(store.temporary())
        self._store = store

    def finish(self) -> Blob:
        blob = self.named()
        self.move(self._store.location(blob.digest))
        return blob


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Broken `store.disk` instead of an OSError."""
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


def sweep_folder(folder: Path, older_than_s: float) -> int:
    """Remove files that were last written longer ago than this. The number removed."""
    removed = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()
                removed += 1
    return removed


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


def missing_blob(digest: str) -> Missing:
    return Missing(
        "store.missing-blob",
        f"there is no blob {digest}",
        hint="`relens doctor --deep` lists what is missing; restore that file from a backup",
    )


def short_blob(digest: str, end: int) -> Broken:
    return Broken(
        "store.short-blob",
        f"blob {digest} ends before byte {end}",
        hint="`relens doctor --deep` lists what is damaged; restore that file from a backup",
    )


def corrupt_blob(digest: str, found: str) -> Broken:
    return Broken(
        "store.corrupt-blob",
        f"blob {digest} has other bytes than its digest names (they hash to {found})",
        hint="the disk or a person changed it; restore that file from a backup",
    )
