"""Where a card and its ONNX file disagree, each in a sentence that says what to change.

Only what the file itself says is compared: what a tensor means is the card's to say. What is found here would otherwise
be an error of the first forward, or, worse, none.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence

from relens.models.card import Card
from relens.models.onnxfile import OnnxFile, Tensor, read_onnx

_TAKEN = frozenset({"float32", "float16", "float64", "uint8", "int32", "int64"})
_LOGITS = frozenset({"Gemm", "MatMul", "Conv", "BatchNormalization", "GlobalAveragePool"})
_PER_PICTURE, _PER_FINDING = 2, 3


def contradictions(card: Card, data: bytes, *, labels: Sequence[str] | None = None) -> list[str]:
    """Every disagreement between a card and its ONNX file; none if they fit. `labels` are the names of its classes.

    BadInput if the bytes are no ONNX file.
    """
    file = read_onnx(data)
    checks: Sequence[Callable[[], Iterator[str]]] = (
        lambda: _input(card, file),
        lambda: _outputs(card, file),
        lambda: _scores(card, file, labels),
        lambda: _vector(card, file),
        lambda: _findings(card, file, labels),
        lambda: _precision(card, file),
    )
    return [sentence for check in checks for sentence in check()]


def _input(card: Card, file: OnnxFile) -> Iterator[str]:
    given = next((tensor for tensor in file.inputs if tensor.name == card.input), None)
    if given is None:
        names = ", ".join(tensor.name for tensor in file.inputs) or "none"
        yield f"the card's input is {card.input!r}, the model's are {names}: {_set('input', file.inputs)}"
        return
    if others := [tensor.name for tensor in file.inputs if tensor is not given]:
        yield f"the model has further inputs, {', '.join(others)}: export it with the picture as its only one"
    if given.kind not in _TAKEN:
        yield f"the model's input {given} takes no numbers that a picture can be: export it with float32"
    yield from _shape(card, given)


def _shape(card: Card, given: Tensor) -> Iterator[str]:
    wanted = card.input_shape
    if given.shape is None:
        return
    has = given.shape[1:]
    said = f"the card makes inputs of {_sides(wanted)}, the model takes {_sides(has)}"
    if len(has) != len(wanted):
        yield f"{said}: it is no model of pictures, or the card's `shape` is wrong"
    elif not _fits(has, wanted):
        prep = card.preprocessing
        turned = (wanted[-1], *wanted[:-1]) if prep.layout == "nhwc" else (*wanted[1:], wanted[0])
        if _fits(has, turned):
            yield f"{said}: set preprocessing.layout to {'nchw' if prep.layout == 'nhwc' else 'nhwc'}"
        else:
            yield f"{said}: set preprocessing.size_px and height_px, or preprocessing.colour, to what the model takes"


def _outputs(card: Card, file: OnnxFile) -> Iterator[str]:
    for role, name in card.outputs.items():
        tensor = file.output(name)
        if tensor is None:
            yield f"outputs.{role} is {name!r}, which the model has not: {_set(f'outputs.{role}', file.outputs, name)}"
        elif tensor.kind not in _TAKEN:
            yield f"outputs.{role} is {tensor}, which is no number: name another tensor"


def _scores(card: Card, file: OnnxFile, labels: Sequence[str] | None) -> Iterator[str]:
    tensor = _named(card, file, "scores")
    if tensor is None or card.task not in {"classify", "classify+embed"}:
        return
    count = _last(tensor)
    if labels is not None and count is not None and count != len(labels):
        yield (
            f"{len(labels)} labels are given, the model scores {count} classes ({tensor}): "
            "give one name for each class, in their order"
        )
    ends = file.ends[tensor.name]
    for activation in ("Softmax", "Sigmoid"):
        if activation in ends and card.kind != "none":
            yield (
                f"decode.kind is {card.kind}, but {tensor.name} comes out of a {activation.lower()} already: "
                "set decode.kind to none"
            )
    if card.kind == "none" and ends and ends <= _LOGITS:
        yield (
            f"decode.kind is none, but {tensor.name} comes out of {', '.join(sorted(ends))}, no scores from 0 "
            "to 1: set decode.kind to softmax, or to sigmoid if many classes may be right"
        )


def _vector(card: Card, file: OnnxFile) -> Iterator[str]:
    tensor = _named(card, file, "vector")
    if tensor is None or tensor.shape is None:
        return
    if len(tensor.shape) != _PER_PICTURE:
        yield f"outputs.vector is {tensor}, which is no row of numbers for each picture: name the flat one"
    elif tensor.shape[1] not in (None, card.dim):
        yield f"dim is {card.dim}, the model's vector is {tensor}: set dim to {tensor.shape[1]}"


def _findings(card: Card, file: OnnxFile, labels: Sequence[str] | None) -> Iterator[str]:
    """A detector's tensors against how the card reads them."""
    if card.task != "detect" or card.kind not in {"yolo", "boxes"}:
        return
    roles = ("detections",) if card.kind == "yolo" else ("boxes", "scores")
    if missing := [role for role in roles if role not in card.outputs]:
        yield f"decode.kind {card.kind} reads {', '.join(missing)}, which `outputs` does not name: name its tensor"
        return
    tensors = [tensor for role in roles if (tensor := _named(card, file, role)) is not None]
    if len(tensors) != len(roles) or any(tensor.shape is None for tensor in tensors):
        return
    if card.kind == "yolo":
        yield from _yolo(card, tensors[0], labels)
    else:
        yield from _boxes(tensors[0], tensors[1], labels, "classes" in card.outputs)


