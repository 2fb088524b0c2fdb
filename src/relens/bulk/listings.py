"""Listings: what an import is asked to take in, normalised into one blob of JSON lines that never changes.

From a folder, or from CSV or JSONL with `uri`, `id`, `title`, `price`, `shop`, `day`, `off_shelf` and free columns. A
line that cannot be used stays in the listing with its reason, so that it is accounted for. Where they come from:
`sources`.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
import json
import math
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes, urljoin

from relens.errors import BadInput
from relens.store import Blobs

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
KNOWN = ("uri", "id", "title", "price", "shop", "day", "off_shelf")
FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
SURROGATE = 0xDC00
MAX_ROW_LINES = 20
"""A field may hold line breaks, but not a page of them: that is a quote that somebody forgot to close."""
MAX_DEPTH = 32
MAX_ID_BYTES = 2000
"""PostgreSQL keeps no longer key in an index."""
FILE_URI = re.compile(r"file://(?:localhost)?(/.*)", re.IGNORECASE | re.DOTALL)
LOCAL_SCHEMES = frozenset({"file", "tar"})
ROOT = Path("/")
KEEP = re.compile(rb"[^\x00-\x20%\x7f]+|\x20")

Base = Path | str
"""What relative URIs start from: the folder of a listing, or the URI of one that lies elsewhere."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing. `problem` says why it cannot be used, `drop` why it is left out."""

    number: int
    id: str
    uri: str
    title: str | None = None
    price: float | None = None
    shop: str | None = None
    day: str | None = None
    off_shelf: bool | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    drop: str | None = None

    def to_line(self) -> bytes:
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps({k: v for k, v in given.items() if v not in (None, {})}, ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of lines of a listing: where it lies in the blob, and how many lines it has of each day ("" if none)."""

    listing: str
    offset: int
    length: int
    days: Mapping[str, int]

    @property
    def count(self) -> int:
        return sum(self.days.values())


@dataclass(frozen=True, slots=True)
class Source:
    """Where an import takes its listing from, and how it is read. `root` is what must be there for its pictures."""

    path: Base
    root: Base
    read: Callable[[], Iterator[Entry]]

    def entries(self) -> Iterator[Entry]:
        return _without_repeats(self.read())


def write_listing(blobs: Blobs, entries: Iterable[Entry], slice_size: int) -> tuple[str, list[Slice]]:
    """Store a listing and cut it: its digest, and slices of at most `slice_size` lines, in order."""
    cuts: list[tuple[int, int, Counter[str]]] = []
    with blobs.writer() as writer:
        start, days = 0, Counter[str]()
        for entry in entries:
            writer.write(entry.to_line())
            days[entry.day or ""] += 1
            if days.total() == slice_size:
                cuts.append((start, writer.tell() - start, days))
                start, days = writer.tell(), Counter()
        if days:
            cuts.append((start, writer.tell() - start, days))
        digest = writer.finish().digest
    return digest, [Slice(digest, offset, length, dict(counted)) for offset, length, counted in cuts]


def read_slice(blobs: Blobs, cut: Slice) -> list[Entry]:
    """The entries of a slice."""
    lines = blobs.read(cut.listing, cut.offset, cut.length).splitlines()
    return [Entry(**json.loads(line)) for line in lines]


# -- formats --------------------------------------------------------------------------------------------------------


def read_folder(root: Path) -> Iterator[Entry]:
    """Every picture file under a folder by its ending, in the order of its name's bytes; hidden files are left out.

    The id is the path from the folder, escaped by `escape_path`.
    """
    number = 0
    unreadable: list[OSError] = []
    for folder, names, files in os.walk(os.fsencode(root), onerror=unreadable.append):
        names[:] = sorted(name for name in names if not name.startswith(b"."))
        for name in sorted(files):
            path = os.path.join(folder, name)  # noqa: PTH118 - bytes: names need not be valid text
            suffix = os.path.splitext(name)[1].decode("ascii", "replace").lower()  # noqa: PTH122
            if suffix in SUFFIXES and not name.startswith(b"."):
                number += 1
                uri = file_uri(path)
                try:
                    yield Entry(number, _key(escape_path(os.path.relpath(path, os.fsencode(root)))), uri)
                except _BadLineError as problem:
                    yield broken_line(number, str(problem), uri)
    for error in unreadable:
        number += 1
        uri = file_uri(os.fsencode(error.filename))
        yield Entry(number, f"line-{number}", uri, problem=f"a folder cannot be read: {error.strerror}: {uri}")


def read_csv(file: IO[bytes], name: str, base: Base) -> Iterator[Entry]:
    """Lines of a CSV file with a header; relative URIs start from `base`. BadInput without a `uri` column."""
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, strict=True)
        columns = [column.strip() for column in next(reader, [])]
        if "uri" not in columns or len(set(columns)) != len(columns):
            raise BadInput(
                "bulk.bad-listing",
                f"{name}: the first line names no column `uri`, or one column twice: {columns}",
                hint=f"known columns: {', '.join(KNOWN)}; others are kept as they are",
            )
        yield from _csv_entries(reader, columns, base)


def _csv_entries(reader: Any, columns: Sequence[str], base: Base) -> Iterator[Entry]:
    number = 0
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield broken_line(number, f"(line {line} of the file) cannot be read: {error}")
            continue
        if not row:
            continue
        number += 1
        if len(row) != len(columns):
            yield broken_line(number, f"(line {line} of the file) has {len(row)} fields, not {len(columns)}")
        elif (lines := reader.line_num - line + 1) > MAX_ROW_LINES:
            yield broken_line(number, f"(line {line} of the file) goes on for {lines} lines: a quote is not closed")
        else:
            given = {column: value for column, value in zip(columns, row, strict=True) if value != ""}
            yield entry_of(number, given, base)


def read_jsonl(file: IO[bytes], base: Base) -> Iterator[Entry]:
    """Lines of a JSONL file, one object each; relative URIs start from `base`."""
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield broken_line(number, f"is no JSON: {error}")
            continue
        if isinstance(given, dict):
            yield entry_of(number, given, base)
        else:
            yield broken_line(number, "is no JSON object")


def file_uri(path: bytes) -> str:
    """A file URI of a path, whatever bytes it is made of."""
    return "file://" + quote_from_bytes(path)


def path_of(uri: str) -> bytes:
    """The path that a file URI names. BadInput if it names none on this host."""
    found = FILE_URI.fullmatch(uri)
    path = unquote_to_bytes(found[1]) if found else b"\0"
    if b"\0" in path:
        raise BadInput(
            "bulk.unsupported-uri",
            f"cannot read {uri}",
            hint="read are paths, file:///…, http(s)://…, s3://… and tar:///…",
        )
    return path


def escape_path(path: bytes) -> str:
    """A relative path as an id: UTF-8 text stays as it is; `%`, control characters and other bytes become %XX."""
    escaped = []
    for part in re.split(rb"([\x00-\x1f%\x7f])", path):
        if len(part) == 1 and not KEEP.fullmatch(part):
            escaped.append(f"%{part[0]:02X}")
        else:
            text = part.decode("utf-8", "surrogateescape")
            escaped.append(_spell_stray_bytes(text))
    return "".join(escaped)


def is_stray_byte(character: str) -> bool:
    """Whether a character stands for a byte that is no UTF-8 (PEP 383)."""
    return "\udc80" <= character <= "\udcff"


def _spell_stray_bytes(text: str) -> str:
    return "".join(f"%{ord(c) - SURROGATE:02X}" if is_stray_byte(c) else c for c in text)


def unescape_path(escaped: str) -> bytes:
    """The inverse of `escape_path`."""
    return re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), escaped.encode())


def entry_of(number: int, given: Mapping[str, Any], base: Base = ROOT) -> Entry:
    """The entry of a line that gives these columns; a broken one if they cannot be used."""
    uri = given.get("uri")
    if not isinstance(uri, str) or not uri:
        return broken_line(number, "has no uri")
    try:
        return Entry(
            number=number,
            id=_key(uri if given.get("id", "") in (None, "") else given["id"]),
            uri=_absolute(uri, base),
            title=None if given.get("title") is None else _text(given["title"]),
            price=_price(given.get("price")),
            shop=None if given.get("shop") is None else _text(given["shop"]),
            day=_day(given.get("day")),
            off_shelf=_flag(given.get("off_shelf")),
            data=_clean({name: value for name, value in given.items() if name not in KNOWN}),
        )
    except _BadLineError as problem:
        return broken_line(number, str(problem), uri)


class _BadLineError(Exception):
    """Why a line of a listing cannot be used."""


def _key(value: object) -> str:
    key = _text(value)
    if len(key.encode()) > MAX_ID_BYTES:
        raise _BadLineError(f"has an id of more than {MAX_ID_BYTES} bytes")
    return key


def _price(value: Any) -> float | None:
    try:
        price = None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        price = math.nan
    if price is not None and not math.isfinite(price):
        raise _BadLineError(f"price {value!r} is no number")
    return price


def _day(value: object) -> str | None:
    if value is None:
        return None
    try:
        if isinstance(value, str) and DAY.fullmatch(value):
            dt.date.fromisoformat(value)
            return value
    except ValueError:
        pass
    raise _BadLineError(f"day {value!r} is not like 2026-01-31")


def _flag(value: object) -> bool | None:
    flag = None if value is None else FLAGS.get(str(value).lower())
    if flag is None and value is not None:
        raise _BadLineError(f"off_shelf {value!r} is neither true nor false")
    return flag


def _clean(value: Any, depth: int = 0) -> Any:
    """JSON that any database takes and any reader understands: clean text, and null for NaN and infinity."""
    if depth > MAX_DEPTH:
        raise _BadLineError(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        return {_text(name): _clean(part, depth + 1) for name, part in value.items()}
    if isinstance(value, list):
        return [_clean(part, depth + 1) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _text(value) if isinstance(value, str) else value


def is_half(character: str) -> bool:
    """Whether a character is half of a pair (a lone surrogate) and stands for no byte."""
    return "\ud800" <= character <= "\udfff" and not is_stray_byte(character)


def _text(value: object) -> str:
    """Text that any database takes: a byte that is no UTF-8 becomes %XX, a lone surrogate `?`; NUL is left out."""
    text = str(value).replace("\0", "")
    if text.isascii():
        return text
    return _spell_stray_bytes(text).encode("utf-8", "replace").decode()


def _absolute(uri: str, base: Base) -> str:
    if any(is_half(character) for character in uri):
        raise _BadLineError(f"has a uri that is no text: {uri!r}")
    scheme = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*(?=://)", uri)
    if isinstance(base, Path):
        if scheme is not None:
            return _text(uri)
        return file_uri(os.path.join(os.fsencode(base), os.fsencode(uri)))  # noqa: PTH118 - bytes
    if scheme is None:
        return _text(join_uri(base, uri))
    if scheme[0].lower() in LOCAL_SCHEMES:
        raise _BadLineError(f"names a file of this machine, in a listing that lies elsewhere: {uri}")
    return _text(uri)


def join_uri(base: str, relative: str) -> str:
    """A URI relative to that of a listing. A key of S3 is no URL: what stands in it stands for itself."""
    if base.lower().startswith("s3://"):
        bucket, _, key = base[len("s3://") :].partition("/")
        path = posixpath.normpath(posixpath.join("/", posixpath.dirname(key), relative))
        return f"s3://{bucket}{path if path.startswith('/') else '/' + path}"
    return urljoin(base, relative)


def broken_line(number: int, problem: str, uri: str = "") -> Entry:
    """An entry that stands for a line that cannot be used."""
    return Entry(number, f"line-{number}", _text(uri), problem=f"line {number} {problem}")


def _without_repeats(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Entries with an id that came before are marked to be dropped: an item has one picture."""
    seen: set[bytes] = set()
    for entry in entries:
        key = hashlib.blake2b(entry.id.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if entry.problem is not None:
            yield entry
        elif key in seen:
            yield Entry(entry.number, entry.id, entry.uri, day=entry.day, drop="duplicate-id")
        else:
            seen.add(key)
            yield entry
