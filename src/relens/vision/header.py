"""What a file says of itself, and what is refused for that alone.

The format is told from the first bytes, never from a name. Reading a header decodes no pixel, so a few bytes that
claim a huge picture cost microseconds; what is past the limits is refused before a decoder sees it. A header that
reads well promises nothing about the data behind it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from relens.errors import BadInput
from relens.vision.pillow import open_lazily

Format = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff"]

_ORIENTATION = 0x0112
_SWAPS_SIDES = 5  # EXIF orientations 5 to 8 turn width into height

# A picture has tens of parts, a long one thousands. Walking through millions of empty ones would cost seconds.
_MAX_JPEG_SEGMENTS = 4096
_MAX_CHUNKS = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused before it is decoded: settings `limits.*`.

    max_bytes                of the file
    max_pixels               width x height as stored
    max_progressive_pixels   the same for progressive JPEG, which costs four times the CPU and keeps all coefficients
                             in memory, and for animated WebP, of which 900 bytes can cost 8 s and 1.7 GB
    min_side_px              of the shorter side
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 100_000_000
    max_progressive_pixels: int = 25_000_000
    min_side_px: int = 1

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_pixels, self.max_progressive_pixels, self.min_side_px) < 1:
            raise BadInput("vision.bad-limits", f"every limit is at least 1: {self}")


@dataclass(frozen=True, slots=True)
class Header:
    """A picture's format, its size as stored, and how it is turned (EXIF orientation, 1 to 8; 1 is upright).

    `progressive` is True for what is costly to decode for its size: JPEG that is progressive or arithmetic-coded,
    and animated WebP.
    """

    format: Format
    width: int
    height: int
    orientation: int = 1
    progressive: bool = False

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the picture as people see it."""
        turned = self.orientation >= _SWAPS_SIDES
        return (self.height, self.width) if turned else (self.width, self.height)


def read_header(data: bytes) -> Header:
    """The header of a JPEG, PNG, WebP, BMP, GIF or TIFF.

    BadInput `vision.empty`, `vision.not-a-picture` (none of the six formats) or `vision.broken-picture`.
    """
    if not data:
        raise BadInput("vision.empty", "there is no picture: 0 bytes", hint="check that the upload or the file arrived")
    name = _format_of(data)
    if name is None:
        raise BadInput(
            "vision.not-a-picture",
            f"{len(data)} bytes that begin with {data[:8].hex(' ')} are no picture of a known format",
            hint="send JPEG, PNG, WebP, BMP, GIF or TIFF; HEIC, AVIF and SVG are not read",
        )
    try:
        header = _READERS[name](data)
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # damaged bytes make parsers fail in any way they like
        raise broken(name, error) from error
    if min(header.width, header.height) < 1:
        raise broken(name, f"it claims {header.width}x{header.height} pixels")
    return header


def check_header(header: Header, n_bytes: int, limits: Limits) -> None:
    """BadInput `vision.too-large`, `vision.progressive-too-large` or `vision.too-small`, if a limit is passed."""
    if n_bytes > limits.max_bytes:
        raise BadInput(
            "vision.too-large",
            f"the picture has {n_bytes:,} bytes, the limit is {limits.max_bytes:,}",
            hint="send a smaller picture, or raise limits.max_bytes",
        )
    size, pixels = f"{header.width}x{header.height}", header.width * header.height
    if pixels > limits.max_pixels:
        raise BadInput(
            "vision.too-large",
            f"the picture has {size} = {pixels:,} pixels, the limit is {limits.max_pixels:,}",
            hint="send a smaller picture, or raise limits.max_pixels",
        )
    if header.progressive and pixels > limits.max_progressive_pixels:
        kind = "progressive JPEG" if header.format == "jpeg" else "animated WebP"
        raise BadInput(
            "vision.progressive-too-large",
            f"the {kind} has {size} = {pixels:,} pixels, the limit is {limits.max_progressive_pixels:,}",
            hint="save it as a baseline JPEG, or raise limits.max_progressive_pixels",
        )
    if min(header.width, header.height) < limits.min_side_px:
        raise BadInput(
            "vision.too-small",
            f"the picture has {size} pixels, its shorter side must have {limits.min_side_px}",
            hint="send a larger picture, or lower limits.min_side_px",
        )


def broken(name: str, why: object) -> BadInput:
    """The one error for data that is damaged, cut off or of a kind that is not read."""
    return BadInput(
        "vision.broken-picture",
        f"this {name.upper()} cannot be read: {str(why) or type(why).__name__}",
        hint="it is damaged, cut off or of a rare kind; send it again, or save it anew as JPEG or PNG",
    )


