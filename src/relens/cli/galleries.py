"""`enrol`, and `gallery create | set | delete | item | export | scores | ls | show | rm`: galleries that live."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from relens import wiring
from relens.bulk.listings import file_uri
from relens.cli.output import (
    DONE,
    HomeOption,
    JsonOption,
    facts,
    read_picture,
    recipe_named,
    say,
    show,
    table,
)
from relens.errors import BadInput
from relens.gallery import RETENTIONS
from relens.gateway import Gateway
from relens.store.blobs import sync_folder

MAX_ID = 2**63 - 1
BAR = 20
"""Characters of the longest bar of a histogram."""
STDOUT = Path("-")

app = typer.Typer(help="Galleries: named sets of objects.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The gallery.")]
RetentionOption = Annotated[
    str | None,
    typer.Option(
        "--retention", help="What it keeps of pictures: originals (with crops), crops, or none. Usual: crops."
    ),
]


class Format(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"
    PARQUET = "parquet"


def add_to(app: typer.Typer) -> None:
    app.command()(enrol)


def enrol(
    picture: Annotated[Path, typer.Argument(help="A picture file; - reads stdin.")],
    gallery: Annotated[str, typer.Option("--gallery", "-g", help="The gallery; `relens gallery create` makes one.")],
    key: Annotated[
        str | None, typer.Option("--id", help="Your id of the item. Default: the picture's SHA-256.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title")] = None,
    price: Annotated[str | None, typer.Option("--price")] = None,
    shop: Annotated[str | None, typer.Option("--shop")] = None,
    day: Annotated[str | None, typer.Option("--day", help="Like 2026-01-31. Default: today.")] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="Where the picture is. Default: the file's own.")] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="KEY=VALUE, a column of your own; may be repeated.")
    ] = None,
    off_shelf: Annotated[bool, typer.Option("--off-shelf", help="Keep the item out of answers.")] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Take the item even if nothing is found in the picture.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Take one picture into a gallery, now. It can be found when this ends, also by a server that is up."""
    said = {"id": key, "title": title, "price": price, "shop": shop, "day": day, "uri": uri or _uri_of(picture)}
    item: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    item |= {"data": _pairs(data)} if data else {}
    item |= {"off_shelf": True} if off_shelf else {}
    picture_bytes = read_picture(picture)
    done = wiring.open_local(home).enrol(picture_bytes, gallery=gallery, item=item, allow_empty=allow_empty)
    ids = ", ".join(map(str, done.objects)) or "none"
    text = f"item {done.item} of {gallery}, sequence {done.sequence}; objects: {ids}"
    show(done.to_json(), as_json=as_json, text=lambda: text if done.changed else f"{text}; nothing has changed")
    return DONE


# -- galleries ------------------------------------------------------------------------------------------------------


@app.command("ls")
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


