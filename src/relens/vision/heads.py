"""Heads: what a model's tensors mean, by the `decode` of its card. Scores, numbers, and boxes of detectors.

Everything that tells two exports of a network apart is data: which variant, how boxes are written and in what unit,
what is done to scores. Tensors that do not have the shape that a card promises are Broken, and say which they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relens.errors import Broken
from relens.values import Box, Detection, Floats, Label
from relens.vision.boxes import nms

MOST_CANDIDATES = 5000
"""Findings that are compared with each other, the strongest, or twice as many as are asked for if that is more. Others
cost seconds and change nothing that is kept."""

LEAST_SIDE = 1e-5
"""Share of the picture's side: what is smaller, as what lies outside the picture, is nothing."""

_Size = tuple[int, int]
_Placed = tuple[float, float, float, float]


def scores_of(tensor: Floats, decode: Mapping[str, Any]) -> Floats:
    """What a classifier says of each input, 0 to 1: (n, classes) float32.

    tensor   (n, classes), or with more dimensions of length 1 behind
    decode   `kind`: "softmax" over the classes, of which one is right; "sigmoid" of each, of which many may be; "none"
             if the model has done it
    """
    return _activated(tensor.reshape(len(tensor), -1), "kind", decode.get("kind", "none"))


def best_labels(scores: Floats, names: Sequence[str], count: int) -> tuple[Label, ...]:
    """The best classes, best first; of equal ones the first is better.

    scores  (classes,), 0 to 1
    names   by class; one without a name is called by its index
    count   how many, at most
    """
    count = min(count, len(scores))
    top = np.argpartition(-scores, count - 1)[:count]
    best = top[np.lexsort((top, -scores[top]))]
    return tuple(Label(names[i] if i < len(names) else str(i), int(i), float(scores[i])) for i in best)


def value_of(tensor: Floats, decode: Mapping[str, Any]) -> Floats:
    """What a regressor says of each input: (n,) float32, in the card's unit.

    tensor   one number for each input for kind "value", (n, bins) for kind "expectation"
    decode   `scale` and `offset`: the number is multiplied, then added to. Of an expectation also `first` and `step`,
             what the first bin stands for and how far the next is, and `scores`: "softmax" if bins are logits
    """
    kind = decode.get("kind", "value")
    rows = tensor.reshape(len(tensor), -1)
    if kind == "expectation":
        shares = _activated(rows, "scores", decode.get("scores", "none"))
        bins = decode.get("first", 0) + decode.get("step", 1) * np.arange(rows.shape[1])
        numbers = shares @ bins.astype(np.float32) / np.maximum(shares.sum(axis=1), np.float32(1e-9))
    elif kind == "value":
        if rows.shape[1] != 1:
            raise _wrong_head(f"a value is one number for each input, the model gives {tensor.shape}")
        numbers = rows[:, 0]
    else:
        raise _bad_decode("kind", kind, "value, expectation")
    values: Floats = (numbers * decode.get("scale", 1) + decode.get("offset", 0)).astype(np.float32)
    return values


