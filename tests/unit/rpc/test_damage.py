"""Whatever bytes a client sends, the server answers, and does not call it its own fault."""

import asyncio

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens.errors import Broken
from relens.rpc import border
from relens.rpc.messages import INFERENCE, MODEL, PREDICTION, methods
from relens.rpc.oip import oip_services
from relens.rpc.tensor_protos import write_tensor
from relens.rpc.tfserving import tfserving_services

SPEC = {"name": "scale", "version_label": "stable"}
ROW = {"features": {"feature": {"x": {"float_list": {"value": [1, 2, 3, 4]}}}}}


def predict():
    request = methods(PREDICTION)["Predict"][0](model_spec=SPEC, output_filter=["y"])
    write_tensor(np.ones((2, 4), np.float32), request.inputs["x"])
    return request


def examples(method):
    return methods(PREDICTION)[method][0](model_spec=SPEC, input={"example_list": {"examples": [ROW, ROW]}})


def reload():
    models = [{"name": "scale", "model_version_policy": {"specific": {"versions": [1]}}, "version_labels": {"a": 1}}]
    return methods(MODEL)["HandleReloadConfigRequest"][0](config={"model_config_list": {"config": models}})


def infer(*, raw):
    request = methods(INFERENCE)["ModelInfer"][0](model_name="scale", model_version="2", id="1")
    request.parameters["timeout"].int64_param = 5
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.outputs.add(name="y").parameters["classification"].int64_param = 2
    if raw:
        request.raw_input_contents.append(bytes(16))
    else:
        tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    return request


REQUESTS = {
    f"/{PREDICTION}/Predict": predict(),
    f"/{PREDICTION}/Classify": examples("Classify"),
    f"/{PREDICTION}/Regress": examples("Regress"),
    f"/{MODEL}/HandleReloadConfigRequest": reload(),
    f"/{INFERENCE}/ModelInfer": infer(raw=True),
    f"/{INFERENCE}/ModelInfer#typed": infer(raw=False),
}


class Handled:
    """What a server of gRPC asks a handler for, and the other way round."""

    def __init__(self, path):
        self.method = path.partition("#")[0]

    def invocation_metadata(self):
        return ()

    def time_remaining(self):
        return None

    def set_trailing_metadata(self, metadata):
        pass

    async def abort(self, code, details, _metadata):
        raise AssertionError(code, details)


@pytest.mark.parametrize("path", REQUESTS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_request_is_never_the_servers_fault(path, models, monkeypatch, data):
    whole = REQUESTS[path].SerializeToString()
    damage = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    sent = bytearray(whole)
    for at, byte in data.draw(st.lists(damage, max_size=4)):
        sent[at] = byte
    failed = []
    monkeypatch.setattr(border.Call, "say", lambda _call, _code, error=None: failed.append(error))
    handlers = [*tfserving_services(models, max_bytes=10_000), *oip_services(models)]
    call = Handled(path)
    [method] = [found for one in handlers if (found := one.service(call)) is not None]

    async def answer():
        try:
            await method.unary_unary(bytes(sent[: data.draw(st.integers(0, len(sent)))]), call)
        except AssertionError:
            return  # the status; the error itself is looked at below

    asyncio.run(answer())
    assert len(failed) == 1
    error = failed[0]
    assert not isinstance(error, Broken) or error.code == "runtimes.run-failed", error
