"""Pictures of coloured cells, which the dummy detector finds, and a recipe that puts them into categories."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

CELL = 40
RED, GREEN, BLUE, DARK = (255, 60, 60), (60, 255, 60), (60, 60, 255), (0, 0, 0)

RECIPE = """\
recipe: street
detect:
  model: dummy-detector/1
  min_score: 0.4
  max_objects: 16
  categories: {red: warm, green: cold}
crop: {short_side_px: 64, quality: 95, margin: 0.2}
embed: dummy/1
labels: 2
"""


def cells(*colours: tuple[int, int, int], seed: int = 0) -> bytes:
    """A PNG of 4 x 4 cells in these colours, the rest dark, each with its own grain."""
    grain = np.random.default_rng(seed).integers(0, 25, (4 * CELL, 4 * CELL, 3), dtype=np.uint8)
    for number, colour in enumerate(colours):
        down, across = divmod(number, 4)
        part = np.s_[down * CELL : (down + 1) * CELL, across * CELL : (across + 1) * CELL]
        grain[part] = np.maximum(np.array(colour, np.uint8), 25) - grain[part]
    out = io.BytesIO()
    Image.fromarray(grain).save(out, "PNG")
    return out.getvalue()
