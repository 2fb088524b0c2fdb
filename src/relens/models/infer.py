"""A card from an ONNX file: what it says is taken over, what it does not say is guessed, and each guess is told.

Files that a common exporter wrote say nearly all; of others shapes, names and last operations are read. A guess names
the key to set if it is wrong. Whether a card and a file fit together at all, `contradictions` tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from relens.errors import BadInput
from relens.models.card import Card
from relens.models.onnxfile import OnnxFile, Tensor, read_onnx
from relens.values import Preprocessing

Certainty = Literal["read", "likely", "guessed"]

FILE = "model.onnx"
LABELS = "labels.json"
UNKNOWN = "unknown"

USUAL_SIZE_PX = {"detect": 640}
CHANNELS = (1, 3)
GRIDS = (8, 16, 32)
ANCHORS = 3
PER_PICTURE, PER_FINDING, PER_PLACE = 2, 3, 4  # dimensions of a tensor, the batch included
QUERIES = 1000  # detectors that answer a fixed number of questions have fewer, those with anchors more
ENDS_WITH_SCORE_AND_CLASS = 6
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
LARGEST_OF_ONE = 3.0  # constants of a normalisation of 0..1 are smaller, those of 0..255 larger
SCALES_OF_255 = (0.003, 0.05)  # or they are factors instead, as in 1/255 and 1/127.5

_NORM = frozenset({"LpNormalization", "ReduceL2", "Norm"})


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the card says, and how it is known: read from the file, likely, or guessed."""

    certainty: Certainty
    text: str

    def __str__(self) -> str:
        return f"{self.certainty}: {self.text}"


@dataclass(frozen=True, slots=True)
class Inferred:
    """A card, what it stands on, and the names of its classes, if it has any."""

    card: Card
    notes: tuple[Note, ...]
    labels: tuple[str, ...] | None


def infer_card(data: bytes, *, name: str, version: int = 1, labels: Sequence[str] | None = None) -> Inferred:
    """The card that an ONNX file most likely has. Where it came from is for the user to write.

    labels   names of its classes by index, if they are known

    BadInput if it is no ONNX file, or none that one picture can be put into, or if nothing of what it gives is known.
    """
    file = read_onnx(data)
    notes = _Notes()
    given = _picture_input(file)
    named = list(labels) if labels is not None else _names_in(file, notes)
    reading = _Reading(file, notes, named)
    task, outputs, decode, dim = reading.read()
    prep = _Picture(file, given, task, notes).preprocessing()
    if reading.labels is None and task in {"classify", "classify+embed"}:
        reading.labels = _made_up(file, outputs, notes)
    card = Card(
        name=name,
        version=version,
        task=task,
        format="onnx",
        file=FILE,
        input=given.name,
        preprocessing=prep,
        outputs=outputs,
        licence=_licence(file, notes),
        source=UNKNOWN,
        dim=dim,
        labels=LABELS if reading.labels is not None else None,
        precision=file.precision,
        decode=decode,
    )
    notes.guessed("where it came from is not in the file: set source")
    return Inferred(card, tuple(notes), None if reading.labels is None else tuple(reading.labels))


class _Notes(list[Note]):
    def read(self, text: str) -> None:
        self.append(Note("read", text))

    def likely(self, text: str) -> None:
        self.append(Note("likely", text))

    def guessed(self, text: str) -> None:
        self.append(Note("guessed", text))


def _picture_input(file: OnnxFile) -> Tensor:
    """The one input, a batch of pictures."""
    if len(file.inputs) != 1:
        raise _cannot(f"it has {len(file.inputs)} inputs: {', '.join(map(str, file.inputs)) or 'none'}", "one picture")
    given = file.inputs[0]
    if given.shape is not None and len(given.shape) != PER_PLACE:
        raise _cannot(f"its input is {given}", "a batch of pictures, with four dimensions")
    return given


