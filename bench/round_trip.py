"""What the JPEG round trip of a query's crop is worth: how far the vector is off if a query leaves it out.

A gallery describes decoded stored crops. A query that goes the same way meets the very same pixels.
"""

from __future__ import annotations

import numpy as np

from bench import homes, pictures
from bench.figures import Figure, Report, Setup
from relens.recipes import LoadedModel
from relens.values import Floats, Pixels
from relens.vision import decode, encode_jpeg, preprocess, shrink


def measure(setup: Setup) -> Report:
    lens, model = homes.load(setup)
    recipe = lens.recipe
    kept, skipped = [], []
    for data in pictures.jpegs(setup.choose(200, 40), seed=3_000_000):
        whole = decode(data, short_side_px=recipe.short_side_px).pixels
        crop = shrink(whole, recipe.short_side_px)
        stored = vector_of(model, decode(encode_jpeg(crop, quality=recipe.quality)).pixels)
        kept.append(float(stored @ vector_of(model, crop)))
        skipped.append(float(stored @ vector_of(model, whole)))
    return Report(
        (
            _figure("cosine to the stored vector, query without the JPEG round trip", kept),
            _figure("cosine to the stored vector, query without any crop", skipped),
        )
    )


def vector_of(model: LoadedModel, pixels: Pixels) -> Floats:
    """(d,) float32 of unit length."""
    vector = model.session.run(preprocess(pixels, model.artifact.card.preprocessing))["vector"][0]
    return vector / np.float32(np.linalg.norm(vector))


def _figure(what: str, cosines: list[float]) -> Figure:
    return Figure(what, f"mean {np.mean(cosines):.4f}, worst {min(cosines):.4f} of {len(cosines)}")
