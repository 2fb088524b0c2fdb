"""The two questions: what is in a picture, and what looks like it.

The body is read here, where nothing blocks; the gateway answers in a thread. Questions have threads of their own, so
that slow ones never keep lists and health checks waiting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import JSONResponse, Response

from relens.gateway import Gateway
from relens.narrowing import read_hints
from relens.rest import schemas
from relens.rest.bodies import picture_in, read_body
from relens.rest.comparisons import Count, GalleryName, RecipeName, Threshold, add_comparisons
from relens.rest.failures import described
from relens.rest.narrowed import Narrowed
from relens.rest.threads import Threads
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


WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")

Include = Annotated[
    str,
    Query(
        description="what else to give, separated by commas: `subject` (box of what the best name comes from), "
        "`heatmap` (where it comes from), `vector`",
        examples=["subject"],
    ),
]
HintList = Annotated[
    list[str] | None,
    Query(
        alias="hint",
        description="what you know of the thing, for the recipe's rules of ranking: `text=red shoe`, `price=20`; may "
        "be repeated",
    ),
]


def wants_picture(request: Request) -> bool:
    """Whether a JPEG is preferred to JSON: it is named, and JSON is not named before it or with a higher `q`."""
    weights: dict[str, float] = {}
    for part in ",".join(request.headers.getlist("accept")).lower().split(","):
        kind, *options = (word.strip() for word in part.split(";"))
        if kind in {"image/jpeg", "image/*", "application/json"}:
            weights.setdefault("json" if kind == "application/json" else "jpeg", _weight(options))
    best = max(weights, key=weights.__getitem__, default="json")  # the first of two that are as good
    return best == "jpeg" and weights[best] > 0


def _weight(options: Sequence[str]) -> float:
    """The `q` of a kind that is accepted, 0 to 1."""
    given = next((option[2:] for option in options if option.startswith("q=")), "1")
    return float(given) if WEIGHT.fullmatch(given) else 1.0


def add_questions(app: FastAPI, gateway: Gateway, threads: Threads, max_bytes: int) -> None:
    """Put `recognize` and `search` on the application."""
    add_comparisons(app, gateway, threads, max_bytes)

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
        responses={
            200: {"model": schemas.Recognition, "content": {"image/jpeg": {}}},
            **described(400, 404, 413, 415, 503),
        },
        openapi_extra=PICTURE_BODY,
    )
    async def recognize(request: Request, recipe: RecipeName = "photos", include: Include = "") -> Response:
        """The objects of the picture with their names, under the release that the recipe resolves to now.

        With `Accept: image/jpeg` the answer is the picture with the objects drawn on it.
        """
        wanted = [part.strip() for part in include.split(",") if part.strip()]
        if not wants_picture(request):
            return await answer(
                request, "recognize", lambda data: gateway.recognize(data, recipe=recipe, include=wanted)
            )
        body = await read_body(request, max_bytes)

        def work() -> Response:
            data = picture_in(request, body, max_bytes)
            found = gateway.recognize(data, recipe=recipe, include=wanted)
            request.state.release = found.release  # for the log
            headers = {"X-Relens-Release": found.release, "X-Relens-Objects": str(len(found.objects))}
            return Response(gateway.draw(data, found), media_type="image/jpeg", headers=headers)

        return await threads.run("recognize", work)

    @app.post(
        "/v1/search",
        tags=["Questions"],
        summary="What looks like a picture",
        responses={200: {"model": schemas.SearchAnswer}, **described(400, 404, 409, 413, 415, 503)},
        openapi_extra=PICTURE_BODY,
    )
    async def search(  # noqa: PLR0917 - each is a parameter of the query
        request: Request,
        gallery: GalleryName,
        where: Narrowed,
        k: Count = 10,
        hint: HintList = None,
        threshold: Threshold = None,
    ) -> JSONResponse:
        """The objects of a gallery that look most like the picture, best first, with the items that show them."""
        hints = read_hints(hint or ())

        def ask(data: bytes) -> SearchAnswer:
            return gateway.search(data, gallery=gallery, k=k, where=where, hints=hints, threshold=threshold)

        return await answer(request, "search", ask)
