"""Fonts for text in any script: found on the system, asked by character, and the rest shown as what it is.

No font comes with relens but the one in Pillow, which knows Latin letters only. Fonts are looked for in the usual
folders, opened when a character needs them, and never trusted: one that cannot be read is passed over.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")
SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"})
FAMILIES = ("dejavusans", "notosans-", "notosans[", "liberationsans", "notosanscjk", "notosans", "wqy", "unifont")
STYLED = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "condensed", "narrow", "serif", "medium")

MOST_OPENED = 400  # fonts that are looked into before a character counts as one that nobody has
SPELLED_OUT = 2  # characters without a glyph that a text may have before each is a "?"

_OUTLINES = frozenset({b"glyf", b"CFF ", b"CFF2"})  # bitmaps, as of coloured emoji, have one size only
_WINDOWS, _UNICODE = 3, 0
_LAST = 0xFFFF  # of 16 bits; no character


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive characters that one font can draw."""

    text: str
    font: ImageFont.FreeTypeFont


class Fonts:
    """Fonts in order of preference; Pillow's own is the last. Safe to use from many threads."""

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        """`paths` go before what is found on the system."""
        self._faces = (*(_File(path) for path in paths), *(_File(path) for path in system_fonts()[:MOST_OPENED]))
        self._chosen: dict[str, _Face | None] = {}

    def runs(self, text: str, size_px: int) -> list[Run]:
        """The text cut into pieces that one font each can draw, in the order of the text.

        Line breaks and other control characters become spaces, marks of direction are left out. What no font has is
        shown as its code point (U+732B), or as "?" if it is more than two.
        """
        pieces: list[tuple[_Face, str]] = []
        for character in self.drawable(text):
            follows = pieces and (character.isspace() or unicodedata.combining(character))
            face = pieces[-1][0] if follows and pieces[-1][0].has(character) else self._face(character) or _BUNDLED
            if pieces and pieces[-1][0] is face:
                pieces[-1] = (face, pieces[-1][1] + character)
            else:
                pieces.append((face, character))
        return [Run(piece, face.sized(size_px)) for face, piece in pieces]

    def drawable(self, text: str) -> str:
        """The text as it can be drawn: see `runs`."""
        plain = "".join(map(_plain, unicodedata.normalize("NFC", text)))
        lacking = {character for character in plain if not character.isspace() and self._face(character) is None}
        shown = {c: f" U+{ord(c):04X} " if len(lacking) <= SPELLED_OUT else "?" for c in lacking}
        shown |= {c: "" for c in lacking if unicodedata.category(c) in {"Cf", "Mn", "Me"}}
        return " ".join("".join(shown.get(character, character) for character in plain).split())

    def _face(self, character: str) -> _Face | None:
        """The first font that has a glyph for a character."""
        if character not in self._chosen:
            faces = (*self._faces, _BUNDLED)
            self._chosen[character] = next((face for face in faces if face.has(character)), None)
        return self._chosen[character]


@functools.cache
def system_fonts() -> tuple[Path, ...]:
    """Font files in the usual folders, upright sans-serif ones of wide coverage first."""
    found: list[Path] = []
    for folder in FOLDERS:
        for place, _folders, files in os.walk(Path(folder).expanduser()):
            found += [Path(place, file) for file in files if Path(file).suffix.lower() in SUFFIXES]
    return tuple(sorted(found, key=_preference))


def coverage(opened: BinaryIO) -> NDArray[np.int64]:
    """Code points that a font file has glyphs for, ascending; none if it has no outlines.

    Of a collection the first font counts. Tables as in the OpenType specification, `cmap` formats 4 and 12. ValueError
    or struct.error for what is no font.
    """
    tables = _tables(opened)
    if b"cmap" not in tables or not _OUTLINES & set(tables):
        return np.zeros(0, np.int64)
    start, length = tables[b"cmap"]
    opened.seek(start)
    data = opened.read(length)
    (count,) = struct.unpack_from(">H", data, 2)
    records = [struct.unpack_from(">HHI", data, 4 + 8 * number) for number in range(count)]
    found = [_codes(data, offset) for platform, _encoding, offset in records if platform in (_WINDOWS, _UNICODE)]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


class _Face:
    """A font, its coverage read when it is first asked for."""

    @functools.cached_property
    def codes(self) -> NDArray[np.int64]:
        raise NotImplementedError

    def sized(self, size_px: int) -> ImageFont.FreeTypeFont:
        raise NotImplementedError

    def has(self, character: str) -> bool:
        place = int(np.searchsorted(self.codes, ord(character)))
        return place < len(self.codes) and int(self.codes[place]) == ord(character)


