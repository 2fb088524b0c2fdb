"""ONNX files on the CPU by OpenVINO: as fast as onnxruntime in float32, about a third faster with int8.

The extra `[openvino]`. Numbers are computed in float32 as they are written: left to itself it would take bfloat16 where
the CPU has it, which is another space.
"""

from __future__ import annotations

import importlib.util
import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relens.errors import Broken
from relens.runtimes.base import ModelSpec, load_failed, require_inputs, require_outputs, require_runnable, run_failed
from relens.tensors import Array
from relens.values import Floats

NAME = "openvino"
PRECISIONS = frozenset({"fp32", "int8"})


def is_installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("openvino") is not None


class Compiled:
    """A compiled file. Safe to use from as many threads as it has streams; more wait for one of them.

    threads  cores that one forward uses
    streams  forwards that run at a time
    cache    folder in which what was compiled is kept, so that the next start is faster; None: nowhere
    """

    def __init__(self, path: Path, *, threads: int = 1, streams: int = 1, cache: Path | None = None) -> None:
        import openvino  # noqa: PLC0415 - an extra, and slow to import

        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads * streams,
            "ENABLE_CPU_PINNING": False,
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        self._model: Any = core.compile_model(core.read_model(path), "CPU", settings)
        self.inputs = {port.any_name: port for port in self._model.inputs}
        self.outputs = {name: index for index, port in enumerate(self._model.outputs) for name in port.names}
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(self._model.create_infer_request())

    def run(self, wanted: Sequence[str], given: Mapping[str, Array]) -> list[Array]:
        """The outputs of these names, the caller's to keep."""
        request = self._requests.get()
        try:
            request.infer(dict(given), share_inputs=True)
            return [np.array(request.get_output_tensor(self.outputs[name]).data) for name in wanted]
        finally:
            self._requests.put(request)


class OpenVino:
    """The back-end for ONNX files. `cache` as of `Compiled`."""

    name = NAME
    formats = frozenset({"onnx"})

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def load(self, spec: ModelSpec, *, threads: int = 1) -> OpenVinoSession:
        require_runnable(spec, threads, backend=self.name, formats=self.formats, precisions=PRECISIONS)
        if not is_installed():
            raise load_failed(spec, "OpenVINO is not installed: pip install 'relens[openvino]'")
        try:
            compiled = Compiled(spec.path, threads=threads, cache=self._cache)
        except Exception as error:  # the library's errors have no common root
            raise load_failed(spec, error) from error
        return OpenVinoSession(spec, compiled)


class OpenVinoSession:
    """A loaded ONNX file whose batch is free."""

    backend = NAME
    device = "cpu"

    def __init__(self, spec: ModelSpec, compiled: Compiled) -> None:
        self._spec = spec
        self._compiled: Compiled | None = compiled
        self._roles = list(spec.outputs)
        self._tensors = [spec.outputs[role] for role in self._roles]
        _require_input(spec, compiled)
        require_outputs(spec, compiled.outputs)

    def run(self, inputs: Floats) -> dict[str, Floats]:
        require_inputs(self._spec, inputs)
        compiled = self._compiled
        if compiled is None:
            raise run_failed(self._spec, "it was closed")
        try:
            made = compiled.run(self._tensors, {self._spec.input: np.ascontiguousarray(inputs)})
            tensors = [np.asarray(tensor, np.float32) for tensor in made]
        except Exception as error:
            raise run_failed(self._spec, error) from error
        if any(tensor.shape[:1] != inputs.shape[:1] for tensor in tensors):
            raise run_failed(self._spec, f"{len(inputs)} inputs gave {[tensor.shape for tensor in tensors]}")
        return dict(zip(self._roles, tensors, strict=True))

    def close(self) -> None:
        self._compiled = None


def _require_input(spec: ModelSpec, compiled: Compiled) -> None:
    """Broken if the file's input is not the one of the spec, in float32 with a free batch."""
    if set(compiled.inputs) != {spec.input}:
        raise load_failed(spec, f"its inputs are {sorted(compiled.inputs)}, the card says {spec.input!r}")
    port = compiled.inputs[spec.input]
    sides = [side.get_length() if side.is_static else None for side in port.get_partial_shape()]
    fits = len(sides) == len(spec.input_shape) + 1 and all(
        has in {None, wants} for has, wants in zip(sides[1:], spec.input_shape, strict=True)
    )
    kind = port.get_element_type().get_type_name()
    if kind != "f32" or not fits or sides[0] is not None:
        raise load_failed(
            spec, f"its input is {kind} {sides}, of which it takes f32 with a free batch and the shape of the card"
        )


def require_installed() -> None:
    """Broken that says what to install, if the package is not there."""
    if not is_installed():
        raise Broken("runtimes.not-installed", "OpenVINO is not installed", hint="pip install 'relens[openvino]'")
