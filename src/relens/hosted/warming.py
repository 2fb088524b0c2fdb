"""Requests that were recorded beside a model: run when it is loaded, so that nobody's request is the first of its kind.

`warmup.jsonl` in the version's folder: one request a line, in the JSON of the Open Inference Protocol.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from relens.errors import BadInput, RelensError
from relens.hosted.model import Model
from relens.tensors import BYTES, Array, dtype_of

FILE = "warmup.jsonl"
MOST = 1000
"""Requests that are run; more would only make a load longer."""


def run_recorded(model: Model, folder: Path) -> int:
    """Run what was recorded: how many requests. BadInput, naming the line, for one that the model does not take."""
    file = folder / FILE
    if not file.is_file():
        return 0
    count = 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(itertools.islice(lines, MOST), start=1):
            if line.strip():
                try:
                    asked = model.given(_inputs(line), ())
                    model.graph.run(asked.inputs, asked.wanted)
                except RelensError as error:
                    why = f"{FILE}, line {number}: {error.message}"
                    raise BadInput("hosted.bad-warmup", why, hint="correct the line, or remove the file") from error
                count += 1
    return count


def _inputs(line: str) -> dict[str, Array]:
    try:
        return {str(one["name"]): _tensor(one) for one in json.loads(line)["inputs"]}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        why = f"no request: {type(error).__name__}: {error}"
        form = '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
        raise BadInput("hosted.bad-warmup", why, hint=form) from error


def _tensor(given: dict[str, Any]) -> Array:
    shape = [int(side) for side in given["shape"]]
    if given["datatype"] == BYTES:
        texts = np.empty(math.prod(shape), object)
        texts[:] = [str(text).encode() for text in np.asarray(given["data"], object).ravel()]
        return texts.reshape(shape)
    return np.asarray(given["data"], dtype_of(given["datatype"])).reshape(shape)