class _File(_Face):
    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def codes(self) -> NDArray[np.int64]:
        try:
            with self._path.open("rb") as opened:
                found = coverage(opened)
            self.sized(10)
        except (OSError, ValueError, struct.error):
            return np.zeros(0, np.int64)
        return found

    def sized(self, size_px: int) -> ImageFont.FreeTypeFont:
        return _sized(self._path, size_px)


class _Bundled(_Face):
    @functools.cached_property
    def codes(self) -> NDArray[np.int64]:
        opened = cast("BinaryIO", self.sized(10).path)  # it is kept in memory
        opened.seek(0)
        return coverage(opened)

    def sized(self, size_px: int) -> ImageFont.FreeTypeFont:
        return _bundled(size_px)


_BUNDLED = _Bundled()


@functools.lru_cache(256)
def _sized(path: Path, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px)


@functools.lru_cache(64)
def _bundled(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # every wheel of Pillow has FreeType
    return font


def _plain(character: str) -> str:
    """The character as it may stand in one line of text. Joiners stay: some scripts need them."""
    category = unicodedata.category(character)
    if category in {"Cc", "Zl", "Zp", "Zs"}:
        return " "
    if category == "Cs":
        return "?"
    return "" if category == "Cf" and character not in "\u200c\u200d" else character


def _preference(path: Path) -> tuple[bool, int, str]:
    stem = path.stem.lower()
    family = next((place for place, name in enumerate(FAMILIES) if stem.startswith(name)), len(FAMILIES))
    return any(word in stem for word in STYLED), family, str(path)


def _tables(opened: BinaryIO) -> dict[bytes, tuple[int, int]]:
    """Tag to offset and length of each table."""
    start = 0
    if opened.read(4) == b"ttcf":
        opened.seek(12)
        (start,) = struct.unpack(">I", opened.read(4))
    opened.seek(start + 4)
    (count,) = struct.unpack(">H", opened.read(2))
    opened.seek(start + 12)
    records = [struct.unpack(">4sIII", opened.read(16)) for _ in range(count)]
    return {tag: (offset, length) for tag, _checksum, offset, length in records}


def _codes(data: bytes, offset: int) -> NDArray[np.int64]:
    (form,) = struct.unpack_from(">H", data, offset)
    if form == 12:  # noqa: PLR2004 - the number of the format
        (groups,) = struct.unpack_from(">I", data, offset + 12)
        table = np.frombuffer(data, ">u4", 3 * groups, offset + 16).reshape(-1, 3).astype(np.int64)
        return _spans(table[:, 0] + (table[:, 2] == 0), table[:, 1])
    if form == 4:  # noqa: PLR2004
        return _segments(data, offset)
    return np.zeros(0, np.int64)


def _spans(firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every number of each span, both ends included."""
    if len(firsts) and int(np.maximum(lasts - firsts, 0).sum()) > sys.maxunicode:
        raise ValueError("more characters than there are")
    return np.concatenate([np.arange(a, b + 1) for a, b in zip(firsts, lasts, strict=True)] or [np.zeros(0, np.int64)])


def _segments(data: bytes, offset: int) -> NDArray[np.int64]:
    """Format 4: segments whose glyphs follow from the code, or stand in an array behind the segment's own offset."""
    (twice,) = struct.unpack_from(">H", data, offset + 6)
    count = twice // 2
    ends, starts, deltas, ranges = (
        np.frombuffer(data, ">u2", count, offset + 14 + place * twice + 2 * (place > 0)).astype(np.int64)
        for place in range(4)
    )
    codes = _spans(starts, ends)
    segment = np.repeat(np.arange(count), np.maximum(ends - starts + 1, 0))
    words = np.frombuffer(data, ">u2", (len(data) - offset) // 2, offset).astype(np.int64)
    place = (16 + 3 * twice) // 2 + segment + ranges[segment] // 2 + codes - starts[segment]
    listed = words[np.where(ranges[segment] > 0, place, 0).clip(0, len(words) - 1)]
    base = np.where(ranges[segment] > 0, listed, codes)
    glyphs = np.where((ranges[segment] > 0) & (listed == 0), 0, (base + deltas[segment]) & _LAST)
    found: NDArray[np.int64] = codes[(glyphs != 0) & (codes != _LAST)]
    return found
