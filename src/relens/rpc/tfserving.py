"""TensorFlow Serving's gRPC services over models that are served as they are: PredictionService and ModelService.

Sources: tensorflow_serving/apis/*.proto, and for what they do not say model_servers/ and servables/tensorflow/ there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from google.protobuf.json_format import ParseDict

from relens.errors import BadInput
from relens.rpc.border import Call, service
from relens.rpc.examples import read_examples
from relens.rpc.fields import run
from relens.rpc.messages import (
    MODEL,
    PREDICTION,
    ClassificationResponse,
    GetModelMetadataResponse,
    GetModelStatusResponse,
    PredictResponse,
    RegressionResponse,
    ReloadConfigResponse,
    SignatureDefMap,
)
from relens.rpc.tensor_protos import elements_to_read, elements_to_write, read_tensor, write_tensor
from relens.serving.classes import named_scores, one_value_each, scores_of, value_of
from relens.serving.oip import Naming, shown
from relens.serving.served import ModelServer, Named, Policy, Served, Wanted
from relens.serving.tfserving import (
    CLASSIFY,
    DEFAULT_SIGNATURE,
    REGRESS,
    check_pictures,
    check_signature,
    signatures,
    statuses,
)
from relens.tensors import Array, Tensors

BAD_REQUEST = "tfserving.bad-request"
SIGNATURES = "signature_def"
"""The only field of metadata that there is."""
ANY_URL = "type.googleapis.com/"


def tfserving_services(server: ModelServer, *, max_bytes: int) -> list[Any]:
    """Both services, for a server of gRPC.

    max_bytes  of one input, whose values may be repeated by the server
    """
    prediction, model = _Prediction(server, max_bytes), _Model(server)
    return [
        service(
            PREDICTION,
            {
                "Predict": prediction.predict,
                "Classify": prediction.classify,
                "Regress": prediction.regress,
                "GetModelMetadata": prediction.metadata,
            },
        ),
        service(MODEL, {"GetModelStatus": model.status, "HandleReloadConfigRequest": model.reload}),
    ]


class _Prediction:
    def __init__(self, server: ModelServer, max_bytes: int) -> None:
        self._server = server
        self._max_bytes = max_bytes

    async def predict(self, request: Any, call: Call) -> Any:
        named = self._server.choose(call.of_caller(_named_in(request)))
        signature = request.model_spec.signature_name
        served = self._server.describe(named)
        check_signature(signature, served)
        elements = sum(map(elements_to_read, request.inputs.values()))
        inputs = await run(lambda: self._inputs(request), elements=elements)
        check_pictures(signature, inputs, served)
        wanted = tuple(request.output_filter)
        if len(set(wanted)) < len(wanted):
            raise BadInput(BAD_REQUEST, "an output is named twice in `output_filter`")
        found = await self._server.infer(named, inputs, outputs=wanted, timeout_s=call.timeout_s())
        elements = elements_to_write(found.outputs.values())
        response = await run(lambda: _predicted(found.outputs), elements=elements)
        _say_version(response, call, found.model, found.version, signature)
        return response

    async def classify(self, request: Any, call: Call) -> Any:
        response = ClassificationResponse()
        served, scores, count = await self._ask(request, call, CLASSIFY, scores_of, response)
        names, rows = named_scores(scores, served.labels, count)
        response.result.SetInParent()
        for row in rows.tolist():
            classes = response.result.classifications.add().classes
            for label, score in zip(names, row, strict=True):
                classes.add(label=label, score=score)
        return response

    async def regress(self, request: Any, call: Call) -> Any:
        response = RegressionResponse()
        _, values, count = await self._ask(request, call, REGRESS, value_of, response)
        for value in one_value_each(values, count).tolist():
            response.result.regressions.add(value=value)
        return response

    async def metadata(self, request: Any, call: Call) -> Any:
        fields = list(request.metadata_field)
        if not fields or set(fields) != {SIGNATURES}:
            asked = ", ".join(fields)[:200] or "none"
            raise BadInput(BAD_REQUEST, f"metadata fields are asked for: {asked}", hint=f"there is {SIGNATURES} alone")
        served = self._server.describe(_named_in(request))
        response = GetModelMetadataResponse()
        _say_version(response, call, served.model, served.version, "")
        found = ParseDict(signatures(served), SignatureDefMap())
        told = response.metadata[SIGNATURES]
        told.type_url, told.value = ANY_URL + SignatureDefMap.DESCRIPTOR.full_name, found.SerializeToString()
        return response

    def _inputs(self, request: Any) -> dict[str, Array]:
        found = {}
        for name, proto in request.inputs.items():
            with Naming(name):
                found[name] = read_tensor(proto, max_bytes=self._max_bytes)
        return found

    async def _ask(
        self, request: Any, call: Call, method: str, choose: Callable[[Served], str], response: Any
    ) -> tuple[Served, Array, int]:
        """The version that is asked, the one output of it that is chosen, and how many examples there are."""
        named = self._server.choose(call.of_caller(_named_in(request)))
        signature = request.model_spec.signature_name
        served = self._server.describe(named)
        check_signature(signature, served, method)
        inputs, count = read_examples(request.input, served)
        check_pictures(signature, inputs, served)
        wanted = choose(served)
        found = await self._server.infer(named, inputs, outputs=(wanted,), timeout_s=call.timeout_s())
        _say_version(response, call, found.model, found.version, signature)
        if found.version != served.version:
            served = self._server.describe(Named(found.model, found.version))
        return served, found.outputs[wanted], count


def _predicted(outputs: Tensors) -> Any:
    response = PredictResponse()
    for name, array in outputs.items():
        write_tensor(array, response.outputs[name])
    return response


class _Model:
    def __init__(self, server: ModelServer) -> None:
        self._server = server

    async def status(self, request: Any, _call: Call) -> Any:
        return ParseDict({"model_version_status": statuses(self._server, _named_in(request))}, GetModelStatusResponse())

    async def reload(self, request: Any, _call: Call) -> Any:
        """Serve the models of the list from now on, and no others."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise BadInput(BAD_REQUEST, "there is no `model_config_list`", hint="no other configuration is served")
        wanted: dict[str, Wanted] = {}
        for one in request.config.model_config_list.config:
            if not one.name or one.name in wanted:
                raise BadInput(BAD_REQUEST, f"model {shown(one.name)} is {'listed twice' if one.name else 'no name'}")
            wanted[one.name] = _wanted(one)
        self._server.configure(wanted)
        response = ReloadConfigResponse()
        response.status.SetInParent()
        return response


