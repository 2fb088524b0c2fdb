"""`init`, `status`, `doctor`, `down`, `config show`: a home and its health."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial
from typing import Annotated, Any

import typer
import yaml

from relens import config, wiring
from relens.cli.output import DONE, FAILED, HomeOption, JsonOption, say, show, table
from relens.errors import Broken, Missing
from relens.wiring import checkup
from relens.wiring.lock import running_server

DOWN_TIMEOUT_S = 30.0

settings = typer.Typer(help="Settings of the home.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    for command in (init, status, doctor, down):
        app.command()(command)


def init(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Make a home: a commented relens.yaml, the recipes and the data folders. What exists is left as it is."""
    made_home, made = wiring.make_home(home)
    value = {"home": str(made_home.path), "made": [str(path) for path in made]}
    show(value, as_json=as_json, text=lambda: f"home: {made_home.path}\nnext: relens model fetch imagenet")
    return DONE


def status(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """What runs and what there is: server, unfinished plans, galleries, models, and versions that are served."""
    parts = wiring.open_parts(home)
    gateway = parts.in_process()
    server = running_server(parts.home)
    value: dict[str, Any] = gateway.status() | {"up": server is not None}
    if server:
        value["server"] = server
        value |= checkup.told_by(server["url"])
    show(value, as_json=as_json, text=partial(_status_text, value))
    return DONE


def doctor(
    home: HomeOption = None,
    as_json: JsonOption = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every model and blob against its digest.")] = False,
) -> int:
    """Look for what is wrong, and say what to do about it. Ends with 1 if something is."""
    parts = wiring.open_parts(home)
    findings = checkup.examine(parts, deep=deep, say=say)
    wrong = [finding for finding in findings if not finding["ok"]]
    value = {"ok": not wrong, "findings": findings}
    show(
        value,
        as_json=as_json,
        text=lambda: "\n".join(f"{'ok   ' if f['ok'] else 'WRONG'} {f['what']}: {f['detail']}" for f in findings),
    )
    return FAILED if wrong else DONE


def down(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """End the server of the home, and wait until it has ended."""
    found = config.find_home(home)
    config.load(found)
    server = running_server(found)
    if server is None:
        raise Missing("cli.not-up", f"nothing is up on {found.path}")
    if "pid" not in server:
        raise Broken("cli.starting", "the server is still starting; try again in a moment")
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(server["pid"], signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while running_server(found) is not None:
        if time.monotonic() > deadline:
            raise Broken("cli.still-up", f"process {server['pid']} has not ended within {DOWN_TIMEOUT_S:g} s")
        time.sleep(0.1)
    show({"down": server["pid"]}, as_json=as_json, text=lambda: f"process {server['pid']} has ended")
    return DONE


@settings.command("show")
def show_settings(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """The settings that are in force, from relens.yaml and the environment."""
    found = config.find_home(home)
    value = config.load(found).model_dump()
    show(value, as_json=as_json, text=f"# {found.file}\n{yaml.safe_dump(value, sort_keys=False)}".rstrip)
    return DONE


@settings.callback()
def _settings() -> None:
    """Settings of the home."""


def _status_text(value: dict[str, Any]) -> str:
    server = value.get("server") or {}
    lines = [f"home     {value['home']}"]
    lines.append(f"server   {server.get('url', 'starting') if value['up'] else 'not up'}")
    lines += [f"missing  {problem}" for problem in value["missing"]]
    lines.append(f"models   {', '.join(value['models']) or 'none'}")
    if value["galleries"]:
        rows = [
            [g["name"], g["recipe"], g["counts"]["objects"], g["sequence"], g["release"]] for g in value["galleries"]
        ]
        lines += ["", table(rows, ["gallery", "recipe", "objects", "sequence", "release"])]
    if value["plans"]:
        rows = [
            [p["id"], p["kind"], p.get("gallery", ""), p["state"], f"{p['progress']['done']}/{p['progress']['total']}"]
            for p in value["plans"]
        ]
        lines += ["", table(rows, ["plan", "kind", "gallery", "state", "done"])]
    if value.get("served"):
        rows = [
            [
                model["model"],
                one["version"],
                one["state"],
                one["waiting"],
                _called(model, one),
                f"{one['traffic']['share']:.0%}" if "traffic" in one else "",
                one.get("error", {}).get("message", "") or one.get("traffic", {}).get("why", ""),
            ]
            for model in value["served"]
            for one in model["versions"]
        ]
        lines += ["", table(rows, ["served", "version", "state", "waiting", "labels", "share", "error"])]
    return "\n".join(lines)


def _called(model: dict[str, Any], version: dict[str, Any]) -> str:
    """The labels of a version."""
    return ", ".join(label for label, number in model["labels"].items() if number == version["version"])
