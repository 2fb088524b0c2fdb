"""A folder of models at a URL: S3, WebDAV, or whatever fsspec reaches.

It is listed at each look; what is to be served is copied to this machine first, compared with its manifest, and served
from there: a store that disappears takes nothing away. After failures it is asked less often.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import structlog

from relens.config import BlobStore
from relens.errors import Broken, Conflict, Missing, RelensError
from relens.models.artifacts import MANIFEST, MARKER
from relens.models.copies import Copies, let_go, sha256_of
from relens.models.folder import NOT_FETCHED, Here, Key, ModelFolder, Stamp, Version, of_version
from relens.store.endpoints import PART_BYTES, Endpoint
from relens.store.remote import open_endpoint
from relens.values import digest_of

LONGEST_PAUSE_S = 30.0
CHANGED = "models.changed"
SMALL_BYTES = 4 << 20
"""What a manifest, marker or card may have at most."""

UNUSED_S = 30 * 86400.0
"""So long copies from other URLs are kept after they were served last."""

HINTS = {
    "store.remote": "is it up, can this machine reach it, and is it there?",
    "store.remote-denied": "are key and secret right, in the environment or `blob_store`, and may they list and read?",
}

log = structlog.get_logger(__name__)


def open_models(location: str | Path, store: BlobStore, cache: Path) -> ModelFolder:
    """The models in a folder of this machine, or at a URL. Nothing is asked yet: `check` does that.

    `store` says how a URL is reached; copies are kept in the folder `cache`. BadInput if the URL is not right, Broken
    that names what to install if its driver is missing.
    """
    if "://" not in str(location):
        return ModelFolder(Here(Path(location)))
    url = str(location)
    return ModelFolder(Far(url.rstrip("/"), open_endpoint(url, store), cache))


class Pause:
    """How long something is left alone after it has failed: 1, 2, 4… seconds, up to LONGEST_PAUSE_S."""

    def __init__(self) -> None:
        self._failed = 0
        self._until = 0.0

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until

    def begin(self) -> None:
        self._until = time.monotonic() + min(2.0**self._failed, LONGEST_PAUSE_S)
        self._failed = min(self._failed + 1, 16)


class Far:
    """Versions at an endpoint, and their copies here."""

    def __init__(self, url: str, endpoint: Endpoint, cache: Path) -> None:
        self.where = url
        self._endpoint = endpoint
        self._cache = cache
        self._copies = Copies(cache / digest_of(endpoint.where.encode())[:16])
        self._trouble: RelensError | None = None  # of the last look
        self._pause = Pause()
        self._pauses: dict[Key, Pause] = {}  # versions that are left alone for a while
        self._swept: set[str] | None = None

    def check(self) -> None:
        self._copies.check()
        try:
            self._list("")
        except FileNotFoundError as error:
            raise Missing(
                "models.no-folder", f"there is no folder {self.where}", hint="make it, or mend the URL"
            ) from error
        for other in self._cache.iterdir():
            Copies(other).sweep((), unused_s=UNUSED_S)

    def versions(self) -> Mapping[Key, Stamp]:
        if self._trouble is not None and not self._pause.over:
            raise self._trouble
        try:
            found = self._list("")
        except (RelensError, FileNotFoundError) as error:
            gone = Broken("models.folder", f"the folder {self.where} is gone", hint="what is loaded is served on")
            self._trouble = error if isinstance(error, RelensError) else gone
            self._pause.begin()
            raise self._trouble from error
        self._trouble, self._pause = None, Pause()
        self._tidy(found)
        return {key: stamp if self._is_due(key) else () for key, stamp in found.items()}

    def read(self, key: Key, name: str) -> bytes:
        try:
            with _errors():
                return self._endpoint.read(_prefix(key) + name, 0, SMALL_BYTES)
        except RelensError as error:
            self._leave_alone(key)
            log.warning("a version is passed over for a while", model=_prefix(key), file=name, why=str(error))
            raise FileNotFoundError(name) from error

    def folder(self, key: Key, stamp: Stamp) -> Path:
        return self._copies.path(_name(key, stamp))

    def fetch(self, version: Version, given_up: Callable[[], bool]) -> None:
        try:
            self._copies.hold(version.folder.name, lambda folder: self._fill(version, folder, given_up), given_up)
        except RelensError as error:
            if error.code == NOT_FETCHED:
                self._leave_alone(version.key)
            raise
        self._pauses.pop(version.key, None)

    def release(self, version: Version) -> None:
        self._copies.release(version.folder.name)
        self._swept = None

    def _list(self, folder: str) -> dict[Key, Stamp]:
        """The versions in a folder, as they are now."""
        found: dict[Key, list[tuple[str, int, str]]] = {}
        with _errors():
            for entry in self._endpoint.entries(folder, of_version):
                model, _, rest = entry.name.partition("/")
                number, inside, name = rest.partition("/")
                if inside:
                    files = found.setdefault((model, int(number)), [])
                    if name and not name.endswith("/"):
                        files.append((name, entry.size, entry.mark))
        return {key: tuple(sorted(files)) for key, files in sorted(found.items())}

    def _tidy(self, found: Mapping[Key, Stamp]) -> None:
        """Forget what is gone: its copies too, unless somebody serves it. Of nothing, nothing is concluded."""
        for key in [*self._pauses]:
            if key not in found:
                self._pauses.pop(key, None)
        names = {_name(key, stamp) for key, stamp in found.items()}
        if found and names != self._swept:
            self._swept = names
            self._copies.sweep(names)

    def _is_due(self, key: Key) -> bool:
        pause = self._pauses.get(key)
        return pause is None or pause.over

    def _leave_alone(self, key: Key) -> None:
        self._pauses.setdefault(key, Pause()).begin()

    def _fill(self, version: Version, folder: Path, given_up: Callable[[], bool]) -> Mapping[str, str]:
        """Copy a version's files, those that a manifest names if there is one: their digests."""
        began = time.monotonic()
        log.info("fetching a version", model=version.where, bytes=sum(size for _, size, _ in version.stamp))
        self._require_same(version)
        digests = {}
        for name, size, _ in version.stamp:
            if not version.digests or name in version.digests or name in {MANIFEST, MARKER}:
                has = _digest_of_whole(folder / name, size, version.digests.get(name))
                digests[name] = has or self._copy(version, name, size, folder / name, given_up)
        self._require_same(version)  # else bytes of two files might lie in one
        log.info("fetched a version", model=version.where, seconds=round(time.monotonic() - began, 1))
        return digests

    def _copy(self, version: Version, name: str, size: int, target: Path, given_up: Callable[[], bool]) -> str:
        """Copy one file: its digest. What is there under its name is whole."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        digest, at = hashlib.sha256(), 0
        with part.open("wb") as file:
            while at < size:
                if given_up():
                    raise let_go()
                data = self._read(version, name, at, min(PART_BYTES, size - at))
                file.write(data)
                digest.update(data)
                at += len(data)
        if digest.hexdigest() != version.digests.get(name, digest.hexdigest()):
            raise Broken(
                "models.corrupt",
                f"{version.where}: {name} is not what the manifest names",
                hint="a version never changes: remove it and put it there again",
            )
        part.rename(target)
        return digest.hexdigest()

    def _read(self, version: Version, name: str, at: int, length: int) -> bytes:
        with self._fetching(version):
            data = self._endpoint.read(_prefix(version.key) + name, at, length)
        if not data:
            raise _changed(version)
        return data

    def _require_same(self, version: Version) -> None:
        with self._fetching(version):
            found = self._list(_prefix(version.key))
        if found.get(version.key) != version.stamp:
            raise _changed(version)

    @contextlib.contextmanager
    def _fetching(self, version: Version) -> Iterator[None]:
        """Trouble with the store, as that of a version that may be good."""
        try:
            yield
        except FileNotFoundError as error:
            raise _changed(version) from error
        except RelensError as error:
            hint = HINTS.get(error.code, error.hint)
            raise Broken(NOT_FETCHED, f"{version.where} cannot be fetched: {error.message}", hint=hint) from error


def _changed(version: Version) -> Conflict:
    return Conflict(
        CHANGED,
        f"{version.where} is not what it was when it was found",
        hint="a version never changes: put new files into a folder with the next number",
    )


def _digest_of_whole(path: Path, size: int, wanted: str | None) -> str | None:
    """The digest of a file that an earlier try has left; None if it is not sure to be the wanted one."""
    if wanted is None or not path.is_file() or path.stat().st_size != size:
        return None
    return wanted if sha256_of(path) == wanted else None


def _prefix(key: Key) -> str:
    return f"{key[0]}/{key[1]}/"


def _name(key: Key, stamp: Stamp) -> str:
    """What a copy is called: another name for other files."""
    return f"{key[0]}-{key[1]}-{digest_of([*key, *map(list, stamp)])[:16]}"


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Errors of a store, with what they mean for models."""
    try:
        yield
    except RelensError as error:
        raise type(error)(error.code, error.message, hint=HINTS.get(error.code, error.hint)) from error
