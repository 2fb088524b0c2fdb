"""File systems that fsspec knows, WebDAV first of all: a file goes to a temporary name and is moved into its place.

Some servers take the old file away before they put the new one there, so what is not there is looked for again.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from relens.config import BlobStore
from relens.store.endpoints import CONNECT_S, PART_BYTES, Entry, Patience, Stat, bad_url

T = TypeVar("T")

TEMPORARY = "tmp"


class AnyFileSystem:
    """A folder of a file system that fsspec knows. Whether its requests end in time is its driver's to say."""

    def __init__(self, url: str, options: BlobStore) -> None:
        import fsspec  # noqa: PLC0415

        self.where = url
        self._patience = Patience(url, options.operation_timeout_s)
        try:
            self._fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        except ValueError as error:
            raise bad_url(f"{url}: {error}", "see docs/stores.md") from error
        except OSError as error:  # some connect at once
            raise self._patience.broken(error) from error
        self._root = root.rstrip("/") + "/"

    def stat(self, name: str) -> Stat:
        path = self._root + name
        info = self._ask(lambda: self._fs.info(path))
        return Stat(info["size"] or 0, _seconds(info.get("modified") or self._ask(lambda: self._fs.modified(path))))

    def read(self, name: str, offset: int, length: int) -> bytes:
        return self._ask(lambda: self._cat(self._root + name, offset, length))

    def store(self, name: str, file: BinaryIO, size: int) -> None:
        temporary = f"{TEMPORARY}/{uuid.uuid4().hex}"
        try:
            self._ask(lambda: self._upload(temporary, file, size))
            try:
                self._ask(lambda: self._into_place(temporary, name))
            except FileNotFoundError:
                if self.stat(name).size != size:
                    raise
                self._give_up(temporary)  # it was moved and only the answer was lost, or others moved the same
        except Exception:
            self._give_up(temporary)
            raise

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(lambda: self._fs.rm_file(self._root + name))

    def names(self) -> Iterator[str]:
        for folder in self._list(""):
            if len(folder) == 2:  # noqa: PLR2004
                yield from (f"{folder}/{name}" for name in self._list(folder))

    def entries(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
        self._fs.invalidate_cache()
        yield from self._entries(folder, wanted)

    def sweep(self, before: float) -> int:
        given_up = 0
        for name in self._list(TEMPORARY):
            with contextlib.suppress(FileNotFoundError):
                if self.stat(f"{TEMPORARY}/{name}").modified < before:
                    self.remove(f"{TEMPORARY}/{name}")
                    given_up += 1
        return given_up

    def _give_up(self, temporary: str) -> None:
        with contextlib.suppress(Exception):  # tried once; `sweep` comes for the others
            self._fs.rm_file(self._root + temporary)

    def _upload(self, name: str, file: BinaryIO, size: int) -> None:
        self._make_folder(name)
        self._put(self._root + name, file, size)
        if (stored := self._fs.info(self._root + name)["size"] or 0) != size:
            raise OSError(f"it stored {stored} of {size} bytes")

    def _into_place(self, temporary: str, name: str) -> None:
        self._make_folder(name)
        self._move(self._root + temporary, self._root + name)

    def _list(self, folder: str) -> list[str]:
        """Names in a folder, without their path; none if there is no folder."""
        try:
            found = self._ask(lambda: self._fs.ls(self._root + folder, detail=False))
        except FileNotFoundError:
            return []
        return [name.rstrip("/").rpartition("/")[2] for name in found]

    def _entries(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
        path = (self._root + folder).rstrip("/")
        for info in self._ask(lambda: self._ls(path)):
            name = folder + info["name"].rstrip("/").rpartition("/")[2]
            if info["type"] != "directory":
                if wanted(name):
                    yield Entry(name, info["size"] or 0, _mark(info))
            elif wanted(f"{name}/"):
                yield Entry(f"{name}/")
                with contextlib.suppress(FileNotFoundError):  # it goes while it is looked at
                    yield from self._entries(f"{name}/", wanted)

    # What drivers do differently.

    def _ask(self, ask: Callable[[], T]) -> T:
        return self._patience(lambda _left_s: ask())

    def _make_folder(self, name: str) -> None:
        self._fs.makedirs(self._root + name.rpartition("/")[0], exist_ok=True)

    def _ls(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._fs.ls(path, detail=True)
        return found

    def _cat(self, path: str, offset: int, length: int) -> bytes:
        data: bytes = self._fs.cat_file(path, start=offset, end=offset + length)
        return data

    def _put(self, path: str, file: BinaryIO, size: int) -> None:  # noqa: ARG002 - others need the size
        file.seek(0)
        with self._fs.open(path, "wb") as out:
            shutil.copyfileobj(file, out, PART_BYTES)

    def _move(self, path: str, target: str) -> None:
        try:
            self._fs.mv(path, target)
        except OSError:  # some move only to where nothing is
            self._fs.rm_file(target)
            self._fs.mv(path, target)


class Webdav(AnyFileSystem):
    """A collection on a WebDAV server. The requests that fsspec makes in too many steps are made directly."""

    def __init__(self, url: str, options: BlobStore) -> None:
        """`url` is `webdav://host/path`, or `webdavs://` with TLS."""
        import httpx  # noqa: PLC0415
        from webdav4.fsspec import WebdavFileSystem  # noqa: PLC0415

        scheme, _, place = url.partition("://")
        if not place.strip("/"):
            raise bad_url(f"{url} names no host", "write webdavs://host/path")
        self.where = url
        self._root = ""
        self._made: set[str] = set()
        timeout_s = options.operation_timeout_s
        self._patience = Patience(url, timeout_s, looks=3)
        self._fs = WebdavFileSystem(
            f"{scheme.replace('webdav', 'http')}://{place.rstrip('/')}/",
            auth=(options.key, options.secret.get_secret_value()) if options.key else None,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
            retry=False,
            skip_instance_cache=True,
        )
        self._client = self._fs.client

    def _ask(self, ask: Callable[[], T]) -> T:
        return self._patience(lambda _left_s: _translated(ask))

    def _make_folder(self, name: str) -> None:
        from webdav4.client import ResourceAlreadyExists, ResourceConflict  # noqa: PLC0415

        folder = name.rpartition("/")[0]
        if folder in self._made:
            return
        with contextlib.suppress(ResourceAlreadyExists):
            try:
                self._client.mkdir(folder)
            except ResourceConflict:  # our own folder is not there yet
                self._client.mkdir("")
                self._client.mkdir(folder)
        self._made.add(folder)

    def _ls(self, path: str) -> list[dict[str, Any]]:
        return super()._ls(quote(path))

    def _cat(self, path: str, offset: int, length: int) -> bytes:
        asked = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        with self._client.http.stream("GET", self._client.join_url(quote(path)), headers=asked) as answer:
            if answer.status_code == 404:  # noqa: PLR2004
                raise FileNotFoundError(path)
            if answer.status_code == 416:  # noqa: PLR2004 - the file ends before the range begins
                return b""
            answer.raise_for_status()
            before = offset if answer.status_code == 200 else 0  # noqa: PLR2004 - it knows no ranges and sends it all
            data = bytearray()
            for piece in answer.iter_bytes():
                data += piece[before:]
                before = max(before - len(piece), 0)
                if len(data) >= length:
                    break
        return bytes(data[:length])

    def _put(self, path: str, file: BinaryIO, size: int) -> None:
        file.seek(0)
        try:
            self._client.upload_fileobj(file, path, overwrite=True, size=size)
        except Exception:
            self._made.clear()  # somebody may have removed the folder
            raise

    def _move(self, path: str, target: str) -> None:
        self._client.move(path, target, overwrite=True)


def _translated(ask: Callable[[], T]) -> T:
    """The answer of `ask`; errors of WebDAV as those of files where there are such."""
    import httpx  # noqa: PLC0415
    from webdav4.client import ForbiddenOperation, HTTPError, ResourceNotFound  # noqa: PLC0415

    try:
        return ask()
    except ResourceNotFound as error:
        raise FileNotFoundError(error.path) from error
    except ForbiddenOperation as error:
        raise PermissionError(str(error)) from error
    except (HTTPError, httpx.HTTPStatusError) as error:
        if error.response.status_code in (401, 403):
            raise PermissionError(str(error)) from error
        raise


def _mark(info: Mapping[str, Any]) -> str:
    """What drivers say of a file's content and of when it was written. That an etag is weak may pass by itself."""
    known = ("etag", "ETag", "modified", "mtime", "last_modified", "LastModified")
    said = [str(info[key]).removeprefix("W/") for key in known if info.get(key) is not None]
    return " ".join(said or [str(info.get("created", ""))])


def _seconds(when: datetime | float) -> float:
    """Seconds since 1970; a time without zone is UTC."""
    if isinstance(when, datetime):
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return float(when)
