"""Reports of fidelity, on sessions that say what a test wants."""

from __future__ import annotations

import numpy as np
import pytest

from relens.models import Card
from relens.quantization import Bounds
from relens.quantization.fidelity import compare
from relens.values import Preprocessing


class Says:
    """A session that says the next of its outputs with every run; the first run, which warms it up, counts for none."""

    backend, device = "says", "cpu"

    def __init__(self, role, *rows):
        self._said = iter([rows[0], *rows])
        self._role = role

    def run(self, _inputs):
        return {self._role: np.array([next(self._said)], np.float32), "features": np.zeros((1, 1, 1, 1), np.float32)}

    def close(self):
        """Nothing to close."""


def card(task, role, **decode):
    prep = Preprocessing(64, 64, "bilinear", "rgb", "nchw", (0.0,) * 3, (1.0,) * 3, fit="stretch")
    return Card("one", 1, task, "onnx", "model.onnx", "images", prep, {role: role}, "MIT", "", decode=decode)


def report(one_card, role, ones, others):
    return compare(one_card, Says(role, *ones), Says(role, *others), [np.zeros((1, 1), np.float32)] * len(ones))


def test_vectors_by_cosine_and_by_their_nearest_neighbour():
    ones = [[np.cos(angle), np.sin(angle)] for angle in np.arange(12) ** 2 / 100]
    told = report(card("embed", "vector"), "vector", ones, [[3 * a, 3 * b] for a, b in ones])
    assert told["cosine"] == {"of": "vector", "mean": 1.0, "p1": 1.0, "worst": 1.0, "nearest": 1.0}
    told = report(card("embed", "vector"), "vector", ones, [*ones[:-1], [0, 0]])
    assert told["cosine"]["worst"] == 0  # nothing is like zeros
    assert told["cosine"]["mean"] == pytest.approx(11 / 12, abs=1e-5)
    assert set(told) == {"cosine", "cpu_ms", "speedup"}
    assert "nearest" not in report(card("embed", "vector"), "vector", ones[:3], ones[:3])["cosine"]


def test_names_by_the_best_one():
    ones, others = [[2, 1, 0], [0, 1, 2], [0, 5, 1], [1, 0, 0]], [[9, 1, 0], [0, 2, 1], [0, 1, 0], [2, 1, 0]]
    told = report(card("classify", "scores", kind="softmax"), "scores", ones, others)
    assert told["agreement"] == {"of": "the best name", "share": 0.75}
    assert Bounds(min_agreement=0.75).missed(told) == []
    assert Bounds().missed(told) == ["the agreement is 0.7500 and must be 0.95"]


def test_numbers_by_their_difference():
    told = report(card("regress", "value", scale=10, unit="years"), "value", [[1], [2], [3]], [[1.1], [2], [3.1]])
    assert told["difference"] == {
        "of": "the number (years)",
        "mean": pytest.approx(0.66667, abs=1e-5),
        "worst": pytest.approx(1, abs=1e-5),
        "spread": pytest.approx(8.16497, abs=1e-5),
        "correlation": pytest.approx(0.99834, abs=1e-4),
    }
    same = report(card("regress", "value"), "value", [[1], [1]], [[1], [1]])
    assert same["difference"]["correlation"] is None
    assert "unknown" in Bounds(min_cosine=0).missed(same)[0]  # what the pictures do not tell reaches nothing


def yolo(*findings):
    """(4 + 2 classes, findings) as YOLOv8 writes them."""
    return np.array([[*box, *scores] for box, scores in findings], np.float32).reshape(-1, 6).T


HERE, NEAR, THERE = (16, 16, 16, 16), (17, 17, 16, 16), (48, 48, 16, 16)


@pytest.mark.parametrize(
    ("other", "share"),
    [
        pytest.param([(HERE, (0.9, 0)), (THERE, (0, 0.8))], 1.0, id="same"),
        pytest.param([(NEAR, (0.5, 0)), (THERE, (0, 0.3))], 1.0, id="near enough and other scores"),
        pytest.param([(HERE, (0, 0.9)), (THERE, (0, 0.8))], 0.5, id="another class"),
        pytest.param([(HERE, (0.9, 0)), (THERE, (0, 0.2))], 2 / 3, id="one too weak"),
        pytest.param([(HERE, (0.1, 0)), (THERE, (0, 0.2))], 0.0, id="nothing"),
    ],
)
def test_findings_by_class_and_place(other, share):
    found = yolo((HERE, (0.9, 0)), (THERE, (0, 0.8)))
    told = report(card("detect", "detections", kind="yolo"), "detections", [found], [yolo(*other)])
    assert told["agreement"]["share"] == pytest.approx(share, abs=1e-4)
    assert told["agreement"]["found"]["fp32"] == 2


def test_detectors_that_find_nothing_are_not_called_alike():
    nothing = yolo((HERE, (0.1, 0)))
    told = report(card("detect", "detections", kind="yolo"), "detections", [nothing], [nothing])
    assert told["agreement"]["share"] is None
    assert Bounds().missed(told) == ["the agreement is unknown and must be 0.95"]


def test_outputs_that_say_nothing_by_themselves_by_their_cosine():
    told = report(card("detect", "map", kind="db"), "map", [[[1, 0], [0, 1]]], [[[1, 0], [0, 0]]])
    assert told["cosine"] == {"of": "map", **dict.fromkeys(("mean", "p1", "worst"), pytest.approx(0.70711))}
