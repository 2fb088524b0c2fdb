"""Made-up pictures: smooth colours with hard edges, so that both blur and misplaced pixels show."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image


def make_photo(width, height):
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack(
        [x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), 127 + 120 * np.sin((x + 2 * y) / 9)], axis=-1
    ).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = [250, 30, 20]
    return pixels


def save_as(picture, name, **options):
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def make_png(width, height, kind, rows, *, extra=b"", after=b""):
    """A PNG written by hand. kind: bits and colour type; rows: bytes; extra and after: chunks around the pixels."""
    header = struct.pack(">IIBBBBB", width, height, *kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + make_chunk(b"IHDR", header)
        + extra
        + make_chunk(b"IDAT", pixels)
        + after
        + make_chunk(b"IEND", b"")
    )


def make_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def signal_to_noise_db(a, b):
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


@pytest.fixture(scope="session")
def photo():
    return make_photo


@pytest.fixture(scope="session")
def save():
    return save_as


@pytest.fixture(scope="session")
def png():
    return make_png


@pytest.fixture(scope="session")
def chunk():
    return make_chunk


@pytest.fixture(scope="session")
def psnr():
    return signal_to_noise_db


@pytest.fixture(scope="session")
def samples():
    """One valid file of every format and mode, 67 x 45."""
    photo = Image.fromarray(make_photo(67, 45))
    clear = photo.copy()
    clear.putalpha(photo.convert("L"))
    deep = Image.fromarray((np.arange(67 * 45).reshape(45, 67) * 20).astype(np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    moves = {"save_all": True, "append_images": [photo.rotate(90)]}
    tiffs = {
        f"tiff {name}": save_as(photo, "TIFF", compression=name, exif=turned)
        for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    }
    return {
        "jpeg": save_as(photo, "JPEG", exif=turned),
        "jpeg progressive": save_as(photo, "JPEG", progressive=True),
        "jpeg grey": save_as(photo.convert("L"), "JPEG"),
        "jpeg cmyk": save_as(photo.convert("CMYK"), "JPEG"),
        "png": save_as(photo, "PNG", exif=turned),
        "png palette": save_as(photo.convert("P"), "PNG"),
        "png one bit": save_as(photo.convert("1"), "PNG"),
        "png 16 bits": save_as(deep, "PNG"),
        "png alpha": save_as(clear, "PNG"),
        "png grey alpha": save_as(clear.convert("LA"), "PNG"),
        "png animated": save_as(photo, "PNG", **moves),
        "webp": save_as(photo, "WEBP", exif=turned),
        "webp lossless": save_as(clear, "WEBP", lossless=True),
        "webp animated": save_as(photo, "WEBP", **moves),
        "bmp": save_as(photo, "BMP"),
        "bmp palette": save_as(photo.convert("P"), "BMP"),
        "gif": save_as(photo, "GIF"),
        "gif animated": save_as(photo, "GIF", transparency=3, **moves),
        "tiff palette": save_as(photo.convert("P"), "TIFF"),
        "tiff cmyk": save_as(photo.convert("CMYK"), "TIFF"),
        "tiff 16 bits": save_as(deep, "TIFF"),
        "tiff fax": save_as(photo.convert("1"), "TIFF", compression="group4"),
        **tiffs,
    }
