"""Copying bytes from store to store, verified on the way: what arrives is what its digest names, or nothing."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from relens.errors import Broken, Missing
from relens.store import Blobs
from relens.store.blobs import corrupt_blob, sync_folder

CHUNK_BYTES = 4 << 20
COPIERS = 4  # of one process: stores at a URL answer slowly, and more than one at a time

Report = Callable[[int, int], None]
"""Is told bytes that are done, and bytes in all."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied because it was not there yet: blobs, and their bytes."""

    blobs: int
    bytes: int


def copy_blobs(source: Blobs, target: Blobs, wanted: Mapping[str, int], report: Report) -> Copied:
    """Copy what the target does not have; `wanted` is digest -> bytes.

    Broken or Missing, naming the blob, for one that the source has damaged or not at all.
    """
    missing = {digest: size for digest, size in wanted.items() if not has(target, digest, size)}
    total, done = sum(wanted.values()), sum(wanted.values()) - sum(missing.values())
    report(done, total)
    pool = ThreadPoolExecutor(COPIERS)
    try:
        for size in pool.map(lambda one: _copy(source, target, *one), sorted(missing.items())):
            done += size
            report(done, total)
    finally:
        pool.shutdown(cancel_futures=True)
    return Copied(len(missing), sum(missing.values()))


def has(target: Blobs, digest: str, size: int) -> bool:
    """Whether a blob of that size is there. Its bytes are not read."""
    try:
        return target.size(digest) == size
    except Missing:
        return False


def store_verified(target: Blobs, digest: str, parts: Iterable[bytes]) -> None:
    """Store bytes if they are those that the digest names; else Broken, and nothing is stored."""
    seen = hashlib.sha256()
    with target.writer() as writer:
        for part in parts:
            seen.update(part)
            writer.write(part)
        if seen.hexdigest() != digest:
            raise corrupt_blob(digest, seen.hexdigest())
        writer.finish()


def read_blob(source: Blobs, digest: str, size: int) -> Iterator[bytes]:
    """A blob in parts that fit into memory. Broken if it is shorter."""
    for start in range(0, size, CHUNK_BYTES):
        yield source.read(digest, start, min(CHUNK_BYTES, size - start))


def read_file(path: Path) -> Iterator[bytes]:
    """A file in parts that fit into memory."""
    with path.open("rb") as file:
        while part := file.read(CHUNK_BYTES):
            yield part


def write_out(source: Blobs, digest: str, size: int, path: Path) -> None:
    """Write a blob as a file, in one step and durably. Broken if it is damaged: then nothing is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    seen = hashlib.sha256()
    try:
        with temporary.open("xb") as file:
            for part in read_blob(source, digest, size):
                seen.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        if seen.hexdigest() != digest:
            raise corrupt_blob(digest, seen.hexdigest())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _copy(source: Blobs, target: Blobs, digest: str, size: int) -> int:
    if (there := source.size(digest)) != size:
        raise Broken(
            "backup.wrong-size",
            f"blob {digest} has {there} bytes, not {size}",
            hint="`relens doctor --deep` lists what is damaged; restore that file from a backup",
        )
    store_verified(target, digest, read_blob(source, digest, size))
    return size
