"""`search` and `recognize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relens import wiring
from relens.cli.output import DONE, HomeOption, JsonOption, read_picture, recipe_named, say, show, table
from relens.console import search_page
from relens.errors import RelensError
from relens.gateway import Gateway
from relens.store.blobs import write_file_durably
from relens.values import FoundObject, Label, Recognition, SearchAnswer

PictureArgument = Annotated[Path, typer.Argument(help="A picture file; - reads stdin.")]


def add_to(app: typer.Typer) -> None:
    app.command()(search)
    app.command()(recognize)


def search(
    picture: PictureArgument,
    gallery: Annotated[str, typer.Option("--gallery", "-g", help="The gallery to search.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many look-alikes.")] = 10,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Find the objects of a gallery that look most like a picture."""
    gateway = wiring.open_local(home)
    data = read_picture(picture)
    answer = gateway.search(data, gallery=gallery, k=k)
    if html is not None:
        page = search_page(gateway, data, answer, _explain(gateway, data, gallery))
        write_file_durably(html.absolute(), page.encode())
        say(f"page: {html}")
    show(answer.to_json(), as_json=as_json, text=lambda: _search_text(answer))
    return DONE


def recognize(
    picture: PictureArgument,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A recipe of the home, or a .yaml file.")] = "photos",
    include: Annotated[
        list[str] | None, typer.Option("--include", help="Also give: vector, subject, heatmap. May be repeated.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Name what is in a picture."""
    data = read_picture(picture)
    answer = wiring.open_local(home).recognize(data, recipe=recipe_named(recipe), include=include or ())
    show(answer.to_json(), as_json=as_json, text=lambda: _recognition_text(answer))
    return DONE


def _explain(gateway: Gateway, data: bytes, gallery: str) -> FoundObject | None:
    """Subject and heat map for a page; their failure does not fail the search."""
    try:
        recipe = gateway.gallery(gallery)["recipe"]
        return gateway.recognize(data, recipe=recipe, include=("subject", "heatmap")).objects[0]
    except RelensError as error:
        say(f"no heat map: {error}")
        return None


def _search_text(answer: SearchAnswer) -> str:
    lines = [f"release {answer.release}, sequence {answer.sequence}"]
    for found in answer.objects:
        lines.append(_names(found.labels))
        rows = [
            [
                f"{match.score:.3f}",
                match.id,
                match.labels[0].name if match.labels else "",
                ", ".join(str(item["id"]) for item in match.items) or match.picture.uri or "",
            ]
            for match in found.matches
        ]
        lines.append(table(rows, ["score", "object", "name", "items"]) if rows else "nothing in this gallery yet")
    return "\n".join(lines)


def _recognition_text(answer: Recognition) -> str:
    picture = answer.picture
    lines = [f"release {answer.release}, {picture.width} x {picture.height} pixels"]
    for found in answer.objects:
        lines.append(f"{found.category} at {found.box.to_json()}")
        lines += [f"  {label.score:.3f}  {label.name}" for label in found.labels]
        lines += [f"  {key}: {value}" for key, value in found.attributes.items() if key == "subject"]
    return "\n".join(lines)


def _names(labels: tuple[Label, ...]) -> str:
    return "this looks like: " + ", ".join(f"{label.name} {label.score:.2f}" for label in labels[:3])
