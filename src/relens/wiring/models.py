"""A folder of models, on this machine or at a URL, served: `relens up --models`, alone or beside a home."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from relens import config
from relens.config import ServedModel, Settings
from relens.hosted import start
from relens.models.far import open_models
from relens.models.folder import ModelFolder
from relens.rest.models import Lived, Opened, create_models_app
from relens.serving.hosting import Hosting, Options
from relens.serving.served import ModelServer, Policy, Wanted
from relens.serving.splits import Rollback, Split
from relens.serving.tallies import counted
from relens.serving.traffic import Traffic
from relens.wiring import Parts
from relens.wiring.listening import LOOPBACK, listen, run, serve, url_of

DEFAULT_PORT = 8080
AHEAD = 2
"""How many times its queue an engine may have unanswered: what it runs, what waits, and what is on its way."""

log = structlog.get_logger(__name__)


def host_models(
    folder: ModelFolder,
    options: Options | None = None,
    settings: Settings | None = None,
    cache: Path | None = None,
) -> Hosting:
    """A server of the models in a folder, not begun. Raises why nothing can be served from there.

    options   by default as the settings say
    cache     for what can be made again; by default that of the user
    """
    folder.check()
    given = settings or config.without_home()
    return Hosting(folder, _Starting(given, cache or default_cache()), options or options_of(given))


def hosted_beside(parts: Parts) -> Opened | None:
    """A server of the models that the settings of a home name, not begun; None if they name none.

    Raises why nothing can be served from there.
    """
    settings = parts.settings
    given = settings.models.folder
    if not given:
        return None
    location = given if "://" in given else parts.home.path / Path(given).expanduser()
    cache = parts.home.cache
    folder = open_models(location, settings.blob_store, cache / "models")
    return with_traffic(host_models(folder, settings=settings, cache=cache), settings)


def with_traffic(hosting: Hosting, settings: Settings) -> Opened:
    """The server with requests split among versions of the models that the settings say it of."""
    given = {model: how.traffic for model, how in settings.models.serve.items() if how.traffic is not None}
    if not given:
        return hosting
    splits = {
        model: Split(how.split, how.shadow, Rollback(**how.rollback.model_dump())) for model, how in given.items()
    }
    return Traffic(hosting, splits, wait_s=settings.server.timeout_s)


def options_of(settings: Settings) -> Options:
    """How settings say that models are served. A request waits as long as any question."""
    given = settings.models
    return Options(
        wanted={model: _wanted(how) for model, how in given.serve.items()},
        default=Wanted() if given.others else None,
        poll_s=given.poll_s,
        wait_s=settings.server.timeout_s,
        waiting=settings.server.queue * AHEAD,
        hangs_s=2 * settings.server.timeout_s,
        load_s=given.load_timeout_s,
        tries=given.tries,
        drain_s=given.drain_s,
        at_once=given.at_once,
    )


def _wanted(how: ServedModel) -> Wanted:
    latest = None if how.latest == "all" else how.latest
    waiting = None if how.queue is None else how.queue * AHEAD
    return Wanted(Policy(latest, how.specific), how.labels, how.swap, waiting, how.priorities)


def run_models(
    location: str,
    *,
    port: int | None,
    grpc_port: int | None,
    poll_s: float | None,
    ready: Callable[[str, str | None], None],
) -> None:
    """Serve the models at a path or URL, and nothing else, until SIGINT or SIGTERM.

    grpc_port  where gRPC listens; 0 takes a free one, None: nowhere
    ready      is told the URL, and gRPC's address if there is one

    Conflict if a port is taken.
    """
    settings = config.without_home()
    options = options_of(settings) if poll_s is None else replace(options_of(settings), poll_s=poll_s)
    hosting = host_models(open_models(location, settings.blob_store, default_cache() / "models"), options, settings)
    with listen(LOOPBACK[0], DEFAULT_PORT if port is None else port) as listener:
        run(_serve(with_traffic(hosting, settings), listener, grpc_port, settings, ready))


async def _serve(
    hosting: Opened,
    listener: socket.socket,
    grpc_port: int | None,
    settings: Settings,
    ready: Callable[[str, str | None], None],
) -> None:
    server, max_bytes = counted(hosting), settings.limits.max_bytes
    doors, address = rpc_door(server, grpc_port, max_bytes)
    app = create_models_app(server, hosting, *doors, max_bytes=max_bytes, allowed_hosts=LOOPBACK)
    ready(url_of(listener), address)
    log.info("up", url=url_of(listener), grpc=address, pid=os.getpid())
    await serve(app, listener)
    log.info("down")


def rpc_door(server: ModelServer, port: int | None, max_bytes: int) -> tuple[list[Lived], str | None]:
    """What serves models over gRPC on a port, and its address; nothing for None. On the running event loop.

    Conflict if the port is taken.
    """
    if port is None:
        return [], None
    from relens.rpc import create_rpc_server  # noqa: PLC0415 - servers without it start without gRPC

    door = create_rpc_server(server, max_bytes=max_bytes)
    return [door], f"{LOOPBACK[0]}:{door.listen(LOOPBACK[0], port)}"


def default_cache() -> Path:
    """Where is kept, without a home, what can be had again: XDG_CACHE_HOME, else `~/.cache`."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path("~/.cache").expanduser()) / "relens"


@dataclass(frozen=True, slots=True)
class _Profile:
    """What a profile means. `cores` is what one forward uses, None: all; `nice` of what runs."""

    rows: int
    delay_ms: float
    cores: int | None
    nice: int = 0


PROFILES = {
    "fair": _Profile(rows=1, delay_ms=0, cores=1),
    "batch": _Profile(rows=8, delay_ms=2, cores=None),
    "bulk": _Profile(rows=32, delay_ms=50, cores=None, nice=10),
}


@dataclass(frozen=True, slots=True)
class _Starting:
    """Arguments of engine processes, by the settings; `cache` is for what can be made again."""

    settings: Settings
    cache: Path

    def __call__(self, model: str, file: Path, digest: str, urgent: bool) -> Sequence[str]:
        how = self.settings.models.serve.get(model, ServedModel())
        profile, cores = PROFILES[how.profile], os.cpu_count() or 1
        queue = how.queue or self.settings.server.queue
        way = {
            "threads": cores,
            "rows": how.batch or profile.rows,
            "delay_s": (profile.delay_ms if how.delay_ms is None else how.delay_ms) / 1000,
            "sizes": sorted(how.sizes),
            "nice": profile.nice,
        }
        given = {
            "--model": file,
            "--digest": digest,
            "--cores": profile.cores or cores,
            "--backend": how.backend,
            "--cache": self.cache / "openvino",
            "--queue": queue * AHEAD if how.priorities > 1 else queue,  # the front keeps each priority's part free
            "--way": json.dumps(way),
            "--limits": json.dumps(self.settings.limits.model_dump()),
        }
        logs = ("--logs", self.settings.logs.level, self.settings.logs.format)
        words = [*(str(part) for pair in given.items() for part in pair), *logs]
        return [sys.executable, "-P", start.__file__, *([start.URGENT] if urgent else []), *words]