def _cannot(what: str, wanted: str) -> BadInput:
    return BadInput(
        "models.cannot-infer",
        f"no card can be inferred: {what}, where {wanted} is expected",
        hint="write the card by hand (docs/models.md), or export the model in another way",
    )


def _licence(file: OnnxFile, notes: _Notes) -> str:
    if licence := file.metadata.get("license") or file.metadata.get("licence"):
        notes.read(f"its licence is {licence}")
        return licence
    notes.guessed("its licence is not in the file: set licence")
    return UNKNOWN


def _names_in(file: OnnxFile, notes: _Notes) -> list[str] | None:
    """Class names of the metadata, as Ultralytics writes them."""
    names = file.written("names")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        return None
    notes.read(f"{len(names)} class names, from the metadata")
    return [str(one) for one in names]


def _made_up(file: OnnxFile, outputs: Mapping[str, str], notes: _Notes) -> list[str]:
    tensor = file.output(outputs["scores"])
    count = (tensor.shape or (None,))[-1] if tensor else None
    notes.guessed(f"the {count or 0} classes have no names: they are called `class 0` and so on; give --labels FILE")
    return made_up_names(count or 0)


def made_up_names(count: int) -> list[str]:
    """What classes are called whose names nobody knows."""
    return [f"class {index}" for index in range(count)]


