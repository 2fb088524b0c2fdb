"""`relens up`: HTTP, engines and workers of one home, in the foreground until it is told to end."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

import structlog

from relens.errors import BadInput
from relens.gateway import Gateway
from relens.jobs import WorkerPool
from relens.rest import create_app
from relens.rest.models import Lived, Opened
from relens.serving.tallies import counted
from relens.wiring import Parts, worker_argv
from relens.wiring.listening import LOOPBACK, listen, run, serve, url_of
from relens.wiring.lock import server_lock, write_note
from relens.wiring.models import hosted_beside, rpc_door

TEND_S = 0.25
PAUSE_S = 10.0
UPKEEP_S = 5.0
"""How often it is looked whether a gallery has grown so that something is to be done about it."""
STALE_S = 24 * 3600.0

log = structlog.get_logger(__name__)


def run_server(parts: Parts, *, port: int | None = None, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is told the URL.

    Conflict if another server runs on this home or the port is taken.
    """
    host = parts.settings.server.host
    if host not in LOOPBACK:
        raise BadInput(
            "wiring.not-loopback",
            f"server.host is {host}: this version has no keys, so it listens on this machine only",
            hint="set server.host to 127.0.0.1 and put a proxy with authentication before it",
        )
    with server_lock(parts.home), listen(host, parts.settings.server.port if port is None else port) as listener:
        gateway = parts.with_engines()
        parts.blobs.sweep(STALE_S)
        workers = _Workers(parts, gateway)
        workers.start()
        try:
            _serve(parts, gateway, listener, ready)
        finally:
            workers.stop()
            gateway.close()


def _serve(parts: Parts, gateway: Gateway, listener: socket.socket, ready: Callable[[str], None]) -> None:
    hosting = hosted_beside(parts)
    run(_serve_all(parts, gateway, hosting, listener, ready))


async def _serve_all(
    parts: Parts, gateway: Gateway, hosting: Opened | None, listener: socket.socket, ready: Callable[[str], None]
) -> None:
    url, settings = url_of(listener), parts.settings
    max_bytes = settings.limits.max_bytes
    models = None if hosting is None else counted(hosting)
    lived: list[Lived] = []
    address = None
    if hosting is not None and models is not None:
        doors, address = rpc_door(models, settings.models.grpc_port, max_bytes)
        lived = [hosting, *doors]
    app = create_app(
        gateway,
        max_bytes=max_bytes,
        allowed_hosts=LOOPBACK,
        # More than the engine's queue holds, so that it is the engine which says that it is full.
        questions=settings.server.queue + settings.server.threads + 8,
        models=models,
        lived=lived,
    )
    write_note(parts.home, url)
    ready(url)
    log.info("up", url=url, grpc=address, home=str(parts.home.path), pid=os.getpid())
    await serve(app, listener)
    log.info("down")


class _Workers:
    """Worker processes while there is work; they end by themselves when there is none."""

    def __init__(self, parts: Parts, gateway: Gateway) -> None:
        count = parts.settings.imports.workers or os.cpu_count() or 1
        self._pool = WorkerPool(worker_argv(parts.home), count)
        self._gateway = gateway
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="workers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._pool.stop()

    def _tend(self) -> None:
        looked = 0.0
        while not self._over.wait(TEND_S):
            try:
                if time.monotonic() - looked > UPKEEP_S:
                    looked = time.monotonic()
                    self._gateway.rest_engines()
                    self._gateway.compact_due()
                    self._gateway.index_large()
                if self._gateway.unfinished():
                    self._pool.fill()
                else:
                    self._pool.reap()
            except Exception:  # whatever it is, imports must not wait for ever for workers that nobody starts
                log.exception("workers cannot be started; trying again", pause_s=PAUSE_S)
                self._over.wait(PAUSE_S)
                self._pool.forgive()
