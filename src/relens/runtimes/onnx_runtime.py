"""Models in ONNX on the CPU, by onnxruntime.

The file is run as it is: no other precision, no other provider. Memory stays at what the largest batches of as many
threads as run at once have needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from relens.errors import Broken
from relens.runtimes.base import (
    ModelSpec,
    load_failed,
    require_inputs,
    require_outputs,
    require_runnable,
    run_failed,
)
from relens.values import Floats

ERRORS_ONLY = 3
PRECISIONS = frozenset({"fp32", "fp16", "int8"})
"""The file is run in the precision that it was written in; that its card says which, is checked when it comes in."""
PROVIDER = "CPUExecutionProvider"
FLOAT = "tensor(float)"
CAST = {
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
"""Types other than float32 that a model may take and give; outside it all numbers are float32."""


class OnnxRuntime:
    """The back-end for ONNX files."""

    name = "onnxruntime"
    formats = frozenset({"onnx"})

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def load(self, spec: ModelSpec, *, threads: int = 1) -> OnnxSession:
        require_runnable(spec, threads, backend=self.name, formats=self.formats, precisions=PRECISIONS)
        if not spec.path.is_file() or spec.path.stat().st_size == 0:
            raise load_failed(spec, "there is no such file, or it is empty")
        try:
            session = onnxruntime.InferenceSession(str(spec.path), session_options(threads), providers=[PROVIDER])
        except Exception as error:  # the library's errors have no common root
            raise load_failed(spec, error) from error
        return OnnxSession(spec, session)


class OnnxSession:
    """A loaded ONNX file. A model that was exported with a fixed batch is run in pieces of that size."""

    backend = OnnxRuntime.name
    device = "cpu"

    def __init__(self, spec: ModelSpec, session: Any) -> None:
        self._spec = spec
        self._session = session
        self._roles = list(spec.outputs)
        self._tensors = [spec.outputs[role] for role in self._roles]
        self._batch, self._takes = _input_of(spec, session)
        types = {output.name: output.type for output in session.get_outputs()}
        require_outputs(spec, types)
        if wrong := {name: types[name] for name in self._tensors if types[name] not in {FLOAT, *CAST}}:
            raise Broken("runtimes.wrong-outputs", f"the model's outputs are no numbers: {wrong}")

    def run(self, inputs: Floats) -> dict[str, Floats]:
        require_inputs(self._spec, inputs)
        step = self._batch or len(inputs)
        parts = [self._run(_padded(inputs[start : start + step], step)) for start in range(0, len(inputs), step)]
        whole = parts[0] if len(parts) == 1 else [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]
        return {role: tensor[: len(inputs)] for role, tensor in zip(self._roles, whole, strict=True)}

    def close(self) -> None:
        self._session = None

    def _run(self, inputs: Floats) -> list[Floats]:
        session = self._session
        if session is None:
            raise run_failed(self._spec, "it was closed")
        given = inputs if self._takes is None else inputs.astype(self._takes)
        try:
            made = session.run(self._tensors, {self._spec.input: given})
            tensors: list[Floats] = [np.asarray(tensor, dtype=np.float32) for tensor in made]
        except Exception as error:
            raise run_failed(self._spec, error) from error
        if any(tensor.shape[:1] != inputs.shape[:1] for tensor in tensors):
            raise run_failed(self._spec, f"{len(inputs)} inputs gave {[tensor.shape for tensor in tensors]}")
        return tensors


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """How every file is run; the reasons are measured."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Two spinning threads burn 42 ms of CPU a request at 25 requests/s where two that sleep need 11.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = ERRORS_ONLY
    # Without the arena a picture costs 11-25 % more CPU and memory is no smaller. Plans of memory per input shape gain
    # 2 % in one thread, but with four threads and batches of 1 to 8 memory doubles and keeps growing.
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    return options


def _input_of(spec: ModelSpec, session: Any) -> tuple[int | None, Any]:
    """The batch that the model insists on, if it does, and the type that it takes, if that is not float32.

    Broken if its input is not the one of the spec.
    """
    inputs = {node.name: node for node in session.get_inputs()}
    if set(inputs) != {spec.input}:
        raise load_failed(spec, f"its inputs are {sorted(inputs)}, the card says {spec.input!r}")
    node = inputs[spec.input]
    fits = len(node.shape) == len(spec.input_shape) + 1 and all(
        has == wants or not isinstance(has, int) for has, wants in zip(node.shape[1:], spec.input_shape, strict=True)
    )
    if node.type not in {FLOAT, *CAST} or not fits:
        raise load_failed(spec, f"its input is {node.type} {node.shape}, the card says {spec.input_shape}")
    return node.shape[0] if isinstance(node.shape[0], int) else None, CAST.get(node.type)


def _padded(inputs: Floats, count: int) -> Floats:
    if len(inputs) == count:
        return inputs
    return np.concatenate([inputs, np.zeros((count - len(inputs), *inputs.shape[1:]), np.float32)])