@dataclass(slots=True)
class _Reading:
    """What the outputs mean."""

    file: OnnxFile
    notes: _Notes
    labels: list[str] | None
    _shapes: dict[str, tuple[int | None, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self._shapes = {tensor.name: tensor.shape for tensor in self.file.outputs if tensor.shape is not None}

    def read(self) -> tuple[str, dict[str, str], dict[str, Any], int]:
        """Task, outputs by role, decode, and length of the vector."""
        for attempt in (self._boxes, self._yolo, self._flat):
            found = attempt()
            if found is not None:
                return found
        raise _cannot(
            f"its outputs are {', '.join(map(str, self.file.outputs))}",
            "scores (n, classes), a vector (n, d), a number (n, 1), or boxes of a detector",
        )

    def _ranked(self, rank: int) -> list[str]:
        return [name for name, shape in self._shapes.items() if len(shape) == rank]

    def _yolo(self) -> tuple[str, dict[str, str], dict[str, Any], int] | None:
        """One tensor with a row of numbers for each finding."""
        tensors = [
            name for name in self._ranked(PER_FINDING) if "Softmax" not in self.file.ends[name]
        ]  # those read text
        if not tensors:
            return None
        name = tensors[0]
        _batch, first, second = self._shapes[name]
        decode: dict[str, Any] = {"kind": "yolo"}
        if second == ENDS_WITH_SCORE_AND_CLASS and (first is None or first <= QUERIES):
            decode["variant"] = "end-to-end"
            self.notes.likely(f"{name} holds corners, score and class of each finding, as of YOLOv10")
        elif first is not None and (second is None or first < second):
            decode["variant"] = "classes"
            self.notes.likely(f"{name} holds a column for each finding: box and a score for each class, as of YOLOv8")
            self._columns(decode, first - 4)
        elif second is not None:
            self._rows(decode, name, first, second)
        else:
            return None
        if decode["variant"] != "end-to-end" and not self._activated(name):
            decode["scores"] = "sigmoid"
            self.notes.likely("the graph does not end in a sigmoid: one is applied to the scores")
        return "detect", {"detections": name}, decode, 0

    def _columns(self, decode: dict[str, Any], count: int) -> None:
        """What stands behind the box: scores, then landmarks or what is not read."""
        landmarks = self.file.written("kpt_shape")
        if isinstance(landmarks, list) and len(landmarks) == 2:  # noqa: PLR2004 - how many, numbers of each
            decode["landmarks"], decode["landmark_size"] = landmarks
            self.notes.read(f"{landmarks[0]} landmarks of {landmarks[1]} numbers, from the metadata")
            count -= landmarks[0] * landmarks[1]
        if self.labels is not None and len(self.labels) < count:
            decode["classes"] = len(self.labels)
            rest = count - len(self.labels)
            self.notes.likely(f"{rest} numbers behind the scores are not read, as those of masks")

    def _rows(self, decode: dict[str, Any], name: str, rows: int | None, numbers: int) -> None:
        if self.labels is not None and len(self.labels) == numbers - 4:
            decode |= {"variant": "classes", "transposed": True}
            self.notes.likely(f"{name} holds a row for each finding: box and a score for each class")
            return
        decode["variant"] = "objectness"
        self.notes.likely(f"{name} holds a row for each finding: box, objectness, and scores, as of YOLOv5 and v7")
        cells = _cells(self.file)
        if rows is not None and rows == cells:
            decode["strides"] = list(GRIDS)
            self.notes.guessed(
                f"{rows} rows are one for each cell of grids of {GRIDS}: boxes are relative to them, as of YOLOX; "
                "if the graph decodes them, remove decode.strides"
            )
        elif rows is not None and cells is not None and rows != ANCHORS * cells:
            self.notes.guessed(f"{rows} rows are not those of grids of {GRIDS}: are boxes pixels of the input?")

    def _boxes(self) -> tuple[str, dict[str, str], dict[str, Any], int] | None:
        """Boxes and scores in tensors of their own."""
        boxes = [name for name in self._ranked(PER_FINDING) if self._shapes[name][-1] == 4]  # noqa: PLR2004 - corners
        boxes += [name for name in self._ranked(PER_PLACE) if self._shapes[name][2:] == (1, 4)]
        if len(boxes) != 1:
            return None
        count = self._shapes[boxes[0]][1]
        others = [name for name, shape in self._shapes.items() if name != boxes[0] and shape[1:2] == (count,)]
        wide = [name for name in others if name in self._ranked(PER_FINDING)]
        flat = [name for name in others if name in self._ranked(PER_PICTURE)]
        if wide:
            return self._many_scores(boxes[0], wide[0], count)
        scores = next((name for name in flat if "score" in name.lower() or "conf" in name.lower()), None)
        classes = next((name for name in flat if "class" in name.lower() or "label" in name.lower()), None)
        if scores is None:
            return None
        outputs = {"boxes": boxes[0], "scores": scores} | ({"classes": classes} if classes else {})
        decode = {"kind": "boxes", "box": "yxyx", "units": "share", "nms": "none"}
        self.notes.guessed(
            f"{boxes[0]} holds top, left, bottom, right as shares, what overlaps left out already, as of TensorFlow's "
            "detectors; else set decode.box, decode.units, decode.nms"
        )
        return "detect", outputs, decode, 0

    def _many_scores(
        self, boxes: str, scores: str, count: int | None
    ) -> tuple[str, dict[str, str], dict[str, Any], int]:
        decode: dict[str, Any] = {"kind": "boxes", "box": "cxcywh", "units": "share"}
        classes = self._shapes[scores][-1]
        if self.file.ends[boxes] >= {"Sub", "Add"}:
            decode["box"] = "xyxy"
            self.notes.likely(f"{boxes} is put together of differences and sums: corners")
        else:
            self.notes.guessed(f"{boxes} holds centre and size; else set decode.box=xyxy")
        self.notes.guessed("boxes are shares of the input's sides; if they are its pixels, set decode.units=pixels")
        softly = "Softmax" in self.file.ends[scores]
        if not self._activated(scores):
            decode["scores"] = "sigmoid"
            self.notes.likely(f"{scores} does not end in a softmax or sigmoid: a sigmoid is applied")
        if softly and (classes == 2 or (self.labels is not None and classes == len(self.labels) + 1)):  # noqa: PLR2004
            decode["background"] = 0
            self.notes.likely("class 0 is the background")
            if self.labels is not None and classes == len(self.labels) + 1:
                self.labels = ["background", *self.labels]
        if count is not None and count <= QUERIES:
            decode["nms"] = "none"
            self.notes.likely(f"{count} questions, as of DETR: nothing overlaps that should not")
        return "detect", {"boxes": boxes, "scores": scores}, decode, 0

    def _flat(self) -> tuple[str, dict[str, str], dict[str, Any], int] | None:
        """A row of numbers for each picture: scores, a vector, or one number."""
        tensors = self._ranked(PER_PICTURE)
        if not tensors:
            return None
        scores = self._scores_among(tensors)
        vectors = [name for name in tensors if name != scores]
        if scores is None:
            return self._one_number(vectors[0]) or self._vector(vectors)
        decode = self._classifier(scores)
        outputs = {"scores": scores}
        if not vectors:
            return "classify", outputs, decode, 0
        dim = self._shapes[vectors[0]][1]
        if dim is None:
            return "classify", outputs, decode, 0
        self.notes.likely(f"{vectors[0]} is a vector of {dim} numbers")
        outputs["vector"] = vectors[0]
        maps = [name for name in self._ranked(PER_PLACE) if self._shapes[name][1] == dim]
        if maps:
            outputs["features"] = maps[0]
            self.notes.likely(f"{maps[0]} is the map that {vectors[0]} is the mean of")
        return "classify+embed", outputs, decode, dim

    def _scores_among(self, tensors: Sequence[str]) -> str | None:
        counts = {name: self._shapes[name][1] for name in tensors}
        if self.labels is not None:
            return next((name for name, count in counts.items() if count == len(self.labels)), None)
        ended = [name for name in tensors if counts[name] != 1 and self.file.ends[name] & {"Softmax", "Sigmoid"}]
        if ended:
            return ended[0]
        return next((name for name in tensors if counts[name] in {1000, 1001, 21841, 21843}), None)

    def _classifier(self, name: str) -> dict[str, Any]:
        ends = self.file.ends[name]
        if "Softmax" in ends:
            self.notes.likely(f"{name} holds shares of one right class: the graph ends in a softmax")
            return {"kind": "none"}
        if "Sigmoid" in ends:
            self.notes.likely(f"{name} holds scores of which many may be right: the graph ends in a sigmoid")
            return {"kind": "none"}
        self.notes.guessed(f"{name} holds logits, of which one class is right; if many may be, set decode.kind=sigmoid")
        return {"kind": "softmax"}

    def _one_number(self, name: str) -> tuple[str, dict[str, str], dict[str, Any], int] | None:
        if self._shapes[name][1] != 1:
            return None
        self.notes.likely(f"{name} is one number for each picture; set decode.scale, decode.offset and decode.unit")
        return "regress", {"value": name}, {"kind": "value"}, 0

    def _vector(self, names: Sequence[str]) -> tuple[str, dict[str, str], dict[str, Any], int] | None:
        name = next((name for name in names if self._shapes[name][1] is not None), None)
        if name is None:
            return None
        dim = self._shapes[name][1] or 0
        if self.file.ends[name] & _NORM or {"ReduceL2", "LpNormalization"} & set(self.file.operations):
            self.notes.likely(f"{name} is a vector of {dim} numbers: it is scaled to one length")
        else:
            self.notes.guessed(
                f"{name} is a vector of {dim} numbers; if they are scores of classes, give --labels FILE"
            )
        return "embed", {"vector": name}, {}, dim

    def _activated(self, name: str) -> bool:
        return bool(self.file.ends[name] & {"Sigmoid", "Softmax"})


def _cells(file: OnnxFile) -> int | None:
    """Cells of the usual grids of the input."""
    shape = file.inputs[0].shape or ()
    sides = [side for side in shape[1:] if side is not None and side not in CHANNELS]
    if len(sides) != 2:  # noqa: PLR2004 - height and width
        return None
    return sum((sides[0] // stride) * (sides[1] // stride) for stride in GRIDS)


@dataclass(frozen=True, slots=True)
class _Picture:
    """How a picture becomes the input."""

    file: OnnxFile
    given: Tensor
    task: str
    notes: _Notes

    def preprocessing(self) -> Preprocessing:
        layout, channels = self._layout()
        height, width = self._size(layout)
        fit = self._fit(height, width)
        mean, std = self._normalisation(layout)
        colour: Literal["rgb", "grey"] = "grey" if channels == 1 else "rgb"
        if colour == "rgb":
            self.notes.guessed("colours are in the order red, green, blue; else set preprocessing.colour=bgr")
        resize_px = width
        if fit == "cut" and self.task in {"classify", "classify+embed"}:
            resize_px = round(width * 256 / 224)
            self.notes.guessed(f"the short side becomes {resize_px} px, of which the centre is cut; else set resize_px")
        return Preprocessing(
            size_px=width,
            resize_px=resize_px,
            resample="bilinear",
            colour=colour,
            layout=layout,
            mean=mean[:1] * channels if len(mean) < channels else mean[:channels],
            std=std[:1] * channels if len(std) < channels else std[:channels],
            fit=fit,
            height_px=None if height == width else height,
        )

    @property
    def _shape(self) -> tuple[int | None, ...]:
        return self.given.shape or (None,) * PER_PLACE

    def _layout(self) -> tuple[Literal["nchw", "nhwc"], int]:
        """Layout, and how many channels."""
        _batch, second, _third, last = self._shape
        behind = last in CHANNELS and second not in CHANNELS
        channels = last if behind else second
        if channels is None:
            self.notes.guessed("the input has three channels, before its height and width (preprocessing.layout)")
        elif channels in CHANNELS:
            self.notes.read(f"the input is {self.given}")
        else:
            raise _cannot(f"its input is {self.given}", "a picture of 1 or 3 channels")
        return ("nhwc" if behind else "nchw"), channels or 3

    def _size(self, layout: str) -> tuple[int, int]:
        """Height and width."""
        height, width = self._shape[1:3] if layout == "nhwc" else self._shape[2:]
        if height is not None and width is not None:
            return height, width
        match self.file.written("imgsz"):
            case [int(high), int(wide)] if high > 0 and wide > 0:
                self.notes.read(f"the input is {wide}x{high} px, from the metadata")
                return high, wide
        side = height or width or USUAL_SIZE_PX.get(self.task, 224)
        self.notes.guessed(f"the input takes any size; {side} px is taken; else set preprocessing.size_px")
        return height or side, width or side

    def _fit(self, height: int, width: int) -> Literal["cut", "stretch", "letterbox"]:
        if self.task == "detect":
            self.notes.likely("a picture is put into the input as large as it fits, grey around it (preprocessing.fit)")
            return "letterbox"
        if height != width:
            self.notes.likely("a picture is stretched to the input, which is not square (preprocessing.fit)")
            return "stretch"
        return "cut"

    def _normalisation(self, layout: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, of 0 to 255."""
        wrong = "else set preprocessing.mean and preprocessing.std"
        if self.given.kind == "uint8":
            self.notes.read("the input takes 0 to 255 as they are")
            return (0.0,), (1.0,)
        if self.file.metadata.get("author") == "Ultralytics":
            self.notes.likely("the input takes 0 to 1, as Ultralytics' models do")
            return (0.0,), (255.0,)
        if self.file.normalises is not None:
            sizes, (low, high) = [abs(number) for number in self.file.normalises], SCALES_OF_255
            most = 255 if any(size > LARGEST_OF_ONE or low < size < high for size in sizes) else 1
            self.notes.likely(f"the graph normalises by itself, and takes 0 to {most}; {wrong}")
            return (0.0,), (255.0 / most,)
        if self.task == "detect":
            self.notes.guessed(f"the input takes 0 to 1; {wrong}")
            return (0.0,), (255.0,)
        if self.task == "embed" or layout == "nhwc":
            self.notes.guessed(f"the input takes -1 to 1; {wrong}")
            return (127.5,), (127.5,)
        self.notes.guessed(f"the input is normalised as ImageNet's usually are; {wrong}")
        return IMAGENET