@app.command("show")
def show_gallery(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """A gallery: what it holds and what answers for it."""
    value = wiring.open_local(home).gallery(name)
    show(value, as_json=as_json, text=lambda: facts(value))
    return DONE


@app.command("create")
def create_gallery(
    name: NameArgument,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="A recipe of the home, or a .yaml file. Default: the setting's."),
    ] = None,
    retention: RetentionOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make an empty gallery, to enrol into or to import into. The same again changes nothing."""
    gateway = wiring.open_local(home)
    value = gateway.create_gallery(name, recipe=recipe and recipe_named(recipe), retention=retention)
    show(value, as_json=as_json, text=lambda: facts(value))
    return DONE


@app.command("set")
def set_gallery(
    name: NameArgument,
    retention: Annotated[
        str | None,
        typer.Option(
            "--retention", help="What it keeps of pictures from now on: originals (with crops), crops, or none."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=-1.0, max=1.0, help="Cosine under which nothing matches from now on."),
    ] = None,
    no_threshold: Annotated[
        bool, typer.Option("--no-threshold", help="The recipe's threshold again, or none.")
    ] = False,
    category: Annotated[
        str | None, typer.Option("--category", help="The category of the threshold. Default: the only one.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Change what a gallery keeps of pictures (what is stored stays until a purge), or when nothing matches."""
    if retention is None and threshold is None and not no_threshold:
        raise BadInput(
            "cli.nothing-to-set", "nothing is to be set", hint="say --retention, --threshold or --no-threshold"
        )
    if threshold is not None and no_threshold:
        raise BadInput("cli.bad-options", "--threshold and --no-threshold contradict each other")
    gateway = wiring.open_local(home)
    before = value = gateway.gallery(name)
    said = []
    if threshold is not None or no_threshold:
        value = gateway.set_threshold(name, threshold, category=category)
        said.append(f"thresholds of {name}: {_thresholds_text(value)}")
    if retention is not None:
        value = gateway.set_retention(name, retention)
        said.append(f"from now on {name} keeps {retention}")
    show(value, as_json=as_json, text=lambda: "\n".join(said))
    kept = [RETENTIONS.index(one["retention"]) for one in (before, value)]
    if kept[1] > kept[0]:
        say(f"what {name} has stored so far ({before['retention']}) stays until it is purged")
    elif kept[1] < kept[0]:
        say(f"of pictures that are there already, no more is kept than before ({before['retention']})")
    return DONE


