"""Galleries that live: enrol, look at items and change them, delete, export. One use of the gateway each.

What is said of an item comes as parameters, as fields of a form, or as a JSON object. What an item may be is decided
elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import Depends, FastAPI, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import JSONResponse, StreamingResponse

from relens.errors import BadInput
from relens.gateway import Gateway
from relens.rest import schemas
from relens.rest.bodies import object_in, picture_and_texts_in, read_body, read_json
from relens.rest.exports import KIND, Exports
from relens.rest.failures import described
from relens.rest.records import GalleryName, ObjectId
from relens.rest.threads import Threads

OK, CREATED = 200, 201
FLAGS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}

ItemKey = Annotated[
    str, Path(description="your id of an item, percent-encoded; it may have slashes", examples=["sku-1042"])
]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of a picture", examples=[schemas.SHA256])]
WithVectors = Annotated[bool, Query(description="also the vector of each object, with its space")]


class Said(BaseModel):
    """What may be said of an item with its picture, all as text. Another parameter is refused, lest it be lost."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(
        None, description="your id of it; the picture's SHA-256 if there is none", examples=["sku-1042"]
    )
    title: str | None = Field(None, description="its title")
    price: str | None = Field(None, description="its price, a number", examples=["79.9"])
    shop: str | None = Field(None, description="its shop")
    day: str | None = Field(None, description="its day, like 2026-01-31; today if there is none")
    uri: str | None = Field(None, description="where its picture is; `urn:sha256:…` if there is none")
    off_shelf: str | None = Field(None, description="`true` keeps it out of answers")
    data: str | None = Field(None, description="columns of your own, a JSON object")
    allow_empty: str | None = Field(None, description="`true` takes the item even if nothing is found in the picture")


ENROLMENT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A picture as the body, whatever its type; or a form with the picture as `file`, whose other "
        "fields may be named like the parameters.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "the picture"},
                        **{
                            name: {"type": "string", "description": field.description}
                            for name, field in Said.model_fields.items()
                        },
                    },
                }
            },
        },
    }
}
CHANGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The columns to change. Those that are not named stay; `null` clears title, price and shop; "
        "`data` takes the place of all columns of your own.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "title": {"type": ["string", "null"]},
                        "price": {"type": ["number", "null"]},
                        "shop": {"type": ["string", "null"]},
                        "day": {"type": "string"},
                        "uri": {"type": "string"},
                        "off_shelf": {"type": "boolean"},
                        "data": {"type": "object"},
                    },
                    "additionalProperties": False,
                    "examples": [{"price": 59.9}],
                }
            }
        },
    }
}


class AnyText(PathConvertor):
    """The rest of a path, whatever it holds; `path` stops at the end of a line."""

    regex = "(?s:.*)"


def add_keeping(app: FastAPI, gateway: Gateway, threads: Threads, max_bytes: int) -> None:
    """Put everything that changes galleries, and their export, on the application."""
    register_url_convertor("text", AnyText())
    _add_enrolment(app, gateway, threads, max_bytes)
    _add_deletions(app, gateway)
    _add_items(app, gateway)
    _add_export(app, gateway)


def _add_enrolment(app: FastAPI, gateway: Gateway, threads: Threads, max_bytes: int) -> None:
    @app.post(
        "/v1/galleries/{name}/objects",
        tags=["Live galleries"],
        summary="Enrol a picture",
        dependencies=[Depends(require_text)],
        responses={
            OK: {"model": schemas.Enrolled, "description": "all this was so already; nothing has changed"},
            CREATED: {"model": schemas.Enrolled, "description": "it is in the gallery now"},
            **described(400, 404, 409, 413, 415, 503),
        },
        openapi_extra=ENROLMENT_BODY,
    )
    async def enrol(request: Request, name: GalleryName, said: Annotated[Said, Query()]) -> JSONResponse:
        """Takes a picture into a gallery, with what is said of its item. It can be found when this returns."""
        body = await read_body(request, max_bytes)

        def work() -> JSONResponse:
            picture, fields = picture_and_texts_in(request, body, max_bytes)
            item, allow_empty = _read_said(said.model_dump(exclude_none=True), fields)
            done = gateway.enrol(picture, gallery=name, item=item, allow_empty=allow_empty)
            return JSONResponse(done.to_json(), CREATED if done.changed else OK)

        return await threads.run("enrol", work)


