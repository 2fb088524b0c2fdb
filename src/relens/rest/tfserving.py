"""TensorFlow Serving's REST API over models that are served as they are: status, metadata, predict, classify, regress.

Its clients work unchanged: paths, JSON and `{"error": text}` are TensorFlow Serving's. This translates and decides
nothing; bodies and answers that take long to read or write are read and written in a thread.

Source: https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from relens.errors import BadInput, RelensError
from relens.rest.bodies import read_bounded
from relens.rest.codings import coding_for, coding_of, deflated, inflated
from relens.rest.failures import status_of, when_again
from relens.rest.leaving import unless_gone
from relens.rest.tfserving_json import (
    read_examples,
    read_predict,
    write_classify,
    write_json,
    write_predict,
    write_regress,
)
from relens.serving.classes import scores_of, value_of
from relens.serving.codes import QUEUE_FULL
from relens.serving.served import STICKY, ModelServer, Named, Served
from relens.serving.tfserving import CLASSIFY, REGRESS, signatures, statuses
from relens.tensors import Array, Tensors

Done = TypeVar("Done")
Handler = Callable[[Request], Awaitable[Response]]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Routes take all of them, so that a wrong one is answered in this door's form."""
THREAD_BYTES = 64 * 1024
"""More JSON than this is read and written in a thread: it takes about a millisecond of the event loop."""
NUMBER_BYTES = 10
"""What a number takes of JSON, about."""
COMPRESSED_BYTES = 4 * 1024
VERSION = re.compile(r"[0-9]{1,18}")
STATUSES = {QUEUE_FULL: 429, "rest.encoding": 415}
"""Codes that have another status here than at the other doors."""


def tfserving_routes(server: ModelServer, *, max_bytes: int) -> list[Route]:
    """The routes under /v1/models that TensorFlow Serving has, for a Starlette or FastAPI application.

    max_bytes  of a body, as it is sent and inflated; a larger one is refused with 413 while it is read
    """
    door = _Door(server, max_bytes)
    places = [f"/v1/models/{{model}}{which}" for which in ("", "/versions/{version}", "/labels/{label}")]
    verbs: dict[str, Handler] = {"predict": door.predict, "classify": door.classify, "regress": door.regress}
    asked = [(f"{place}:{verb}", "POST", handler) for verb, handler in verbs.items() for place in places]
    told = [
        (path, "GET", handler)
        for place in places
        for path, handler in ((f"{place}/metadata", door.metadata), (place, door.status))
    ]
    # `{model}` takes a colon too: the verbs come first
    return [
        NamedRoute(
            path, _answering(method, handler), methods=METHODS, name=f"tfserving {path}", include_in_schema=False
        )
        for path, method, handler in [*asked, *told]
    ]


