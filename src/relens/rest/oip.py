"""The Open Inference Protocol's REST door, as KServe and Triton speak it, over models that are served as they are.

https://github.com/kserve/open-inference-protocol, with Triton's extensions: binary tensors, classification, repository
index, statistics, model configuration, and `timeout` and `priority` of the schedule policy. What a body says is
`oip_tensors`' concern; which versions there are is the folder's, so nothing is loaded or unloaded by request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from relens.errors import BadInput, Missing, RelensError
from relens.rest.bodies import object_in, read_bounded
from relens.rest.codings import coding_for, coding_of, deflated, inflated
from relens.rest.failures import status_of, when_again
from relens.rest.leaving import unless_gone
from relens.rest.oip_tensors import read_raw, read_request, takes_long, write_answer
from relens.serving.codes import QUEUE_FULL
from relens.serving.oip import BAD_REQUEST, Asked, Said, named_of, not_controlled, number_in
from relens.serving.served import STICKY, ModelServer, Named, Served
from relens.serving.tallies import Counted, counted

HEADER_LENGTH = "Inference-Header-Content-Length"
TOO_MANY_REQUESTS = 429
NOT_READY = 503
SMALL_BYTES = 64 * 1024
"""Less than this is parsed and compressed on the event loop: a hop to a thread takes longer."""
WORTH_COMPRESSING_BYTES = 1024
THREADS = 4
Handler = Callable[[Request], Awaitable[Response]]
Done = TypeVar("Done")


def oip_routes(server: ModelServer, *, max_bytes: int) -> list[Route]:
    """Every path of the protocol, for an application of Starlette's. Errors are `{"error": "message (hint)"}`.

    max_bytes   of a request's body, as it is sent and inflated; a larger one is refused with 413 while it is read
    """
    server = counted(server)
    told, door = _Told(server, max_bytes), _Inferring(server, max_bytes)
    bases = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
    paths: list[tuple[str, str, Handler]] = [
        *((f"{base}/infer", "POST", door.infer) for base in bases),  # first, as paths are tried in this order
        ("/v2", "GET", told.server),
        ("/v2/health/live", "GET", told.live),
        ("/v2/health/ready", "GET", told.ready),
        ("/v2/repository/index", "POST", told.index),
        ("/v2/repository/models/{model}/load", "POST", told.refused),
        ("/v2/repository/models/{model}/unload", "POST", told.refused),
        ("/v2/models/stats", "GET", told.all_stats),
    ]
    for base in bases:
        paths += [
            (base, "GET", told.model),
            (f"{base}/ready", "GET", told.model_ready),
            (f"{base}/config", "GET", told.config),
            (f"{base}/stats", "GET", told.stats),
        ]
    routes = [Route(path, _Endpoint(path, method, handler)) for path, method, handler in paths]
    return [*routes, Route("/v2/{rest:path}", _Endpoint("/v2/{rest}", "", told.nothing))]


class _Endpoint:
    """One path: takes its method (any, if that is empty), and answers errors in the form of the protocol."""

    def __init__(self, path: str, method: str, handler: Handler) -> None:
        self.path = path
        self._method = method
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self  # for the log, which writes the template of a path
        request = Request(scope, receive, send)
        try:
            self._check_method(request)
            response = await self._handler(request)
        except RelensError as error:
            request.state.error = error  # for the log
            response = _failure(error, {"Allow": self._method} if status_of(error) == 405 else {})  # noqa: PLR2004
        await response(scope, receive, send)

    def _check_method(self, request: Request) -> None:
        asked = "GET" if request.method == "HEAD" else request.method
        if self._method not in {"", asked}:
            raise BadInput("rest.method", f"{self.path} does not take {asked}", hint=f"use {self._method}")


class _Told:
    """What is said of the server and its models."""

    def __init__(self, server: Counted, max_bytes: int) -> None:
        self._said = Said(server)
        self._server = server
        self._max_bytes = max_bytes
        self._too_large = partial(_too_large, max_bytes)

    async def server(self, _request: Request) -> Response:
        return JSONResponse(self._said.server())

    async def live(self, _request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _request: Request) -> Response:
        if missing := self._said.unready():
            return JSONResponse({"ready": False, "error": f"not available: {', '.join(missing)}"}, NOT_READY)
        return JSONResponse({"ready": True})

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._said.model(_named(request)))

    async def model_ready(self, request: Request) -> Response:
        named = _named(request)
        said = {"name": named.model}
        try:
            self._server.describe(named)
        except RelensError as error:
            request.state.error = error  # for the log
            return _failure(error, {}, {**said, "ready": False})
        return JSONResponse({**said, "ready": True})

    async def config(self, request: Request) -> Response:
        return JSONResponse(self._said.config(_named(request)))

    async def all_stats(self, _request: Request) -> Response:
        return JSONResponse(self._said.stats())

    async def stats(self, request: Request) -> Response:
        return JSONResponse(self._said.stats(_named(request)))

    async def index(self, request: Request) -> Response:
        body = await read_bounded(request, self._max_bytes, self._too_large)
        ready = object_in(body, "the request").get("ready") if body.strip() else False
        if not isinstance(ready, bool | None):
            raise BadInput(BAD_REQUEST, "`ready` of the request is not true or false")
        return JSONResponse(self._said.index(ready=bool(ready)))

    async def refused(self, _request: Request) -> Response:
        raise not_controlled()

    async def nothing(self, request: Request) -> Response:
        path = request.url.path
        raise Missing("rest.not-found", f"there is nothing at {path}", hint="GET /v2 names the extensions")


class _Inferring:
    """Bytes in, one forward, bytes out. What takes long with bytes is done in threads of the door's own."""

    def __init__(self, server: Counted, max_bytes: int) -> None:
        self._server = server
        self._max_bytes = max_bytes
        self._too_large = partial(_too_large, max_bytes)
        self._threads = CapacityLimiter(THREADS)

    async def infer(self, request: Request) -> Response:
        named = self._server.choose(_named(request))
        served = self._server.describe(named)  # before the body: who cannot be answered need not send it
        body = await self._body(request)
        asked = await self._understand(request, body, served)
        names = tuple(one.name for one in asked.outputs)
        named = named.with_priority(asked.priority)
        work = self._server.infer(named, asked.inputs, outputs=names, timeout_s=asked.timeout_s)
        inferred = await unless_gone(request, work)
        if inferred.version != served.version:
            served = self._server.describe(Named(inferred.model, inferred.version))
        long = takes_long(asked, inferred)
        answer, head_bytes = await self._run(lambda: write_answer(asked, inferred, served), in_thread=long)
        return await self._response(request, answer, head_bytes)

    async def _body(self, request: Request) -> bytes:
        coding = coding_of(request)
        body = await read_bounded(request, self._max_bytes, self._too_large)
        if coding is None:
            return body
        return await self._run(lambda: inflated(body, coding, self._max_bytes, self._too_large), in_thread=True)

    async def _understand(self, request: Request, body: bytes, served: Served) -> Asked:
        given = request.headers.get(HEADER_LENGTH)
        head_bytes = None if given is None else number_in(given.strip())
        if given is not None and head_bytes is None:
            raise BadInput(BAD_REQUEST, f"{HEADER_LENGTH} is {given[:20]!r}, which is no length")
        if head_bytes == 0:
            return read_raw(body, served.inputs)
        long = (len(body) if head_bytes is None else head_bytes) > SMALL_BYTES
        return await self._run(lambda: read_request(body, head_bytes), in_thread=long)

    async def _response(self, request: Request, answer: bytes, head_bytes: int | None) -> Response:
        headers = {"Vary": "Accept-Encoding"}
        if head_bytes is not None:
            headers[HEADER_LENGTH] = str(head_bytes)
        coding = coding_for(request, binary=head_bytes is not None)
        if coding is not None and len(answer) >= WORTH_COMPRESSING_BYTES:
            plain = answer
            answer = await self._run(lambda: deflated(plain, coding), in_thread=len(plain) > SMALL_BYTES)
            headers["Content-Encoding"] = coding
        kind = "application/json" if head_bytes is None else "application/octet-stream"
        return Response(answer, headers=headers, media_type=kind)

    async def _run(self, work: Callable[[], Done], *, in_thread: bool) -> Done:
        return await to_thread.run_sync(work, limiter=self._threads) if in_thread else work()


def _too_large(max_bytes: int) -> BadInput:
    return BadInput(
        "rest.too-large",
        f"the body has more than {max_bytes:,} bytes",
        hint="send fewer or smaller tensors, or raise limits.max_bytes",
    )


def _failure(error: RelensError, headers: Mapping[str, str], more: Mapping[str, Any] | None = None) -> Response:
    """An error as the protocol has it, with what else the answer says."""
    status = TOO_MANY_REQUESTS if error.code == QUEUE_FULL else status_of(error)
    return JSONResponse({**(more or {}), "error": str(error)}, status, {**headers, **when_again(error)})


def _named(request: Request) -> Named:
    return named_of(request.path_params["model"], request.path_params.get("version", ""), request.headers.get(STICKY))
