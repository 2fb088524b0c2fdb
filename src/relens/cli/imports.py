"""`import` and `plan ls | show | resume | cancel`: long work, watched."""

from __future__ import annotations

import math
import os
import time
from typing import Annotated, Any

import typer

from relens import wiring
from relens.cli.output import (
    DONE,
    FAILED,
    INTERRUPTED,
    PARTLY,
    REFUSED,
    HomeOption,
    JsonOption,
    StatusLine,
    recipe_named,
    say,
    show,
    table,
    when,
)
from relens.errors import BadInput, Broken
from relens.gateway import Gateway
from relens.jobs import WorkerPool
from relens.wiring.lock import running_server

POLL_S = 0.3
PATIENCE_S = 300.0
QUIET_S = 30.0

plans = typer.Typer(help="Plans: runs with an id, their progress and their books.", no_args_is_help=True)

WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Worker processes while no server is up. Default: one per core."),
]
PlanArgument = Annotated[int, typer.Argument(min=1, max=2**31 - 1, help="The plan's id, from `relens plan ls`.")]


def add_to(app: typer.Typer) -> None:
    app.command("import")(import_pictures)


def import_pictures(
    source: Annotated[
        str,
        typer.Argument(help="A folder of pictures, a .csv or .jsonl listing, or a .tar; here, on s3:// or http(s)://."),
    ],
    gallery: Annotated[str, typer.Option("--gallery", "-g", help="The gallery; it is made if there is none.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Recipe of a new gallery; a gallery remembers its own.")
    ] = None,
    workers: WorkersOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave the work to a running `relens up`.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Take pictures into a gallery. The same command, typed again while unfinished, goes on where it stopped."""
    parts = wiring.open_parts(home)
    parts.start_logging(quiet=True)
    if detach and running_server(parts.home) is None:
        raise BadInput(
            "cli.nothing-up",
            "--detach leaves the work to a server, and none is up",
            hint="run `relens up`, or leave out --detach",
        )
    gateway = parts.in_process()
    count = workers or parts.settings.imports.workers or os.cpu_count() or 1
    waiting = gateway.start_import(source, gallery=gallery, recipe=recipe and recipe_named(recipe), workers=count)
    say(f"plan {waiting.plan}{' goes on' if waiting.continued else ''}")
    if detach:
        value = gateway.plan(waiting.plan)
        show(
            value,
            as_json=as_json,
            text=lambda: f"plan {waiting.plan} is started; see `relens plan show {waiting.plan}`",
        )
        return DONE
    return _finish(parts, gateway, waiting.plan, count, as_json=as_json)


@plans.command("ls")
def list_plans(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Plans, newest first."""
    value = wiring.open_local(home).plans()
    rows = [
        [
            p["id"],
            p["kind"],
            p.get("gallery", ""),
            p["state"],
            f"{p['progress']['done']}/{p['progress']['total']}",
            when(p["created_at"]),
            p.get("source", ""),
        ]
        for p in value["plans"]
    ]
    show(
        value, as_json=as_json, text=lambda: table(rows, ["plan", "kind", "gallery", "state", "done", "made", "source"])
    )
    return DONE


@plans.command("show")
def show_plan(plan: PlanArgument, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """A plan with its funnel, and what went to quarantine."""
    value = wiring.open_local(home).plan(plan)
    show(value, as_json=as_json, text=lambda: plan_text(value))
    return DONE


@plans.command()
def resume(
    plan: PlanArgument, workers: WorkersOption = None, home: HomeOption = None, as_json: JsonOption = False
) -> int:
    """Let a plan go on that failed, was held or was interrupted, and wait for it."""
    parts = wiring.open_parts(home)
    parts.start_logging(quiet=True)
    gateway = parts.in_process()
    gateway.resume(plan)
    count = workers or parts.settings.imports.workers or os.cpu_count() or 1
    return _finish(parts, gateway, plan, count, as_json=as_json)


@plans.command()
def cancel(plan: PlanArgument, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Stop a plan: what did not run is booked as cancelled, what is committed becomes searchable."""
    parts = wiring.open_parts(home)
    parts.start_logging(quiet=True)
    gateway = parts.in_process()
    gateway.cancel(plan)
    _watch(parts, gateway, plan, 1)
    value = gateway.plan(plan)
    show(value, as_json=as_json, text=lambda: plan_text(value))
    return DONE if value["state"] == "cancelled" else _exit_code(value)


def plan_text(value: dict[str, Any]) -> str:
    """A plan for people."""
    rows = [
        [t["name"], t["in"], t["out"], t["failed"], t["made"], " ".join(f"{r}={n}" for r, n in t["dropped"].items())]
        for t in value["tasks"]
    ]
    what = f"{value['kind']} {'into' if value['kind'] == 'import' else 'of'} {value.get('gallery')}"
    lines = [f"plan {value['id']}: {what}{', ' + value['day'] if 'day' in value else ''}, {value['state']}"]
    lines.append(table(rows, ["task", "in", "out", "failed", "made", "dropped"]))
    lines += [f"failed: {q['uri']}: {q['message']}" for q in value.get("quarantine", [])[:20]]
    if len(value.get("quarantine", [])) > 20:  # noqa: PLR2004
        lines.append(f"… and {len(value['quarantine']) - 20} more: --json lists all")
    lines += [f"check failed: {c['name']}: {c['detail']}" for c in value.get("checks", []) if not c["ok"]]
    if "released" in value:
        lines.append(f"released: {value['released']} objects, whose items show other pictures now")
    for reason, count in value["tasks"][0]["dropped"].items():
        if reason.startswith("waits-for-plan-"):
            other = reason.rpartition("-")[2]
            lines.append(f"{count} pictures become searchable with plan {other}: relens plan resume {other}")
    if "error" in value:
        lines.append(f"last error: {value['error']}")
    return "\n".join(lines)


def _finish(
    parts: wiring.Parts, gateway: Gateway, plan: int, workers: int, *, as_json: bool, patience_s: float = math.inf
) -> int:
    try:
        _watch(parts, gateway, plan, workers, patience_s)
        _upkeep(parts, gateway, workers)
    except KeyboardInterrupt:
        say(f"interrupted; the same command, or `relens plan resume {plan}`, goes on where this one stopped")
        return INTERRUPTED
    value = gateway.plan(plan)
    show(value, as_json=as_json, text=lambda: plan_text(value))
    return _exit_code(value)


def _upkeep(parts: wiring.Parts, gateway: Gateway, workers: int) -> None:
    """What a server would do by itself after an import: index what has outgrown exact search."""
    for plan in [] if running_server(parts.home) is not None else gateway.index_large():
        say(f"plan {plan}: the gallery has grown; it is indexed")
        _watch(parts, gateway, plan, workers)


def watch_plan(parts: wiring.Parts, gateway: Gateway, plan: int, *, as_json: bool, patience_s: float = math.inf) -> int:
    """Wait for a plan that is worked off by one worker, no longer than so many seconds, and show it. The exit code."""
    return _finish(parts, gateway, plan, 1, as_json=as_json, patience_s=patience_s)


def _watch(parts: wiring.Parts, gateway: Gateway, plan: int, workers: int, patience_s: float = math.inf) -> None:
    """Wait until a plan is over or patience is, with workers of our own while no server is up on the home."""
    until = time.monotonic() + patience_s
    pool = WorkerPool(wiring.worker_argv(parts.home, plan=plan), workers)
    try:
        with _Progress() as progress:
            while (value := _look(gateway, plan))["state"] == "running" and time.monotonic() < until:
                if running_server(parts.home) is None:
                    pool.fill()
                progress.update(value)
                time.sleep(POLL_S)
            progress.update(value)
    finally:
        pool.stop()


def _look(gateway: Gateway, plan: int) -> dict[str, Any]:
    """The plan as it stands. A catalog that does not serve for a while is waited for, as the workers do."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return gateway.plan(plan)
        except Broken as error:
            if time.monotonic() > deadline:
                raise
            say(f"waiting: {error}")
            time.sleep(5.0)


def _exit_code(plan: dict[str, Any]) -> int:
    if plan["state"] == "held":
        return REFUSED
    if plan["state"] in {"failed", "running"}:
        return FAILED
    failed = sum(task["failed"] for task in plan["tasks"])
    return PARTLY if failed or plan["state"] == "cancelled" else DONE


class _Progress(StatusLine):
    """How far a plan is."""

    def __init__(self) -> None:
        super().__init__()
        self._last_error: str | None = None
        self._last_done = -1
        self._last_change = time.monotonic()

    def update(self, plan: dict[str, Any]) -> None:
        self.tell(_progress_text(plan))
        if plan["progress"]["done"] != self._last_done:
            self._last_done, self._last_change = plan["progress"]["done"], time.monotonic()
        elif time.monotonic() - self._last_change > QUIET_S and self._last_done < plan["progress"]["total"]:
            self._last_change = time.monotonic()
            say(f"nothing has moved for {QUIET_S:.0f} s; `relens status` and the server's log may say why")
        if plan.get("error") not in {None, self._last_error}:
            self._last_error = plan["error"]
            say(f"put aside, and tried again: {plan['error']}")


def _progress_text(plan: dict[str, Any]) -> str:
    progress = plan["progress"]
    text = f"plan {plan['id']}: {progress['done']} of {progress['total']} pictures"
    if "rate" in plan:
        text += f", {plan['rate']:.0f}/s"
    if "eta_s" in plan:
        text += f", {_span(plan['eta_s'])} left"
    failed = sum(task["failed"] for task in plan["tasks"])
    return text + (f", {failed} failed" if failed else "")


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
