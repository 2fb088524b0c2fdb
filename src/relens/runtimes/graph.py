"""Models as they are: any inputs and outputs, by name, in their own datatypes. What protocols of tensors serve.

The other sessions of this package speak of roles and float32; this one adds and takes away nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from relens.errors import BadInput, Broken, RelensError
from relens.runtimes.onnx_runtime import PROVIDER, session_options
from relens.tensors import BYTES, Array, TensorInfo, Tensors, datatype_of, dtype_of

TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": BYTES,
}
WARM_UPS = 3
LARGEST_WARM_UP = 1 << 26  # elements


Forward = Callable[[Sequence[str], Tensors], Sequence[Any]]
"""Names of outputs and inputs by name to those outputs."""


class Graph:
    """A loaded ONNX file. Safe to use from many threads at once."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        """Read and verify nothing but that it can be run; one run uses at most `threads` cores. Broken if it cannot."""
        try:
            session = onnxruntime.InferenceSession(str(path), session_options(threads), providers=[PROVIDER])
        except Exception as error:  # the library's errors have no common root
            raise Broken(
                "runtimes.load-failed",
                f"the model {path} cannot be loaded: {error}",
                hint="is the file complete, and an ONNX model?",
            ) from error
        self.backend = "onnxruntime"
        self.inputs = tuple(_info(node, path) for node in session.get_inputs())
        self.outputs = tuple(_info(node, path) for node in session.get_outputs())
        self._forward: Forward = session.run
        self._known = {info.name: info for info in self.inputs}
        self._symbols = {node.name: node.shape for node in session.get_inputs()}
        self._names = [info.name for info in self.outputs]

    def run(self, inputs: Tensors, wanted: Sequence[str] = ()) -> dict[str, Array]:
        """One forward.

        inputs  every input by name, of its datatype and a shape that fits; BYTES are arrays of `bytes`
        wanted  names of outputs, in the order in which they are given back; all if none is named

        BadInput, naming what is expected, for other inputs or outputs; Broken if the model fails.
        """
        self.check(inputs, wanted)
        names = list(wanted) or self._names
        given = {name: _as_given(array) for name, array in inputs.items()}
        try:
            made = self._forward(names, given)
        except Exception as error:
            raise _run_failed(error) from error
        return {name: _as_made(array) for name, array in zip(names, made, strict=True)}

    def run_by(self, backend: str, forward: Forward) -> None:
        """Run it by another back-end from now on, which takes and gives the same."""
        self.backend, self._forward = backend, forward

    def warm_up(self) -> None:
        """Run it a few times on zeros, so that no request is the first one. Broken if it fails.

        A model with free lengths other than its batch's is left as it is: not every length will do.
        """
        zeros = self.zeros()
        for _ in range(WARM_UPS if zeros else 0):
            self.run(zeros)

    def zeros(self) -> dict[str, Array]:
        """Inputs of zeros, of one row; none if not every length will do, or they would be very large."""
        if any(None in info.shape[1:] for info in self.inputs):
            return {}
        shapes = {info.name: tuple(side or 1 for side in info.shape) for info in self.inputs}
        if sum(int(np.prod(shape)) for shape in shapes.values()) > LARGEST_WARM_UP:
            return {}
        return {info.name: _zeros(info, shapes[info.name]) for info in self.inputs}

    def check(self, inputs: Tensors, wanted: Sequence[str]) -> None:
        """BadInput, naming what is expected, for inputs or outputs that `run` does not take."""
        if inputs.keys() != self._known.keys():
            raise _wrong_inputs(self.inputs, f"given was {', '.join(sorted(inputs)) or 'nothing'}")
        for name, array in inputs.items():
            info = self._known[name]
            if datatype_of(array) != info.datatype or not info.fits(array.shape):
                raise _wrong_inputs((info,), f"given was {tuple(array.shape)} {datatype_of(array)}")
        self._check_lengths(inputs)
        if unknown := [name for name in wanted if name not in self._names]:
            raise BadInput(
                "runtimes.no-output",
                f"the model has no output {', '.join(unknown)}",
                hint=f"it has {', '.join(self._names)}",
            )

    def _check_lengths(self, inputs: Tensors) -> None:
        """Lengths of one name, such as that of the batch, are the same wherever the model says it."""
        lengths: dict[str, int] = {}
        for name, array in inputs.items():
            for symbol, length in zip(self._symbols[name], array.shape, strict=True):
                if isinstance(symbol, str) and lengths.setdefault(symbol, length) != length:
                    raise _wrong_inputs(self.inputs, f"given was `{symbol}` of {lengths[symbol]} and of {length}")


def _info(node: Any, path: Path) -> TensorInfo:
    datatype = TYPES.get(node.type)
    if datatype is None:
        raise Broken(
            "runtimes.load-failed",
            f"{node.name} of {path} is a {node.type}, which no protocol of tensors has",
            hint="export the model with tensors as inputs and outputs (for a classifier: without ZipMap)",
        )
    return TensorInfo(node.name, datatype, tuple(side if isinstance(side, int) else None for side in node.shape))


def _wrong_inputs(expected: Sequence[TensorInfo], given: str) -> BadInput:
    return BadInput("runtimes.wrong-inputs", f"the model takes {'; '.join(map(str, expected))}; {given}")


def _as_given(array: Array) -> Array:
    if array.dtype != np.dtype(object):
        return array
    try:
        texts = [element.decode() for element in array.ravel()]
    except UnicodeDecodeError as error:
        raise BadInput("runtimes.wrong-inputs", f"the model takes text in UTF-8: {error}") from error
    given = np.empty(len(texts), object)
    given[:] = texts
    return given.reshape(array.shape)


def _as_made(array: Any) -> Array:
    made = np.asarray(array)
    if made.dtype.kind not in "OU":
        return made
    texts = np.empty(made.size, object)
    texts[:] = [str(element).encode() for element in made.ravel()]
    return texts.reshape(made.shape)


def _zeros(info: TensorInfo, shape: tuple[int, ...]) -> Array:
    if info.datatype != BYTES:
        return np.zeros(shape, dtype_of(info.datatype))
    empty = np.empty(shape, object)
    empty.fill(b"")
    return empty


def _run_failed(error: Exception) -> RelensError:
    """What the caller gave is at fault if the library says so: it finds shapes that do not fit while it runs."""
    if "INVALID_ARGUMENT" in str(error):
        return BadInput("runtimes.wrong-inputs", f"the model cannot take this: {error}")
    return Broken("runtimes.run-failed", f"the model failed: {error}")
