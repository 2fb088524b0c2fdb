"""What surrounds every call: status, details, ids, deadlines, the log, limits, and the end of a server."""

import threading
import time

import grpc
import numpy as np
import pytest

from relens.errors import BadInput, Broken, Busy, Conflict, Denied, Missing
from relens.rpc.messages import INFERENCE, message, methods

ModelInferRequest = message("inference.ModelInferRequest")
PATH = f"/{INFERENCE}/ModelInfer"


def request(model="mirror", size=4):
    made = ModelInferRequest(model_name=model, raw_input_contents=[bytes(size)])
    made.inputs.add(name="x", datatype="FP32", shape=[1, size // 4])
    return made


def failure(call, *, model="mirror", size=4, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(INFERENCE, "ModelInfer", request(model, size), **options)
    return caught.value


def wait_for_line(logged):
    """The line of the last call: it may be written a little after its answer has come."""
    deadline = time.monotonic() + 20
    while True:
        lines = [one for one in logged if one["event"] == "request"]
        if lines or time.monotonic() > deadline:
            return lines[-1]
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("a.b", "it is bad", hint="do better"), "INVALID_ARGUMENT"),
        (Denied("a.b", "it is bad"), "PERMISSION_DENIED"),
        (Missing("a.b", "it is bad"), "NOT_FOUND"),
        (Conflict("a.b", "it is bad"), "FAILED_PRECONDITION"),
        (Busy("a.b", "it is bad"), "UNAVAILABLE"),
        (Busy("runtimes.queue-full", "it is bad"), "RESOURCE_EXHAUSTED"),
        (Broken("a.b", "it is bad"), "INTERNAL"),
    ],
    ids=lambda one: one if isinstance(one, str) else f"{type(one).__name__} {one.code}",
)
def test_an_error_is_the_status_of_its_family_with_message_and_hint(call, models, logged, error, code):
    models.error = error
    failed = failure(call)
    assert failed.code().name == code
    assert failed.details() == str(error)
    line = wait_for_line(logged)
    assert (line["status"], line["code"]) == (code, error.code)
    assert ("error" in line) == isinstance(error, Broken)


def test_who_is_told_to_wait_is_told_how_long(call, models):
    models.error = Busy("a.b", "it is busy", retry_after_s=0.25)
    trailing = dict(failure(call).trailing_metadata())
    assert trailing["retry-after-ms"] == trailing["grpc-retry-pushback-ms"] == "250"


def test_what_nobody_foresaw_is_internal_and_in_the_log_under_its_id(call, models, logged):
    models.error = RuntimeError("a secret of ours")
    failed = failure(call, metadata=[("x-request-id", "mine")])
    assert failed.code() == grpc.StatusCode.INTERNAL
    assert "request mine failed" in failed.details()
    assert "secret" not in failed.details()
    [told] = [one for one in logged if one["event"] == "request failed"]
    assert told["request"] == "mine"
    assert "a secret of ours" in repr(told["exc_info"])


def test_a_very_long_message_is_cut_so_that_clients_take_it(call, models):
    models.error = BadInput("a.b", "ü" * 100_000)
    assert failure(call).details() == "ü" * 750


@pytest.mark.parametrize("given", ["mine-1", "x" * 65, "not/fit", None])
def test_every_answer_has_the_id_of_its_call(call, logged, given):
    metadata = [("x-request-id", given)] if given else None
    answer = call.start(INFERENCE, "ModelInfer", request(), metadata=metadata)
    answer.result()
    told = dict(answer.trailing_metadata())["x-request-id"]
    assert (told == given) == (given == "mine-1")
    line = wait_for_line(logged)
    assert line["request"] == told
    assert (line["path"], line["status"], line["model"]) == (PATH, "OK", "mirror/4")


def test_bytes_that_are_no_message_are_the_clients_fault(channel, logged):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(PATH)(b"\xff\xff\xff", timeout=20)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert wait_for_line(logged)["code"] == "rpc.bad-message"


def test_a_stream_with_what_is_no_message_ends_with_the_clients_fault(channel):
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(f"/{INFERENCE}/ModelStreamInfer")(iter([b"\xff\xff\xff"]), timeout=20))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_request_that_is_too_large_is_refused_packed_or_not(make, models, compression):
    with grpc.insecure_channel(make(models, max_bytes=100_000)) as channel:
        ask = channel.unary_unary(PATH)
        with pytest.raises(grpc.RpcError) as caught:
            ask(request(size=200_000).SerializeToString(), timeout=20, compression=compression)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask(request(size=90_000).SerializeToString(), timeout=20, compression=compression)


def test_an_answer_may_be_larger_than_a_request(make, models):
    class Large(type(models)):
        async def infer(self, named, inputs, **options):
            found = await super().infer(named, inputs, **options)
            found.outputs["y"] = np.zeros(10_000_000, np.float32)
            return found

    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(make(Large()), options=options) as channel:
        kind = methods(INFERENCE)["ModelInfer"][1]
        answer = kind.FromString(channel.unary_unary(PATH)(request().SerializeToString(), timeout=30))
    assert len(answer.raw_output_contents[0]) == 40_000_000


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_a_call_that_is_given_up_is_not_awaited_any_more(call, models, logged, end):
    models.gate = threading.Event()
    try:
        asked = call.start(INFERENCE, "ModelInfer", request(), timeout=30 if end == "cancel" else 0.5)
        assert models.asking.wait(20)
        if end == "cancel":
            asked.cancel()
        assert models.cancelled.wait(20)
        assert wait_for_line(logged)["status"] == "CANCELLED"
    finally:
        models.gate.set()


def test_what_has_begun_is_answered_before_a_server_ends(serve, models):
    models.gate = threading.Event()
    with serve(models) as (address, close), grpc.insecure_channel(address) as channel:
        answer = channel.unary_unary(PATH).future(request().SerializeToString(), timeout=30)
        assert models.asking.wait(20)
        closing = close()
        deadline = time.monotonic() + 20
        with pytest.raises(grpc.RpcError), grpc.insecure_channel(address) as late:
            while time.monotonic() < deadline:
                late.unary_unary(f"/{INFERENCE}/ServerLive")(b"", timeout=20)
        assert not closing.done()
        models.gate.set()
        assert answer.result(20)
        closing.result(20)


def test_a_port_that_is_taken_is_a_conflict(address, models, serve):
    with pytest.raises(Conflict, match="--grpc-port"), serve(models, port=int(address.rpartition(":")[2])):
        pass
