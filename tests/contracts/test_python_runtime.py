"""The back-end for Python code against the contract, with a small network in numpy."""

import json
from pathlib import Path

import pytest

from relens.runtimes import ModelSpec, Python
from relens.testing.runtimes import RuntimeContract

CODE = '''
import numpy as np

rng = np.random.default_rng(0)
KERNEL, LINEAR = rng.normal(size=(8, 3)).astype("f4"), rng.normal(size=(8, 5)).astype("f4")


def one(picture):
    """A 1x1 convolution, ReLU, mean, linear, softmax, of one input: its bits do not depend on the others."""
    if picture.shape[0] != 3:
        raise ValueError(f"three channels, not {picture.shape[0]}")
    features = np.maximum(np.tensordot(KERNEL, picture, axes=1), 0)
    vector = features.mean(axis=(1, 2))
    powers = np.exp(vector @ LINEAR)
    return {"map": features, "pooled": vector, "probs": powers / powers.sum()}


def run(inputs):
    rows = [one(picture) for picture in inputs]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
'''


class TestPython(RuntimeContract):
    tolerance = 0

    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path):
        self.cache = tmp_path / "cache"

    def make(self):
        return Python(self.cache)

    def write_model(self, path: Path):
        path.write_text(json.dumps({"entry": "small_network:run"}))
        path.with_name("small_network.py").write_text(CODE)
        roles = {"scores": "probs", "vector": "pooled", "features": "map"}
        return ModelSpec("python", path, "images", (3, 16, 12), roles, "fp32")
