"""A folder of models, served: `relens up --models`, alone or beside a home."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog
import uvicorn

from relens.config import Limits
from relens.errors import Missing
from relens.hosted import start
from relens.models.folder import ModelFolder
from relens.rest.models import create_models_app
from relens.serving.hosting import Hosting, Options
from relens.wiring.listening import LOOPBACK, Server, listen, url_of

QUEUE = 64
DEFAULT_PORT = 8080

log = structlog.get_logger(__name__)


def host_models(root: Path, options: Options | None = None, limits: Limits | None = None) -> Hosting:
    """A server of the models in a folder, not begun. Missing if there is no such folder."""
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise Missing(
            "models.no-folder", f"there is no folder {root}", hint="name one with <model>/<version>/model.onnx"
        )
    return Hosting(ModelFolder(root), partial(_engine_argv, limits or Limits()), options or Options())


def run_models(root: Path, *, port: int | None, ready: Callable[[str], None]) -> None:
    """Serve a folder of models, and nothing else, until SIGINT or SIGTERM; `ready` is told the URL."""
    hosting = host_models(root)
    with listen(LOOPBACK[0], DEFAULT_PORT if port is None else port) as listener:
        app = create_models_app(hosting, max_bytes=Limits().max_bytes, allowed_hosts=LOOPBACK)
        settings = uvicorn.Config(
            app, log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=10
        )
        ready(url_of(listener))
        log.info("up", url=url_of(listener), models=str(root), pid=os.getpid())
        Server(settings).run(sockets=[listener])
        log.info("down")


def _engine_argv(limits: Limits, file: Path, digest: str, urgent: bool) -> Sequence[str]:
    given = {
        "--model": file,
        "--digest": digest,
        "--threads": os.cpu_count() or 1,
        "--queue": QUEUE,
        "--limits": json.dumps(limits.model_dump()),
    }
    words = [str(part) for pair in given.items() for part in pair]
    return [sys.executable, "-P", start.__file__, *([start.URGENT] if urgent else []), *words]
