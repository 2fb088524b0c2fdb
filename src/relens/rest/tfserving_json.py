"""The JSON of TensorFlow Serving's REST API: what a request says as tensors, and what a model gave as an answer.

Values become the datatype of the model's input, or are refused with the name of that input; a number is never cut or
wrapped. Shapes are read off the nesting and left to the model to accept. No HTTP and no model is known here.

Sources: https://www.tensorflow.org/tfx/serving/api_rest; where it is silent, tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any

import numpy as np

from relens.errors import BadInput
from relens.serving.classes import named_scores, one_value_each
from relens.serving.served import Served
from relens.serving.tfserving import (
    NAMES_SHOWN,
    check_names,
    check_pictures,
    check_signature,
    folded,
    listed,
    with_context,
)
from relens.tensors import BYTES, Array, TensorInfo, Tensors, dtype_of

BINARY = "b64"
BINARY_SUFFIX = "_bytes"
"""Ends the names of outputs whose strings are binary, by TensorFlow Serving's rule."""
MAX_RANK = 32
PICTURES_RANK = 4
"""Of an input that is a batch of pictures."""


class _Spoken(float):
    """A number that was written as NaN, Infinity or -Infinity, not one that is too large for a float."""

    __slots__ = ()


_SPOKEN = {name: _Spoken(name) for name in ("NaN", "Infinity", "-Infinity")}
_DECODER = json.JSONDecoder(parse_constant=_SPOKEN.__getitem__)
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_TAKEN: Mapping[str, tuple[set[type], str]] = {
    "b": ({bool}, "true or false"),
    "i": ({int}, "whole numbers"),
    "u": ({int}, "whole numbers"),
    "f": ({int, float, _Spoken}, "numbers"),
    "O": ({str, dict}, 'strings, or {"b64": …}'),
}
"""By kind of dtype: the types of JSON's values that are taken, and how they are called."""
_CALLED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number with a fraction",
    _Spoken: "NaN or Infinity",
    str: "a string",
    dict: "an object",
    list: "a list",
    NoneType: "null",
}


# -- requests -------------------------------------------------------------------------------------------------------


def read_predict(body: bytes, served: Served) -> tuple[Tensors, bool]:
    """The inputs that a predict request gives, by name, and whether they came in rows. BadInput if it is none."""
    given = _request_in(body, served)
    if ("instances" in given) == ("inputs" in given):
        raise BadInput(
            "rest.bad-tensors",
            "the body has both `instances` and `inputs`" if "inputs" in given else "there is nothing to predict",
            hint='write {"instances": [row, …]} or {"inputs": {name: tensor, …}}',
        )
    rows = "instances" in given
    inputs = _from_rows(given["instances"], served.inputs) if rows else _from_columns(given["inputs"], served.inputs)
    check_pictures(given.get("signature_name"), inputs, served)
    return inputs, rows


def read_examples(body: bytes, served: Served, method: str) -> tuple[Tensors, int]:
    """The inputs that a classify or regress request gives, by name, and how many examples. BadInput if it is none."""
    given = _request_in(body, served, method)
    examples, context = _rows_in(given, "examples"), given.get("context", {})
    if not isinstance(context, dict):
        raise BadInput("rest.bad-tensors", f"`context` is {_called(context)}", hint="it is an object of features")
    rows = [_with_context(one, at, context) for at, one in enumerate(examples)]
    _check_rows(rows, served.inputs, "examples")
    return {info.name: _feature([row[info.name] for row in rows], info) for info in served.inputs}, len(rows)


