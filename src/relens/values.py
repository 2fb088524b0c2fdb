"""Words of the domain as values that cannot be wrong: frozen, checked once when made.

What crosses floors or processes is defined here, with its JSON form, so that command, HTTP and Python say the same.
Nothing here reads a disk, a clock or a network.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput, Conflict

Pixels = NDArray[np.uint8]
"""(height, width, 3) uint8, RGB, top row first, upright."""

Floats = NDArray[np.float32]

DIGEST_LENGTH = 64

SLACK = 3e-6
"""How far a box may reach beyond its picture: its JSON has six digits, and position and size may both be rounded up."""


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that digests are taken from: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: bytes | Mapping[str, Any] | Sequence[Any]) -> str:
    """SHA-256 in lower-case hex, of bytes as they are or of a JSON value in its canonical spelling."""
    data = value if isinstance(value, bytes) else canonical_json(value)
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of a picture: x, y, w, h from the top left, each 0 to 1 of the upright picture's width or height."""

    x: float
    y: float
    w: float
    h: float

    def __post_init__(self) -> None:
        inside = 0 <= self.x <= 1 and 0 <= self.y <= 1 and self.x + self.w <= 1 + SLACK and self.y + self.h <= 1 + SLACK
        if not (inside and self.w > 0 and self.h > 0):
            raise BadInput("values.bad-box", f"no box within a picture: {self.to_json()}")

    def to_json(self) -> list[float]:
        x, y, w, h = (round(side, 6) for side in (self.x, self.y, self.w, self.h))
        return [x, y, max(w, 1e-6), max(h, 1e-6)]

    @staticmethod
    def from_json(given: Sequence[float]) -> Box:
        return Box(*given)


WHOLE = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Label:
    """A name that a model gave, its class index and its score (0 to 1)."""

    name: str
    index: int
    score: float

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "index": self.index, "score": round(self.score, 6)}

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Label:
        return Label(**given)


def _labels(given: Sequence[Mapping[str, Any]]) -> tuple[Label, ...]:
    return tuple(Label.from_json(label) for label in given)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes a model's input, by its card.

    size_px      width of the input, and its height if there is no `height_px`
    resize_px    with fit "cut": the short side is resized to this first, then the centre `size_px` square is cut
    resample     "bilinear" or "bicubic", antialiased
    colour       "rgb" or "bgr", order of the channels; "grey" is one channel
    layout       "nchw" or "nhwc"
    mean, std    per channel in the model's order: (value 0..255 - mean) / std
    fit          "cut" as above; "stretch" to the input's size whatever becomes of proportions; "letterbox": as large as
                 fits, in the middle, grey around it
    see          "crop": all of the stored crop; "box": only the object's box in it, `margin` added on each side, as a
                 share of its longer side
    align        "none", or the name of a template (`vision.align`): the face is turned and scaled to it by landmarks
    """

    size_px: int
    resize_px: int
    resample: Literal["bilinear", "bicubic"]
    colour: Literal["rgb", "bgr", "grey"]
    layout: Literal["nchw", "nhwc"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Literal["cut", "stretch", "letterbox"] = "cut"
    height_px: int | None = None
    see: Literal["crop", "box"] = "crop"
    margin: float = 0.0
    align: str = "none"

    def __post_init__(self) -> None:
        channels = 1 if self.colour == "grey" else 3
        square = self.height_px in (None, self.size_px)
        right = (
            1 <= self.size_px <= self.resize_px
            and len(self.mean) == len(self.std) == channels
            and min(self.std) > 0
            and 0 <= self.margin <= 1
            and (square if self.fit == "cut" or self.align != "none" else (self.height_px or 1) >= 1)
        )
        if not right:
            raise BadInput(
                "values.bad-preprocessing",
                f"no input can be made with {self.to_json()}",
                hint="size_px is 1 to resize_px, mean and std have a value per channel, std is above 0, margin 0 to 1, "
                "and only fit: stretch and fit: letterbox take a height_px",
            )

    @property
    def height(self) -> int:
        """Height of the input."""
        return self.height_px or self.size_px

    def to_json(self) -> dict[str, Any]:
        """What is as it always was is left out, so that spaces and digests stay what they were."""
        later = {
            "fit": (self.fit, "cut"),
            "height_px": (self.height_px, None),
            "see": (self.see, "crop"),
            "margin": (self.margin, 0.0),
            "align": (self.align, "none"),
        }
        return {
            "size_px": self.size_px,
            "resize_px": self.resize_px,
            "resample": self.resample,
            "colour": self.colour,
            "layout": self.layout,
            "mean": list(self.mean),
            "std": list(self.std),
        } | {name: value for name, (value, usual) in later.items() if value != usual}


@dataclass(frozen=True, slots=True)
class Detection:
    """One thing that a detector found in a picture.

    score      0 to 1
    label      what the detector calls it, and its class index; "" if it knows one thing only
    landmarks  (x, y) of points, as shares of the picture's width and height. Of a face: its right eye (left in the
               picture), left eye, nose, right and left corner of the mouth
    polygon    (x, y) of corners in the same units, clockwise from the top left of what it holds; empty for a plain box
    """

    box: Box
    score: float
    label: str = ""
    index: int = 0
    landmarks: tuple[tuple[float, float], ...] = ()
    polygon: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Vector:
    """An embedding together with the space it belongs to: (d,) float32 of unit length. Spaces are never compared."""

    space: str
    values: Floats

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or self.values.dtype != np.float32:
            raise BadInput(
                "values.bad-vector", f"a vector is (d,) float32, not {self.values.shape} {self.values.dtype}"
            )
        if not math.isclose(float(self.values @ self.values), 1.0, abs_tol=1e-2):
            raise BadInput(
                "values.bad-vector", "a vector has unit length; this one is zero, not finite or not normalised"
            )


def require_same_space(asked: str, held: str) -> None:
    """Conflict that names both spaces, if they differ."""
    if asked != held:
        raise Conflict(
            "vectors.space-mismatch",
            f"a vector of space {asked} cannot be compared with vectors of space {held}",
            hint="embed the query with the lens of the view that it searches",
        )


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What an answer says of a picture: SHA-256 of its bytes, upright size in pixels, where it came from."""

    sha256: str
    width: int | None = None
    height: int | None = None
    uri: str | None = None

    def to_json(self) -> dict[str, Any]:
        return _without_none({"uri": self.uri, "sha256": self.sha256, "width": self.width, "height": self.height})

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> PictureInfo:
        return PictureInfo(**given)


