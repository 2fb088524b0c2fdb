"""The two questions: what is in a picture, and what looks like it.

The body is read here, where nothing blocks; the gateway answers in a thread. Questions have threads of their own, so
that slow ones never keep lists and health checks waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Query, Request
from pydantic import AfterValidator
from starlette.responses import JSONResponse

from relens.errors import BadInput, Busy
from relens.gateway import Gateway
from relens.rest import schemas
from relens.rest.bodies import picture_in, read_body
from relens.rest.failures import described
from relens.telemetry import REQUESTS
from relens.values import Recognition, SearchAnswer

PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A JPEG, PNG, WebP, BMP, GIF or TIFF: as the body, whatever its type, or as `file` of a form.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary", "description": "the picture"}},
                }
            },
        },
    }
}


def _check_recipe(name: str) -> str:
    """A recipe is named here; that it can also be a file is for people at the machine."""
    if "/" in name or name.endswith((".yaml", ".yml")) or not name.isprintable():
        raise BadInput("rest.bad-request", f"recipe: {name!r} is no name", hint="name a recipe of the server's home")
    return name


RecipeName = Annotated[str, AfterValidator(_check_recipe), Query(description="a recipe of the home")]
Include = Annotated[
    str,
    Query(
        description="what else to give, separated by commas: `subject` (box of what the best name comes from), "
        "`heatmap` (where it comes from), `vector`",
        examples=["subject"],
    ),
]
GalleryName = Annotated[str, Query(description="the gallery to search", examples=["shop"])]
Count = Annotated[int, Query(description="look-alikes per object, 1 to 1000")]


class _Threads:
    """The threads of questions. What cannot have one is Busy at once: a second queue would hide an overload."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._limiter = CapacityLimiter(size)

    async def run(self, use: str, work: Callable[[], JSONResponse]) -> JSONResponse:
        if self._taken >= self._size:
            error = Busy(
                "rest.too-many-questions",
                f"{self._size} questions are being answered already",
                hint="ask again in a moment, or less often",
            )
            REQUESTS.labels(use, error.code).inc()
            raise error
        self._taken += 1
        try:
            return await to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._taken -= 1


def add_questions(app: FastAPI, gateway: Gateway, *, max_bytes: int, at_a_time: int) -> None:
    """Put `recognize` and `search` on the application."""
    threads = _Threads(at_a_time)

    async def answer(request: Request, use: str, ask: Callable[[bytes], Recognition | SearchAnswer]) -> JSONResponse:
        body = await read_body(request, max_bytes)

        def work() -> JSONResponse:
            found = ask(picture_in(request, body, max_bytes))
            request.state.release = found.release  # for the log
            return JSONResponse(found.to_json())

        return await threads.run(use, work)

    @app.post(
        "/v1/recognize",
        tags=["Questions"],
        summary="What is in a picture",
        responses={200: {"model": schemas.Recognition}, **described(400, 404, 413, 415, 503)},
        openapi_extra=PICTURE_BODY,
    )
    async def recognize(request: Request, recipe: RecipeName = "photos", include: Include = "") -> JSONResponse:
        """The objects of the picture with their names, under the release that the recipe resolves to now."""
        wanted = [part.strip() for part in include.split(",") if part.strip()]
        return await answer(request, "recognize", lambda data: gateway.recognize(data, recipe=recipe, include=wanted))

    @app.post(
        "/v1/search",
        tags=["Questions"],
        summary="What looks like a picture",
        responses={200: {"model": schemas.SearchAnswer}, **described(400, 404, 409, 413, 415, 503)},
        openapi_extra=PICTURE_BODY,
    )
    async def search(request: Request, gallery: GalleryName, k: Count = 10) -> JSONResponse:
        """The objects of a gallery that look most like the picture, best first, with the items that show them."""
        return await answer(request, "search", lambda data: gateway.search(data, gallery=gallery, k=k))