# The six formats ------------------------------------------------------------------------------------------------------

_MAGIC: tuple[tuple[bytes | tuple[bytes, ...], Format], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    ((b"GIF87a", b"GIF89a"), "gif"),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tiff"),
)
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)  # "BM" alone also begins texts


def _format_of(data: bytes) -> Format | None:
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    return None


_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_CHEAP_FRAMES = (0xC0, 0xC1, 0xC3)  # sequential, Huffman-coded
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_END, _SCAN, _APP1, _FILL = 0xD9, 0xDA, 0xE1, 0xFF
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # that has a length, or ends the picture


def _jpeg(data: bytes) -> Header:
    at, orientation = 2, 0
    for _ in range(_MAX_JPEG_SEGMENTS):
        if data[at] != _FILL:
            raise broken("jpeg", f"no marker at byte {at}")
        marker = data[at + 1]
        if marker in _START_OF_FRAME:
            bits, height, width = struct.unpack_from(">BHH", data, at + 4)
            if bits != 8:  # noqa: PLR2004 - the one depth that is read
                raise broken("jpeg", f"it has {bits} bits per sample, not 8")
            return Header("jpeg", width, height, orientation or 1, progressive=marker not in _CHEAP_FRAMES)
        if marker in (_SCAN, _END):
            break
        if marker == _FILL:
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            if marker == _APP1 and not orientation and data.startswith(b"Exif\0\0", at + 4):
                orientation = _exif_orientation(data[at + 10 : at + 2 + length])
            at += 2 + length
    raise broken("jpeg", "it has no frame header")


def has_more_scans(data: bytes, limit: int) -> bool:
    """Whether a JPEG has more than so many scans. Each costs a walk through the whole picture, and takes few bytes."""
    if data.count(b"\xff\xda") <= limit:
        return False
    # Notes, and what is appended behind the picture (a video), may hold the same two bytes: count in earnest.
    scans, at = 0, 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        match = _MARKER.search(data, at)
        if match is None or data[match.start() + 1] == _END:
            return False
        scans += data[match.start() + 1] == _SCAN
        if scans > limit:
            break
        at = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    return True


def _png(data: bytes) -> Header:
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != 13:  # noqa: PLR2004 - the size of IHDR
        raise broken("png", "it does not begin with IHDR")
    # The EXIF chunk may stand behind the pixels. A cut file is still told its size: decoding refuses it.
    at, orientation = 33, 0
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return Header("png", width, height, orientation or 1)
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf" and not orientation:
            orientation = _exif_orientation(data[at + 8 : at + 8 + length])
        at += 12 + length
    raise broken("png", f"it has more than {_MAX_CHUNKS:,} chunks")


_WEBP_ANIMATED = 0x02


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L" and data[20] == 0x2F:  # noqa: PLR2004 - its signature
        (packed,) = struct.unpack_from("<I", data, 21)
        return Header("webp", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X" and len(data) >= 30:  # noqa: PLR2004 - the size of its header
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return Header("webp", width, height, _webp_orientation(data), progressive=bool(data[20] & _WEBP_ANIMATED))
    raise broken("webp", "it has no frame header")


def _webp_orientation(data: bytes) -> int:
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return 1
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            return _exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    raise broken("webp", f"it has more than {_MAX_CHUNKS:,} chunks")


def _bmp(data: bytes) -> Header:
    return Header("bmp", *open_lazily(data, "bmp").size)


def _gif(data: bytes) -> Header:
    return Header("gif", *open_lazily(data, "gif").size)


def _tiff(data: bytes) -> Header:
    tags = open_lazily(data, "tiff").tag_v2
    orientation = tags.get(_ORIENTATION, 1)
    return Header("tiff", tags[256], tags[257], orientation if orientation in range(1, 9) else 1)


_READERS: dict[Format, Callable[[bytes], Header]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "bmp": _bmp,
    "gif": _gif,
    "tiff": _tiff,
}


def _exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block (a small TIFF), 1 for anything odd: a damaged note is no damaged picture."""
    order: Literal["little", "big"] = "little" if block.startswith(b"II") else "big"
    first = int.from_bytes(block[4:8], order)
    count = int.from_bytes(block[first : first + 2], order)
    for at in range(first + 2, min(first + 2 + 12 * count, len(block) - 11), 12):
        if int.from_bytes(block[at : at + 2], order) == _ORIENTATION:
            value = int.from_bytes(block[at + 8 : at + 10], order)
            return value if value in range(1, 9) else 1
    return 1
