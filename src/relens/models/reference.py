"""Conversions are compared with their originals: what those said of pictures that every machine computes alike.

The outputs were taken once from the original implementations and are kept here; the pictures are made of whole numbers,
so that nothing is rounded in two ways. Which original, each network's own module says.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import numpy as np
from safetensors.numpy import load

from relens.errors import Broken
from relens.values import Floats, Pixels

LARGEST_DEVIATION = 1e-3
"""As a share of an output's largest value."""

_OUTPUTS = "faces_reference.safetensors"


def reference_pictures(width: int, height: int) -> Pixels:
    """(3, height, width, 3) uint8: a disc before a gradient, a checkerboard in the light, and rings."""
    down, across = np.mgrid[0:height, 0:width]
    x, y = across * 256 // width, down * 256 // height
    radius = (x - 115) ** 2 + (y - 140) ** 2
    disc = radius < 70**2
    board = ((x // 32 + y // 32) % 2) * (255 - abs(x - 128))
    rings = radius // 24 % 256
    pictures = [
        [np.where(disc, 230, x // 2), np.where(disc, 170, y // 2), np.where(disc, 140, 160 - x // 2)],
        [board, 40 + board * 3 // 4, 255 - board],
        [rings, (rings + x) // 2, (rings + y) // 2],
    ]
    return np.array(pictures).transpose(0, 2, 3, 1).astype(np.uint8)


def check_conversion(network: str, outputs: Mapping[str, Floats]) -> float:
    """Largest deviation from the original, as a share of its largest value.

    outputs  role to tensor, for the network's `reference_pixels`; roles that the original does not have are not
             looked at

    Broken `models.bad-conversion` above LARGEST_DEVIATION: this machine's runtime computes something else.
    """
    every = load((resources.files(__package__) / _OUTPUTS).read_bytes())
    wanted = {name.partition(".")[2]: values for name, values in every.items() if name.startswith(f"{network}.")}
    deviation = max(_deviation(outputs.get(role), values) for role, values in wanted.items())
    if not deviation <= LARGEST_DEVIATION:
        raise Broken(
            "models.bad-conversion",
            f"{network} deviates from its original by {deviation:.2g} of the largest value, "
            f"at most {LARGEST_DEVIATION:g} is right",
            hint="check the version of the runtime",
        )
    return deviation


def _deviation(actual: Floats | None, expected: Floats) -> float:
    if actual is None or actual.shape != expected.shape:
        return float("inf")
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
