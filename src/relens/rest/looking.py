"""`POST /v1/models/M:recognize`: a picture as it is, and what one served model says of it by its card."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relens.errors import BadInput, RelensError
from relens.rest.bodies import picture_in, read_body
from relens.rest.failures import failure
from relens.rest.leaving import unless_gone
from relens.rest.tfserving import METHODS, NamedRoute, named_in
from relens.serving.oip import number_in
from relens.serving.served import Looked, ModelServer

PARAMETERS = ("names", "min_score", "include", "timeout_s", "priority")
MOST_NAMES = 1000


def looking_routes(server: ModelServer, *, max_bytes: int) -> list[Route]:
    """The routes of `:recognize`, of the newest version, of one by number, and of one by label.

    max_bytes  of the picture; a larger one is refused with 413 while it is read
    """

    async def recognize(request: Request) -> Response:
        if request.method != "POST":
            raise BadInput("rest.method", f"this path does not take {request.method}", hint="use POST")
        named = server.choose(named_in(request))
        looked, timeout_s = _looked(request), _number(request, "timeout_s", 0, math.inf)
        named = named.with_priority(_priority(request))
        server.describe(named)  # before the body: who cannot be answered need not send it
        body = await read_body(request, max_bytes)
        picture = picture_in(request, body, max_bytes)
        found = await unless_gone(request, server.recognize(named, picture, looked, timeout_s=timeout_s))
        return JSONResponse(found.to_json())

    places = [f"/v1/models/{{model}}{which}:recognize" for which in ("", "/versions/{version}", "/labels/{label}")]
    return [NamedRoute(path, _answering(recognize), methods=METHODS, include_in_schema=False) for path in places]


def _answering(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except RelensError as error:
            request.state.error = error  # for the log
            return failure(error, {"Allow": "POST"} if error.code == "rest.method" else None)

    return answer


def _looked(request: Request) -> Looked:
    """How the query says that the picture is to be looked at. BadInput, naming the parameter, if it cannot be."""
    _require_known(request.query_params.keys())
    usual = Looked()
    names = _number(request, "names", 1, MOST_NAMES)
    min_score = _number(request, "min_score", 0, 1)
    included = {part.strip() for part in request.query_params.get("include", "").split(",")} - {""}
    if unknown := sorted(included - {"vector"}):
        raise BadInput("rest.bad-request", f"include: {unknown[0][:60]!r} is unknown", hint="known: vector")
    return Looked(
        names=usual.names if names is None else int(names),
        min_score=usual.min_score if min_score is None else min_score,
        vector="vector" in included,
    )


def _require_known(given: Collection[str]) -> None:
    if unknown := sorted(set(given) - set(PARAMETERS)):
        known = ", ".join(PARAMETERS)
        raise BadInput("rest.bad-request", f"{unknown[0][:60]!r} is no parameter", hint=f"known: {known}")


def _priority(request: Request) -> int:
    given = request.query_params.get("priority", "0")
    number = number_in(given)
    if number is None:
        raise BadInput("rest.bad-request", f"priority: {given[:60]!r} is no whole number from 0")
    return number


def _number(request: Request, name: str, least: float, most: float) -> float | None:
    given = request.query_params.get(name)
    if given is None:
        return None
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        bounds = f"from {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise BadInput("rest.bad-request", f"{name}: {given[:60]!r} is no number {bounds}")
    return number
