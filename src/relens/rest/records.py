"""What there is: objects, galleries, plans, releases, models. One use of the gateway each, run in a thread."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Response
from starlette.responses import JSONResponse

from relens.gateway import Gateway
from relens.rest import schemas
from relens.rest.failures import described
from relens.vision.header import read_header

MAX_ID = 2**63 - 1
ObjectId = Annotated[int, Path(ge=0, le=MAX_ID, description="id of an object", examples=[4711])]
PlanId = Annotated[int, Path(ge=0, le=MAX_ID, description="id of a plan", examples=[7])]
GalleryName = Annotated[str, Path(description="name of a gallery", examples=["shop"])]
ReleaseName = Annotated[str, Path(description="name of a release, as answers give it", examples=["shop-3"])]
ModelName = Annotated[str, Path(description="name of a model", examples=["effnet-lite0"])]
VersionOrLabel = Annotated[str, Path(description="a version, or a label like `stable`", examples=["stable"])]

# Only the asker's own cache: one between would go on showing what was deleted.
CROP_HEADERS = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


def add_records(app: FastAPI, gateway: Gateway) -> None:
    """Put everything that is looked up on the application."""
    _add_objects(app, gateway)
    _add_galleries(app, gateway)
    _add_plans(app, gateway)
    _add_releases(app, gateway)
    _add_models(app, gateway)


def _add_objects(app: FastAPI, gateway: Gateway) -> None:
    @app.get(
        "/v1/objects/{id}",
        tags=["Objects"],
        summary="An object",
        responses={200: {"model": schemas.StoredObject}, **described(400, 404, 410)},
    )
    def get_object(id: ObjectId) -> JSONResponse:  # noqa: A002 - the name in the path
        """Where it is, what it is, and the items that show it. 410 if it was deleted."""
        return JSONResponse(gateway.object(id).to_json())

    @app.get(
        "/v1/objects/{id}/crop",
        tags=["Objects"],
        summary="The stored crop of an object",
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
            **described(400, 404, 410),
        },
    )
    def get_crop(id: ObjectId) -> Response:  # noqa: A002
        """A JPEG, upright, that never changes: it may be cached for ever by whoever asked for it."""
        return Response(gateway.crop(id), media_type="image/jpeg", headers=CROP_HEADERS)

    @app.get(
        "/v1/objects/{id}/picture",
        tags=["Objects"],
        summary="The picture of an object, as it came",
        response_class=Response,
        responses={
            200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
            **described(400, 404, 410),
        },
    )
    def get_picture(id: ObjectId) -> Response:  # noqa: A002
        """Every byte of it, if the object's gallery keeps originals; 404 if it does not."""
        data = gateway.picture(id)
        return Response(data, media_type=f"image/{read_header(data).format}", headers=CROP_HEADERS)


def _add_galleries(app: FastAPI, gateway: Gateway) -> None:
    @app.get(
        "/v1/galleries",
        tags=["Galleries"],
        summary="All galleries",
        responses={200: {"model": schemas.Galleries}, **described()},
    )
    def list_galleries() -> JSONResponse:
        """By name."""
        return JSONResponse(gateway.galleries())

    @app.get(
        "/v1/galleries/{name}",
        tags=["Galleries"],
        summary="A gallery",
        responses={200: {"model": schemas.Gallery}, **described(404)},
    )
    def get_gallery(name: GalleryName) -> JSONResponse:
        """Its counts, and the release that answers for it."""
        return JSONResponse(gateway.gallery(name))


def _add_plans(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/v1/plans", tags=["Plans"], summary="All plans", responses={200: {"model": schemas.Plans}, **described()})
    def list_plans() -> JSONResponse:
        """Imports that run or ran, newest first."""
        return JSONResponse(gateway.plans())

    @app.get(
        "/v1/plans/{id}",
        tags=["Plans"],
        summary="A plan",
        responses={200: {"model": schemas.Plan}, **described(400, 404)},
    )
    def get_plan(id: PlanId) -> JSONResponse:  # noqa: A002
        """How far it is, with the funnel of each task: in = out + dropped + failed."""
        return JSONResponse(gateway.plan(id))

    @app.post(
        "/v1/plans/{id}/cancel",
        tags=["Plans"],
        summary="Cancel a plan",
        responses={200: {"model": schemas.Plan}, **described(400, 404, 409)},
    )
    def cancel_plan(id: PlanId) -> JSONResponse:  # noqa: A002
        """What did not run is booked as cancelled; what is committed is kept. 409 if the plan is over."""
        return JSONResponse(gateway.cancel(id))

    @app.post(
        "/v1/plans/{id}/resume",
        tags=["Plans"],
        summary="Resume a plan",
        responses={200: {"model": schemas.Plan}, **described(400, 404, 409)},
    )
    def resume_plan(id: PlanId) -> JSONResponse:  # noqa: A002
        """Lets a plan go on that rests after errors, or whose view was held. 409 if the plan is over."""
        return JSONResponse(gateway.resume(id))


def _add_releases(app: FastAPI, gateway: Gateway) -> None:
    @app.get(
        "/v1/releases",
        tags=["Releases"],
        summary="All releases",
        responses={200: {"model": schemas.Releases}, **described()},
    )
    def list_releases() -> JSONResponse:
        """Newest first, with the aliases that mean them now."""
        return JSONResponse(gateway.releases())

    @app.get(
        "/v1/releases/{name}",
        tags=["Releases"],
        summary="A release",
        responses={200: {"model": schemas.Release}, **described(404)},
    )
    def get_release(name: ReleaseName) -> JSONResponse:
        """Its lens with the digests of its models, and its view with the checks that it passed."""
        return JSONResponse(gateway.release(name))


def _add_models(app: FastAPI, gateway: Gateway) -> None:
    @app.get(
        "/v1/models", tags=["Models"], summary="All models", responses={200: {"model": schemas.Models}, **described()}
    )
    def list_models() -> JSONResponse:
        """Every version, by name and version."""
        return JSONResponse(gateway.models())

    @app.get(
        "/v1/models/{name}",
        tags=["Models"],
        summary="A model, in its stable version",
        responses={200: {"model": schemas.Model}, **described(400, 404)},
    )
    def get_model(name: ModelName) -> JSONResponse:
        """The version with the label `stable`, else the newest."""
        return JSONResponse(gateway.model(name))

    @app.get(
        "/v1/models/{name}/{version_or_label}",
        tags=["Models"],
        summary="A version of a model",
        responses={200: {"model": schemas.Model}, **described(400, 404)},
    )
    def get_model_version(name: ModelName, version_or_label: VersionOrLabel) -> JSONResponse:
        """Its card, licence and digest, and the back-end that runs it here."""
        return JSONResponse(gateway.model(f"{name}/{version_or_label}"))
