"""Blobs at a URL: S3, WebDAV, or whatever fsspec reaches. Same names and promises as in a folder.

Bytes are gathered in a temporary file here, since only their end tells their name, and then stored in one step. What is
to be mapped into memory is copied into a cache in the home. A store that does not serve is Broken `store.remote`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import structlog

from relens.config import BlobStore
from relens.errors import BadInput, Broken
from relens.store.blobs import Blob, Spool, corrupt_blob, missing_blob, short_blob
from relens.store.cache import Cache
from relens.store.endpoints import PART_BYTES, Endpoint, bad_url
from relens.store.filesystems import AnyFileSystem, Webdav
from relens.store.s3 import S3

MEGABYTE = 1_000_000
SMALL_BYTES = 65_536
"""What is not larger and is read whole is kept: manifests, without which no view can be opened."""

DIGEST = re.compile(r"[0-9a-f]{64}")
KINDS: dict[str, Callable[[str, BlobStore], Endpoint]] = {"s3": S3, "webdav": Webdav, "webdavs": Webdav}
EXTRAS = {"s3": "s3", "webdav": "webdav", "webdavs": "webdav"}

log = structlog.get_logger(__name__)


def open_remote(url: str, options: BlobStore, cache: Path) -> RemoteBlobs:
    """The blobs at a URL, with their cache in a folder. BadInput or Broken if URL, options or driver are not right."""
    try:
        endpoint = open_endpoint(url, options)
    except BadInput as error:
        raise BadInput(error.code, f"blobs: {error.message}", hint=error.hint) from error
    return RemoteBlobs(endpoint, Cache(cache, options.cache_mb * MEGABYTE))


def open_endpoint(url: str, options: BlobStore) -> Endpoint:
    """The endpoint at a URL. Most are reached only when they are first asked.

    BadInput if the URL or the options are not right; Broken that names what to install if its driver is missing.
    """
    scheme, _, place = url.partition("://")
    if "@" in place.partition("/")[0]:
        raise bad_url("the URL holds a name or password", "set blob_store.key, and RELENS__BLOB_STORE__SECRET")
    if bool(options.key) != bool(options.secret.get_secret_value()):
        raise bad_url("blob_store.key and blob_store.secret go together", "set both or none")
    if scheme in ("http", "https"):
        raise bad_url(f"{url} is a web server", f"write {scheme.replace('http', 'webdav')}:// if it speaks WebDAV")
    try:
        return KINDS.get(scheme, AnyFileSystem)(url, options)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        raise Broken(
            "store.no-driver",
            f"what reads {scheme}:// is not installed ({error})",
            hint=f"pip install 'relens[{extra}]'" if extra else f"pip install fsspec and its driver for {scheme}://",
        ) from error


class RemoteBlobs:
    """Blobs as files of an endpoint: `ab/cdef…`, as in a folder, so that either can be copied to the other."""

    def __init__(self, endpoint: Endpoint, cache: Cache) -> None:
        self._endpoint = endpoint
        self._cache = cache

    def put(self, data: bytes) -> Blob:
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        self.store(blob, io.BytesIO(data))
        return blob

    @contextlib.contextmanager
    def writer(self) -> Iterator[_RemoteWriter]:
        writer = _RemoteWriter(self, self._cache.temporary())
        try:
            yield writer
        finally:
            writer.discard()

    def read(self, digest: str, offset: int = 0, length: int | None = None) -> bytes:
        if offset == 0 and length is None:
            return self._read_whole(digest)
        if length == 0:
            self.size(digest)
        data = b"".join(self._pieces(digest, offset, length))
        if length is not None and len(data) != length:
            raise short_blob(digest, offset + length)
        return data

    def path(self, digest: str, *, verify: bool = False) -> Path:
        found = self._cache.find(digest, verify=verify)
        return found or self._cache.keep(digest, lambda: self._pieces(digest))

    def size(self, digest: str) -> int:
        with _missing(digest):
            return self._endpoint.stat(_name(digest)).size

    def modified(self, digest: str) -> float:
        with _missing(digest):
            return self._endpoint.stat(_name(digest)).modified

    def verify(self, digest: str) -> None:
        found = hashlib.sha256()
        for data in self._pieces(digest):
            found.update(data)
        if found.hexdigest() != digest:
            raise corrupt_blob(digest, found.hexdigest())

    def remove(self, digest: str) -> None:
        self._endpoint.remove(_name(digest))
        self._cache.drop(digest)

    def digests(self) -> Iterator[str]:
        for name in self._endpoint.names():
            digest = name.rpartition("/")[2]
            if DIGEST.fullmatch(digest) and name == _name(digest):
                yield digest

    def sweep(self, older_than_s: float) -> int:
        """As said; and copies that nobody used for so long go too, if their blob was removed on another machine.

        A store that does not serve is swept the next time.
        """
        removed = self._cache.sweep(older_than_s)
        try:
            removed += self._endpoint.sweep(time.time() - older_than_s)
            for digest in self._cache.unused(older_than_s):
                try:
                    self._endpoint.stat(_name(digest))
                except FileNotFoundError:
                    self._cache.drop(digest)
                    removed += 1
        except Broken as error:
            log.warning("blobs not swept", error=str(error), code=error.code)
        return removed

    def store(self, blob: Blob, file: BinaryIO) -> None:
        try:
            self._endpoint.store(_name(blob.digest), file, blob.size)
        except FileNotFoundError as error:
            raise Broken(
                "store.remote",
                f"{self._endpoint.where} has no place for a blob: {error}",
                hint="is the folder or bucket in `blobs` there?",
            ) from error

    def _read_whole(self, digest: str) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            if (kept := self._cache.find(digest)) is not None:
                return kept.read_bytes()
        data = b"".join(self._pieces(digest))
        if len(data) <= SMALL_BYTES:
            self._cache.keep(digest, lambda: [data])
        return data

    def _pieces(self, digest: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a range, as many as there are."""
        with _missing(digest):
            while length is None or length > 0:
                wanted = PART_BYTES if length is None else min(length, PART_BYTES)
                data = self._endpoint.read(_name(digest), offset, wanted)
                yield data
                if len(data) < wanted:
                    return
                offset += wanted
                length = None if length is None else length - wanted


class _RemoteWriter(Spool):
    def __init__(self, store: RemoteBlobs, path: Path) -> None:
        super().__init__(path)
        self._store = store

    def finish(self) -> Blob:
        blob = self.named()
        self._store.store(blob, self.rewound())
        return blob


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest}"


@contextlib.contextmanager
def _missing(digest: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise missing_blob(digest) from None