@dataclass(frozen=True, slots=True)
class FoundObject:
    """One thing found in a picture.

    Labels best first; attributes hold what its models say and what was asked for (`subject`, `heatmap`…); landmarks are
    (x, y) as shares of the picture's width and height.
    """

    box: Box
    score: float
    category: str
    labels: tuple[Label, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    landmarks: tuple[tuple[float, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        given = {
            "box": self.box.to_json(),
            "score": round(self.score, 6),
            "category": self.category,
            "labels": [label.to_json() for label in self.labels],
            "attributes": dict(self.attributes),
        }
        if self.landmarks:
            given["landmarks"] = [[round(x, 6), round(y, 6)] for x, y in self.landmarks]
        return given

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> FoundObject:
        return FoundObject(
            box=Box.from_json(given["box"]),
            score=given["score"],
            category=given["category"],
            labels=_labels(given["labels"]),
            attributes=given["attributes"],
            landmarks=tuple((x, y) for x, y in given.get("landmarks", ())),
        )


def _dropped(counts: Mapping[str, int]) -> dict[str, Any]:
    return {"dropped": dict(sorted(counts.items()))} if counts else {}


@dataclass(frozen=True, slots=True)
class Recognition:
    """The answer to "what is in this picture": objects under one release. `dropped` counts the rest, by reason."""

    release: str
    recipe: str
    picture: PictureInfo
    objects: tuple[FoundObject, ...]
    timings_ms: Mapping[str, float]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "release": self.release,
            "recipe": self.recipe,
            "picture": self.picture.to_json(),
            "objects": [found.to_json() for found in self.objects],
            **_dropped(self.dropped),
            "timings_ms": dict(self.timings_ms),
        }

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Recognition:
        return Recognition(
            release=given["release"],
            recipe=given["recipe"],
            picture=PictureInfo.from_json(given["picture"]),
            objects=tuple(FoundObject.from_json(found) for found in given["objects"]),
            timings_ms=given["timings_ms"],
            dropped=given.get("dropped", {}),
        )


@dataclass(frozen=True, slots=True)
class Match:
    """An object of a gallery that looks like the query: cosine score, where it is, and the items that show it.

    `rank` is what it was ordered by, where the recipe ranks by more than the score.
    """

    id: int
    score: float
    box: Box
    labels: tuple[Label, ...]
    picture: PictureInfo
    items: tuple[Mapping[str, Any], ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    rank: float | None = None

    def to_json(self) -> dict[str, Any]:
        given = {
            "id": self.id,
            "score": round(self.score, 6),
            "box": self.box.to_json(),
            "labels": [label.to_json() for label in self.labels],
            "picture": self.picture.to_json(),
            "items": [dict(item) for item in self.items],
        }
        if self.attributes:
            given["attributes"] = dict(self.attributes)
        if self.rank is not None:
            given["rank"] = round(self.rank, 6)
        return given

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Match:
        return Match(
            id=given["id"],
            score=given["score"],
            box=Box.from_json(given["box"]),
            labels=_labels(given["labels"]),
            picture=PictureInfo.from_json(given["picture"]),
            items=tuple(given["items"]),
            attributes=given.get("attributes", {}),
            rank=given.get("rank"),
        )


@dataclass(frozen=True, slots=True)
class MatchedObject:
    """One object of the query picture with its look-alikes, best first.

    `matched` says whether the best of them is good enough to be called a match; None if there is no threshold.
    """

    box: Box
    matches: tuple[Match, ...]
    labels: tuple[Label, ...] = ()
    category: str = "all"
    matched: bool | None = None

    def to_json(self) -> dict[str, Any]:
        given = {
            "box": self.box.to_json(),
            "category": self.category,
            "labels": [label.to_json() for label in self.labels],
            "matches": [match.to_json() for match in self.matches],
        }
        return given if self.matched is None else given | {"matched": self.matched}

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> MatchedObject:
        return MatchedObject(
            box=Box.from_json(given["box"]),
            matches=tuple(Match.from_json(match) for match in given["matches"]),
            labels=_labels(given["labels"]),
            category=given.get("category", "all"),
            matched=given.get("matched"),
        )


@dataclass(frozen=True, slots=True)
class TextMatch:
    """An object of a gallery in which the words were read: its text, how well it fits (0 to 1), and where it is."""

    id: int
    score: float
    text: str
    box: Box
    picture: PictureInfo
    items: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "score": round(self.score, 6),
            "text": self.text,
            "box": self.box.to_json(),
            "picture": self.picture.to_json(),
            "items": [dict(item) for item in self.items],
        }

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> TextMatch:
        return TextMatch(
            id=given["id"],
            score=given["score"],
            text=given["text"],
            box=Box.from_json(given["box"]),
            picture=PictureInfo.from_json(given["picture"]),
            items=tuple(given["items"]),
        )


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """The answer to "where does it say this": under one release, as of one sequence of the gallery."""

    release: str
    sequence: int
    gallery: str
    text: str
    matches: tuple[TextMatch, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "release": self.release,
            "sequence": self.sequence,
            "gallery": self.gallery,
            "text": self.text,
            "matches": [match.to_json() for match in self.matches],
        }

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> TextAnswer:
        return TextAnswer(**{**given, "matches": tuple(TextMatch.from_json(match) for match in given["matches"])})


@dataclass(frozen=True, slots=True)
class Verification:
    """The answer to "is this the same": the likeness of two objects, each the strongest of its picture.

    same       whether the likeness reaches the threshold; None if there is none
    """

    release: str
    score: float
    threshold: float | None
    boxes: tuple[Box, Box]
    found: tuple[int, int]

    @property
    def same(self) -> bool | None:
        return None if self.threshold is None else self.score >= self.threshold

    def to_json(self) -> dict[str, Any]:
        given = {
            "release": self.release,
            "score": round(self.score, 6),
            "boxes": [box.to_json() for box in self.boxes],
            "found": list(self.found),
        }
        return given if self.threshold is None else given | {"threshold": self.threshold, "same": self.same}

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Verification:
        one, other = (Box.from_json(box) for box in given["boxes"])
        first, second = given["found"]
        return Verification(given["release"], given["score"], given.get("threshold"), (one, other), (first, second))


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The answer to "what looks like this": under one release, as of one sequence of the gallery."""

    release: str
    sequence: int
    gallery: str
    picture: PictureInfo
    objects: tuple[MatchedObject, ...]
    timings_ms: Mapping[str, float]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "release": self.release,
            "sequence": self.sequence,
            "gallery": self.gallery,
            "picture": self.picture.to_json(),
            "objects": [matched.to_json() for matched in self.objects],
            **_dropped(self.dropped),
            "timings_ms": dict(self.timings_ms),
        }

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> SearchAnswer:
        return SearchAnswer(
            release=given["release"],
            sequence=given["sequence"],
            gallery=given["gallery"],
            picture=PictureInfo.from_json(given["picture"]),
            objects=tuple(MatchedObject.from_json(matched) for matched in given["objects"]),
            timings_ms=given["timings_ms"],
            dropped=given.get("dropped", {}),
        )