def _request_in(body: bytes, served: Served, *methods: str) -> dict[str, Any]:
    try:
        given = _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise BadInput("rest.bad-json", f"the body is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadInput("rest.bad-json", f"the body is {_called(given)}", hint='write an object: {"instances": […]}')
    check_signature(given.get("signature_name", ""), served, *methods)
    return given


def _rows_in(given: Mapping[str, Any], key: str) -> list[Any]:
    rows = given.get(key)
    if not isinstance(rows, list) or not rows:
        found = "is empty" if rows == [] else f"is {_called(rows)}" if key in given else "is missing"
        raise BadInput("rest.bad-tensors", f"`{key}` {found}", hint="it is a list with one entry for each row")
    return rows


def _from_rows(instances: Any, infos: Sequence[TensorInfo]) -> Tensors:
    rows = _rows_in({"instances": instances}, "instances")
    if len(infos) == 1 and not _is_named(rows[0]):
        return {infos[0].name: array_of(rows, infos[0])}
    _check_rows(rows, infos, "instances")
    return {info.name: array_of([row[info.name] for row in rows], info) for info in infos}


def _from_columns(inputs: Any, infos: Sequence[TensorInfo]) -> Tensors:
    if len(infos) == 1 and not _is_named(inputs):
        return {infos[0].name: array_of(inputs, infos[0])}
    _check_rows([inputs], infos, "inputs")
    return {info.name: array_of(inputs[info.name], info) for info in infos}


def _is_named(value: Any) -> bool:
    """Whether this is an object of tensors by name, and not a binary string."""
    return isinstance(value, dict) and not _is_binary(value)


def _is_binary(value: Mapping[str, Any]) -> bool:
    return value.keys() == {BINARY} and isinstance(value[BINARY], str)


def _check_rows(rows: Sequence[Any], infos: Sequence[TensorInfo], key: str) -> None:
    for at, row in enumerate(rows):
        where = key if key == "inputs" else f"{key}[{at}]"
        if not isinstance(row, dict):
            names = listed([info.name for info in infos])
            raise BadInput(
                "tfserving.wrong-inputs",
                f"`{where}` is {_called(row)}, not an object",
                hint=f"the model takes {names}, by name",
            )
        check_names(row, infos, where)


def _with_context(example: Any, at: int, context: dict[str, Any]) -> Any:
    """An example with the features that all share. What is no object is left for `_check_rows` to refuse."""
    return with_context(example, at, context) if context and isinstance(example, dict) else example


def _feature(values: Sequence[Any], info: TensorInfo) -> Array:
    """The tensor of a feature: one value or flat list for each example, which the shape of the input folds."""
    return folded(array_of([value if isinstance(value, list) else [value] for value in values], info), info)


# -- tensors --------------------------------------------------------------------------------------------------------


def array_of(value: Any, info: TensorInfo) -> Array:
    """The tensor that nested lists are, in the input's datatype; its shape is that of the lists.

    BadInput for lists of different lengths, and for values that the datatype cannot hold: a fraction or too large a
    number for whole numbers, too large a number for floats, true and false for anything but BOOL.
    """
    shape: list[int] = []
    flat = [value]
    while flat and isinstance(flat[0], list):
        lengths = {len(one) for one in flat} if set(map(type, flat)) == {list} else set()
        if len(lengths) != 1 or len(shape) == MAX_RANK:
            raise _ragged(info, len(shape), lengths)
        shape += lengths
        flat = list(chain.from_iterable(flat))
    return _converted(flat, info).reshape(shape)


def _ragged(info: TensorInfo, level: int, lengths: Collection[int]) -> BadInput:
    if level == MAX_RANK:
        return BadInput("rest.bad-tensors", f"lists for input {info.name} are nested deeper than {MAX_RANK}")
    found = f"{min(lengths)} to {max(lengths)} values" if lengths else "lists beside values"
    return BadInput(
        "rest.bad-tensors",
        f"input {info.name} is ragged: {found} at level {level + 1}",
        hint=f"all lists of a level are of one length; the model takes {info}",
    )


def _converted(flat: list[Any], info: TensorInfo) -> Array:
    dtype = dtype_of(info.datatype)
    if len(info.shape) == PICTURES_RANK and flat and all(isinstance(one, dict) and _is_binary(one) for one in flat):
        return _strings(flat, info)  # pictures, of which the model's engine makes its input
    taken, called = _TAKEN[dtype.kind]
    if wrong := set(map(type, flat)) - taken:
        raise BadInput(
            "rest.bad-tensors",
            f"input {info.name} has {' and '.join(sorted(map(_CALLED.__getitem__, wrong)))} among its values",
            hint=f"{info.datatype} takes {called}",
        )
    if info.datatype == BYTES:
        return _strings(flat, info)
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype)
    except OverflowError as error:
        raise _out_of_range(info) from error
    if dtype.kind == "f":
        _check_infinite(array, flat, info)
    return array


def _check_infinite(array: Array, flat: Sequence[Any], info: TensorInfo) -> None:
    """Out of range if a number became infinite that was not written so."""
    infinite = np.flatnonzero(np.isinf(array)).tolist()
    if any(type(flat[at]) is not _Spoken for at in infinite):
        raise _out_of_range(info)


def _out_of_range(info: TensorInfo) -> BadInput:
    return BadInput("rest.bad-tensors", f"input {info.name} has a number that {info.datatype} cannot hold")


def _strings(flat: Sequence[Any], info: TensorInfo) -> Array:
    array = np.empty(len(flat), object)
    try:
        array[:] = [one.encode() if isinstance(one, str) else _binary(one, info) for one in flat]
    except UnicodeEncodeError as error:
        raise BadInput("rest.bad-tensors", f"input {info.name} has a string that is no Unicode: {error}") from error
    return array


def _binary(value: dict[str, Any], info: TensorInfo) -> bytes:
    """The bytes of {"b64": …}; with line breaks and without padding, as TensorFlow Serving takes them."""
    if not _is_named(value):
        text = "".join(value[BINARY].split()).rstrip("=")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError as error:
            raise BadInput("rest.bad-tensors", f"input {info.name} has a `b64` that is no base64: {error}") from error
    raise BadInput("rest.bad-tensors", f"input {info.name} has an object", hint='a binary string is {"b64": "base64"}')


