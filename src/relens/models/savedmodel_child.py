"""The other end of a conversion: a TensorFlow SavedModel becomes an ONNX file and is compared with it, in its process.

Run as a file, `python -P savedmodel_child.py MODEL SIGNATURE FOLDER`: it writes `model.onnx` and `report.json` into
FOLDER, or `error.json`. It is the only code that imports TensorFlow, and it ends when its standard input does.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET = 18
"""The newest that tf2onnx writes."""
TAG = "serve"
MAX_BYTES = 2**31
MODEL, REPORT, ERROR = "model.onnx", "report.json", "error.json"

SEED = 0
ROWS = (1, 2, 5)
"""Batches that are compared, where the signature leaves the batch free."""
SIDES = (96, 128, 96)
"""Lengths of other free sides: networks for pictures that take any size halve them five times."""
LEAST_SHARE = 0.01
"""A run whose numbers are all tiny is measured by this share of the largest number of all runs."""
RANGES: Mapping[str, tuple[float, float]] = {"0 to 1": (0, 1), "-3 to 3": (-3, 3), "0 to 255": (0, 255)}
CONSTANTS: Mapping[str, float] = {"zeros": 0, "ones": 1}
LONGEST_LIST = 8

Tensors = Mapping[str, NDArray[Any]]
Ask = Callable[[Tensors], Tensors]


class Failed(Exception):
    """Why there is no file: the family, code, message and hint of an error."""

    def __init__(self, family: str, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.facts = {"family": family, "code": code, "message": message, "hint": hint}


class Side:
    """An input or output of a signature: its datatype as the Open Inference Protocol calls it, and its shape."""

    def __init__(self, name: str, datatype: str, shape: Sequence[int | None] | None) -> None:
        self.name = name
        self.datatype = datatype
        self.shape = shape

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": None if self.shape is None else [*self.shape]}


def main() -> int:
    """Convert and compare. The exit code: 0 with a report, 1 with an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the command, which then ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    model, signature, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    try:
        report = _converted(model, signature, folder / MODEL)
    except Failed as error:
        (folder / ERROR).write_text(json.dumps(error.facts))
        return 1
    (folder / REPORT).write_text(json.dumps(report))
    return 0


def compare(inputs: Sequence[Side], original: Ask, other: Ask) -> dict[str, Any]:
    """How far two models are apart on random inputs, zeros and ones, in several batches.

    returns  `runs` that both answered; `left_out`, which the original refused, with `why` the last time; `outputs`,
             name to the largest difference as a share of the largest number of that output in its run, infinite where
             shapes differ; of outputs that are no floats the share of elements that differ. `difference`: the largest

    Failed if the other one does not answer what the original answers.
    """
    kept: list[tuple[Tensors, Tensors]] = []
    left_out, why = 0, ""
    for given in runs(inputs):
        try:
            wanted = original(given)
        except Exception as error:  # noqa: BLE001 - TensorFlow's errors have no common root
            left_out, why = left_out + 1, _first_line(error)
            continue
        try:
            kept.append((wanted, other(given)))
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in given.items())
            raise Failed(
                "Conflict",
                "models.not-the-same",
                f"the converted model does not answer what the original answers ({shapes}): {_first_line(error)}",
                "export another signature, or report it to tf2onnx",
            ) from error
    names = sorted(kept[0][0]) if kept else []
    outputs = {name: _share([(wanted[name], found[name]) for wanted, found in kept]) for name in names}
    return {
        "runs": len(kept),
        "left_out": left_out,
        "why": why,
        "outputs": outputs,
        "difference": max(outputs.values(), default=None),
    }


def runs(inputs: Sequence[Side]) -> Iterator[dict[str, NDArray[Any]]]:
    """Inputs to compare on, always the same ones."""
    rng = np.random.default_rng(SEED)
    for rows, side in zip(ROWS, SIDES, strict=True):
        for low, high in RANGES.values():
            yield {one.name: _random(one, _sizes(one, rows, side), low, high, rng) for one in inputs}
    for value in CONSTANTS.values():
        yield {one.name: _typed(np.full(_sizes(one, ROWS[1], SIDES[0]), value), one.datatype) for one in inputs}


def _sizes(one: Side, rows: int, side: int) -> list[int]:
    assert one.shape is not None
    return [(side if at else rows) if length is None else length for at, length in enumerate(one.shape)]


def _random(one: Side, shape: list[int], low: float, high: float, rng: np.random.Generator) -> NDArray[Any]:
    """Numbers of a range. Whole ones of several values: 0 to 1, 0 to 6, 0 to 255."""
    if one.datatype.startswith("FP"):
        return _typed(rng.uniform(low, high, shape), one.datatype)
    return _typed(rng.integers(0, int(high - low) + 1, shape), one.datatype)


