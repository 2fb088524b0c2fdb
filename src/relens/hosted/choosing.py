"""Which back-end runs a model here: onnxruntime, OpenVINO, or the faster of both, measured where it will run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from relens.errors import Broken
from relens.hosted.trial import TOLERANCE, noise
from relens.runtimes.graph import Forward, Graph
from relens.runtimes.openvino_runtime import NAME, Compiled, is_installed, require_installed
from relens.tensors import Array, Tensors

ROUNDS = 7
WORTH = 0.9
"""The share of onnxruntime's CPU time that OpenVINO has to stay under to be taken: less is within what a run varies."""

log = structlog.get_logger(__name__)


def choose_backend(graph: Graph, file: Path, wanted: str, *, cores: int, streams: int, cache: Path | None) -> None:
    """Let a graph be run by the back-end that is wanted.

    wanted   "openvino": that, whatever it gives, as int8 differs in the second digit; "measured": if it gives what
             onnxruntime gives, to 1e-3, in clearly less time
    cores    that one forward uses
    streams  forwards that run at a time
    cache    as of `Compiled`

    Broken if OpenVINO is wanted, and not installed or cannot run it.
    """
    if wanted == NAME:
        require_installed()
    elif not is_installed():
        log.info("OpenVINO is not installed: onnxruntime runs the model", hint="pip install 'relens[openvino]'")
        return
    try:
        compiled = Compiled(file, threads=cores, streams=streams, cache=cache)
        inputs = noise(graph, 1)
        off = _difference(graph, compiled.run, inputs) if inputs else None
    except Exception as error:  # the library's errors have no common root
        if wanted == NAME:
            why = f"OpenVINO cannot run {file.name}: {error}"
            raise Broken("runtimes.load-failed", why, hint="leave `backend` at onnxruntime") from error
        log.warning("OpenVINO cannot run the model: onnxruntime does", why=str(error))
        return
    figures: dict[str, Any] = {"difference": None if off is None else float(f"{off:.2g}")}
    faster = wanted == NAME
    if wanted != NAME and off is not None and off <= TOLERANCE:
        share = _share(graph, compiled.run, inputs)
        faster, figures["cpu"] = share < WORTH, round(share, 2)
    if faster:
        graph.run_by(NAME, compiled.run)
    log.info("back-end chosen", backend=graph.backend, compared_with="onnxruntime", **figures)


def _difference(graph: Graph, forward: Forward, inputs: Mapping[str, Array]) -> float:
    """The largest, as a share of the largest number of an output."""
    names = [info.name for info in graph.outputs]
    wanted = graph.run(inputs, names)
    worst = 0.0
    for name, made in zip(names, forward(names, inputs), strict=True):
        other = wanted[name]
        if other.shape != np.shape(made) or other.dtype.kind not in "iufb":
            raise Broken("runtimes.wrong-outputs", f"{name} is {np.shape(made)}, and by onnxruntime {other.shape}")
        largest = max(float(np.abs(other.astype(np.float64)).max(initial=0)), 1e-9)
        off = np.abs(np.asarray(made, np.float64) - other).max(initial=0) / largest
        worst = max(worst, float(off) if np.isfinite(off) else np.inf)
    return worst


def _share(graph: Graph, forward: Forward, inputs: Mapping[str, Array]) -> float:
    """The CPU time of a forward as a share of that of the graph: the median of turns, one after the other."""
    names = [info.name for info in graph.outputs]

    def usual(wanted: Sequence[str], given: Tensors) -> Sequence[Any]:
        return list(graph.run(given, wanted).values())

    def took(run: Forward) -> float:
        start = time.process_time()
        run(names, inputs)
        return max(time.process_time() - start, 1e-9)

    took(forward)
    return statistics.median(took(forward) / took(usual) for _ in range(ROUNDS))