# -- answers --------------------------------------------------------------------------------------------------------


def write_json(answer: Mapping[str, Any]) -> bytes:
    """Compact JSON; NaN and infinities are written NaN, Infinity and -Infinity."""
    return _ENCODER.encode(answer).encode()


def write_predict(outputs: Tensors, *, rows: bool) -> bytes:
    """The answer to a predict request. BadInput if rows are wanted of outputs that have not one row for each input."""
    return write_json({"predictions": _rows_of(outputs)} if rows else {"outputs": _columns_of(outputs)})


def write_classify(scores: Array, labels: Sequence[str], count: int) -> bytes:
    """Each example's classes with their scores, in the model's order. BadInput if these are no scores."""
    names, rows = named_scores(scores, labels, count)
    return write_json({"results": [list(zip(names, row, strict=True)) for row in _decimals(rows)]})


def write_regress(values: Array, count: int) -> bytes:
    """Each example's number. BadInput if these are no values."""
    return write_json({"results": _decimals(one_value_each(values, count))})


def _rows_of(outputs: Tensors) -> list[Any]:
    batches = {array.shape[:1] for array in outputs.values()}
    if len(batches) != 1 or () in batches:
        shapes = listed([f"{name} {list(array.shape)}" for name, array in outputs.items()])
        raise BadInput(
            "rest.wrong-outputs",
            f"the outputs are no rows: {shapes}",
            hint="give the tensors as `inputs` instead of `instances`; the answer is then in columns",
        )
    columns = [_json_of(name, array) for name, array in outputs.items()]
    if len(columns) == 1:
        only: list[Any] = columns[0]
        return only
    return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _columns_of(outputs: Tensors) -> Any:
    columns = {name: _json_of(name, array) for name, array in outputs.items()}
    return next(iter(columns.values())) if len(columns) == 1 else columns


def _json_of(name: str, array: Array) -> Any:
    if array.dtype == object:
        return _texts(array, binary=name.endswith(BINARY_SUFFIX)).tolist()
    return _decimals(array) if array.dtype.kind == "f" else array.tolist()


def _decimals(array: Array) -> Any:
    short = array.dtype.kind == "f" and array.dtype.itemsize <= np.dtype(np.float32).itemsize
    return (_shortest(array.astype(np.float32)) if short else array.astype(np.float64)).tolist()


LARGEST_POWER = 22
"""The last power of ten that a double holds exactly."""
FEWEST_DIGITS, MOST_DIGITS = 7, 9
"""What a float32 takes to be told apart. Starting with 7 costs no digit: 0.2000000 is written 0.2."""
_POWERS = np.array([float(f"1e{power}") for power in range(LARGEST_POWER + 1)])


def _shortest(numbers: Array) -> Array:
    """Doubles that are written with as few digits as tell these float32 apart: 0.2, not 0.20000000298023224.

    A whole number of at most nine digits, divided by an exact power of ten, is the double that is closest to that
    decimal, so its shortest text is that decimal. What has no such form stays as it is, which is longer and as right.
    """
    flat = numbers.ravel()
    found = flat.astype(np.float64)
    with np.errstate(all="ignore"):
        exponents = np.floor(np.log10(np.abs(found)))
        left = np.flatnonzero(np.abs(exponents) <= LARGEST_POWER + 1 - MOST_DIGITS)
        for digits in range(FEWEST_DIGITS, MOST_DIGITS + 1):
            short = _rounded(found[left], (digits - 1 - exponents[left]).astype(np.intp))
            same = short.astype(np.float32) == flat[left]
            found[left[same]] = short[same]
            left = left[~same]
            if not left.size:
                break
    return found.reshape(numbers.shape)


def _rounded(numbers: Array, places: Array) -> Array:
    """Doubles rounded to decimal places, each to its own; a negative one counts to the left of the point."""
    power = _POWERS[np.abs(places)]
    rounded: Array = np.where(places < 0, np.rint(numbers / power) * power, np.rint(numbers * power) / power)
    return rounded


def _texts(array: Array, *, binary: bool) -> Array:
    made = np.empty(array.size, object)
    made[:] = [_text(element, binary=binary) for element in array.ravel()]
    return made.reshape(array.shape)


def _text(element: bytes, *, binary: bool) -> str | dict[str, str]:
    """A string of JSON for bytes that are one, else base64."""
    if not binary:
        try:
            return element.decode()
        except UnicodeDecodeError:
            pass
    return {BINARY: base64.b64encode(element).decode()}


# -- words ----------------------------------------------------------------------------------------------------------


def _called(value: Any) -> str:
    return _CALLED.get(type(value), "something else")


def _shown(value: Any) -> str:
    return repr(value)[:NAMES_SHOWN]
