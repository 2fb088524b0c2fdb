"""A folder of models, served: `relens up --models`, alone or beside a home."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import uvicorn
import uvloop

from relens.config import Limits
from relens.errors import Missing
from relens.hosted import start
from relens.models.folder import ModelFolder
from relens.rest.models import Opened, create_models_app
from relens.rpc import create_rpc_server
from relens.serving.hosting import Hosting, Options
from relens.serving.tallies import counted
from relens.wiring.listening import LOOPBACK, Server, listen, url_of

QUEUE = 64
DEFAULT_PORT = 8080

log = structlog.get_logger(__name__)


def host_models(root: Path, options: Options | None = None) -> Hosting:
    """A server of the models in a folder, not begun. Missing if there is no such folder."""
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise Missing(
            "models.no-folder", f"there is no folder {root}", hint="name one with <model>/<version>/model.onnx"
        )
    return Hosting(ModelFolder(root), _engine_argv, options or Options())


def run_models(
    root: Path, *, port: int | None, grpc_port: int | None, ready: Callable[[str, str | None], None]
) -> None:
    """Serve a folder of models, and nothing else, until SIGINT or SIGTERM.

    grpc_port  where gRPC listens; 0 takes a free one, None: nowhere
    ready      is told the URL, and gRPC's address if there is one

    Conflict if a port is taken.
    """
    hosting = host_models(root)
    with listen(LOOPBACK[0], DEFAULT_PORT if port is None else port) as listener:
        server = counted(hosting)
        max_bytes = Limits().max_bytes

        async def serve() -> None:
            parts: list[Opened] = [hosting]
            address = None
            if grpc_port is not None:
                rpc = create_rpc_server(server, max_bytes=max_bytes)
                address = f"{LOOPBACK[0]}:{rpc.listen(LOOPBACK[0], grpc_port)}"
                parts.append(rpc)
            app = create_models_app(server, *parts, max_bytes=max_bytes, allowed_hosts=LOOPBACK)
            settings = uvicorn.Config(
                app, log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=10
            )
            ready(url_of(listener), address)
            log.info("up", url=url_of(listener), grpc=address, models=str(root), pid=os.getpid())
            await Server(settings).serve(sockets=[listener])
            log.info("down")

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())


def _engine_argv(file: Path, digest: str, urgent: bool) -> Sequence[str]:
    given = {"--model": file, "--digest": digest, "--threads": os.cpu_count() or 1, "--queue": QUEUE}
    words = [str(part) for pair in given.items() for part in pair]
    return [sys.executable, "-P", start.__file__, *([start.URGENT] if urgent else []), *words]