def _add_deletions(app: FastAPI, gateway: Gateway) -> None:
    @app.delete(
        "/v1/objects/{id}",
        tags=["Live galleries"],
        summary="Delete an object",
        responses={OK: {"model": schemas.Deleted}, **described(400, 404, 410)},
    )
    def delete_object(id: ObjectId) -> JSONResponse:  # noqa: A002 - the name in the path
        """Gone from answers when this returns; with the last object of a picture go the items that show it."""
        return JSONResponse(gateway.delete_object(id))

    @app.delete(
        "/v1/galleries/{name}/pictures/{sha256}",
        tags=["Live galleries"],
        summary="Delete a picture",
        responses={OK: {"model": schemas.Deleted}, **described(400, 404)},
    )
    def delete_picture(name: GalleryName, sha256: Digest) -> JSONResponse:
        """With its objects, and with the items that show it."""
        return JSONResponse(gateway.delete(name, pictures=[sha256]))

    @app.delete(
        "/v1/galleries/{name}/items/{key:text}",
        tags=["Live galleries"],
        summary="Delete an item",
        dependencies=[Depends(require_text)],
        responses={OK: {"model": schemas.Deleted}, **described(400, 404)},
    )
    def delete_item(name: GalleryName, key: ItemKey) -> JSONResponse:
        """With the last item of a picture goes the picture, with its objects."""
        return JSONResponse(gateway.delete(name, items=[key]))


def _add_items(app: FastAPI, gateway: Gateway) -> None:
    @app.get(
        "/v1/galleries/{name}/items/{key:text}",
        tags=["Live galleries"],
        summary="An item",
        dependencies=[Depends(require_text)],
        responses={OK: {"model": schemas.ShownItem}, **described(400, 404)},
    )
    def get_item(name: GalleryName, key: ItemKey) -> JSONResponse:
        """With its picture and the objects in it."""
        return JSONResponse(gateway.item(name, key))

    @app.patch(
        "/v1/galleries/{name}/items/{key:text}",
        tags=["Live galleries"],
        summary="Change an item",
        dependencies=[Depends(require_text)],
        responses={OK: {"model": schemas.ShownItem}, **described(400, 404, 413)},
        openapi_extra=CHANGES_BODY,
    )
    async def change_item(request: Request, name: GalleryName, key: ItemKey) -> JSONResponse:
        """The item as it is then. Answers show the change when this returns."""
        changes = await read_json(request)
        return JSONResponse(await run_in_threadpool(gateway.change_item, name, key, changes))


def _add_export(app: FastAPI, gateway: Gateway) -> None:
    exports = Exports()

    @app.get(
        "/v1/galleries/{name}/export",
        tags=["Live galleries"],
        summary="Everything that a gallery shows",
        response_class=StreamingResponse,
        responses={OK: {"content": {KIND: {"schema": {"type": "string"}}}}, **described(404, 503)},
    )
    async def export_gallery(name: GalleryName, vectors: WithVectors = False) -> StreamingResponse:
        """JSON lines, as of one sequence: first gallery, release and sequence, then objects by increasing id, then,
        without an id, pictures that items show although nothing was found in them.
        """
        return await exports.start(gateway.export(name, vectors=vectors))


async def require_text(request: Request) -> None:
    """BadInput for an address that is no UTF-8: what cannot be read would be read as something else."""
    for part in (request.scope.get("raw_path") or b"", request.scope["query_string"]):
        try:
            unquote_to_bytes(part).decode()
        except UnicodeDecodeError as error:
            raise BadInput("rest.bad-request", f"the address is no UTF-8: {error}") from error


def _read_said(parameters: Mapping[str, str], fields: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    """What parameters and fields of a form say of an item, and whether it may be empty."""
    if twice := sorted(set(parameters) & set(fields)):
        raise BadInput("rest.bad-request", f"{twice[0]} is said twice: as a parameter and as a field of the form")
    said: dict[str, Any] = {**parameters, **fields}
    for name in {"off_shelf", "allow_empty"} & set(said):
        if said[name].lower() not in FLAGS:
            raise BadInput("rest.bad-request", f"{name}: {said[name]!r} is neither true nor false")
        said[name] = FLAGS[said[name].lower()]
    if "data" in said:
        said["data"] = object_in(said["data"], "data")
    return said, bool(said.pop("allow_empty", False))