def _yolo(card: Card, tensor: Tensor, labels: Sequence[str] | None) -> Iterator[str]:
    shape = tensor.shape or ()
    if len(shape) != _PER_FINDING:
        yield f"{tensor} has not the three dimensions of findings: name another tensor, or another decode.kind"
        return
    variant = card.decode.get("variant", "classes")
    by_column = (variant == "classes") != bool(card.decode.get("transposed", False))
    numbers = shape[1] if by_column else shape[2]
    if numbers is None or variant == "end-to-end":
        if numbers not in (None, 6):
            yield f"decode.variant end-to-end reads 6 numbers for each finding, {tensor} has {numbers}: set another one"
        return
    before = 4 if variant == "classes" else 5
    points = card.decode.get("landmarks", 0) * card.decode.get("landmark_size", 3)
    classes = numbers - before - points
    if classes < 1:
        yield (
            f"decode.variant {variant} reads {before + points} numbers and one for each class, {tensor} has {numbers}: "
            "set decode.variant, or decode.transposed"
        )
    elif labels is not None and len(labels) != card.decode.get("classes", classes):
        yield (
            f"{len(labels)} labels are given, {tensor} has {classes} numbers behind its boxes: give one name for each "
            "class, or set decode.variant, decode.transposed or decode.classes"
        )


def _boxes(boxes: Tensor, scores: Tensor, labels: Sequence[str] | None, own_classes: bool) -> Iterator[str]:
    if _last(boxes) not in (None, 4):
        yield f"outputs.boxes is {boxes}, which has not four numbers for each box: name another tensor"
    first, second = (tensor.shape or () for tensor in (boxes, scores))
    if None not in (first[1:2] + second[1:2]) and first[1:2] != second[1:2]:
        yield f"{boxes} and {scores} are not as many: name tensors that belong together"
    count = _last(scores)
    if labels is not None and not own_classes and len(second) == _PER_FINDING and count not in (None, len(labels)):
        yield f"{len(labels)} labels are given, {scores} has {count} classes: name each, background included"


def _precision(card: Card, file: OnnxFile) -> Iterator[str]:
    if card.precision != file.precision:
        yield (
            f"the card says precision {card.precision}, the model's weights are {file.precision}: set precision to "
            f"{file.precision}, or export the model again"
        )


def _named(card: Card, file: OnnxFile, role: str) -> Tensor | None:
    return file.output(card.outputs[role]) if role in card.outputs else None


def _last(tensor: Tensor) -> int | None:
    return tensor.shape[-1] if tensor.shape else None


def _fits(has: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    return all(a is None or b is None or a == b for a, b in zip(has, wanted, strict=True))


def _sides(shape: Sequence[int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in shape)


def _set(key: str, tensors: Sequence[Tensor], given: str = "") -> str:
    names = [tensor.name for tensor in tensors]
    near = difflib.get_close_matches(given, names, 1, 0.5) or (names if len(names) == 1 else [])
    return f"set {key} to {near[0]}" if near else f"set {key} to one of {', '.join(names)}"