def detections_of(
    outputs: Mapping[str, Floats],
    decode: Mapping[str, Any],
    *,
    input_size: _Size,
    placed: _Placed,
    min_score: float,
    iou: float,
    max_objects: int,
    labels: Sequence[str],
) -> list[Detection]:
    """What a detector found in one picture, strongest first.

    outputs      role to tensor of a batch of one; see `decode`
    input_size   width and height of the model's input in pixels
    placed       where all of the picture lies in it: left, top, width, height (`placement`)
    min_score    what has a lower score is left out
    iou          of two findings of one class that overlap by more the weaker is left out
    labels       class names by index; a class without one has the name ""

    `decode` of kind "yolo" reads the role "detections":

    variant      "objectness": (1, n, 4 + 1 + classes), as of YOLOv5, v7 and YOLOX; "classes": (1, 4 + classes, n), as
                 of v8 and v11; "end-to-end": (1, n, 6) with score and class, as of v10
    transposed   true if the last two dimensions are the other way round
    classes      how many there are, if further numbers follow that are not to be read, as those of masks
    landmarks    how many points follow, behind the classes; with objectness before them. `landmark_size` numbers each

    Of kind "boxes" it reads the roles "boxes" (1, n, 4) and "scores" (1, n, classes) or (1, n), and if it is there
    "classes" (1, n), as of SSD, RT-DETR and most others:

    background   class index that stands for nothing, as 0 of SSD

    Of both kinds:

    box          "cxcywh" (usual), "xyxy" (usual end to end), "xywh" or "yxyx"
    units        "pixels" of the input (usual of yolo) or "share" of its sides (usual of boxes)
    scores       "none" (usual), "sigmoid" or "softmax"
    strides      of grids that boxes are relative to, as of YOLOX: [8, 16, 32]; corners of cells, sizes as logarithms
    nms          "class" (usual), "all" for one name each place, "none" (usual end to end)
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out
        found = _raw(outputs, decode)
        places = np.flatnonzero(found.scores >= min_score)
        if len(places) > (most := max(MOST_CANDIDATES, 2 * max_objects)):
            places = np.sort(places[np.argsort(-found.scores[places], kind="stable")[:most]])
        shares = _in_picture(found, decode, places, input_size, placed)
    boxes, points = shares[:, :4], shares[:, 4:]
    real = ((boxes[:, 2:] - boxes[:, :2]) > LEAST_SIDE).all(axis=1)  # not those with a number that is not finite
    places, boxes, points = places[real], boxes[real], points[real]
    kept = _kept(boxes, found.scores[places], found.classes[places], decode, iou)[:max_objects]
    return [
        Detection(
            box=_box(boxes[n]),
            score=float(min(found.scores[places[n]], 1)),
            label=labels[index] if 0 <= (index := int(found.classes[places[n]])) < len(labels) else "",
            index=index,
            landmarks=tuple((float(x), float(y)) for x, y in points[n].reshape(-1, 2)),
        )
        for n in kept
    ]


@dataclass(frozen=True, slots=True)
class _Raw:
    """As the model says it: boxes (n, 4), scores (n,), classes (n,), landmarks (n, points, 2)."""

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]
    points: Floats


def _raw(outputs: Mapping[str, Floats], decode: Mapping[str, Any]) -> _Raw:
    kind = decode.get("kind", "yolo")
    if kind == "yolo":
        return _yolo(_only(outputs, "detections"), decode)
    if kind == "boxes":
        return _boxes(outputs, decode)
    raise _bad_decode("kind", kind, "yolo, boxes")


def _yolo(tensor: Floats, decode: Mapping[str, Any]) -> _Raw:
    variant = _variant(decode)
    if tensor.ndim != 2:  # noqa: PLR2004 - findings and their numbers
        raise _wrong_head(f"detections are (n, findings, numbers), the model gives {tensor.ndim + 1} dimensions")
    rows = tensor.T if (variant == "classes") != bool(decode.get("transposed", False)) else tensor
    count, size = decode.get("landmarks", 0), decode.get("landmark_size", 3)
    first = {"objectness": 5, "classes": 4, "end-to-end": 6}[variant]
    if rows.shape[1] < first + count * size + (variant != "end-to-end"):
        raise _wrong_head(
            f"of variant {variant} each finding has {first} numbers and one for each class, the model gives "
            f"{rows.shape[1]} for each of {len(rows)}"
        )
    behind = rows.shape[1] - first - count * size
    classes = decode.get("classes", behind)
    if variant != "end-to-end" and not 0 < classes <= behind:
        raise _wrong_head(f"{classes} classes are to be read, the model gives {behind}")
    at = first if variant != "classes" else first + classes
    points = rows[:, at : at + count * size].reshape(len(rows), count, size if count else 2)[:, :, :2]
    if variant == "end-to-end":
        return _Raw(rows[:, :4], rows[:, 4], _whole(rows[:, 5]), points)
    how = decode.get("scores", "none")
    begin = first + count * size if variant == "objectness" else first
    names = rows[:, begin : begin + classes]
    scores, best = _best(_activated(names, "scores", how))
    if variant == "objectness":
        scores = scores * _activated(rows[:, 4], "scores", "none" if how == "none" else "sigmoid")
    return _Raw(rows[:, :4], scores, best, points)


def _boxes(outputs: Mapping[str, Floats], decode: Mapping[str, Any]) -> _Raw:
    boxes, scores = _only(outputs, "boxes").reshape(-1, 4), _only(outputs, "scores")
    if len(scores) != len(boxes):
        raise _wrong_head(f"{len(boxes)} boxes have {len(scores)} rows of scores")
    none = np.zeros((len(boxes), 0, 2), np.float32)
    said = _activated(scores, "scores", decode.get("scores", "none"))
    if "classes" in outputs:
        return _Raw(boxes, said.reshape(-1), _whole(_only(outputs, "classes").reshape(-1)), none)
    said = said.reshape(len(boxes), -1)
    if (background := decode.get("background")) is not None:
        said = said.copy()
        said[:, background] = -1
    return _Raw(boxes, *_best(said), none)


def _activated(tensor: Floats, key: str, how: str) -> Floats:
    """Logits as numbers from 0 to 1; with "none" what is given."""
    activated: Floats = tensor
    if how == "softmax":
        powers = np.exp(tensor - tensor.max(axis=-1, keepdims=True))
        activated = powers / powers.sum(axis=-1, keepdims=True)
    elif how == "sigmoid":
        activated = np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * tensor)  # exp would overflow
    elif how != "none":
        raise _bad_decode(key, how, "none, softmax, sigmoid")
    return activated


def _only(outputs: Mapping[str, Floats], role: str) -> Floats:
    """A role's tensor of the one picture of the batch."""
    tensor = outputs.get(role)
    if tensor is None or len(tensor) != 1:
        given = {name: value.shape for name, value in outputs.items()}
        raise _wrong_head(f"`{role}` of one picture is needed, the model gives {given}")
    first: Floats = tensor[0]
    return first


