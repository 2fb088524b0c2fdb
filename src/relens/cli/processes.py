"""`up`, and the processes that other commands start: `worker` and `engine`."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from relens import config, serving, wiring
from relens.cli.output import DONE, INTERRUPTED, HomeOption, say
from relens.errors import BadInput
from relens.jobs import parent_is_gone, run_worker, this_worker
from relens.telemetry import start_logging


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command(hidden=True)(worker)
    app.command(hidden=True)(engine)


def up(
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="HTTP port; 0 takes a free one.")] = None,
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            metavar="PATH|URL",
            help="Serve the models of this folder, <name>/<version>/model.onnx, and nothing else.",
        ),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option("--grpc-port", min=0, max=65535, help="Serve --models over gRPC as well; 0 takes a free port."),
    ] = None,
    poll: Annotated[
        float | None, typer.Option("--poll", min=0.1, help="Seconds from one look at --models to the next; 1.")
    ] = None,
    home: HomeOption = None,
) -> int:
    """Serve the home over HTTP on this machine, and run its workers, until ctrl-C; or a folder of models."""
    if models is not None:
        return _up_models(models, port, grpc_port, poll, home)
    if grpc_port is not None or poll is not None:
        raise BadInput(
            "cli.bad-options",
            f"{'--poll' if grpc_port is None else '--grpc-port'} goes with --models",
            hint="beside a home, relens.yaml says it: models.poll_s, models.grpc_port",
        )
    from relens.wiring.server import run_server  # noqa: PLC0415 - workers and engines start without a web server

    parts = wiring.open_parts(home)
    parts.start_logging()
    run_server(parts, port=port, ready=lambda url: say(f"relens on {parts.home.path}: {url}/docs, until ctrl-C"))
    return DONE


def _up_models(models: str, port: int | None, grpc_port: int | None, poll_s: float | None, home: Path | None) -> int:
    from relens.wiring.models import run_models  # noqa: PLC0415 - as above

    if home is not None:
        raise BadInput("cli.bad-options", "--models serves a folder alone, without a home", hint="leave --home out")
    logs = config.without_home().logs
    start_logging(logs.level, logs.format, for_good=True)

    def ready(url: str, grpc: str | None) -> None:
        also = "" if grpc is None else f" gRPC on {grpc},"
        say(f"relens serves the models of {models}:{also} {url}, until ctrl-C")

    run_models(models, port=port, grpc_port=grpc_port, poll_s=poll_s, ready=ready)
    return DONE


def worker(
    plan: Annotated[int | None, typer.Option("--plan", help="Work on this plan only.")] = None,
    idle_s: Annotated[float, typer.Option("--idle", help="End after this many seconds without work.")] = 10.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log errors only.")] = False,
    parent: Annotated[int | None, typer.Option("--parent", help="End when this process ends.")] = None,
    home: HomeOption = None,
) -> int:
    """Work packs off until there is nothing left to do. Started by `import` and `up`, or by hand on any machine."""
    parts = wiring.open_parts(home)
    parts.start_logging(quiet=quiet)
    os.nice(parts.settings.imports.nice)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _frame: asked.append(signum))
    run_worker(
        parts.catalog,
        this_worker(),
        parts.handlers(),
        lease_s=parts.settings.imports.lease_s,
        stop=lambda: bool(asked) or parent_is_gone(parent),
        idle_s=idle_s if plan is None else 0.0,
        plan=plan,
    )
    return INTERRUPTED if asked else DONE


def engine(
    lens: Annotated[str, typer.Option("--lens")],
    fd: Annotated[int, typer.Option("--fd")],
    home: HomeOption = None,
) -> int:
    """Answer questions of one lens over an inherited socket. Started by `up`."""
    parts = wiring.open_parts(home)
    parts.start_logging()
    for number in (signal.SIGINT, signal.SIGTERM):  # ctrl-C and systemd tell all; the front ends us when it has done
        signal.signal(number, signal.SIG_IGN)
    server = parts.settings.server
    connection = socket.socket(fileno=fd)

    def start() -> Any:
        return parts.engine(lens)

    return serving.serve(connection, start, threads=server.threads, queue=server.queue)
