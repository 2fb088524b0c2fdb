"""Small made-up pictures that differ, as JPEG files: what tests import."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import simplejpeg


def draw(seed: int, *, width: int = 96, height: int = 64) -> bytes:
    """A JPEG of a few coloured rectangles; another seed, another picture."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), rng.integers(0, 256, 3), dtype=np.uint8)
    for _ in range(6):
        x, y = rng.integers(0, width), rng.integers(0, height)
        pixels[y : y + rng.integers(8, height), x : x + rng.integers(8, width)] = rng.integers(0, 256, 3)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90, colorspace="RGB"))


def write_pictures(folder: Path, count: int, *, first: int = 0, width: int = 96, height: int = 64) -> Path:
    """`count` pictures in a folder, in two levels."""
    for number in range(first, first + count):
        path = folder / f"{number % 7}" / f"picture-{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw(number, width=width, height=height))
    return folder
