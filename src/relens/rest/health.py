"""How the server is: alive, ready, what runs in it, and its metrics."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse

from relens.gateway import Gateway
from relens.rest import schemas
from relens.rest.failures import described
from relens.rest.models import measure, missing_models
from relens.serving.served import ModelServer, status_of
from relens.telemetry import REGISTRY

NOT_READY = 503


def add_health(
    app: FastAPI,
    gateway: Gateway,
    ready_extra: Callable[[], list[str]] | None,
    models: ModelServer | None,
) -> None:
    """Put status, health and metrics on the application. `models` is what is served as it is beside the gateway."""

    @app.get(
        "/v1/status",
        tags=["Server"],
        summary="Everything at a glance",
        responses={200: {"model": schemas.Status}, **described()},
    )
    async def get_status() -> JSONResponse:
        """Engines, unfinished plans, galleries and models, models that are served as they are, and what is missing."""
        told = await run_in_threadpool(gateway.status)
        return JSONResponse(told if models is None else told | {"served": status_of(models)})

    @app.get("/health/live", tags=["Server"], summary="Alive", responses={200: {"model": schemas.Live}})
    async def get_live() -> JSONResponse:
        """Answers as long as the process does."""
        return JSONResponse({"live": True})

    @app.get(
        "/health/ready",
        tags=["Server"],
        summary="Ready",
        responses={
            200: {"model": schemas.Ready},
            NOT_READY: {"model": schemas.NotReady, "description": "something is missing for answering"},
        },
    )
    async def get_ready() -> JSONResponse:
        """200 if questions can be answered, else 503 with what is missing."""
        missing = await run_in_threadpool(gateway.missing)
        missing = [*missing, *(ready_extra() if ready_extra else ()), *(missing_models(models) if models else ())]
        if missing:
            return JSONResponse({"ready": False, "missing": missing}, NOT_READY)
        return JSONResponse({"ready": True})

    @app.get("/metrics", tags=["Server"], summary="Metrics", response_class=PlainTextResponse)
    async def get_metrics() -> Response:
        """Counters of this process, for Prometheus."""
        if models is not None:
            measure(models)
        return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
