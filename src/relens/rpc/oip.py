"""The Open Inference Protocol's gRPC service with Triton's extensions, over models that are served as they are.

https://github.com/kserve/open-inference-protocol. What a request says is `infer_tensors`' concern; which versions
there are is the folder's, so nothing is loaded or unloaded by request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.json_format import ParseDict

from relens.errors import RelensError
from relens.rpc.border import Call, details_of, service
from relens.rpc.fields import run
from relens.rpc.infer_tensors import elements_to_read, elements_to_write, read_request, write_response
from relens.rpc.messages import (
    INFERENCE,
    ModelConfigResponse,
    ModelMetadataResponse,
    ModelReadyResponse,
    ModelStatisticsResponse,
    ModelStreamInferResponse,
    RepositoryIndexResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)
from relens.serving.codes import rpc_code
from relens.serving.oip import Said, named_of, not_controlled
from relens.serving.served import ModelServer, Named
from relens.serving.tallies import counted


def oip_services(server: ModelServer) -> list[Any]:
    """The service, for a server of gRPC."""
    told, door = _Told(server), _Inferring(server)
    unary = {
        "ServerLive": told.live,
        "ServerReady": told.ready,
        "ServerMetadata": told.server,
        "ModelReady": told.model_ready,
        "ModelMetadata": told.model,
        "ModelConfig": told.config,
        "ModelStatistics": told.stats,
        "RepositoryIndex": told.index,
        "RepositoryModelLoad": told.refused,
        "RepositoryModelUnload": told.refused,
        "ModelInfer": door.infer,
    }
    return [service(INFERENCE, unary, {"ModelStreamInfer": door.stream})]


class _Told:
    """What is said of the server and its models."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._said = Said(counted(server))

    async def live(self, _request: Any, _call: Call) -> Any:
        return ServerLiveResponse(live=True)

    async def ready(self, _request: Any, _call: Call) -> Any:
        return ServerReadyResponse(ready=not self._said.unready())

    async def server(self, _request: Any, _call: Call) -> Any:
        return ParseDict(self._said.server(), ServerMetadataResponse())

    async def model_ready(self, request: Any, _call: Call) -> Any:
        """What there is not is not ready; that is no error, as for Triton."""
        try:
            self._server.describe(_named(request))
        except RelensError:
            return ModelReadyResponse(ready=False)
        return ModelReadyResponse(ready=True)

    async def model(self, request: Any, _call: Call) -> Any:
        return ParseDict(self._said.model(_named(request)), ModelMetadataResponse())

    async def config(self, request: Any, _call: Call) -> Any:
        return ParseDict({"config": self._said.config(_named(request))}, ModelConfigResponse())

    async def stats(self, request: Any, _call: Call) -> Any:
        return ParseDict(self._said.stats(_named(request) if request.name else None), ModelStatisticsResponse())

    async def index(self, request: Any, _call: Call) -> Any:
        return ParseDict({"models": self._said.index(ready=request.ready)}, RepositoryIndexResponse())

    async def refused(self, _request: Any, _call: Call) -> Any:
        raise not_controlled()


class _Inferring:
    """One forward for each request."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server

    async def infer(self, request: Any, call: Call) -> Any:
        named = self._server.choose(call.of_caller(named_of(request.model_name, request.model_version)))
        served = self._server.describe(named)  # who cannot be answered is told so before tensors are read
        asked = await run(lambda: read_request(request), elements=elements_to_read(request))
        names = tuple(one.name for one in asked.outputs)
        named = named.with_priority(asked.priority)
        inferred = await self._server.infer(
            named, asked.inputs, outputs=names, timeout_s=call.timeout_s(asked.timeout_s)
        )
        if inferred.version != served.version:
            served = self._server.describe(Named(inferred.model, inferred.version))
        call.model = f"{inferred.model}/{inferred.version}"
        elements = elements_to_write(asked, inferred)
        return await run(lambda: write_response(asked, inferred, served), elements=elements)

    async def stream(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        """Each request's answer, in their order; an error is one, and the stream goes on."""
        async for request in requests:
            turn = call.turn()
            try:
                told = ModelStreamInferResponse(infer_response=await self.infer(request, turn))
                turn.say("OK")
            except Exception as error:  # noqa: BLE001 - told to the client, and the log has it
                failed = turn.failure(error)
                turn.say(rpc_code(failed), failed)
                told = ModelStreamInferResponse(error_message=details_of(failed))
                told.infer_response.id = request.id  # by which Triton's clients know whose error it is
            yield told


def _named(request: Any) -> Named:
    return named_of(request.name, request.version)
