"""Pictures to measure with: made here, the same on every machine, and as hard to compress as photographs.

A canvas shows discs of random grey, colour and size that hide one another ("dead leaves": sizes by a power law give the
edges and spectrum of natural scenes; Lee, Mumford & Huang, IJCV 41, 2001), with texture on each and noise over all. A
picture is a window of a canvas, so that thousands of different ones cost little. What they show has no name: how well
something is recognised cannot be measured with them.
"""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageDraw

VGA = (640, 480)
QUALITY, SUBSAMPLING = 85, "420"  # as cameras and shops write them: 60 to 80 KB for VGA
MARGIN_PX = 320  # by which a canvas is larger than a picture: windows lie anywhere in it
STRIDE = 40_009  # from a window to the next; shares no factor with MARGIN_PX
CANVASES = 32
LEAVES = 1600
STRENGTH = 2.5  # of the texture, in grey levels
THREADS = 2

Pixels = NDArray[np.uint8]


def jpegs(count: int, *, size: tuple[int, int] = VGA, seed: int = 0) -> list[bytes]:
    """So many different pictures as JPEG, each of its own canvas."""
    return [to_jpeg(_window(_canvas(seed + n, size), size, n)) for n in range(count)]


def folder(path: Path, count: int, *, seed: int = 0) -> Path:
    """A folder with so many different VGA pictures. What a run before has made is used again."""
    complete = path / ".complete"
    made = f"{count} {seed} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"
    if complete.exists() and complete.read_text() == made:
        return path
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    with ThreadPoolExecutor(THREADS) as threads:
        canvases = list(threads.map(lambda n: _canvas(seed + n, VGA), range(min(CANVASES, count))))

        def write(number: int) -> None:
            turn, canvas = divmod(number, len(canvases))
            (path / f"{number:05}.jpg").write_bytes(to_jpeg(_window(canvases[canvas], VGA, turn)))

        list(threads.map(write, range(count)))
    complete.write_text(made)
    return path


def to_jpeg(pixels: Pixels) -> bytes:
    return bytes(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling=SUBSAMPLING))


def _window(canvas: Pixels, size: tuple[int, int], number: int) -> Pixels:
    """A part of the canvas, another one for each number up to MARGIN_PX squared; every other one is mirrored."""
    left, top = divmod(number * STRIDE % MARGIN_PX**2, MARGIN_PX)
    window = canvas[top : top + size[1], left : left + size[0]]
    return np.ascontiguousarray(window[:, ::-1] if number % 2 else window)


def _canvas(seed: int, size: tuple[int, int]) -> Pixels:
    random = np.random.default_rng(seed)
    width, height = size[0] + MARGIN_PX, size[1] + MARGIN_PX
    leaves = Image.new("RGB", (width, height), tuple(random.integers(40, 200, 3)))
    draw = ImageDraw.Draw(leaves)
    least, most = 3.0, max(size) / 2.5
    # By r^-3, the law that looks the same at every scale. Largest first, or nothing small would be seen.
    radii = np.sort(1 / np.sqrt(random.uniform(most**-2, least**-2, LEAVES)))[::-1]
    for radius in radii:
        x, y = random.uniform(0, width), random.uniform(0, height)
        grey = random.normal(120, 55)
        colour = tuple(int(value) for value in np.clip(grey + random.normal(0, 18, 3), 0, 255))
        stretch = random.uniform(0.4, 1.0)
        draw.ellipse((x - radius, y - radius * stretch, x + radius, y + radius * stretch), fill=colour)
    texture = sum(_noise(random, width, height, cell) for cell in (1, 2, 4, 8, 32, 128))
    strength = _noise(random, width, height, 64)[..., None] * 0.3 + 0.7  # smooth here, rough there
    shown = np.asarray(leaves, np.float32) + texture[..., None] * strength * STRENGTH
    return np.clip(shown, 0, 255).astype(np.uint8)


def _noise(random: np.random.Generator, width: int, height: int, cell: int) -> NDArray[np.float32]:
    """Normal noise whose grains are about `cell` pixels large."""
    grains = random.standard_normal((-(-height // cell) + 1, -(-width // cell) + 1), dtype=np.float32)
    if cell == 1:
        return grains[:height, :width]
    return np.asarray(Image.fromarray(grains).resize((width, height), Image.Resampling.BICUBIC))
