"""What an ONNX file says of itself without being run: tensors, metadata, precision, and what its ends look like.

Reading executes nothing. A graph says shapes, names and operations; what they mean for a picture, it does not say.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from relens.errors import BadInput

Shape = tuple[int | None, ...]

_KINDS: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
    TensorProto.STRING: "text",
}
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64", "int8": "int8"}
_SAME_VALUES = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "DequantizeLinear"}
)
_ARITHMETIC = frozenset({"Sub", "Add", "Mul", "Div", "BatchNormalization", "Cast", "Transpose", "Identity"})
_LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name, type and shape (batch included; None for any length) of an input or output. No shape: it is not known."""

    name: str
    kind: str
    shape: Shape | None

    def __str__(self) -> str:
        sides = "?" if self.shape is None else ", ".join("any" if side is None else str(side) for side in self.shape)
        return f"{self.name} ({sides}) {self.kind}"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What the file says.

    precision   of most of its weights: "fp32", "fp16", "int8"…
    ends        output to the operations whose values it gives, those that only move numbers left out; of a
                concatenation all that go into it
    normalises  numbers that the graph subtracts or divides its input by, before anything else; None if it does not
    operations  how often each occurs
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: Mapping[str, str]
    producer: str
    precision: str
    ends: Mapping[str, frozenset[str]]
    normalises: tuple[float, ...] | None
    operations: Mapping[str, int]

    def output(self, name: str) -> Tensor | None:
        return next((tensor for tensor in self.outputs if tensor.name == name), None)

    def written(self, key: str) -> Any:
        """A value of the metadata that is written as a Python literal, as some exporters do; None if it is none."""
        try:
            return ast.literal_eval(self.metadata[key])
        except (KeyError, ValueError, SyntaxError, MemoryError, RecursionError):
            return None


def read_onnx(data: bytes) -> OnnxFile:
    """What an ONNX file says. BadInput, naming what it is instead, if it is none."""
    model = _load(data)
    if elsewhere := _elsewhere(model):
        raise _lies_elsewhere(
            f"weights are in other files ({', '.join(sorted(elsewhere))}), which did not come with it"
        )
    graph = _with_shapes(model).graph
    weights = {weight.name for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    return OnnxFile(
        inputs=tuple(_tensor(given) for given in graph.input if given.name not in weights),
        outputs=tuple(_tensor(given) for given in graph.output),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        producer=model.producer_name,
        precision=_precision(graph.initializer),
        ends={given.name: frozenset(_end(given.name, makers)) for given in graph.output},
        normalises=_normalises(graph, weights),
        operations=Counter(node.op_type for node in graph.node),
    )


def with_weights(data: bytes, folder: Path) -> tuple[bytes, frozenset[str]]:
    """An ONNX file with the weights that lie in other files of its folder, and those files by relative name.

    Exporters put weights elsewhere above some size, newer ones always. A file that holds its own comes back as it is.
    BadInput if another file is not there, lies outside of the folder, or is shorter than is said, or if all together
    are more than such a file may hold (2 GB), or if it is no ONNX file.
    """
    model = _load(data)
    elsewhere = _elsewhere(model)
    if not elsewhere:
        return data, elsewhere
    for name in sorted(elsewhere):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise _lies_elsewhere(f"weights are said to be in {name}, outside of its folder")
        if not path.is_file():
            raise _lies_elsewhere(f"weights are in {name}, which is not there")
    try:
        onnx.load_external_data_for_model(model, str(folder))
        return model.SerializeToString(deterministic=True), elsewhere
    except Exception as error:  # the library's errors have no common root
        raise _lies_elsewhere(f"weights in {', '.join(sorted(elsewhere))} cannot be read: {error}") from error


def _load(data: bytes) -> onnx.ModelProto:
    _require_onnx(data)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # the library's errors have no common root
        raise _no_onnx("its bytes do not follow the format") from error
    if not model.graph.node or not model.graph.output:
        raise _no_onnx("it has no operations or no outputs")
    return model


def _elsewhere(model: onnx.ModelProto) -> frozenset[str]:
    """The files, beside its own, in which a model's weights lie."""
    return frozenset(
        entry.value
        for weight in model.graph.initializer
        if weight.data_location == TensorProto.EXTERNAL
        for entry in weight.external_data
        if entry.key == "location"
    )


def _lies_elsewhere(what: str) -> BadInput:
    return BadInput(
        "models.external-weights",
        f"the model's {what}",
        hint="name the file where all of its files lie, or save it as one: onnx.save(onnx.load(path), path)",
    )


def _require_onnx(data: bytes) -> None:
    """BadInput for what is plainly something else, said in the words of what it is."""
    if not data:
        raise _no_onnx("it is empty")
    if data.startswith(_LFS):
        raise _no_onnx("it is a pointer of Git LFS, and the model is elsewhere (`git lfs pull` brings it)")
    start = data[:2000]
    if start.lstrip().startswith((b"<", b"{")) or all(byte >= ord(" ") or byte in b"\t\r\n\f" for byte in start):
        raise _no_onnx(f"it is text, and begins with {start[:40].decode('utf-8', 'replace')!r}")


def _no_onnx(why: str) -> BadInput:
    return BadInput(
        "models.not-onnx", f"the file is no ONNX model: {why}", hint="was it fetched whole, and is it the right file?"
    )


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001 - shapes that cannot be inferred are not known; all else is
        return model


def _tensor(given: onnx.ValueInfoProto) -> Tensor:
    kind = given.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(
            side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None for side in kind.shape.dim
        )
    return Tensor(given.name, _KINDS.get(kind.elem_type, f"type {kind.elem_type}"), shape)


def _precision(weights: Sequence[TensorProto]) -> str:
    sizes: Counter[str] = Counter()
    for weight in weights:
        kind = _KINDS.get(weight.data_type, "")
        kind = "int8" if kind == "uint8" else kind
        if kind in _PRECISIONS:
            sizes[_PRECISIONS[kind]] += int(np.prod(weight.dims, dtype=np.int64))
    return sizes.most_common(1)[0][0] if sizes else "fp32"


def _end(name: str, makers: Mapping[str, onnx.NodeProto]) -> Iterator[str]:
    """The operations whose values a tensor has."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        if node.op_type in _SAME_VALUES:
            waiting.append(node.input[0])
        elif node.op_type == "Concat":
            waiting.extend(node.input)
        else:
            yield node.op_type


def _normalises(graph: onnx.GraphProto, weights: set[str]) -> tuple[float, ...] | None:
    """Constants of the arithmetic between the input and the first operation of another kind."""
    values = {weight.name: weight for weight in graph.initializer}
    constants = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    inputs = [given.name for given in graph.input if given.name not in weights]
    if len(inputs) != 1:
        return None
    found: list[float] = []
    name, arithmetic = inputs[0], False
    while len(readers := [node for node in graph.node if name in node.input]) == 1:
        node = readers[0]
        if node.op_type not in _ARITHMETIC:
            break
        for other in node.input:
            known = values.get(other, constants.get(other))
            if known is not None and int(np.prod(known.dims, dtype=np.int64)) <= 4:  # noqa: PLR2004 - per channel
                found += [float(value) for value in np.asarray(numpy_helper.to_array(known)).ravel()]
                arithmetic = True
        name = node.output[0]
    return tuple(found) if arithmetic else None
