"""The application: every part of the door put together over one gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata

from fastapi import FastAPI

from relens.gateway import Gateway
from relens.rest.border import Border
from relens.rest.failures import add_failures
from relens.rest.health import add_health
from relens.rest.keeping import add_keeping
from relens.rest.models import Lived, add_models, life_of
from relens.rest.pages import add_docs
from relens.rest.questions import add_questions
from relens.rest.records import add_records
from relens.rest.threads import Threads
from relens.serving.served import ModelServer

DESCRIPTION = """Visual recognition and search that you run yourself. Every answer names the release that gave it. \
Every error is `{"error": {"code", "message", "hint"}}`; the code is stable. Parts that are absent are left out."""


def create_app(
    gateway: Gateway,
    *,
    max_bytes: int,
    ready_extra: Callable[[], list[str]] | None = None,
    allowed_hosts: Sequence[str] | None = None,
    questions: int = 64,
    models: ModelServer | None = None,
    lived: Sequence[Lived] = (),
) -> FastAPI:
    """The HTTP application of a gateway, for any ASGI server. It opens and closes nothing but `lived`.

    max_bytes      of one picture; a larger body is refused with 413 while it is read
    ready_extra    what else is missing for answering, as sentences, besides what the gateway says
    allowed_hosts  names in `Host` that are answered, without port; None answers all. Name them when only this machine
                   is served: a page of another site could otherwise reach it under a name of its own (DNS rebinding)
    questions      at a time, with enrolments, each in a thread of its own; one more is Busy at once. Set it above the
                   queue of the engines, so that they are the ones to refuse
    models         what is served as it is beside the gateway
    lived          opened and closed with the application
    """
    app = FastAPI(
        title="relens",
        version=metadata.version("relens"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life_of(*lived) if lived else None,
        generate_unique_id_function=lambda route: route.name,
    )
    add_failures(app)
    threads = Threads(questions)
    add_questions(app, gateway, threads, max_bytes)
    add_records(app, gateway)
    add_keeping(app, gateway, threads, max_bytes)
    add_health(app, gateway, ready_extra, models)
    add_docs(app)
    if models is not None:
        add_models(app, models, max_bytes=max_bytes)
    app.add_middleware(Border, allowed_hosts=allowed_hosts)
    return app
