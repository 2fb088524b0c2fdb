"""Made-up models to try doors with: what goes in comes out changed, so that a mixed-up answer is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from relens.errors import BadInput, Broken, Busy, Missing
from relens.serving.served import Inferred, Looked, Named, Recognized, Served, VersionStatus, Wanted
from relens.tensors import Array, TensorInfo, Tensors, datatype_of
from relens.values import digest_of

LABELS = ("red", "green", "blue", "black")
FAILED = Broken("models.corrupt", "model.onnx differs from its digest", hint="copy the version again")


class MadeUpModels:
    """Three models without engines.

    scale     versions 1 (times 1), 2 (times 2, label `stable`) and 3, which is END with an error: `x` (any, 4) FP32 to
              `y` (any, 4) FP32 and `sum` (any) FP32; class names LABELS. Version 2 answers if none is named
    letters   version 1: `text` (any) BYTES to `upper` (any) BYTES and `length` (any) INT64
    pair      version 7: `a` (2, any) INT32 and `b` (2, any) INT32 to `total` (2, any) INT32
    slow      version 1, which is LOADING: asked, it is Busy

    `asked` has every call of `infer`: what was named, inputs, outputs, time. A first number of -1 in `x` makes `scale`
    fail. `looked` has every call of `recognize`, which sees nothing in any picture. `configured` has what `configure`
    was told last; nothing follows from it.
    """

    def __init__(self) -> None:
        self.configured: Mapping[str, Wanted] | None = None
        self.looked: list[tuple[Named, bytes, Looked, float | None]] = []
        self.asked: list[tuple[Named, Tensors, tuple[str, ...], float | None]] = []

    def models(self) -> list[str]:
        return ["letters", "pair", "scale", "slow"]

    def versions(self, model: str) -> list[VersionStatus]:
        known = {
            "scale": [VersionStatus(3, "END", FAILED), VersionStatus(2, "AVAILABLE"), VersionStatus(1, "AVAILABLE")],
            "letters": [VersionStatus(1, "AVAILABLE")],
            "pair": [VersionStatus(7, "AVAILABLE")],
            "slow": [VersionStatus(1, "LOADING")],
        }
        if model not in known:
            raise Missing("serving.no-model", f"there is no model {model!r}", hint=f"there are {', '.join(known)}")
        return known[model]

    def labels(self, model: str) -> Mapping[str, int]:
        self.versions(model)
        return {"stable": 2} if model == "scale" else {}

    def choose(self, named: Named) -> Named:
        return named

    def describe(self, named: Named) -> Served:
        available = [one.version for one in self.versions(named.model) if one.state == "AVAILABLE"]
        if not available:
            raise Busy("serving.loading", f"model {named.model} is being loaded", retry_after_s=0.25)
        version = named.version or available[0]
        if named.label is not None:
            version = self.labels(named.model).get(named.label, 0)
        if version not in available:
            raise Missing("serving.no-version", f"there is no version {named} that is available")
        inputs, outputs = SHAPES[named.model]
        labels = LABELS if named.model == "scale" else ()
        return Served(named.model, version, inputs, outputs, "made-up", labels)

    async def infer(
        self, named: Named, inputs: Tensors, *, outputs: Sequence[str] = (), timeout_s: float | None = None
    ) -> Inferred:
        served = self.describe(named)
        self.asked.append((named, inputs, tuple(outputs), timeout_s))
        _check(served, inputs, outputs)
        made = _run(served, inputs)
        wanted = list(outputs) or list(made)
        return Inferred(served.model, served.version, {name: made[name] for name in wanted}, {"run": 0.1})

    async def recognize(
        self, named: Named, picture: bytes, looked: Looked, *, timeout_s: float | None = None
    ) -> Recognized:
        served = self.describe(named)
        self.looked.append((named, picture, looked, timeout_s))
        found = {"picture": {"sha256": digest_of(picture)}, "objects": []}
        return Recognized(served.model, served.version, found, {"run": 0.1})

    def configure(self, wanted: Mapping[str, Wanted]) -> None:
        for model, how in wanted.items():
            available = [one.version for one in self.versions(model) if one.state == "AVAILABLE"]
            if wrong := sorted(set(how.labels.values()) - set(available)):
                raise BadInput("serving.bad-label", f"version {wrong[0]} of {model} is not available")
        self.configured = wanted


SHAPES: Mapping[str, tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]] = {
    "scale": (
        (TensorInfo("x", "FP32", (None, 4)),),
        (TensorInfo("y", "FP32", (None, 4)), TensorInfo("sum", "FP32", (None,))),
    ),
    "letters": (
        (TensorInfo("text", "BYTES", (None,)),),
        (TensorInfo("upper", "BYTES", (None,)), TensorInfo("length", "INT64", (None,))),
    ),
    "pair": (
        (TensorInfo("a", "INT32", (2, None)), TensorInfo("b", "INT32", (2, None))),
        (TensorInfo("total", "INT32", (2, None)),),
    ),
}


def _check(served: Served, inputs: Tensors, outputs: Sequence[str]) -> None:
    wanted = {info.name: info for info in served.inputs}
    if set(inputs) != set(wanted):
        raise BadInput("serving.wrong-inputs", f"the model takes {sorted(wanted)}, given were {sorted(inputs)}")
    for name, info in wanted.items():
        if datatype_of(inputs[name]) != info.datatype or not info.fits(inputs[name].shape):
            raise BadInput("serving.wrong-inputs", f"the model takes {info}, given was {inputs[name].shape}")
    if unknown := set(outputs) - {info.name for info in served.outputs}:
        raise BadInput("serving.wrong-outputs", f"the model has no output {', '.join(sorted(unknown))}")


def _run(served: Served, inputs: Tensors) -> dict[str, Array]:
    if served.model == "scale":
        x = inputs["x"]
        if x.size and x.flat[0] == -1:
            raise Broken("runtimes.run-failed", "the model failed: a number is negative")
        y = (x * served.version).astype(np.float32)
        return {"y": y, "sum": y.sum(axis=1)}
    if served.model == "letters":
        text = inputs["text"]
        upper = np.empty(text.shape, object)
        upper[:] = [one.upper() for one in text]
        return {"upper": upper, "length": np.array([len(one) for one in text], np.int64)}
    return {"total": inputs["a"] + inputs["b"]}
