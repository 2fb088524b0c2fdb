"""Which back-end runs a served model: what is wanted, or what is measured to be as right and faster."""

from __future__ import annotations

import numpy as np
import pytest

from relens.errors import Broken
from relens.hosted import choosing
from relens.hosted.choosing import choose_backend
from relens.runtimes.graph import Graph
from relens.testing import networks

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")


@pytest.fixture
def graph_of(tmp_path):
    def graph_of(network):
        file = tmp_path / "model.onnx"
        file.write_bytes(network)
        return Graph(file), file

    return graph_of


def choose(graph, file, wanted):
    choose_backend(graph, file, wanted, cores=1, streams=2, cache=None)
    return graph.backend


def test_openvino_gives_what_onnxruntime_gave(graph_of):
    graph, file = graph_of(networks.classifier())
    inputs = {"images": np.random.default_rng(1).normal(size=(3, 3, 64, 64)).astype(np.float32)}
    before = graph.run(inputs, ["scores"])["scores"]
    assert choose(graph, file, "openvino") == "openvino"
    after = graph.run(inputs, ["scores"])["scores"]
    np.testing.assert_allclose(after, before, atol=1e-4)
    again = graph.run({"images": inputs["images"] + 1}, ["scores"])["scores"]
    assert not np.allclose(again, after)  # and what was given stays the caller's


@pytest.mark.parametrize(("share", "backend"), [(0.5, "openvino"), (0.95, "onnxruntime")])
def test_the_faster_one_is_taken_if_it_is_clearly_faster(graph_of, monkeypatch, share, backend):
    monkeypatch.setattr(choosing, "_share", lambda *_: share)
    assert choose(*graph_of(networks.classifier()), "measured") == backend


def test_a_faster_one_that_says_something_else_is_not_taken(graph_of, monkeypatch):
    monkeypatch.setattr(choosing, "_share", lambda *_: 0.1)
    monkeypatch.setattr(choosing, "_difference", lambda *_: 0.01)
    assert choose(*graph_of(networks.classifier()), "measured") == "onnxruntime"


def test_what_a_run_takes_is_measured(graph_of):
    graph, file = graph_of(networks.classifier())
    choose_backend(graph, file, "measured", cores=1, streams=1, cache=None)
    assert graph.backend in {"openvino", "onnxruntime"}
    assert graph.run({"images": np.zeros((1, 3, 64, 64), np.float32)})["scores"].shape == (1, 5)


def test_without_the_package_onnxruntime_runs_what_is_measured_and_refuses_what_is_wanted(graph_of, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    graph, file = graph_of(networks.classifier())
    assert choose(graph, file, "measured") == "onnxruntime"
    with pytest.raises(Broken, match="not installed") as caught:
        choose(graph, file, "openvino")
    assert "relens[openvino]" in caught.value.hint


def test_what_openvino_cannot_run_is_run_by_onnxruntime_or_refused(graph_of, monkeypatch):
    def fail(*_args, **_more):
        raise RuntimeError("operation not known")

    monkeypatch.setattr(choosing, "Compiled", fail)
    graph, file = graph_of(networks.classifier())
    assert choose(graph, file, "measured") == "onnxruntime"
    with pytest.raises(Broken, match="operation not known"):
        choose(graph, file, "openvino")
