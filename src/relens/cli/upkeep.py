"""`segment ls | rebuild | drop` and `gallery compact | purge`: a gallery kept in shape."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

import typer

from relens import wiring
from relens.cli import galleries
from relens.cli.imports import watch_plan
from relens.cli.output import DONE, HomeOption, JsonOption, say, show, table
from relens.errors import BadInput
from relens.gateway import Waiting

segments = typer.Typer(help="Segments: the parts of a gallery's index, by category and day.", no_args_is_help=True)

GalleryOption = Annotated[str, typer.Option("--gallery", "-g", help="The gallery.")]
DayOption = Annotated[str, typer.Option("--day", help="The day, like 2026-01-31.")]
SPAN = re.compile(r"(\d{1,6})([smhd])")
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@segments.command("ls")
def list_segments(gallery: GalleryOption, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Segments of a gallery by category and day, those of dropped days too, and what is not in one yet."""
    value = wiring.open_local(home).segments(gallery)
    show(value, as_json=as_json, text=lambda: _text(value))
    return DONE


@segments.command()
def rebuild(gallery: GalleryOption, day: DayOption, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Build a day's segments anew from its objects' vectors. A day that was dropped answers again."""
    parts = wiring.open_parts(home)
    gateway = parts.in_process()
    return _watch(parts, gateway, gateway.rebuild_day(gallery, day), as_json=as_json)


@segments.command()
def drop(gallery: GalleryOption, day: DayOption, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Take a day out of answers. Its objects stay, and are there by their ids; `rebuild` brings it back."""
    parts = wiring.open_parts(home)
    gateway = parts.in_process()
    return _watch(parts, gateway, gateway.drop_day(gallery, day), as_json=as_json)


@galleries.app.command()
def compact(name: galleries.NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Fold what was enrolled one by one into segments, and merge small ones. A server does it by itself."""
    parts = wiring.open_parts(home)
    gateway = parts.in_process()
    return _watch(parts, gateway, gateway.compact(name), as_json=as_json)


@galleries.app.command()
def purge(
    name: galleries.NameArgument,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", help="By when it must be done, like 90s, 30m, 24h or 7d from now. Default: ever."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Take every byte of what was deleted out of the store. Ends with 0 only if a scan has found nothing left."""
    patience_s = math.inf if deadline is None else _seconds(deadline)
    parts = wiring.open_parts(home)
    gateway = parts.in_process()
    waiting = gateway.purge(name)
    code = _watch(parts, gateway, waiting, as_json=as_json, patience_s=patience_s)
    if gateway.plan(waiting.plan)["state"] == "running":
        say(f"not done by the deadline; a server goes on with it, or `relens plan resume {waiting.plan}`")
    return code


def _watch(
    parts: wiring.Parts, gateway: wiring.Local, waiting: Waiting, *, as_json: bool, patience_s: float = math.inf
) -> int:
    parts.start_logging(quiet=True)
    say(f"plan {waiting.plan}{' goes on' if waiting.continued else ''}")
    return watch_plan(parts, gateway, waiting.plan, as_json=as_json, patience_s=patience_s)


def _seconds(span: str) -> float:
    found = SPAN.fullmatch(span)
    if found is None:
        raise BadInput("cli.bad-span", f"{span!r} is no span of time", hint="write it like 90s, 30m, 24h or 7d")
    return float(found[1]) * UNITS_S[found[2]]


def _text(value: dict[str, Any]) -> str:
    keys = list(value["segments"][0]) if value["segments"] else []
    rows = [[str(one[key])[:12] if key == "digest" else one[key] for key in keys] for one in value["segments"]]
    shown = table(rows, keys) if rows else "no segment yet"
    return f"{shown}\nnot in a segment yet: {value['tail']}"
