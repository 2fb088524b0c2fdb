"""Models on other servers: what happens when they are slow, busy, gone, or something else than the card says."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from relens.errors import Broken
from relens.runtimes import Dummy, ModelSpec, Remote, write_dummy
from relens.testing.remotes import FakeServer, Trouble


@pytest.fixture
def server():
    running = FakeServer()
    yield running
    running.stop()


@pytest.fixture
def spec(server, tmp_path):
    """A remote model whose server runs a dummy."""
    write_dummy(tmp_path / "dummy", seed=1, vector_dim=8, classes=3, cells=2)
    dummy = ModelSpec("dummy", tmp_path / "dummy", "images", (3, 8, 8), {"vector": "vector"}, "fp32")
    server.serve("small", dummy, Dummy().load(dummy))
    remote = replace(dummy, format="remote", path=tmp_path / "remote.json")
    describe(remote, server)
    return remote


def describe(spec, server, **options):
    given = {"url": server.url, "protocol": "oip", "model": "small", **options}
    spec.path.write_text(json.dumps(given))


INPUTS = np.zeros((1, 3, 8, 8), np.float32)


def refusal(run):
    with pytest.raises(Broken) as caught:
        run()
    assert caught.value.hint
    return caught.value


def test_a_busy_server_and_a_lost_connection_are_tried_again(server, spec):
    session = Remote().load(spec)
    server.trouble.statuses = [503, 503]
    assert session.run(INPUTS)
    server.trouble.drops = 2
    assert session.run(INPUTS)
    assert sum(path.endswith("infer") for path in server.asked) == 6


def test_what_is_tried_too_often_is_broken_and_says_so(server, spec):
    describe(spec, server, retries=1)
    session = Remote().load(spec)
    server.trouble.statuses = [503] * 2
    error = refusal(lambda: session.run(INPUTS))
    assert error.code == "runtimes.remote-failed"
    assert "503" in error.message
    assert server.url in error.message
    assert session.run(INPUTS)


def test_an_error_of_the_model_is_not_tried_again(server, spec):
    session = Remote().load(spec)
    server.asked.clear()
    server.trouble.statuses = [500]
    assert "500" in refusal(lambda: session.run(INPUTS)).message
    assert len(server.asked) == 1


def test_a_silent_server_is_not_waited_for_and_not_asked_again(server, spec):
    describe(spec, server, response_timeout_s=0.2)
    session = Remote().load(spec)
    server.asked.clear()
    server.trouble = Trouble(delay_s=1)
    assert "response_timeout_s" in refusal(lambda: session.run(INPUTS)).hint
    assert len(server.asked) == 1


def test_a_server_that_answers_drop_by_drop_meets_the_timeout_of_the_whole(server, spec):
    describe(spec, server, response_timeout_s=5, timeout_s=0.3)
    session = Remote().load(spec)
    server.trouble = Trouble(drip_s=0.1)
    assert "0.3 s" in refusal(lambda: session.run(INPUTS)).message


def test_a_server_that_is_not_there_is_named(server, spec):
    server.stop()
    error = refusal(lambda: Remote().load(spec))
    assert error.code == "runtimes.remote-failed"
    assert server.url in error.message
    assert "url" in error.hint


def test_a_model_that_the_server_does_not_have_is_named(server, spec):
    describe(spec, server, model="large")
    assert "404" in refusal(lambda: Remote().load(spec)).message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "server:8000"}, "url"),
        ({"protocol": "grpc"}, "protocol"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": "long"}, "'<'"),
        ({"pool": 0}, "pool"),
        ({"retries": -1}, "retries"),
        ({"model": ""}, "model"),
        ({"timeout": 3}, "unknown timeout"),
    ],
)
def test_a_model_file_that_says_nonsense_is_not_loaded(server, spec, options, said):
    describe(spec, server, **options)
    error = refusal(lambda: Remote().load(spec))
    assert error.code == "runtimes.load-failed"
    assert said in error.message


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"outputs": 3}', b'{"outputs": [{"name": "vector"}]}'])
def test_an_answer_that_is_none_is_broken(server, spec, answer):
    session = Remote().load(spec)
    server.trouble = Trouble(body=answer)
    assert refusal(lambda: session.run(INPUTS)).code == "runtimes.bad-answer"


def test_an_answer_without_a_tensor_or_with_another_batch_is_broken(server, spec):
    session = Remote().load(spec)

    def answering(outputs):
        server.trouble = Trouble(body=json.dumps({"outputs": outputs}).encode())

    answering([])
    assert "no vector" in refusal(lambda: session.run(INPUTS)).message
    answering([{"name": "vector", "datatype": "FP32", "shape": [2, 8], "data": [0.0] * 16}])
    assert "(2, 8)" in refusal(lambda: session.run(INPUTS)).message


def test_numbers_of_other_types_come_as_float32(server, spec):
    session = Remote().load(spec)
    body = json.dumps({"outputs": [{"name": "vector", "datatype": "INT64", "shape": [1, 2], "data": [3, 4]}]}).encode()
    server.trouble = Trouble(body=body)
    vector = session.run(INPUTS)["vector"]
    assert vector.dtype == np.float32
    assert vector.tolist() == [[3, 4]]


def test_a_run_that_has_begun_ends_although_the_session_is_closed(server, spec):
    session = Remote().load(spec)
    server.trouble = Trouble(delay_s=0.3)
    found = []
    thread = threading.Thread(target=lambda: found.append(session.run(INPUTS)))
    server.asked.clear()
    thread.start()
    while not server.asked:
        time.sleep(0.01)
    session.close()
    thread.join()
    assert found
