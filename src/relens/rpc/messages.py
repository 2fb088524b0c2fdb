"""The messages of both services, as `protos/` describes them.

They are made from descriptors at run time, in a pool of their own: clients in the same process (tritonclient,
ovmsclient, TensorFlow) register the same names in protobuf's default pool, and generated code would tie us to one
version of protobuf. `make protos` compiles the descriptors anew. Messages are untyped; doors turn them into values.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

DESCRIPTORS = "descriptors.binpb"

PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
INFERENCE = "inference.GRPCInferenceService"


def descriptors() -> bytes:
    """What is compiled: a FileDescriptorSet."""
    return (resources.files("relens.rpc") / "protos" / DESCRIPTORS).read_bytes()


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptors()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _pool()


def message(name: str) -> Any:
    """The class of a message, by its full name."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))


def methods(service: str) -> Mapping[str, tuple[Any, Any]]:
    """The classes of request and answer of each method of a service."""
    found = POOL.FindServiceByName(service).methods
    return {one.name: (GetMessageClass(one.input_type), GetMessageClass(one.output_type)) for one in found}


DataType = POOL.FindEnumTypeByName("tensorflow.DataType")
TensorProto = message("tensorflow.TensorProto")
SignatureDefMap = message("tensorflow.serving.SignatureDefMap")
PredictResponse = message("tensorflow.serving.PredictResponse")
ClassificationResponse = message("tensorflow.serving.ClassificationResponse")
RegressionResponse = message("tensorflow.serving.RegressionResponse")
GetModelMetadataResponse = message("tensorflow.serving.GetModelMetadataResponse")
GetModelStatusResponse = message("tensorflow.serving.GetModelStatusResponse")
ReloadConfigResponse = message("tensorflow.serving.ReloadConfigResponse")

InferTensorContents = message("inference.InferTensorContents")
ModelInferResponse = message("inference.ModelInferResponse")
ModelStreamInferResponse = message("inference.ModelStreamInferResponse")
ServerLiveResponse = message("inference.ServerLiveResponse")
ServerReadyResponse = message("inference.ServerReadyResponse")
ServerMetadataResponse = message("inference.ServerMetadataResponse")
ModelReadyResponse = message("inference.ModelReadyResponse")
ModelMetadataResponse = message("inference.ModelMetadataResponse")
ModelConfigResponse = message("inference.ModelConfigResponse")
ModelStatisticsResponse = message("inference.ModelStatisticsResponse")
RepositoryIndexResponse = message("inference.RepositoryIndexResponse")
