"""Both services ask the version that was chosen for a call, the same for the same caller."""

from __future__ import annotations

import random

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from relens.rpc.messages import PREDICTION, message
from relens.rpc.tensor_protos import write_tensor
from relens.serving.splits import Split
from relens.serving.traffic import Traffic

ROW = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture
def address(make, models):
    return make(Traffic(models, {"scale": Split({"1": 3, "2": 1})}, wait_s=30.0, source=random.Random(3)))


@pytest.fixture
def predict(address, call):
    """Which version answers TensorFlow Serving's Predict. Numbers are multiplied by it."""

    def predict(caller=None):
        request = message("tensorflow.serving.PredictRequest")()
        request.model_spec.name = "scale"
        write_tensor(ROW, request.inputs["x"])
        answer = call(PREDICTION, "Predict", request, metadata=_metadata(caller))
        version = answer.model_spec.version.value
        assert list(answer.outputs["sum"].float_val) == [10 * version]
        return version

    return predict


@pytest.fixture
def infer(address):
    """Which version answers the Open Inference Protocol's ModelInfer."""
    with triton.InferenceServerClient(address) as client:

        def infer(caller=None):
            images = triton.InferInput("x", list(ROW.shape), "FP32")
            images.set_data_from_numpy(ROW)
            result = client.infer("scale", [images], headers=dict(_metadata(caller) or ()))
            version = int(result.get_response().model_version)
            assert result.as_numpy("sum").tolist() == [10 * version]
            return version

        yield infer


def _metadata(caller):
    return None if caller is None else (("x-relens-sticky", caller),)


def test_calls_are_split(predict, infer):
    assert {predict() for _ in range(40)} == {infer() for _ in range(40)} == {1, 2}


def test_a_caller_who_says_who_he_is_is_answered_by_the_same_version(predict, infer):
    callers = [f"caller {number}" for number in range(20)]
    given = [{predict(caller), infer(caller), predict(caller)} for caller in callers]
    assert {len(versions) for versions in given} == {1}
    assert set.union(*given) == {1, 2}


def test_metadata_without_a_caller_are_of_a_version_that_answers(call):
    request = message("tensorflow.serving.GetModelMetadataRequest")(metadata_field=["signature_def"])
    request.model_spec.name = "scale"
    assert call(PREDICTION, "GetModelMetadata", request).model_spec.version.value in {1, 2}


def test_who_names_a_version_that_there_is_not_is_told_so(address):
    with triton.InferenceServerClient(address) as client:
        images = triton.InferInput("x", list(ROW.shape), "FP32")
        images.set_data_from_numpy(ROW)
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer("scale", [images], model_version="9", headers={"x-relens-sticky": "me"})
        assert str(grpc.StatusCode.NOT_FOUND) in str(caught.value)
