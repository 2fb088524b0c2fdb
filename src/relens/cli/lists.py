"""`release ls | show`."""

from __future__ import annotations

import typer

from relens import wiring
from relens.cli.output import DONE, HomeOption, JsonOption, facts, show, table, when

releases = typer.Typer(help="Releases: what answers, a lens with a view.", no_args_is_help=True)


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
    show(value, as_json=as_json, text=lambda: facts(value))
    return DONE
