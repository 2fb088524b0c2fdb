"""Sources: folders, listings and archives, on this machine, on S3 or behind a URL, and how each is read.

A source is named the same each time: the name is what makes two imports the same. Nothing is read before the entries
are asked for.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from relens.bulk import members
from relens.bulk.listings import SUFFIXES, Base, Entry, Source, entry_of, read_csv, read_folder, read_jsonl
from relens.bulk.objects import Objects
from relens.config import Fetch
from relens.errors import BadInput, Missing

KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".tar": "tar"}
MAX_LISTING_BYTES = 1 << 30
LISTING_TIMEOUT_S = 600.0
FAR = re.compile(r"(s3|https?):/+(?=[^/])", re.IGNORECASE)
HINT = "name a folder, a .csv or .jsonl listing, or a .tar of pictures"


def find_source(source: str | Path, settings: Fetch | None = None) -> Source:
    """What kind of source a path or URI is. Missing if it is not there; BadInput if it is no source.

    settings   for what lies elsewhere: `s3://bucket/folder/`, and listings by `s3` or `http(s)`
    """
    found = FAR.match(str(source))
    if found is not None:  # a path has lost one of its slashes
        uri = f"{found[1].lower()}://{str(source)[found.end() :]}"
        return _far_source(uri, settings or Fetch())
    path = Path(source).expanduser().resolve()
    if path.is_dir():
        return Source(path, path, partial(read_folder, path))
    if not path.is_file():
        raise Missing("bulk.no-source", f"there is no {path}", hint=HINT)
    kind = _kind(path, path.suffix)
    if kind == "tar":  # whatever cannot be read of it, is not a picture's fault
        return Source(path, path, partial(_open_file, path, _reader(kind, path, path)))
    return Source(path, path.parent, partial(_open_file, path, _reader(kind, path, path.parent)))


def _far_source(uri: str, settings: Fetch) -> Source:
    if uri.startswith("s3://"):
        objects, uri = Objects(settings), uri.rstrip("/")
        suffix = PurePosixPath(uri).suffix.lower()
        if suffix not in KINDS:
            return Source(uri, uri, partial(_read_prefix, objects, uri))
        return Source(uri, uri, partial(_open_object, objects, uri, _reader(KINDS[suffix], uri, uri)))
    kind = _kind(uri, PurePosixPath(urlsplit(uri).path).suffix)
    if kind == "tar":
        raise BadInput(
            "bulk.bad-source", f"{uri}: an archive cannot be read by http", hint="download it, or put it on S3"
        )
    return Source(uri, uri, partial(_open_url, settings, uri, _reader(kind, uri, uri)))


def _kind(source: Base, suffix: str) -> str:
    kind = KINDS.get(suffix.lower())
    if kind is None:
        raise BadInput("bulk.bad-source", f"{source} is no listing", hint=HINT)
    return kind


def _reader(kind: str, path: Base, base: Base) -> Callable[[IO[bytes]], Iterator[Entry]]:
    if kind == "csv":
        return lambda file: read_csv(file, str(path), base)
    if kind == "jsonl":
        return lambda file: read_jsonl(file, base)
    archive = members.uri_of_archive(os.fsencode(path)) if isinstance(path, Path) else f"tar+{path}"
    return lambda file: members.list_archive(file, archive)


def _open_file(path: Path, read: Callable[[IO[bytes]], Iterator[Entry]]) -> Iterator[Entry]:
    with path.open("rb") as file:
        yield from read(file)


def _open_object(objects: Objects, uri: str, read: Callable[[IO[bytes]], Iterator[Entry]]) -> Iterator[Entry]:
    with objects.open(uri) as file:
        yield from read(file)


def _open_url(settings: Fetch, url: str, read: Callable[[IO[bytes]], Iterator[Entry]]) -> Iterator[Entry]:
    from relens.bulk.fetching import Fetcher  # noqa: PLC0415 - with the HTTP library, slow to load

    fetcher = Fetcher(settings.model_copy(update={"timeout_s": max(settings.timeout_s, LISTING_TIMEOUT_S)}))
    try:
        with tempfile.TemporaryFile() as file:
            fetcher.fetch(url, file, fetcher.start(), max_bytes=MAX_LISTING_BYTES, only_pictures=False)
            file.seek(0)
            yield from read(file)
    finally:
        fetcher.close()


def _read_prefix(objects: Objects, prefix: str) -> Iterator[Entry]:
    """Every picture below a prefix by its ending; the id is the key behind the prefix. Hidden ones are left out."""
    start = prefix.rstrip("/") + "/"
    number = 0
    for uri in objects.names(prefix):
        key = uri.removeprefix(start)
        hidden = any(part.startswith(".") for part in key.split("/"))
        if PurePosixPath(key).suffix.lower() in SUFFIXES and not hidden:
            number += 1
            yield entry_of(number, {"id": key, "uri": uri}, prefix)
