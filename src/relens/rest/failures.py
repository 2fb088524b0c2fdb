"""Errors as HTTP: a status by family, the same JSON as from every door."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from relens.errors import BadInput, Broken, Busy, Conflict, Denied, Missing, RelensError
from relens.rest.schemas import ErrorAnswer

FAMILIES: tuple[tuple[type[RelensError], int], ...] = (
    (BadInput, 400),
    (Denied, 403),
    (Missing, 404),
    (Conflict, 409),
    (Busy, 503),
    (Broken, 500),
)
GONE = 410
CODES = {
    "rest.method": 405,
    "rest.too-large": 413,
    "vision.too-large": 413,
    "vision.not-a-picture": 415,
}
"""Codes for which HTTP has a more telling status than their family's."""

RETRY_AFTER_MS = "retry-after-ms"

MEANINGS = {
    400: "the request cannot be used; sending it again changes nothing",
    403: "the caller may not do this",
    404: "what was named does not exist",
    405: "the path exists, with another method",
    409: "the state of things forbids it now",
    410: "it existed, and was deleted",
    413: "the picture is larger than the server takes",
    415: "the bytes are no picture of a known format",
    500: "something of the server does not work",
    503: "too much to do, or not ready; ask again after the seconds in Retry-After",
}


def status_of(error: RelensError) -> int:
    """The status of an error: by its code if that has one, else by its family."""
    if isinstance(error, Missing) and error.gone:
        return GONE
    return CODES.get(error.code) or next((status for family, status in FAMILIES if isinstance(error, family)), 500)


def failure(error: RelensError, headers: dict[str, str] | None = None) -> JSONResponse:
    """The response that an error becomes."""
    return JSONResponse(error.to_json(), status_of(error), {**(headers or {}), **when_again(error)})


def when_again(error: RelensError) -> dict[str, str]:
    """The headers that say when to ask again, in whole seconds and in milliseconds; none for what is not Busy."""
    if not isinstance(error, Busy):
        return {}
    seconds, ms = math.ceil(error.retry_after_s), round(error.retry_after_s * 1000)
    return {"Retry-After": str(max(1, seconds)), RETRY_AFTER_MS: str(max(1, ms))}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error statuses of an endpoint, for its documentation. 500 can always happen."""
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": MEANINGS[status]} for status in (*statuses, 500)
    }
    return errors | {"default": {"model": ErrorAnswer, "description": "every error has this form"}}


def add_failures(app: FastAPI) -> None:
    """Answer errors in the one form, those of the frameworks below included."""

    @app.exception_handler(RelensError)
    async def of_relens(request: Request, error: RelensError) -> JSONResponse:
        return _answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def of_parameters(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg'].lower()}" for one in error.errors()]
        return _answer(request, BadInput("rest.bad-request", "; ".join(wrong), hint="/docs lists the parameters"))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        return _answer(request, _unrouted(request, error), dict(error.headers or {}))


def _answer(request: Request, error: RelensError, headers: dict[str, str] | None = None) -> JSONResponse:
    request.state.error = error  # for the log
    return failure(error, headers)


def _unrouted(request: Request, error: HTTPException) -> RelensError:
    path = request.url.path
    if error.status_code == 404:  # noqa: PLR2004 - HTTP's own numbers
        return Missing("rest.not-found", f"there is nothing at {path}", hint="/docs lists the endpoints")
    if error.status_code == 405:  # noqa: PLR2004
        allowed = (error.headers or {}).get("Allow", "another method")
        return BadInput("rest.method", f"{path} does not take {request.method}", hint=f"use {allowed}")
    return BadInput("rest.bad-request", str(error.detail))
