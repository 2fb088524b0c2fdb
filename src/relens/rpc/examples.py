"""TensorFlow's Examples as the tensors of a model: each feature becomes the input of its name.

By the rules of the REST door's examples: all inputs are given, and nothing else, in each example or in the context of
all. A model with one input takes the only feature of its examples, whatever its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from relens.errors import BadInput
from relens.rpc.fields import numbers_of
from relens.serving.oip import shown
from relens.serving.served import Served
from relens.serving.tfserving import check_names, folded, with_context
from relens.tensors import Array, TensorInfo, Tensors, dtype_of

KINDS = {"bytes_list": np.dtype(object), "float_list": np.dtype("<f4"), "int64_list": np.dtype("<i8")}
TAKEN = {"b": "int64_list", "i": "int64_list", "u": "int64_list", "f": "float_list", "O": "bytes_list"}
"""By kind of an input's type: the list that it is given in. Floats may be given as integers as well."""


def read_examples(given: Any, served: Served) -> tuple[Tensors, int]:
    """The inputs that an Input gives, by name, and how many examples. BadInput if it gives none that fit."""
    kind = given.WhichOneof("kind")
    if kind is None or not getattr(given, kind).examples:
        raise BadInput("tfserving.bad-tensors", "there are no examples", hint="give at least one in `example_list`")
    context = dict(given.example_list_with_context.context.features.feature)
    examples = getattr(given, kind).examples
    rows = [with_context(dict(one.features.feature), at, context) for at, one in enumerate(examples)]
    infos = served.inputs
    if len(infos) == 1 and len(names := {name for row in rows for name in row}) == 1:
        return {infos[0].name: _tensor([row.get(*names) for row in rows], infos[0], served)}, len(rows)
    for at, row in enumerate(rows):
        check_names(row, infos, f"examples[{at}]")
    return {info.name: _tensor([row[info.name] for row in rows], info, served) for info in infos}, len(rows)


def _tensor(features: Sequence[Any], info: TensorInfo, served: Served) -> Array:
    """The tensor of one feature of all examples, which the shape of the input folds."""
    values = [_values(one, info, pictures=info.name == served.pictures) for one in features]
    lengths = {len(one) for one in values}
    if len(lengths) > 1:
        raise _bad(info, f"has {min(lengths)} to {max(lengths)} values", "examples have equally many")
    if len({one.dtype for one in values}) > 1:
        raise _bad(info, "has pictures in some examples and numbers in others", "examples are of one kind")
    array = np.concatenate(values).reshape(len(values), -1 if lengths != {0} else 0)
    return folded(array, info)


def _values(feature: Any, info: TensorInfo, *, pictures: bool) -> Array:
    kind = None if feature is None else feature.WhichOneof("kind")
    dtype = dtype_of(info.datatype)
    wanted = TAKEN[dtype.kind]
    if kind == "bytes_list" and pictures:
        dtype = KINDS[kind]
    elif kind != wanted and not (kind == "int64_list" and wanted == "float_list"):
        raise _bad(info, f"is {kind or 'missing'}", f"{info.datatype} is given as {wanted}")
    owner = getattr(feature, kind)
    if kind == "bytes_list":
        array = np.empty(len(owner.value), object)
        array[:] = owner.value
        return array
    return _cast(numbers_of(owner, "value", KINDS[kind]), dtype, info)


def _cast(array: Array, dtype: np.dtype[Any], info: TensorInfo) -> Array:
    with np.errstate(over="ignore"):
        made = array.astype(dtype)
    changed = made != array if dtype.kind in "biu" else np.isinf(made) != np.isinf(array)
    if changed.any():
        raise _bad(info, f"has a number that {info.datatype} cannot hold", "")
    return made


def _bad(info: TensorInfo, why: str, hint: str) -> BadInput:
    return BadInput("tfserving.bad-tensors", f"feature {shown(info.name)} {why}", hint=hint)
