"""Requests that were recorded beside a model are run before anybody asks, and a wrong one is named."""

from __future__ import annotations

import json

import pytest

from relens.errors import BadInput
from relens.hosted import warming
from relens.hosted.model import Model
from relens.hosted.warming import run_recorded
from relens.runtimes.graph import Graph
from relens.testing import networks


@pytest.fixture
def warm(tmp_path):
    """Runs these lines through a model of any length: the shapes that it was run with, and how many were told."""

    def warm(*lines):
        file = tmp_path / "model.onnx"
        file.write_bytes(networks.mixed())
        (tmp_path / "warmup.jsonl").write_text("\n".join(lines))
        graph, shapes = Graph(file), []
        forward = graph._forward
        graph.run_by("noted", lambda names, given: shapes.append(given["images"].shape) or forward(names, given))
        return shapes, run_recorded(Model(graph, file), tmp_path)

    return warm


def request(*shape):
    size = shape[0] * shape[1]
    return json.dumps({"inputs": [{"name": "images", "datatype": "FP32", "shape": shape, "data": list(range(size))}]})


def test_each_is_run_in_its_shape(warm):
    shapes, count = warm(request(1, 4), "", request(3, 17))
    assert shapes == [(1, 4), (3, 17)]
    assert count == 2


def test_no_more_than_a_bound_are_run(warm, monkeypatch):
    monkeypatch.setattr(warming, "MOST", 3)
    assert warm(*[request(1, 4)] * 10)[1] == 3


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "{}",
        '{"inputs": [{"name": "images"}]}',
        '{"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3], "data": [1, 2]}]}',
        '{"inputs": [{"name": "images", "datatype": "FP99", "shape": [1, 1], "data": [1]}]}',
        '{"inputs": [{"name": "other", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}',
        '{"inputs": [{"name": "images", "datatype": "INT64", "shape": [1, 1], "data": [1]}]}',
    ],
)
def test_a_line_that_cannot_be_run_is_named(warm, line):
    with pytest.raises(BadInput) as caught:
        warm(request(1, 4), line)
    assert caught.value.message.startswith("warmup.jsonl, line 2:")


def test_without_a_record_nothing_is_run(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(networks.mixed())
    assert run_recorded(Model(Graph(file), file), tmp_path) == 0