def _typed(values: NDArray[Any], datatype: str) -> NDArray[Any]:
    match datatype:
        case "BYTES":
            return values.astype(np.int64).astype(str).astype(object)
        case "BOOL":
            return (values.astype(np.int64) % 2).astype(np.bool_)
        case "INT8":
            return (values % 128).astype(np.int8)
        case _:
            dtype: np.dtype[Any] = np.dtype(datatype.lower().replace("fp", "float"))
            return values.astype(dtype)


def _share(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """The largest difference of an output over all runs."""
    if any(wanted.shape != found.shape or wanted.dtype != found.dtype for wanted, found in pairs):
        return float("inf")
    if pairs[0][0].dtype.kind != "f":
        differing, total = sum(int((a != b).sum()) for a, b in pairs), sum(a.size for a, _b in pairs)
        return differing / max(1, total)
    largest = [_largest(wanted) for wanted, _found in pairs]
    least = LEAST_SHARE * max(largest)
    shares = []
    for (wanted, found), most in zip(pairs, largest, strict=True):
        a, b = wanted.astype(np.float64), found.astype(np.float64)
        with np.errstate(invalid="ignore"):
            gaps = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        gap = float(np.nan_to_num(gaps, nan=np.inf, posinf=np.inf).max(initial=0.0))
        scale = max(most, least)
        shares.append(gap / scale if scale else (0.0 if gap == 0 else float("inf")))
    return max(shares)


def _largest(values: NDArray[Any]) -> float:
    return float(np.abs(values[np.isfinite(values)], dtype=np.float64).max(initial=0.0))


def _converted(model: Path, signature: str, target: Path) -> dict[str, Any]:
    """The report of a model that was converted into a file. Failed if it cannot be."""
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        import tensorflow as tf  # noqa: PLC0415 - whatever fails here is to be told
        import tf2onnx.convert  # noqa: PLC0415 - as above
    except ImportError as error:
        raise Failed(
            "Broken",
            "models.no-tensorflow",
            f"TensorFlow and tf2onnx are needed to convert a SavedModel: {error}",
            "pip install 'relens[tensorflow]'; with a TensorFlow of your own, pip install tf2onnx",
        ) from error
    tf.config.threading.set_intra_op_parallelism_threads(1)  # sums in one order: the same figures again
    tf.config.threading.set_inter_op_parallelism_threads(1)
    inputs, outputs = _signature(tf, model, signature)
    unknown = _run_converter(tf2onnx.convert, model, signature, target)
    _clean(target, unknown, inputs, outputs)
    compared = compare(inputs, _original(tf, model, signature), _onnx(target, outputs))
    return {
        "signature": signature,
        "inputs": [one.to_json() for one in inputs],
        "outputs": [one.to_json() for one in outputs],
        "compared": compared,
        "opset": OPSET,
        "tensorflow": tf.__version__,
        "tf2onnx": tf2onnx.__version__,
    }


def _signature(tf: Any, model: Path, name: str) -> tuple[list[Side], list[Side]]:
    """Inputs and outputs of a signature, as clients of TensorFlow Serving know them."""
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415 - only here

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((model / "saved_model.pb").read_bytes())
    except Exception as error:
        raise Failed("BadInput", "models.bad-savedmodel", f"{model} cannot be read: {_first_line(error)}") from error
    graphs = [graph for graph in saved.meta_graphs if TAG in graph.meta_info_def.tags]
    if not graphs:
        tags = ", ".join("+".join(graph.meta_info_def.tags) or "none" for graph in saved.meta_graphs)
        raise Failed("BadInput", "models.bad-savedmodel", f"{model} has no graph tagged {TAG!r}; its tags: {tags}")
    known = graphs[0].signature_def
    if name not in known:
        there = ", ".join(sorted(one for one in known if not one.startswith("__"))) or "none"
        raise Failed(
            "BadInput",
            "models.no-signature",
            f"{model} has no signature {name!r}; it has: {there}",
            "name one with --signature",
        )
    inputs = [_side(tf, one, known[name].inputs[one]) for one in sorted(known[name].inputs)]
    outputs = [_side(tf, one, known[name].outputs[one]) for one in sorted(known[name].outputs)]
    if shapeless := [one.name for one in inputs if one.shape is None]:
        raise _cannot(f"input {shapeless[0]} of signature {name} has no shape", "export it with one")
    if both := sorted({one.name for one in inputs} & {one.name for one in outputs}):
        raise _cannot(
            f"{both[0]} is the name of an input and of an output, which ONNX does not know",
            "export a signature in which all names differ",
        )
    return inputs, outputs


def _side(tf: Any, name: str, info: Any) -> Side:
    dtype = tf.dtypes.as_dtype(info.dtype)
    shape = None if info.tensor_shape.unknown_rank else [None if d.size < 0 else d.size for d in info.tensor_shape.dim]
    known = {"string": "BYTES", "bool": "BOOL"}
    return Side(name, known.get(dtype.name, dtype.name.upper().replace("FLOAT", "FP")), shape)


def _run_converter(convert: Any, model: Path, signature: str, target: Path) -> list[str]:
    """Run tf2onnx as its command does; the operations that it did not know."""
    said = _Unsupported()
    logging.getLogger().addHandler(said)
    sys.argv = ["tf2onnx", f"--saved-model={model}", f"--signature_def={signature}", f"--output={target}"]
    sys.argv += [f"--opset={OPSET}", f"--tag={TAG}"]
    try:
        convert.main()
    except (Exception, SystemExit) as error:
        size = sum(file.stat().st_size for file in (model / "variables").glob("variables.data*"))
        if size > MAX_BYTES:
            raise _cannot(f"its weights are {size / 1e9:.1f} GB", "an ONNX file holds 2 GB; export in fp16") from error
        raise _cannot(_first_line(error), "docs/your-own-models.md says what can be done") from error
    return said.found


class _Unsupported(logging.Handler):
    """Listens for operations that the converter does not know: it goes on without them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("Unsupported ops") and isinstance(record.args, Mapping):
            self.found += record.args


def _clean(target: Path, unknown: Sequence[str], inputs: Sequence[Side], outputs: Sequence[Side]) -> None:
    """Write the file again in its one spelling. Failed if it is not what the signature says."""
    import onnx  # noqa: PLC0415 - whose import is not the comparison's to pay

    from relens.models.canonical import canonical, graphs_in  # noqa: PLC0415 - as above

    def nodes(graph: Any) -> Iterator[Any]:
        for node in graph.node:
            yield node
            for inner in graphs_in(node):
                yield from nodes(inner)

    model = onnx.load(target)
    lacking = sorted({node.op_type for node in nodes(model.graph) if not onnx.defs.has(node.op_type, node.domain)})
    if lacking := sorted({*unknown, *lacking}):
        raise _cannot(
            f"ONNX has no operation {', '.join(lacking[:LONGEST_LIST])}",
            "export a signature that takes numbers, without what decodes pictures or text: relens takes pictures itself"
            " (docs/serving.md)",
        )
    for wanted, found in ((inputs, model.graph.input), (outputs, model.graph.output)):
        has = {one.name: _datatype(one) for one in found}
        if has != {one.name: one.datatype for one in wanted}:
            names = ", ".join(f"{one.name} {one.datatype}" for one in wanted)
            raise _cannot(f"the signature has {names}, and of it became {has}", "export another signature")
    shapes = {one.name: one.shape for one in inputs}
    for one in model.graph.input:
        for at, length in enumerate(shapes[one.name] or []):
            side = one.type.tensor_type.shape.dim[at]
            if length is None and side.HasField("dim_value"):
                side.dim_param = f"{one.name}_{at}"
    target.write_bytes(canonical(model))


def _datatype(tensor: Any) -> str:
    import onnx  # noqa: PLC0415 - as above

    name: str = onnx.TensorProto.DataType.Name(tensor.type.tensor_type.elem_type)
    return {"FLOAT": "FP32", "DOUBLE": "FP64", "FLOAT16": "FP16", "STRING": "BYTES", "BFLOAT16": "BFP16"}.get(
        name, name
    )


def _original(tf: Any, model: Path, signature: str) -> Ask:
    loaded = tf.saved_model.load(str(model), tags=[TAG])
    function = loaded.signatures[signature]

    def ask(given: Tensors) -> Tensors:
        made = function(**{name: tf.constant(array) for name, array in given.items()})
        return {name: _comparable(tensor.numpy()) for name, tensor in made.items()}

    return ask


def _onnx(target: Path, outputs: Sequence[Side]) -> Ask:
    import onnxruntime  # noqa: PLC0415 - as above

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _cannot(
            f"onnxruntime cannot run what became of it: {_first_line(error)}", "report it to tf2onnx"
        ) from error
    names = [one.name for one in outputs]

    def ask(given: Tensors) -> Tensors:
        return {name: _comparable(array) for name, array in zip(names, session.run(names, given), strict=True)}

    return ask


def _comparable(values: Any) -> NDArray[Any]:
    """An array; text as `str`, whatever the library gives it as."""
    array = np.asarray(values)
    if array.dtype.kind not in "OSU":
        return array
    texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in array.ravel()]
    return np.array(texts, object).reshape(array.shape)


def _cannot(why: str, hint: str) -> Failed:
    return Failed("BadInput", "models.cannot-convert", f"the SavedModel cannot be converted: {why}", hint)


def _first_line(error: BaseException) -> str:
    """What an error says, of TensorFlow's without where in the graph it is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [
        line
        for line in lines
        if not line.startswith(("Graph execution error", "Detected at node", "File ", "[[", "<stack"))
    ]
    return f"{type(error).__name__}: {(said or lines or [''])[0]}"[:300]


_PLACES = ("Graph execution error", "Detected at node", "File ", "[[", "<stack")


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