def _best(scores: Floats) -> tuple[Floats, NDArray[np.int64]]:
    classes = scores.argmax(axis=1)
    return np.take_along_axis(scores, classes[:, None], axis=1)[:, 0], classes


def _whole(numbers: Floats) -> NDArray[np.int64]:
    return np.nan_to_num(numbers, nan=-1, posinf=-1, neginf=-1).round().astype(np.int64)


def _variant(decode: Mapping[str, Any]) -> str:
    variant = decode.get("variant", "classes")
    if variant not in {"objectness", "classes", "end-to-end"}:
        raise _bad_decode("variant", variant, "objectness, classes, end-to-end")
    return str(variant)


def _in_picture(
    found: _Raw, decode: Mapping[str, Any], places: NDArray[np.intp], input_size: _Size, placed: _Placed
) -> Floats:
    """(n, 4 + 2 * points) shares of the picture, cut to 0 to 1: left, top, right, bottom, x and y of each landmark."""
    boxes, points = found.boxes[places].astype(np.float32), found.points[places].astype(np.float32)
    if strides := decode.get("strides"):
        boxes = _from_grid(boxes, places, len(found.boxes), strides, input_size)
    ends_here = decode.get("kind", "yolo") == "yolo" and _variant(decode) == "end-to-end"
    corners = _corners(boxes, decode.get("box", "xyxy" if ends_here else "cxcywh"))
    flat = np.concatenate([corners, points.reshape(len(points), 2 * points.shape[1])], axis=1)
    pairs = flat.reshape(len(flat), flat.shape[1] // 2, 2)
    units = decode.get("units", "pixels" if decode.get("kind", "yolo") == "yolo" else "share")
    if units not in {"pixels", "share"}:
        raise _bad_decode("units", units, "pixels, share")
    side = np.asarray(input_size if units == "share" else (1, 1), np.float32)
    start, length = np.asarray(placed[:2], np.float32), np.asarray(placed[2:], np.float32)
    shares: Floats = np.clip((pairs * side - start) / length, 0, 1).reshape(flat.shape)
    return shares


def _corners(boxes: Floats, form: str) -> Floats:
    """Left, top, right, bottom."""
    a, b, c, d = boxes.T
    if form == "xyxy":
        return boxes
    if form == "cxcywh":
        return np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], axis=1)
    if form == "xywh":
        return np.stack([a, b, a + c, b + d], axis=1)
    if form == "yxyx":
        return np.stack([b, a, d, c], axis=1)
    raise _bad_decode("box", form, "cxcywh, xyxy, xywh, yxyx")


def _from_grid(
    boxes: Floats, places: NDArray[np.intp], count: int, strides: Sequence[int], input_size: _Size
) -> Floats:
    """Centres and sizes in pixels of the input: x, y are counted in cells from their own, w, h are logarithms.

    Ge et al., "YOLOX: Exceeding YOLO Series in 2021": cells row by row, the finest grid first.
    """
    width, height = input_size
    cells = []
    for stride in strides:
        down, across = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([across.ravel(), down.ravel(), np.full(across.size, stride)], axis=1))
    grid = np.concatenate(cells).astype(np.float32)
    if len(grid) != count:
        raise _wrong_head(f"strides {list(strides)} make {len(grid)} cells of the input, the model gives {count} boxes")
    x, y, stride = grid[places].T
    sizes = np.exp(np.minimum(boxes[:, 2:], np.float32(20))) * stride[:, None]
    return np.concatenate([(boxes[:, :2] + np.stack([x, y], axis=1)) * stride[:, None], sizes], axis=1)


def _kept(
    boxes: Floats, scores: Floats, classes: NDArray[np.int64], decode: Mapping[str, Any], iou: float
) -> NDArray[np.intp]:
    """Places of what is kept, strongest first."""
    ends_here = decode.get("kind", "yolo") == "yolo" and _variant(decode) == "end-to-end"
    how = decode.get("nms", "none" if ends_here else "class")
    if how == "none":
        return np.argsort(-scores, kind="stable")
    if how == "all":
        return nms(boxes, scores, iou)
    if how != "class":
        raise _bad_decode("nms", how, "class, all, none")
    kept = [np.zeros(0, np.intp)]
    for index in np.unique(classes):
        same = np.flatnonzero(classes == index)
        kept.append(same[nms(boxes[same], scores[same], iou)])
    every = np.sort(np.concatenate(kept))
    return every[np.argsort(-scores[every], kind="stable")]


def _box(corners: Floats) -> Box:
    left, top, right, bottom = (float(value) for value in corners)
    return Box(left, top, right - left, bottom - top)


def _wrong_head(what: str) -> Broken:
    return Broken(
        "vision.wrong-head",
        what,
        hint="the card's `decode` and the model do not fit: correct the card, and add it again",
    )


def _bad_decode(key: str, given: object, known: str) -> Broken:
    return Broken("vision.bad-decode", f"decode.{key}: {given!r} is unknown", hint=f"known: {known}")
