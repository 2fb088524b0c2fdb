"""What a model's outputs are as classes and as values, by the rules of the protocols that ask for them.

Triton's classification extension writes the best classes of any output as text; TensorFlow Serving's classify and
regress take the one output of a model that is meant, and an answer for each example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from relens.errors import BadInput
from relens.serving.served import Served
from relens.tensors import BYTES, Array, TensorInfo, datatype_of

SCORES = ("scores", "probabilities")
NAME_SHOWN = 60
NAMES_SHOWN = 200


def best_classes(rows: Array, count: int, labels: Sequence[str]) -> Array:
    """(n, k) bytes, "score:index" or "score:index:label": the `count` highest of each of n rows, best first.

    Floats are written with six digits after the point, as Triton does. Of equals the first comes first; NaN is lowest.
    """
    last = rows.shape[1] - 1
    comparable = np.where(np.isnan(rows), -np.inf, rows) if rows.dtype.kind == "f" else rows
    order = last - np.argsort(comparable[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    scores = np.take_along_axis(rows, order, axis=1)
    text = "{:f}:{}" if rows.dtype.kind == "f" else "{}:{}"
    tails = [f":{label}" for label in labels] if len(labels) == rows.shape[1] else [""] * rows.shape[1]
    best = np.empty(order.size, object)
    pairs = zip(scores.ravel().tolist(), order.ravel().tolist(), strict=True)
    best[:] = [(text.format(score, index) + tails[index]).encode() for score, index in pairs]
    return best.reshape(order.shape)


def classified(array: Array, output: str, count: int, served: Served) -> Array:
    """The best classes of each row of a batch; of an output without a batch, of all of it."""
    if array.dtype.kind not in "iuf":
        raise BadInput(
            "oip.bad-request", f"output {output[:NAME_SHOWN]!r} is {datatype_of(array)}, which has no best classes"
        )
    if array.ndim > 1 or (array.ndim == 1 and _is_batched(output, served)):
        rows = array.reshape(len(array), math.prod(array.shape[1:]))
        return best_classes(rows, count, served.labels)
    return best_classes(array.reshape(1, -1), count, served.labels).reshape(-1)


def scores_of(served: Served) -> str:
    """The output with a score for each class: by its name, else by the number of classes, else the only one."""
    named = [info for info in served.outputs if info.name in SCORES]
    sized = [info for info in served.outputs if served.labels and info.shape[-1:] == (len(served.labels),)]
    return _only(named or sized or served.outputs, "classify", "scores")


def value_of(served: Served) -> str:
    """The output with one number for each example: the one of that shape, else the only one."""
    fitting = [info for info in served.outputs if info.shape[1:] in {(), (1,)} and info.datatype != BYTES]
    return _only(fitting or served.outputs, "regress", "outputs")


def named_scores(scores: Array, labels: Sequence[str], count: int) -> tuple[list[str], Array]:
    """The classes' names, and the scores of each example in their order. Classes without a name have their index.

    scores  (count, classes) numbers; BadInput for anything else
    """
    if scores.ndim != 2 or len(scores) != count or scores.dtype == object:  # noqa: PLR2004 - examples, classes
        raise _no_answer("classify", f"its scores are {list(scores.shape)} for {count} examples")
    return [*labels, *map(str, range(len(labels), scores.shape[1]))][: scores.shape[1]], scores


def one_value_each(values: Array, count: int) -> Array:
    """(count) numbers, one for each example.

    values  (count) or (count, 1) numbers; BadInput for anything else
    """
    if values.shape not in {(count,), (count, 1)} or values.dtype == object:
        raise _no_answer("regress", f"its output is {list(values.shape)} for {count} examples")
    return values.ravel()


def _only(found: Sequence[TensorInfo], verb: str, preferred: str) -> str:
    chosen = found if len(found) == 1 else [info for info in found if info.name == preferred]
    if not chosen:
        raise _no_answer(verb, f"it could be any of {', '.join(map(str, found))[:NAMES_SHOWN]}")
    return chosen[0].name


def _no_answer(verb: str, why: str) -> BadInput:
    return BadInput("tfserving.wrong-outputs", f"the model cannot be asked to {verb}: {why}", hint="ask it to predict")


def _is_batched(output: str, served: Served) -> bool:
    return any(info.name == output and info.shape[:1] == (None,) for info in served.outputs)
