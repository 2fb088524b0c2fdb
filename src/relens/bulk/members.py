"""Pictures in tar archives, in the WebDataset convention: `key.jpg` beside `key.json`, `key.txt` and `key.cls`.

A member is named by a URI with its place, so that it is read with one range read and nothing is unpacked. The header in
front of it is read too: an archive that was changed since is noticed.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast
from urllib.parse import parse_qs, quote_from_bytes, unquote_to_bytes

from relens.bulk.listings import SUFFIXES, Entry, broken_line, entry_of, escape_path
from relens.errors import BadInput

NEAR, FAR = "tar://", "tar+s3://"
BLOCK = tarfile.BLOCKSIZE
MAX_SIDECAR = 1 << 20
MAX_HEADER = 1 << 20
"""Of one read while headers are read: a name or a set of attributes, not a picture."""
MAX_OFFSET = 1 << 62
WHOLE = re.compile(r"-?\d{1,18}")

ReadRange = Callable[[str, int, int], bytes]
"""URI of an archive, offset, length -> bytes; fewer at the archive's end."""


def uri_of_archive(path: bytes) -> str:
    """The URI of an archive on this machine."""
    return NEAR + quote_from_bytes(path)


def read(uri: str, *, max_bytes: int, read_range: ReadRange | None = None) -> bytes:
    """A member's bytes. BadInput if the archive has changed; OSError of a file on this machine.

    read_range   for archives that are far away
    """
    archive, offset, length = _split(uri)
    if length > max_bytes:
        raise BadInput("vision.too-large", f"{length} bytes; the limit (limits.max_bytes) is {max_bytes}")
    if read_range is None:
        data = _read_file(unquote_to_bytes(archive[len(NEAR) :]), offset - BLOCK, BLOCK + length)
    else:
        data = read_range(archive.partition("+")[2], offset - BLOCK, BLOCK + length)
    if _size_in_header(data[:BLOCK]) != length or len(data) != BLOCK + length:
        raise BadInput(
            "bulk.archive-changed",
            f"{archive} does not hold {uri.rpartition('#')[2]} any more",
            hint="it was changed or cut since the import began; import it again",
        )
    return data[BLOCK:]


def list_archive(file: IO[bytes], archive: str) -> Iterator[Entry]:
    """The pictures of an archive, in its order; `archive` is its URI. BadInput if it is none.

    What cannot be used is a broken line: a sidecar that is no JSON, and the end of an archive that was cut.
    """
    numbers = itertools.count(1)
    samples = _Samples(file, archive)
    for sample in samples:
        for number, (member, key) in zip(numbers, sample.named(), strict=False):
            uri = _uri(archive, member)
            if sample.problem is not None or not member.isreg() or member.sparse is not None:
                yield broken_line(number, f"(member {_name(member)}) {sample.problem or 'is no plain file'}", uri)
            else:
                yield entry_of(number, {**sample.told, "id": key, "uri": uri})
    if samples.problem is not None:
        yield broken_line(next(numbers), f"(of the archive) cannot be read: {samples.problem}", archive)


@dataclass(slots=True)
class _Sample:
    """Members that follow each other with one key."""

    key: str
    pictures: list[tarfile.TarInfo] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def named(self) -> list[tuple[tarfile.TarInfo, Any]]:
        """The pictures with their ids: what the sidecar says, else the key; the whole names if there are several."""
        if len(self.pictures) != 1:
            return [(member, _name(member)) for member in self.pictures]
        told = self.told.get("id")
        return [(self.pictures[0], self.key if told in (None, "") else told)]


