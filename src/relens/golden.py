"""Golden pictures: drawn ones that a model is run on when it comes in and again at every start.

What they gave is kept with the version, so that a changed file, library or machine is noticed before it answers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from relens.errors import BadInput, Broken
from relens.models import Artifact, Card
from relens.values import Floats, Pixels
from relens.vision import decode, normalise, preprocess
from relens.vision.resize import resize

TOLERANCE = 1e-3
"""Largest difference to the golden outputs, as a share of the largest of them: what back-ends agree to."""

RADIUS = 0.25
GOLDEN_SIDE_PX = 96
"""Where a network takes any length: a multiple of 32, which most insist on."""

Run = Callable[[Floats], Mapping[str, Floats]]
"""A forward of one network: (n, …) to role to (n, …)."""


def golden_pictures(side_px: int) -> dict[str, bytes]:
    """Three drawn pictures as PNG, by file name in order: a chessboard, a disc on a gradient, waves; not square."""
    height, width = side_px, side_px * 5 // 4
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    across, down = x / width, y / height
    disc = np.hypot(across - 0.5, down - 0.45) < RADIUS
    gradient = np.stack([across, down, 1 - across], axis=-1)
    board = ((x // 24 + y // 24) % 2)[..., None] * np.array([0.9, 0.8, 0.3]) + 0.05
    waves = np.stack([np.sin(across * f * 6.283 + down * 9) * 0.5 + 0.5 for f in (3, 5, 11)], axis=-1)
    drawn = {"disc": np.where(disc[..., None], [0.95, 0.2, 0.1], gradient), "board": board, "waves": waves}
    return {f"{name}.png": _png((drawn[name] * 255).round().astype(np.uint8)) for name in sorted(drawn)}


def golden_outputs(card: Card, pictures: Sequence[bytes], run: Run, parts: Mapping[str, Run]) -> dict[str, Floats]:
    """What a model and its parts give of pictures: role to (n, …) float32, of a part as `part.role`.

    Without the feature map, which says the same as the vector.
    """
    outputs: dict[str, list[Floats]] = {}
    for picture in pictures:
        pixels = decode(picture).pixels
        main = preprocess(pixels, card.preprocessing) if card.shape is None else _input(pixels, card.shape, card)
        runs = {"": run(main)}
        for name, part in parts.items():
            runs[f"{name}."] = part(_input(pixels, card.parts[name].shape, card))
        for prefix, made in runs.items():
            for role, values in made.items():
                if role != "features":
                    outputs.setdefault(prefix + role, []).append(values)
    return {role: np.concatenate(values) for role, values in outputs.items()}


def repeat_golden(artifact: Artifact, backend: str, run: Run, parts: Mapping[str, Run]) -> None:
    """Run a version's golden pictures again; of the parts those that are given. Broken if they give something else."""
    outputs = golden_outputs(artifact.card, list(artifact.golden_pictures().values()), run, parts)
    for role, wanted in artifact.golden_outputs().items():
        if "." in role and role.partition(".")[0] not in parts:
            continue
        off = _difference(outputs[role], wanted)
        if not off <= TOLERANCE:
            raise Broken(
                "models.golden-differs",
                f"{artifact.reference} on {backend}: {role} of the golden pictures is off by {off:.2g}",
                hint="the runtime or the machine computes something else; vectors made before do not fit any more",
            )


def _difference(made: Floats, wanted: Floats) -> float:
    """The largest, as a share of the largest number that is wanted; infinite if there are not as many."""
    if made.shape != wanted.shape:
        return float("inf")
    return float(np.abs(made - wanted).max(initial=0) / max(float(np.abs(wanted).max(initial=0)), 1e-9))


def _input(pixels: Pixels, shape: Sequence[int | None], card: Card) -> Floats:
    """A picture stretched to an input shape that does not follow from preprocessing; any length is 96."""
    if len(shape) != 3:  # noqa: PLR2004 - channels, height, width
        raise BadInput("models.bad-card", f"{card.name}: a picture cannot be made into an input of {list(shape)}")
    sides = [GOLDEN_SIDE_PX if side is None else side for side in shape]
    height, width = sides[1:] if card.preprocessing.layout == "nchw" else sides[:2]
    return normalise(Image.fromarray(resize(pixels, width, height, resample="bilinear")), card.preprocessing)


def _png(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
