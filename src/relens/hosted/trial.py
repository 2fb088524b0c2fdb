"""A try before anybody asks: whether what a row gives depends on which others it is run with."""

from __future__ import annotations

import numpy as np

from relens.errors import RelensError
from relens.runtimes.graph import Graph
from relens.tensors import Array

ROWS = 3
TOLERANCE = 1e-3
"""Largest difference between a row alone and in a batch, as a share of the largest number of its output."""


def noise(graph: Graph, rows: int) -> dict[str, Array]:
    """Inputs of so many rows: noise where a model takes numbers with a fraction, zeros for others.

    Empty if there is no shape to try.
    """
    rng = np.random.default_rng(0)
    made = {}
    for name, zeros in graph.zeros().items():
        batch = np.repeat(zeros, rows, axis=0) if zeros.ndim else zeros
        made[name] = rng.normal(size=batch.shape).astype(batch.dtype) if batch.dtype.kind == "f" else batch
    return made


def rows_stand_alone(graph: Graph) -> bool:
    """Whether each row gives in a batch what it gives alone. True if there is no shape to try."""
    inputs = noise(graph, ROWS)
    if not inputs:
        return True
    if not all(array.ndim for array in inputs.values()):
        return False
    try:
        together = graph.run(inputs)
        alone = [graph.run({name: array[row : row + 1] for name, array in inputs.items()}) for row in range(ROWS)]
    except RelensError:  # it does not take so many
        return False
    return all(_same(array, row, made[name]) for row, made in enumerate(alone) for name, array in together.items())


def _same(together: Array, row: int, alone: Array) -> bool:
    if together.shape[:1] != (ROWS,) or alone.shape != (1, *together.shape[1:]):
        return False
    part = together[row : row + 1]
    if part.dtype.kind not in "fiub":
        return bool((part == alone).all())
    largest = max(float(np.abs(alone.astype(np.float64)).max(initial=0)), 1e-9)
    return float(np.abs(part.astype(np.float64) - alone).max(initial=0)) <= TOLERANCE * largest
