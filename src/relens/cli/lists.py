"""`gallery ls | show | rm` and `release ls | show`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from relens import wiring
from relens.cli.output import DONE, HomeOption, JsonOption, show, table, when
from relens.errors import BadInput

galleries = typer.Typer(help="Galleries: named sets of objects.", no_args_is_help=True)
releases = typer.Typer(help="Releases: what answers, a lens with a view.", no_args_is_help=True)


@galleries.command("ls")
def list_galleries(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Galleries with their recipes, counts and releases."""
    value = wiring.open_local(home).galleries()
    rows = [
        [g["name"], g["recipe"], g["counts"]["pictures"], g["counts"]["items"], g["counts"]["objects"], g["release"]]
        for g in value["galleries"]
    ]
    header = ["gallery", "recipe", "pictures", "items", "objects", "release"]
    show(value, as_json=as_json, text=lambda: table(rows, header))
    return DONE


@galleries.command("show")
def show_gallery(name: str, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """A gallery: what it holds and what answers for it."""
    value = wiring.open_local(home).gallery(name)
    show(value, as_json=as_json, text=lambda: _lines(value))
    return DONE


@galleries.command("rm")
def remove_gallery(
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this nothing is removed.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Remove a gallery: its plans are cancelled, its objects are gone from answers, its name is free."""
    gateway = wiring.open_local(home)
    found = gateway.gallery(name)
    if not yes:
        raise BadInput(
            "cli.not-sure", f"gallery {name} holds {found['counts']['objects']} objects", hint="add --yes to remove it"
        )
    value = gateway.remove_gallery(name)
    show(value, as_json=as_json, text=lambda: f"gallery {name} is removed")
    return DONE


@releases.command("ls")
def list_releases(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Releases, newest first, with the aliases that mean them now."""
    value = wiring.open_local(home).releases()
    rows = [
        [
            r["name"],
            ",".join(r["aliases"]),
            r.get("gallery", ""),
            r.get("sequence", ""),
            r["lens"][:12],
            when(r["created_at"]),
        ]
        for r in value["releases"]
    ]
    header = ["release", "aliases", "gallery", "sequence", "lens", "made"]
    show(value, as_json=as_json, text=lambda: table(rows, header))
    return DONE


@releases.command("show")
def show_release(name: str, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """A release: lens, models, view, and the checks that the view passed."""
    value = wiring.open_local(home).release(name)
    show(value, as_json=as_json, text=lambda: _lines(value))
    return DONE


def _lines(value: dict[str, Any]) -> str:
    lines = []
    for key, shown in value.items():
        if key == "checks":
            lines += [f"{'check':10} {'ok' if c['ok'] else 'FAILED'}: {c['name']}: {c['detail']}" for c in shown]
        elif key.endswith("_at"):
            lines.append(f"{key:10} {when(shown)}")
        elif isinstance(shown, dict):
            lines.append(f"{key:10} " + ", ".join(f"{name}={part}" for name, part in shown.items()))
        else:
            lines.append(f"{key:10} {', '.join(map(str, shown)) if isinstance(shown, list) else shown}")
    return "\n".join(lines)
