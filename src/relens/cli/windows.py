"""`window`: which days of a gallery answer, and the indexes that make it quick to search."""

from __future__ import annotations

from typing import Annotated

import typer

from relens import wiring
from relens.bulk.windows import AS_BEFORE
from relens.cli.imports import watch_plan
from relens.cli.output import HomeOption, JsonOption, say
from relens.errors import BadInput


def add_to(app: typer.Typer) -> None:
    app.command()(window)


def window(
    gallery: Annotated[str, typer.Argument(help="The gallery.")],
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=36_500, help="Only the newest so many days answer.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All days answer again.")] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Learn centroids anew and build every index again.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Choose the days of a gallery that answer, and index what is large: parts of days are joined, not built again."""
    if every and days is not None:
        raise BadInput("cli.two-windows", "--days and --all say different things", hint="give one of them, or none")
    parts = wiring.open_parts(home)
    parts.start_logging(quiet=True)
    gateway = parts.in_process()
    chosen = None if every else AS_BEFORE if days is None else days
    waiting = gateway.start_window(gallery, days=chosen, retrain=retrain)
    say(f"plan {waiting.plan}{' goes on' if waiting.continued else ''}")
    return watch_plan(parts, gateway, waiting.plan, as_json=as_json)
