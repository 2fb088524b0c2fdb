"""What an engine says of a picture that is to be kept: its objects with their crops and vectors, as bytes.

The same values that an import has of a picture, so that what is enrolled is what would have been imported. On its way
between processes crops and vectors travel in the body of the frame, the rest as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from relens.recipes import Cropped, Described
from relens.values import Box, Label, PictureInfo, Vector

Objects = tuple[tuple[Cropped, Described], ...]


@dataclass(frozen=True, slots=True)
class Description:
    """The objects of a picture under one lens, and what was left out by reason."""

    lens: str
    picture: PictureInfo
    objects: Objects
    dropped: Mapping[str, int]
    timings_ms: Mapping[str, float]

    def to_frame(self) -> tuple[dict[str, Any], bytes]:
        """Its JSON, and the crops and vectors in the order of the objects."""
        header = {
            "lens": self.lens,
            "picture": self.picture.to_json(),
            "objects": [_object_header(crop, said) for crop, said in self.objects],
            "dropped": dict(self.dropped),
            "timings_ms": dict(self.timings_ms),
        }
        return header, b"".join(part for crop, said in self.objects for part in _parts(crop, said))

    @staticmethod
    def from_frame(header: Mapping[str, Any], body: bytes) -> Description:
        """The inverse of `to_frame`."""
        objects, at = [], 0
        for given in header["objects"]:
            jpeg = body[at : at + given["crop_bytes"]]
            at += len(jpeg)
            values = body[at : at + given["vector_bytes"]]
            at += len(values)
            objects.append(_object_from(given, jpeg, values))
        return Description(
            lens=header["lens"],
            picture=PictureInfo.from_json(header["picture"]),
            objects=tuple(objects),
            dropped=header["dropped"],
            timings_ms=header["timings_ms"],
        )


def _parts(crop: Cropped, said: Described) -> tuple[bytes, bytes]:
    return crop.jpeg, b"" if said.vector is None else said.vector.values.astype("<f4").tobytes()


def _object_header(crop: Cropped, said: Described) -> dict[str, Any]:
    jpeg, values = _parts(crop, said)
    return {
        "box": _sides(crop.box),
        "score": crop.score,
        "category": crop.category,
        "cut": _sides(crop.cut),
        "landmarks": crop.landmarks,
        "polygon": crop.polygon,
        "label": crop.label,
        "measures": dict(crop.measures),
        "short_side_px": crop.short_side_px,
        "labels": [(label.name, label.index, label.score) for label in said.labels],
        "attributes": dict(said.attributes),
        "text": said.text,
        "space": None if said.vector is None else said.vector.space,
        "crop_bytes": len(jpeg),
        "vector_bytes": len(values),
    }


def _object_from(given: Mapping[str, Any], jpeg: bytes, values: bytes) -> tuple[Cropped, Described]:
    crop = Cropped(
        box=Box(*given["box"]),
        score=given["score"],
        category=given["category"],
        jpeg=jpeg,
        cut=Box(*given["cut"]),
        landmarks=_points(given["landmarks"]),
        polygon=_points(given["polygon"]),
        label=given["label"],
        measures=given["measures"],
        short_side_px=given["short_side_px"],
    )
    space = given["space"]
    vector = None if space is None else Vector(space, np.frombuffer(values, "<f4").astype(np.float32))
    labels = tuple(Label(*label) for label in given["labels"])
    return crop, Described(labels, vector, given["attributes"], given["text"])


def _sides(box: Box) -> list[float]:
    """All digits, unlike the JSON of answers: what is stored is what an import would have stored."""
    return [box.x, box.y, box.w, box.h]


def _points(given: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in given)
