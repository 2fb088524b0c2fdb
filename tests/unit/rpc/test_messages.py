"""Messages: what is checked in is what the .proto files say, and they say what the clients say."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import relens.rpc
from relens.rpc.messages import INFERENCE, MODEL, POOL, PREDICTION, descriptors, methods

PROTOS = Path(relens.rpc.__file__).parent / "protos"
OVMS = "ovmsclient.tfs_compat.protos.tensorflow"
THEIRS = {"tensorflow": "ovmsclient", "inference": "inference"}
"""The packages' names at the clients, which register them in protobuf's own pool."""
KSERVES = {"inference.ModelMetadataResponse.properties", "inference.ModelMetadataResponse.PropertiesEntry"}
"""What Triton's client does not have."""


@pytest.fixture(scope="module")
def theirs():
    importlib.import_module("tritonclient.grpc")
    for module in ("prediction_service_pb2", "model_service_pb2"):
        importlib.import_module(f"{OVMS}_serving.apis.{module}")
    return descriptor_pool.Default()


def test_what_is_checked_in_is_compiled_from_the_protos(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    out = tmp_path / "made.binpb"
    include = Path(protoc.__file__).parent / "_proto"
    files = sorted(map(str, PROTOS.glob("*.proto")))
    words = [f"-I{PROTOS}", f"-I{include}", "--include_imports", f"--descriptor_set_out={out}", *files]
    assert protoc.main(["protoc", *words]) == 0
    made, kept = (FileDescriptorSet.FromString(data) for data in (out.read_bytes(), descriptors()))
    ours = [{one.name: one for one in some.file if not one.name.startswith("google/")} for some in (made, kept)]
    assert ours[0] == ours[1], "run `make protos`"


def all_messages():
    for file in FileDescriptorSet.FromString(descriptors()).file:
        if not file.name.startswith("google/"):
            yield from walk(POOL.FindFileByName(file.name).message_types_by_name.values())


def walk(messages):
    for one in messages:
        yield one.full_name
        yield from walk(one.nested_types)


def name_at_theirs(name):
    package, _, rest = name.partition(".")
    return f"{THEIRS[package]}.{rest}"


@pytest.mark.parametrize("name", sorted(set(all_messages()) - KSERVES))
def test_every_field_is_as_the_clients_have_it(name, theirs):
    ours, other = POOL.FindMessageTypeByName(name), theirs.FindMessageTypeByName(name_at_theirs(name))
    for field in ours.fields:
        if field.full_name in KSERVES:
            continue
        same = other.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (same.number, same.type, same.is_repeated), field.name
        if field.message_type is not None and not field.message_type.full_name.startswith("google."):
            assert name_at_theirs(field.message_type.full_name) == same.message_type.full_name


def test_every_enum_has_the_numbers_of_the_clients(theirs):
    for name in ("tensorflow.DataType", "tensorflow.error.Code", "inference.DataType"):
        ours, other = POOL.FindEnumTypeByName(name), theirs.FindEnumTypeByName(name_at_theirs(name))
        for value in ours.values:
            assert other.values_by_name[value.name].number == value.number


@pytest.mark.parametrize("service", [INFERENCE, MODEL, PREDICTION])
def test_every_method_takes_and_gives_what_it_does_at_the_clients(service, theirs):
    other = theirs.FindServiceByName(name_at_theirs(service))
    for name, (given, made) in methods(service).items():
        same = other.methods_by_name[name]
        assert name_at_theirs(given.DESCRIPTOR.full_name) == same.input_type.full_name
        assert name_at_theirs(made.DESCRIPTOR.full_name) == same.output_type.full_name


def test_nothing_is_put_into_the_pool_that_clients_share():
    code = "import relens.rpc; from google.protobuf.descriptor_pool import Default as d; "
    code += "d().FindMessageTypeByName('inference.ModelInferRequest')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "KeyError" in done.stderr