class _Samples:
    """Walks through an archive. `problem` says in the end why it could not be walked through to its end."""

    def __init__(self, file: IO[bytes], archive: str) -> None:
        self._file = file
        self._archive = archive
        self.problem: str | None = None

    def __iter__(self) -> Iterator[_Sample]:
        sample: _Sample | None = None
        for member in self._members():
            name = _name(member)
            base = name.rpartition("/")[2]
            extension = base.partition(".")[2]
            if not extension or _is_hidden(name):
                continue
            key = name[: -len(extension) - 1]
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = _Sample(key)
            self._add(sample, member, extension.lower())
        if sample is not None:
            yield sample

    def _members(self) -> Iterator[tarfile.TarInfo]:
        try:
            headers = cast("IO[bytes]", _HeaderFile(self._file))
            tar = tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        except (tarfile.TarError, *DAMAGED) as error:
            raise BadInput(
                "bulk.bad-listing",
                f"{self._archive} is no tar archive: {error}",
                hint="a packed archive (.tar.gz) has to be unpacked first: its members cannot be read one by one",
            ) from error
        last = -1
        try:
            while (member := tar.next()) is not None:
                if member.offset <= last or member.size < 0:
                    raise tarfile.ReadError(f"a member at byte {tar.offset} leads back")
                last = member.offset
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                if not member.isdir():
                    yield member
            self._require_end(tar.offset)
        except (tarfile.TarError, *DAMAGED) as error:
            self.problem = str(error) or type(error).__name__

    def _require_end(self, offset: int) -> None:
        """tarfile takes anything that is no header for the end."""
        self._file.seek(offset)
        if self._file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"no header and no mark of its end at byte {offset}: it is damaged or was cut")

    def _add(self, sample: _Sample, member: tarfile.TarInfo, extension: str) -> None:
        if f".{extension.rpartition('.')[2]}" in SUFFIXES:
            sample.pictures.append(member)
        elif extension in {"json", "txt", "cls"} and member.isreg():
            try:
                self._tell(sample, extension, self._sidecar(member))
            except (ValueError, RecursionError) as error:
                sample.problem = f"has a {extension} that cannot be used: {error}"

    def _tell(self, sample: _Sample, extension: str, data: bytes) -> None:
        text = data.decode("utf-8-sig", "surrogateescape")
        if extension == "json":
            told = json.loads(text)
            if not isinstance(told, dict):
                raise ValueError("it is no JSON object")
            sample.told |= told
        else:
            text = text.strip()
            sample.told.setdefault(extension, int(text) if extension == "cls" and WHOLE.fullmatch(text) else text)

    def _sidecar(self, member: tarfile.TarInfo) -> bytes:
        if member.size > MAX_SIDECAR:
            raise ValueError(f"it has {member.size} bytes, more than {MAX_SIDECAR}")
        self._file.seek(member.offset_data)
        return self._file.read(member.size)


DAMAGED = (ValueError, ArithmeticError, LookupError, EOFError, RecursionError)
"""What tarfile raises for damaged headers, besides its own errors."""


class _HeaderFile:
    """A file of which only little is read at a time: a header may claim that its attributes fill the whole archive."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header claims {size} bytes for itself")
        return self._file.read(size)


def _name(member: tarfile.TarInfo) -> str:
    return escape_path(os.fsencode(member.name.removeprefix("./")))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part.strip(".") for part in name.split("/"))


def _uri(archive: str, member: tarfile.TarInfo) -> str:
    name = quote_from_bytes(os.fsencode(member.name))
    return f"{archive}#offset={member.offset_data}&length={member.size}&name={name}"


def _split(uri: str) -> tuple[str, int, int]:
    archive, _, place = uri.rpartition("#")
    given = parse_qs(place)
    try:
        offset, length = int(given["offset"][0]), int(given["length"][0])
    except (KeyError, ValueError):
        offset, length = 0, 0
    if not archive or not BLOCK <= offset <= MAX_OFFSET or length < 0:
        raise BadInput("bulk.unsupported-uri", f"cannot read {uri}", hint="tar:///archive.tar#offset=…&length=…")
    return archive, offset, length


def _read_file(path: bytes, offset: int, length: int) -> bytes:
    # A pipe is waited for, and some devices never end.
    if not path.startswith(b"/") or b"\0" in path or not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - bytes
        raise BadInput("bulk.unreadable", f"no file: {os.fsdecode(path)!r}")
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(offset)
        return file.read(length)


def _size_in_header(block: bytes) -> int | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size
    except tarfile.HeaderError:
        return None
