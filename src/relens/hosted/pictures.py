"""Pictures in place of tensors: a batch of JPEG, PNG and the like becomes the input of a model, by its card.

The card lies beside the model (`card.yaml`, or `<file>.card.yaml`), or is inferred from its file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from relens.errors import BadInput
from relens.models.card import read_card
from relens.models.infer import infer_card
from relens.tensors import Array, TensorInfo, dtype_of
from relens.values import Preprocessing
from relens.vision import Limits, decode, preprocess


class Pictures:
    """Makes a model's input of pictures."""

    def __init__(self, info: TensorInfo, prep: Preprocessing, limits: Limits) -> None:
        self._info = info
        self._prep = prep
        self._limits = limits
        # A picture may be decoded smaller where its short side is all that counts.
        self._short_side_px = prep.resize_px if prep.fit == "cut" else None

    def batch(self, elements: Array) -> Array:
        """(n, …) of the model's datatype, of n pictures: (n) or (n, 1) bytes. BadInput, naming which, for others."""
        if elements.ndim not in {1, 2} or elements.shape[1:] not in {(), (1,)} or not elements.size:
            raise BadInput(
                "hosted.wrong-pictures", f"pictures are a tensor (n) of bytes, given was {tuple(elements.shape)}"
            )
        rows = [self._row(number, data) for number, data in enumerate(elements.ravel())]
        return np.concatenate(rows).astype(dtype_of(self._info.datatype), copy=False)

    def _row(self, number: int, data: bytes) -> Array:
        try:
            picture = decode(data, limits=self._limits, short_side_px=self._short_side_px)
        except BadInput as error:
            raise BadInput(error.code, f"picture {number}: {error.message}", hint=error.hint) from error
        return preprocess(picture.pixels, self._prep)


def pictures_for(model: Path, inputs: tuple[TensorInfo, ...]) -> Callable[[Array], Array]:
    """What makes the input of a model of pictures: see `Pictures.batch`. BadInput, naming why, if nobody knows how."""
    prep = _preprocessing(model)
    if prep.align != "none":
        raise BadInput(
            "hosted.aligned",
            f"the model takes faces turned by their landmarks ({prep.align}), which a picture does not tell",
            hint="ask a recipe, which finds them",
        )
    return Pictures(inputs[0], prep, Limits()).batch


def _preprocessing(model: Path) -> Preprocessing:
    for beside in (model.with_name("card.yaml"), model.with_name(f"{model.name}.card.yaml")):
        if beside.is_file():
            return read_card(beside.read_bytes()).preprocessing
    return infer_card(model.read_bytes(), name="served").card.preprocessing
