"""Requests that are run together are answered as if each had been alone, and one that fails fails alone."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper

from relens.errors import BadInput, Broken, Busy
from relens.hosted.model import Model
from relens.hosted.running import Request, Runner, Way
from relens.runtimes.graph import Graph
from relens.runtimes.queue import WorkQueue
from relens.tensors import pack, unpack
from relens.testing import networks
from relens.testing.pictures import draw

LOOKED = {"names": 2, "min_score": 0.5, "vector": False}


class Answers:
    """What was answered, by the number of the request."""

    def __init__(self):
        self.given = {}
        self._changed = threading.Condition()

    def send(self, header, body=b""):
        self._take(header["id"], (header, body))

    def fail(self, number, error):
        self._take(number, error)

    def _take(self, number, answer):
        with self._changed:
            assert number not in self.given
            self.given[number] = answer
            self._changed.notify_all()

    def wait_for(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.given) >= count, 60), self.given
        return self.given


class Held:
    """A graph that waits with its first forward until it is let go, and remembers how many rows each had."""

    def __init__(self, graph, fail=lambda _rows: False):
        self._graph = graph
        self._fail = fail
        self.rows = []
        self.go = threading.Event()

    def __getattr__(self, name):
        return getattr(self._graph, name)

    def run(self, inputs, wanted=()):
        assert self.go.wait(60)
        rows = len(next(iter(inputs.values())))
        self.rows.append(rows)
        if self._fail(rows):
            raise Broken("runtimes.run-failed", f"{rows} rows are too many")
        return self._graph.run(inputs, wanted)


@pytest.fixture
def start(tmp_path):
    """Starts a runner over a network: its queue, its answers, the model and the runner."""
    queues = []

    def start(network, way, **held):
        file = tmp_path / "model.onnx"
        file.write_bytes(network)
        model = Model(Graph(file), file)
        model.graph = Held(model.graph, **held)
        answers = Answers()
        queue = WorkQueue(100, on_expired=lambda one: answers.fail(one.id, Busy("expired", "too late")))
        runner = Runner(model, queue, answers, way)
        runner.start()
        queues.append((queue, model))
        return queue, answers, model, runner

    yield start
    for queue, model in queues:
        model.graph.go.set()
        queue.close()


def adder(inputs):
    """`sum` of what is given, one row for each row, or once for all where one has a single row."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"of_{name}", 2]) for name in inputs]
    nodes = [helper.make_node("Sum", list(inputs), ["sum"])]
    if not inputs:
        nodes = [helper.make_node("Constant", [], ["sum"], value_floats=[3.0, 4.0])]
    made = helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["rows", 2] if inputs else [2])
    graph = helper.make_graph(nodes, "adder", infos, [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def put(queue, number, inputs, *, wanted=(), **options):
    heads, body = pack(inputs)
    put_frame(queue, number, {"inputs": heads, "outputs": list(wanted)}, body, **options)


def put_frame(queue, number, header, body, *, wait_s=60.0, level=1):
    now = time.monotonic()
    request = Request(number, {**header, "level": level}, body, now, now + wait_s)
    queue.put(request, deadline=now + wait_s, level=level)


def outputs(answer):
    header, body = answer
    return unpack(header["outputs"], body)


def pixels(rows, seed):
    return {"images": np.random.default_rng(seed).normal(size=(rows, 3, 64, 64)).astype(np.float32)}


@pytest.mark.parametrize("way", [Way(rows=8, delay_s=0.05), Way(rows=8, sizes=(4, 8)), Way(threads=3)])
def test_batched_and_unbatched_give_the_same(start, way):
    queue, answers, model, _ = start(networks.classifier(), way)
    asked = [pixels(1 + number % 3, number) for number in range(20)]
    for number, inputs in enumerate(asked):
        put(queue, number, inputs)
    model.graph.go.set()
    given = answers.wait_for(20)
    plain = model.graph._graph
    for number, inputs in enumerate(asked):
        np.testing.assert_allclose(outputs(given[number])["scores"], plain.run(inputs)["scores"], atol=1e-3)
        assert set(given[number][0]["timings_ms"]) == {"queue", "prepare", "run"}
    assert (max(model.graph.rows) > 3) == (way.rows > 1)
    assert set(model.graph.rows) <= set(way.sizes or range(1, 9))


def test_what_waits_is_run_together_in_one_forward(start):
    queue, answers, model, _ = start(networks.classifier(), Way(rows=4))
    for number in range(9):
        put(queue, number, pixels(1, number))
    model.graph.go.set()
    given = answers.wait_for(9)
    assert sum(model.graph.rows) == 9
    assert len(model.graph.rows) < 9
    assert {given[number][0]["rows"] for number in range(9)} == set(model.graph.rows)


def test_what_waits_is_run_by_its_priority(start):
    queue, answers, model, _ = start(networks.classifier(), Way())
    put(queue, 0, pixels(1, 0), level=3)
    while len(queue):  # until it is run, before any other is there
        time.sleep(0.001)
    for number, level in enumerate([3, 2, 3, 1, 2, 1], start=1):
        put(queue, number, pixels(1, number), level=level)
    model.graph.go.set()
    assert list(answers.wait_for(7)) == [0, 4, 6, 2, 5, 1, 3]


def test_requests_of_other_outputs_and_shapes_are_run_apart(start):
    queue, answers, model, _ = start(networks.mixed(), Way(rows=20, delay_s=0.05))
    kinds = [(4, ["sum"]), (4, ["double"]), (6, ["double"])]
    for number in range(9):
        side, wanted = kinds[number % 3]
        put(queue, number, {"images": np.full((1, side), number, np.float32)}, wanted=wanted)
    model.graph.go.set()
    given = answers.wait_for(9)
    for number in range(9):
        side, [wanted] = kinds[number % 3]
        [array] = outputs(given[number]).values()
        assert (array == number * (side if wanted == "sum" else 2)).all()
        assert given[number][0]["rows"] <= 3


@pytest.mark.parametrize("sizes", [(), (8,)])
def test_what_has_other_lengths_for_its_inputs_is_not_mixed_with_others(start, sizes):
    queue, answers, model, _ = start(adder(["a", "b"]), Way(rows=8, delay_s=0.05, sizes=sizes))
    for number in range(6):
        rows = {"a": np.full((2, 2), number, np.float32), "b": np.full((1 + number % 2, 2), number, np.float32)}
        put(queue, number, dict(sorted(rows.items(), reverse=number % 3 == 0)))
    model.graph.go.set()
    given = answers.wait_for(6)
    for number in range(6):
        np.testing.assert_array_equal(outputs(given[number])["sum"], np.full((2, 2), 2 * number))


@pytest.mark.parametrize("way", [Way(rows=8, sizes=(4, 8), delay_s=0.05), Way()], ids=["together", "alone"])
def test_no_rows_are_answered_with_none(start, way):
    queue, answers, model, _ = start(networks.classifier(), way)
    for number in range(4):
        put(queue, number, pixels(number % 2, number))
    model.graph.go.set()
    given = answers.wait_for(4)
    assert [outputs(given[number])["scores"].shape for number in range(4)] == [(0, 5), (1, 5)] * 2
    assert set(model.graph.rows) == ({0, 4} if way.sizes else {0, 1})


def test_a_model_that_takes_nothing_is_answered(start):
    queue, answers, model, _ = start(adder([]), Way(rows=8))
    model.graph.run = model.graph._graph.run
    put(queue, 0, {})
    assert outputs(answers.wait_for(1)[0])["sum"].tolist() == [3, 4]


def test_a_model_with_an_output_without_a_batch_is_never_batched(start):
    queue, answers, model, _ = start(networks.scaler(3), Way(rows=8, delay_s=0.02))
    for number in range(4):
        put(queue, number, {"images": np.full((1, 4), number, np.float32)})
    model.graph.go.set()
    answers.wait_for(4)
    assert model.graph.rows == [1] * 4


def test_a_batch_that_fails_is_run_one_by_one(start):
    queue, answers, model, _ = start(networks.classifier(), Way(rows=4), fail=lambda rows: rows > 1)
    for number in range(8):
        put(queue, number, pixels(1, number))
    put(queue, 8, pixels(2, 8))
    model.graph.go.set()
    given = answers.wait_for(9)
    assert isinstance(given[8], Broken)
    for number in range(8):
        assert outputs(given[number])["scores"].shape == (1, 5)


def test_one_that_cannot_be_prepared_fails_alone(start):
    queue, answers, model, _ = start(networks.classifier(), Way(rows=4, threads=2))
    put(queue, 0, {"images": np.zeros((1, 3, 5, 5), np.float32)})
    for number in range(1, 7):
        put(queue, number, pixels(1, number))
    put(queue, 7, {"images": np.array([b"no picture"], object)})
    model.graph.go.set()
    given = answers.wait_for(8)
    assert [isinstance(given[number], BadInput) for number in range(8)] == [True, *[False] * 6, True]


def test_pictures_and_what_is_in_them_are_batched_as_well(start):
    queue, answers, model, _ = start(networks.classifier(), Way(rows=8, threads=2, delay_s=0.05))
    for number in range(6):
        put_frame(queue, number, {"recognize": LOOKED}, draw(number))
    model.graph.go.set()
    given = answers.wait_for(6)
    for number in range(6):
        asked = model.looked_at(draw(number), LOOKED)
        alone, _ = asked.finish(model.graph._graph.run(asked.inputs, asked.wanted))
        assert names(alone) == names(given[number][0])


def names(said):
    [whole] = said["recognized"]["objects"]
    return [one["name"] for one in whole["labels"]]


@pytest.mark.parametrize("way", [Way(rows=2), Way()], ids=["together", "alone"])
def test_what_nobody_waits_for_any_more_is_not_run(start, way):
    queue, answers, model, runner = start(networks.classifier(), way)
    for number in range(12):
        put(queue, number, pixels(1, number))
    runner.drop(11)
    put(queue, 12, pixels(1, 12))
    model.graph.go.set()
    given = answers.wait_for(12)
    assert set(given) == {*range(11), 12}


@pytest.mark.parametrize("way", [Way(rows=2), Way()], ids=["together", "alone"])
def test_what_waited_too_long_is_not_run(start, way):
    queue, answers, model, _ = start(networks.classifier(), way)
    for number in range(6):
        put(queue, number, pixels(1, number))
    put(queue, 6, pixels(1, 6), wait_s=0.0)
    time.sleep(0.01)
    model.graph.go.set()
    given = answers.wait_for(7)
    assert isinstance(given[6], Busy)
    assert sum(model.graph.rows) == 6
