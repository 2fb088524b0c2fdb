"""Models that are served as they are, over HTTP: both protocols of tensors, beside the rest or alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from relens.rest.border import Border
from relens.rest.oip import oip_routes
from relens.rest.tfserving import tfserving_routes
from relens.serving.served import ModelServer
from relens.serving.tallies import counted
from relens.telemetry import REGISTRY

NOT_READY = 503


class Opened(Protocol):
    """What lives as long as the application."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


def model_routes(server: ModelServer, *, max_bytes: int) -> list[BaseRoute]:
    """The routes of both protocols, over one count of what they ask."""
    server = counted(server)
    return [*tfserving_routes(server, max_bytes=max_bytes), *oip_routes(server, max_bytes=max_bytes)]


def life_of(*parts: Opened) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """The lives of parts as that of an application: they are opened in this order, and closed in the other."""

    @asynccontextmanager
    async def life(_app: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for part in parts:
                await part.open()
                stack.push_async_callback(part.close)
            yield

    return life


def create_models_app(
    server: ModelServer, *parts: Opened, max_bytes: int, allowed_hosts: Sequence[str] | None = None
) -> Starlette:
    """An application that serves nothing but models, with health and metrics. The parts live as long as it does."""
    routes = [
        *model_routes(server, max_bytes=max_bytes),
        Route("/health/live", _live),
        Route("/health/ready", _ready(server)),
        Route("/metrics", _metrics),
    ]
    border = [Middleware(Border, allowed_hosts=allowed_hosts)]
    return Starlette(routes=routes, lifespan=life_of(*parts), middleware=border)


def missing_models(server: ModelServer) -> list[str]:
    """Models of which no version answers, as sentences."""
    return [
        f"no version of model {model} is available"
        for model in server.models()
        if not any(one.state == "AVAILABLE" for one in server.versions(model))
    ]


async def _live(_request: Request) -> JSONResponse:
    return JSONResponse({"live": True})


def _ready(server: ModelServer) -> Callable[[Request], Any]:
    async def ready(_request: Request) -> JSONResponse:
        missing = missing_models(server) if server.models() else ["there is no model yet"]
        if missing:
            return JSONResponse({"ready": False, "missing": missing}, NOT_READY)
        return JSONResponse({"ready": True})

    return ready


async def _metrics(_request: Request) -> Response:
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