@app.command("rm")
def remove_gallery(
    name: NameArgument,
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


# -- what is in them ------------------------------------------------------------------------------------------------


@app.command("item")
def show_item(
    name: NameArgument,
    key: Annotated[str, typer.Argument(help="Your id of the item.")],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="COLUMN=VALUE; title, price, shop, day, uri, or data as a JSON object. Without a value title, price "
            "and shop are cleared. May be repeated.",
        ),
    ] = None,
    off_shelf: Annotated[
        bool | None, typer.Option("--off-shelf/--on-shelf", help="Keep it out of answers, or put it back.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show an item with its picture and objects, or change it first. The change shows in answers when this ends."""
    changed = _changes(_pairs(changes or ()))
    changed |= {} if off_shelf is None else {"off_shelf": off_shelf}
    gateway = wiring.open_local(home)
    value = gateway.change_item(name, key, changed) if changed else gateway.item(name, key)
    show(value, as_json=as_json, text=lambda: facts(value))
    return DONE


@app.command("delete")
def delete(
    name: NameArgument,
    objects: Annotated[
        list[int] | None, typer.Option("--object", min=0, max=MAX_ID, help="Id of an object. May be repeated.")
    ] = None,
    pictures: Annotated[
        list[str] | None, typer.Option("--picture", help="SHA-256 of a picture. May be repeated.")
    ] = None,
    items: Annotated[list[str] | None, typer.Option("--item", help="Your id of an item. May be repeated.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Delete objects, pictures and items of a gallery, all of them or none. Gone from answers when this ends."""
    gateway = wiring.open_local(home)
    value = gateway.delete(name, objects=objects or (), pictures=pictures or (), items=items or ())
    went = f"objects that are gone from {name}: {value['deleted']} (sequence {value['sequence']})"
    show(value, as_json=as_json, text=lambda: f"{went}; bytes that are stored stay until it is purged")
    return DONE


@app.command("export")
def export_gallery(
    name: NameArgument,
    written: Annotated[
        Format, typer.Option("--format", help="jsonl, or parquet (pip install 'relens[parquet]').")
    ] = Format.JSONL,
    vectors: Annotated[bool, typer.Option("--vectors", help="Also the vector of each object.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write. Default: stdout.")] = STDOUT,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write down everything that a gallery shows, as of one sequence."""
    gateway = wiring.open_local(home)
    if written is Format.PARQUET and out == STDOUT and sys.stdout.isatty():
        raise BadInput("cli.to-a-terminal", "Parquet is nothing to read on a terminal", hint="name a file with -o")
    with _opened(out) as file:
        value = _export(gateway, name, written, file, vectors=vectors)
    if out != STDOUT:
        value["file"] = str(out)
        text = f"{value['rows']} rows of {name} as of sequence {value['sequence']}: {out}"
        show(value, as_json=as_json, text=lambda: text)
    return DONE


@app.command("scores")
def show_scores(
    name: NameArgument,
    category: Annotated[
        str | None, typer.Option("--category", help="The category to look at. Default: the only one.")
    ] = None,
    same: Annotated[
        str | None, typer.Option("--same", help="The items' column that says what shows the same thing.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show how alike the objects of a gallery are, and the threshold that this suggests."""
    value = wiring.open_local(home).likeness(name, category=category, same=same)
    show(value, as_json=as_json, text=lambda: _scores_text(value))
    return DONE


def _uri_of(picture: Path) -> str | None:
    return None if picture == STDOUT else file_uri(os.fsencode(picture.absolute()))


def _pairs(written: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE`, each key once."""
    pairs: dict[str, str] = {}
    for one in written:
        key, equals, value = one.partition("=")
        if not equals or not key or key in pairs:
            raise BadInput("cli.bad-pair", f"{one!r} is no KEY=VALUE, or says a key once more")
        pairs[key] = value
    return pairs


def _changes(said: Mapping[str, str]) -> dict[str, Any]:
    changes: dict[str, Any] = {
        name: None if not value and name in {"title", "price", "shop"} else value for name, value in said.items()
    }
    if "off_shelf" in changes:
        raise BadInput("cli.bad-pair", "off_shelf is not set by a value", hint="say --off-shelf or --on-shelf")
    if "data" in changes:
        try:
            changes["data"] = json.loads(changes["data"])
        except (ValueError, RecursionError) as error:
            raise BadInput("cli.bad-pair", f"data is no JSON: {error}") from error
    return changes


@contextlib.contextmanager
def _opened(out: Path) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there when all of it is written, and not before."""
    if out == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    out = out.resolve()
    if out.exists() and not out.is_file():  # a device or a pipe: nothing takes its place
        with out.open("wb") as file:
            yield file
        return
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
        sync_folder(out.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _export(gateway: Gateway, name: str, written: Format, file: BinaryIO, *, vectors: bool) -> dict[str, Any]:
    if written is Format.PARQUET:
        return gateway.export_parquet(name, file, vectors=vectors)
    head: dict[str, Any] = {}
    rows = -1  # the head is none
    for one in gateway.export(name, vectors=vectors):
        head = head or one
        rows += 1
        file.write(json.dumps(one, ensure_ascii=False).encode() + b"\n")
    return head | {"rows": rows}


def _thresholds_text(gallery: Mapping[str, Any]) -> str:
    return ", ".join(f"{value:g} for {name}" for name, value in gallery["thresholds"].items()) or "none"


def _scores_text(value: Mapping[str, Any]) -> str:
    """Histograms of the kinds of pairs beside each other, by cosine, and the threshold that they suggest."""
    kinds = value["pairs"]
    bins = {kind: {one["from"]: one["count"] for one in said["histogram"]} for kind, said in kinds.items()}
    steps = sorted({(one["from"], one["to"]) for said in kinds.values() for one in said["histogram"]})
    rows = []
    for low, high in steps:
        bars = [_bar(bins[kind].get(low, 0), list(bins[kind].values())) for kind in kinds]
        rows.append([f"{low:5.2f}", *bars, "<" if low <= value["threshold"] < high else ""])
    header = ["from", *(f"{kind}: {said['count']}" for kind, said in kinds.items()), ""]
    lines = [f"{value['sampled']} of {value['objects']} objects, pairs of them by cosine", table(rows, header)]
    adopt = "`relens gallery set NAME --threshold T` makes one the gallery's own"
    return "\n".join([*lines, f"threshold {value['threshold']:.3f}: {value['why']}", adopt])


def _bar(count: int, counts: Sequence[int]) -> str:
    """A bar as long as a count is large among others, with its share of all."""
    if not count:
        return ""
    return f"{'#' * round(BAR * count / max(counts)):{BAR}} {count / sum(counts):6.1%}"
