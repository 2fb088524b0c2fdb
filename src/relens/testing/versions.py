"""Versions of models as files: with card, manifest and marker, without golden pictures."""

from __future__ import annotations

from collections.abc import Mapping

from relens.models.artifacts import CARD, MANIFEST, MARKER
from relens.models.card import Card
from relens.values import Preprocessing, canonical_json, digest_of

STEPS = Preprocessing(4, 4, "bilinear", "rgb", "nchw", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def published(name: str, version: int, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a version, `model.onnx` among those given, in the order in which they are to be written."""
    card = Card(
        name, version, "embed", "onnx", "model.onnx", "images", STEPS, {"vector": "scaled"}, "none", "made up", dim=4
    )
    return with_manifest({**files, CARD: card.to_yaml()})


def with_manifest(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files with a manifest that names them, and its marker; of what they had before nothing is kept."""
    files = {name: data for name, data in files.items() if name not in {MANIFEST, MARKER}}
    manifest = canonical_json({name: {"sha256": digest_of(data), "bytes": len(data)} for name, data in files.items()})
    return {**files, MANIFEST: manifest, MARKER: digest_of(manifest).encode()}
