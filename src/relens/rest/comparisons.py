"""Questions about words that were read, and about two pictures; and the parameters that questions share."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import AfterValidator
from starlette.responses import JSONResponse

from relens.errors import BadInput
from relens.gateway import Gateway
from relens.rest import schemas
from relens.rest.bodies import pictures_in, read_body
from relens.rest.failures import described
from relens.rest.narrowed import Narrowed
from relens.rest.threads import Threads

TWO_PICTURES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Two pictures, as the fields `file` and `other` of a form.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "other"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "one picture"},
                        "other": {"type": "string", "format": "binary", "description": "the other"},
                    },
                }
            }
        },
    }
}


def _check_recipe(name: str) -> str:
    """A recipe is named here; that it can also be a file is for people at the machine."""
    if "/" in name or name.endswith((".yaml", ".yml")) or not name.isprintable():
        raise BadInput("rest.bad-request", f"recipe: {name!r} is no name", hint="name a recipe of the server's home")
    return name


RecipeName = Annotated[str, AfterValidator(_check_recipe), Query(description="a recipe of the home")]
Threshold = Annotated[
    float | None, Query(ge=-1, le=1, description="cosine under which nothing matches, instead of the recipe's")
]
GalleryName = Annotated[str, Query(description="the gallery to search", examples=["shop"])]
Words = Annotated[
    str,
    Query(description='words that were read, in any order; "in quotes" one after the other', examples=["no parking"]),
]
Count = Annotated[int, Query(description="look-alikes per object, 1 to 1000")]


def add_comparisons(app: FastAPI, gateway: Gateway, threads: Threads, max_bytes: int) -> None:
    """Put the search for words, and `verify`, on the application."""

    @app.get(
        "/v1/search/text",
        tags=["Questions"],
        summary="Where it says this",
        responses={200: {"model": schemas.TextAnswer}, **described(400, 404, 503)},
    )
    async def search_text(
        request: Request, gallery: GalleryName, text: Words, where: Narrowed, k: Count = 10
    ) -> JSONResponse:
        """The objects of a gallery in which all of these words were read, best first."""

        def work() -> JSONResponse:
            found = gateway.search_text(text, gallery=gallery, k=k, where=where)
            request.state.release = found.release  # for the log
            return JSONResponse(found.to_json())

        return await threads.run("text", work)

    @app.post(
        "/v1/verify",
        tags=["Questions"],
        summary="Whether two pictures show the same",
        responses={200: {"model": schemas.Verification}, **described(400, 404, 413, 415, 503)},
        openapi_extra=TWO_PICTURES_BODY,
    )
    async def verify(request: Request, recipe: RecipeName = "faces", threshold: Threshold = None) -> JSONResponse:
        """The likeness of the strongest objects of two pictures, which come as `file` and `other` of a form."""
        body = await read_body(request, 2 * max_bytes)

        def work() -> JSONResponse:
            one, other = pictures_in(request, body, max_bytes, ("file", "other"))
            found = gateway.verify(one, other, recipe=recipe, threshold=threshold)
            request.state.release = found.release  # for the log
            return JSONResponse(found.to_json())

        return await threads.run("verify", work)
