"""Pillow, kept quiet and strict: opening a file without decoding it, and turning any of its modes into RGB.

Here alone Pillow reads files. It guesses no format, fills in no missing data, warns of nothing and logs nothing: what
matters becomes an error of ours. Its own guard against huge pictures is off for the whole process, `Limits` rules.
The C library behind TIFF still writes a line to stderr about some damaged files.
"""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from relens.values import Pixels

Image.MAX_IMAGE_PIXELS = None
logging.getLogger("PIL").setLevel(logging.CRITICAL)

_OPENERS: dict[str, Any] = {
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
}

_WHITE_IS_ZERO = 0
_PHOTOMETRIC = 262


def open_lazily(data: bytes, name: str) -> Any:
    """A Pillow image of the named format whose pixels are not decoded yet. Any exception, if the bytes are damaged."""
    _silence_warnings()
    return _OPENERS[name](io.BytesIO(data))


def to_rgb(image: Image.Image) -> Pixels:
    """Decodes an opened image, its first frame if it moves, into (height, width, 3) RGB.

    16 bits become 8 (65535 is 255), grey is repeated, what is transparent lies on white, CMYK is converted without
    profiles. ValueError for samples of 32 bits: their range is not known. Any exception for damaged data.
    """
    image.load()
    if image.mode.startswith("I;16"):
        return np.repeat(_eight_bit_grey(image)[..., np.newaxis], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"samples of mode {image.mode} have no agreed range; 8 or 16 bits without sign are read")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _on_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _eight_bit_grey(image: Image.Image) -> NDArray[np.uint8]:
    wide = np.asarray(image).astype(np.uint32)
    grey = ((wide * 255 + 32_895) >> 16).astype(np.uint8)  # exactly round(wide / 257)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey  # Pillow inverts 8 bits, and leaves 16 as they are
    see_through = image.info.get("transparency")
    if isinstance(see_through, int):
        grey[wide == see_through] = 255
    return grey


def _on_white(image: Image.Image) -> Image.Image:
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = layer.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return layer  # converting to RGB drops the alpha
    canvas = Image.new("RGB", layer.size, "white")
    canvas.paste(layer, mask=alpha)
    return canvas


def _ignore_plugins() -> None:
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")


_ignore_plugins()
_FILTER = warnings.filters[0]


def _silence_warnings() -> None:
    """Pillow warns of odd tags in damaged files. Not `catch_warnings`: it is not safe with threads."""
    if warnings.filters[0] != _FILTER:  # somebody has others since
        _ignore_plugins()
