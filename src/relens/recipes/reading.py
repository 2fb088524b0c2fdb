"""Text of objects: each is cut out upright by its polygon and read, turned round where it stands on its head."""

from __future__ import annotations

from collections.abc import Sequence

from relens.errors import BadInput
from relens.recipes.crops import Cropped, Points, in_crop
from relens.recipes.lens import LoadedModel
from relens.values import Floats, Pixels
from relens.vision.text import read_lines, rectify, upside_down


def read_crops(
    crops: Sequence[tuple[Cropped, Pixels]], reader: LoadedModel, turn: LoadedModel | None
) -> list[tuple[str, float]]:
    """What each crop says, and how sure the reader is of it (0 to 1); ("", 0) where nothing is read."""
    prep = reader.artifact.card.preprocessing
    lines = [_upright(crop, pixels, prep.height) for crop, pixels in crops]

    def turned(some: Sequence[Pixels]) -> Floats:
        assert turn is not None
        model = turn
        return upside_down(some, lambda batch: model.session.run(batch)["scores"], model.artifact.card.preprocessing)

    readings = read_lines(
        lines,
        lambda batch: reader.session.run(batch)["scores"],
        reader.labels,
        prep,
        turned=None if turn is None else turned,
    )
    return [(reading.text, reading.score) for reading in readings]


def _upright(crop: Cropped, pixels: Pixels, height_px: int) -> Pixels:
    """The line that a decoded crop shows; all of the crop if the object has no polygon that could be cut out."""
    whole: Points = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    if not crop.polygon:
        return rectify(pixels, whole, height_px)
    try:
        return rectify(pixels, in_crop(crop.polygon, crop), height_px)
    except BadInput:
        return rectify(pixels, whole, height_px)
