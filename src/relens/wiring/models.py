"""A folder of models, on this machine or at a URL, served: `relens up --models`, alone or beside a home."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import uvicorn
from pydantic import ValidationError

from relens.config import BlobStore, Limits, Settings
from relens.errors import BadInput
from relens.hosted import start
from relens.models.far import open_models
from relens.models.folder import ModelFolder
from relens.rest.models import create_models_app
from relens.serving.hosting import Hosting, Options
from relens.wiring.listening import LOOPBACK, Server, listen, url_of

QUEUE = 64
DEFAULT_PORT = 8080

log = structlog.get_logger(__name__)


def host_models(folder: ModelFolder, options: Options | None = None) -> Hosting:
    """A server of the models in a folder, not begun. Raises why nothing can be served from there."""
    folder.check()
    return Hosting(folder, _engine_argv, options or Options())


def run_models(location: str, *, port: int | None, poll_s: float | None, ready: Callable[[str], None]) -> None:
    """Serve the models at a path or URL, and nothing else, until SIGINT or SIGTERM; `ready` is told the URL."""
    options = Options() if poll_s is None else Options(poll_s=poll_s)
    hosting = host_models(open_models(location, _store_of_environment(), default_cache()), options)
    with listen(LOOPBACK[0], DEFAULT_PORT if port is None else port) as listener:
        app = create_models_app(hosting, max_bytes=Limits().max_bytes, allowed_hosts=LOOPBACK)
        settings = uvicorn.Config(
            app, log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=10
        )
        ready(url_of(listener))
        log.info("up", url=url_of(listener), models=location, pid=os.getpid())
        Server(settings).run(sockets=[listener])
        log.info("down")


def default_cache() -> Path:
    """Where copies of far models are kept without a home: XDG_CACHE_HOME, else `~/.cache`."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path("~/.cache").expanduser()) / "relens" / "models"


def _store_of_environment() -> BlobStore:
    """How stores are reached without a home: RELENS__BLOB_STORE__KEY and so on."""
    try:
        return Settings().blob_store
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadInput("config.bad-value", f"{key}: {first['msg'].lower()} (in the environment)") from error


def _engine_argv(file: Path, digest: str, urgent: bool) -> Sequence[str]:
    given = {"--model": file, "--digest": digest, "--threads": os.cpu_count() or 1, "--queue": QUEUE}
    words = [str(part) for pair in given.items() for part in pair]
    return [sys.executable, "-P", start.__file__, *([start.URGENT] if urgent else []), *words]