class NamedRoute(Route):
    """A route that the log names by its template, as it does FastAPI's."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, found if match is Match.NONE else {**found, "route": self}


class _Door:
    def __init__(self, server: ModelServer, max_bytes: int) -> None:
        self._server = server
        self._max_bytes = max_bytes
        self._too_large = partial(_too_large, max_bytes)

    async def status(self, request: Request) -> Response:
        return _json(write_json({"model_version_status": statuses(self._server, named_in(request))}))

    async def metadata(self, request: Request) -> Response:
        return _json(write_json(_metadata(self._server.describe(named_in(request)))))

    async def predict(self, request: Request) -> Response:
        named = self._server.choose(named_in(request))
        _, (inputs, rows) = await self._read(request, named, read_predict)
        found = await unless_gone(request, self._server.infer(named, inputs))
        return await _written(request, found.outputs, lambda: write_predict(found.outputs, rows=rows))

    async def classify(self, request: Request) -> Response:
        served, scores, count = await self._ask(request, CLASSIFY, scores_of)
        return await _written(request, {"": scores}, lambda: write_classify(scores, served.labels, count))

    async def regress(self, request: Request) -> Response:
        _, values, count = await self._ask(request, REGRESS, value_of)
        return await _written(request, {"": values}, lambda: write_regress(values, count))

    async def _ask(self, request: Request, method: str, choose: Callable[[Served], str]) -> tuple[Served, Array, int]:
        """The version that answers, the one output of it that is chosen, and how many examples there are."""
        named = self._server.choose(named_in(request))
        served, (inputs, count) = await self._read(request, named, partial(read_examples, method=method))
        wanted = choose(served)
        found = await unless_gone(request, self._server.infer(named, inputs, outputs=(wanted,)))
        if found.version != served.version:
            served = self._server.describe(Named(found.model, found.version))
        return served, found.outputs[wanted], count

    async def _read(self, request: Request, named: Named, read: Callable[[bytes, Served], Done]) -> tuple[Served, Done]:
        """The version that is asked, and what the body says to it."""
        coding = coding_of(request)
        body = await read_bounded(request, self._max_bytes, self._too_large)
        served = self._server.describe(named)

        def work() -> Done:
            return read(body if coding is None else inflated(body, coding, self._max_bytes, self._too_large), served)

        # a compressed body may be a thousand times as long
        return served, await _run(work, threaded=coding is not None or len(body) > THREAD_BYTES)


def _answering(method: str, handler: Handler) -> Handler:
    """The handler for one method; errors, a wrong method's too, as TensorFlow Serving writes them."""
    allowed = ("GET", "HEAD") if method == "GET" else (method,)

    async def answer(request: Request) -> Response:
        try:
            if request.method not in allowed:
                raise BadInput("rest.method", f"this path does not take {request.method}", hint=f"use {method}")
            return await handler(request)
        except RelensError as error:
            request.state.error = error  # for the log
            return _failure(error, {"Allow": ", ".join(allowed)} if error.code == "rest.method" else {})

    return answer


def _failure(error: RelensError, headers: dict[str, str]) -> Response:
    told = write_json({"error": str(error)})
    return _json(told, STATUSES.get(error.code) or status_of(error), {**headers, **when_again(error)})


def _json(data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(data, status, headers, "application/json")


async def _run(work: Callable[[], Done], *, threaded: bool) -> Done:
    return await run_in_threadpool(work) if threaded else work()


# -- what is asked --------------------------------------------------------------------------------------------------


def named_in(request: Request) -> Named:
    """The model of the path. Version 0 is what OpenVINO's clients write for the newest; versions begin with 1."""
    asked = request.path_params
    version = asked.get("version")
    if version is not None and not VERSION.fullmatch(version):
        raise BadInput("rest.bad-version", f"{version[:60]!r} is no version", hint="a version is a whole number")
    return Named(asked["model"], int(version or 0) or None, asked.get("label"), request.headers.get(STICKY))


def _too_large(limit: int) -> BadInput:
    return BadInput(
        "rest.too-large", f"the body has more than {limit:,} bytes", hint="send fewer rows, or raise limits.max_bytes"
    )


# -- what is answered -----------------------------------------------------------------------------------------------


async def _written(request: Request, outputs: Tensors, write: Callable[[], bytes]) -> Response:
    """The answer, compressed if it is long and the client takes that."""
    coding = coding_for(request)

    def work() -> tuple[bytes, dict[str, str]]:
        data = write()
        if coding is None or len(data) <= COMPRESSED_BYTES:
            return data, {}
        return deflated(data, coding), {"Content-Encoding": coding}

    data, headers = await _run(work, threaded=_length(outputs) > THREAD_BYTES)
    return _json(data, headers={"Vary": "Accept-Encoding", **headers})


def _length(outputs: Tensors) -> int:
    """About how long the JSON of outputs is."""
    return sum(
        sum(map(len, array.flat)) if array.dtype == object else array.size * NUMBER_BYTES for array in outputs.values()
    )


def _metadata(served: Served) -> dict[str, Any]:
    return {
        "model_spec": {"name": served.model, "signature_name": "", "version": str(served.version)},
        "metadata": {"signature_def": signatures(served)},
    }
