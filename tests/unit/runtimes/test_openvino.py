"""OpenVINO runs what onnxruntime runs, and says the same."""

from __future__ import annotations

import numpy as np
import pytest

from relens.errors import Broken
from relens.runtimes import ModelSpec, OnnxRuntime
from relens.runtimes.openvino_runtime import OpenVino
from relens.testing import networks

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")


def spec_of(path, network, outputs=None, *, shape=(3, 64, 64)):
    path.write_bytes(network)
    return ModelSpec("onnx", path, "images", shape, outputs or {"scores": "scores"}, "fp32")


def test_it_gives_what_onnxruntime_gives(tmp_path):
    spec = spec_of(tmp_path / "m.onnx", networks.classifier())
    inputs = np.random.default_rng(0).normal(size=(5, 3, 64, 64)).astype(np.float32)
    made, wanted = (backend.load(spec).run(inputs)["scores"] for backend in (OpenVino(), OnnxRuntime()))
    np.testing.assert_allclose(made, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "shape", "outputs"),
    [
        (networks.classifier(), (3, 32, 32), {"scores": "scores"}),
        (networks.classifier(), (3, 64, 64), {"scores": "nothing"}),
        (networks.scaler(2, rows=1), (4,), {"value": "scaled"}),
        (b"no model", (3, 64, 64), {"scores": "scores"}),
    ],
    ids=["shape", "output", "fixed-batch", "no-model"],
)
def test_what_it_cannot_run_is_refused_when_it_is_loaded(tmp_path, network, shape, outputs):
    spec = spec_of(tmp_path / "m.onnx", network, outputs, shape=shape)
    with pytest.raises(Broken) as caught:
        OpenVino().load(spec)
    assert caught.value.code in {"runtimes.load-failed", "runtimes.wrong-outputs"}


def test_what_was_compiled_is_kept_for_the_next_start(tmp_path):
    spec = spec_of(tmp_path / "m.onnx", networks.classifier())
    cache = tmp_path / "cache"
    inputs = np.zeros((1, 3, 64, 64), np.float32)
    first = OpenVino(cache).load(spec).run(inputs)["scores"]
    kept = sorted(path.name for path in cache.iterdir())
    assert kept
    np.testing.assert_array_equal(OpenVino(cache).load(spec).run(inputs)["scores"], first)
    assert sorted(path.name for path in cache.iterdir()) == kept