def _wanted(config: Any) -> Wanted:
    if config.base_path and PurePosixPath(config.base_path).name != config.name:
        raise BadInput(
            "tfserving.other-path",
            f"model {shown(config.name)} is not loaded from {shown(config.base_path)}",
            hint="where models lie is said when the server is started; leave base_path out",
        )
    return Wanted(_policy(config.name, config.model_version_policy), _labels(config.name, config.version_labels))


def _policy(model: str, given: Any) -> Policy:
    """The policy; without one, the newest version, as TensorFlow Serving has it."""
    chosen = given.WhichOneof("policy_choice")
    if chosen == "all":
        return Policy(latest=None)
    if chosen == "specific":
        versions = tuple(given.specific.versions)
        if not versions or min(versions) < 1:
            raise BadInput(BAD_REQUEST, f"the specific versions of {shown(model)} are {list(versions)[:20]}")
        return Policy(specific=versions)
    return Policy(latest=given.latest.num_versions or 1)


def _labels(model: str, given: Mapping[str, int]) -> dict[str, int]:
    if "" in given:
        raise BadInput(BAD_REQUEST, f"a label of {shown(model)} is empty")
    return dict(given)


def _named_in(request: Any) -> Named:
    """The version of a ModelSpec. 0 is what OpenVINO's clients write for the newest; versions begin with 1."""
    if not request.HasField("model_spec"):
        raise BadInput(BAD_REQUEST, "there is no `model_spec`", hint="name a model in it")
    spec = request.model_spec
    if spec.version.value < 0:
        raise BadInput(BAD_REQUEST, f"{spec.version.value} is no version", hint="versions begin with 1")
    return Named(spec.name, spec.version.value or None, spec.version_label or None)


def _say_version(response: Any, call: Call, model: str, version: int, signature: str) -> None:
    spec = response.model_spec
    spec.name, spec.signature_name = model, signature or DEFAULT_SIGNATURE
    spec.version.value = version
    call.model = f"{model}/{version}"
