"""Models that are served as they are, over HTTP: both protocols of tensors and pictures, beside the rest or alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from relens.rest.border import Border
from relens.rest.looking import looking_routes
from relens.rest.oip import oip_routes
from relens.rest.tfserving import tfserving_routes
from relens.serving.served import ModelServer, status_of
from relens.serving.tallies import counted
from relens.telemetry import MODEL_MEMORY, MODEL_SHARE, MODEL_STATE, MODEL_WAITING, REGISTRY

NOT_READY = 503


class Lived(Protocol):
    """What lives as long as the application."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class Opened(ModelServer, Lived, Protocol):
    """A server of models that does."""


def model_routes(server: ModelServer, *, max_bytes: int) -> list[BaseRoute]:
    """The routes of both protocols, and of pictures as they are, over one count of what they ask."""
    server = counted(server)
    # `{model}` of the last takes a colon and what follows. Paths are tried in turn: binary tensors have the least time.
    doors = (oip_routes, looking_routes, tfserving_routes)
    return [route for door in doors for route in door(server, max_bytes=max_bytes)]


def add_models(app: FastAPI, server: ModelServer, *, max_bytes: int) -> None:
    """Put the routes of both protocols on an application that has routes of its own.

    A model that is served is told of as TensorFlow Serving does; of others the application tells as it did.
    """
    own = {f"/v1/models/{{model}}{rest}" for rest in ("", "/metadata")}
    routes = model_routes(server, max_bytes=max_bytes)
    app.router.routes[:0] = [_OfServed(one, server) if getattr(one, "path", "") in own else one for one in routes]


class _OfServed(BaseRoute):
    """A route of models that are served; others are left to the routes behind it."""

    def __init__(self, route: BaseRoute, server: ModelServer) -> None:
        self._route = route
        self._server = server

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = self._route.matches(scope)
        if match is not Match.NONE and found["path_params"]["model"] not in self._server.models():
            return Match.NONE, {}
        return match, found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._route.handle(scope, receive, send)


def life_of(*parts: Lived) -> Callable[[Any], AbstractAsyncContextManager[None]]:
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
    server: ModelServer, *parts: Lived, max_bytes: int, allowed_hosts: Sequence[str] | None = None
) -> Starlette:
    """An application that serves nothing but models, with health and metrics. The parts live as long as it does."""
    routes = [
        *model_routes(server, max_bytes=max_bytes),
        Route("/health/live", _live),
        Route("/health/ready", _ready(server)),
        Route("/v1/status", _status(server)),
        Route("/metrics", _metrics(server)),
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


def _status(server: ModelServer) -> Callable[[Request], Any]:
    async def status(_request: Request) -> JSONResponse:
        return JSONResponse({"served": status_of(server)})

    return status


def _metrics(server: ModelServer) -> Callable[[Request], Any]:
    async def metrics(_request: Request) -> Response:
        measure(server)
        return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return metrics


def measure(server: ModelServer) -> None:
    """Set the gauges of models to how they are now."""
    for gauge in (MODEL_WAITING, MODEL_MEMORY, MODEL_STATE, MODEL_SHARE):
        gauge.clear()
    for model in server.models():
        for one in server.versions(model):
            MODEL_WAITING.labels(model, str(one.version)).set(one.waiting)
            MODEL_MEMORY.labels(model, str(one.version)).set(one.memory_bytes)
            MODEL_STATE.labels(model, str(one.version), one.state).set(1)
            if one.traffic is not None:
                MODEL_SHARE.labels(model, str(one.version)).set(one.traffic.share)
