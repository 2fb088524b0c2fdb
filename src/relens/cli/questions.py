"""`search`, `recognize` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relens import wiring
from relens.cli.output import DONE, HomeOption, JsonOption, read_picture, recipe_named, say, show, table
from relens.console import search_page
from relens.errors import BadInput, RelensError
from relens.gateway import Gateway
from relens.narrowing import EVERYTHING, NO_HINTS, Where, read_hints, read_where
from relens.store.blobs import write_file_durably
from relens.values import FoundObject, Label, Recognition, SearchAnswer, TextAnswer, Verification

PictureArgument = Annotated[Path, typer.Argument(help="A picture file; - reads stdin.")]


DrawOption = Annotated[
    Path | None, typer.Option("--draw", help="Write the picture with boxes, names and scores to this file (JPEG).")
]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="A recipe of the home, or a .yaml file.")]
ThresholdOption = Annotated[
    float | None,
    typer.Option("--threshold", min=-1.0, max=1.0, help="Cosine under which nothing matches. Default: the recipe's."),
]


def add_to(app: typer.Typer) -> None:
    for command in (search, recognize, verify):
        app.command()(command)


def search(
    picture: Annotated[Path | None, typer.Argument(help="A picture file; - reads stdin. Not with --text.")] = None,
    gallery: Annotated[str, typer.Option("--gallery", "-g", help="The gallery to search.")] = "",
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many look-alikes.")] = 10,
    text: Annotated[str | None, typer.Option("--text", help="Search for words that were read instead.")] = None,
    category: Annotated[str | None, typer.Option("--category", help="Search this category.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Only objects whose best name is this.")] = None,
    days: Annotated[str | None, typer.Option("--days", help="Only these days: 2026-01-01..2026-01-31.")] = None,
    item: Annotated[
        list[str] | None,
        typer.Option("--item", help="Only items like this: shop=north, price=5..10, size=S|M. May be repeated."),
    ] = None,
    off_shelf: Annotated[bool, typer.Option("--off-shelf", help="Also what only items off the shelf show.")] = False,
    hint: Annotated[
        list[str] | None,
        typer.Option("--hint", help="For rules of ranking: text=red shoe, price=20. May be repeated."),
    ] = None,
    threshold: ThresholdOption = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Find the objects of a gallery that look most like a picture, or in which some words were read."""
    if not gallery or (picture is None) == (text is None):
        raise BadInput(
            "cli.what-to-search",
            "name a gallery, and a picture or --text",
            hint="relens search photo.jpg --gallery shop, or relens search --text 'no parking' --gallery signs",
        )
    where = read_where(category=category, label=label, days=days, items=item or (), off_shelf=off_shelf)
    hints = read_hints(hint or ())
    if text is not None and (hints != NO_HINTS or threshold is not None or html is not None):
        raise BadInput(
            "cli.not-with-text",
            "--text takes no --hint, --threshold or --html: words are not ranked or compared",
            hint="leave these options out, or search by a picture",
        )
    gateway = wiring.open_local(home)
    if text is not None:
        said = gateway.search_text(text, gallery=gallery, k=k, where=where)
        show(said.to_json(), as_json=as_json, text=lambda: _said_text(said))
        return DONE
    assert picture is not None
    data = read_picture(picture)
    answer = gateway.search(data, gallery=gallery, k=k, where=where, hints=hints, threshold=threshold)
    if html is not None:
        page = search_page(gateway, data, answer, _explain(gateway, data, gallery))
        write_file_durably(html.absolute(), page.encode())
        say(f"page: {html}")
    show(answer.to_json(), as_json=as_json, text=lambda: _search_text(answer, where))
    return DONE


def recognize(
    picture: PictureArgument,
    recipe: RecipeOption = "photos",
    include: Annotated[
        list[str] | None, typer.Option("--include", help="Also give: vector, subject, heatmap. May be repeated.")
    ] = None,
    draw: DrawOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Name what is in a picture."""
    data = read_picture(picture)
    gateway = wiring.open_local(home)
    answer = gateway.recognize(data, recipe=recipe_named(recipe), include=include or ())
    if draw is not None:
        write_file_durably(draw.absolute(), gateway.draw(data, answer))
        say(f"picture: {draw}")
    show(answer.to_json(), as_json=as_json, text=lambda: _recognition_text(answer))
    return DONE


def verify(
    one: Annotated[Path, typer.Argument(help="A picture file; - reads stdin.")],
    other: Annotated[Path, typer.Argument(help="The picture to compare it with.")],
    recipe: RecipeOption = "faces",
    threshold: ThresholdOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say whether two pictures show the same, by the strongest object of each. Ends with 0 whatever the answer is."""
    pictures = [read_picture(one), read_picture(other)]
    answer = wiring.open_local(home).verify(*pictures, recipe=recipe_named(recipe), threshold=threshold)
    show(answer.to_json(), as_json=as_json, text=lambda: _verification_text(answer))
    return DONE


def _explain(gateway: Gateway, data: bytes, gallery: str) -> FoundObject | None:
    """Subject and heat map of a picture that shows one thing, for a page; their failure does not fail the search."""
    try:
        recipe = gateway.gallery(gallery)["recipe"]
        found = gateway.recognize(data, recipe=recipe, include=("subject", "heatmap")).objects
        return found[0] if len(found) == 1 else None
    except RelensError as error:
        say(f"no heat map: {error}")
        return None


def _search_text(answer: SearchAnswer, where: Where) -> str:
    lines = [f"release {answer.release}, sequence {answer.sequence}"]
    lines += [f"left out: {count} ({reason})" for reason, count in answer.dropped.items()]
    nothing = "nothing in this gallery yet" if where == EVERYTHING else "nothing in this gallery meets the conditions"
    if not answer.objects:
        lines.append("nothing found in the picture")
    for found in answer.objects:
        lines.append(_names(found.labels, found.category))
        if found.matched is False and found.matches:
            best = max(match.score for match in found.matches)
            lines.append(f"nothing matches; the nearest, {best:.3f}, is under the threshold")
        ranked = any(match.rank is not None for match in found.matches)
        rows = [
            [
                *([f"{match.rank or 0.0:.3f}"] if ranked else []),
                f"{match.score:.3f}",
                match.id,
                match.labels[0].name if match.labels else "",
                ", ".join(str(item["id"]) for item in match.items) or match.picture.uri or "",
            ]
            for match in found.matches
        ]
        header = [*(["rank"] if ranked else []), "score", "object", "name", "items"]
        lines.append(table(rows, header) if rows else nothing)
    return "\n".join(lines)


def _recognition_text(answer: Recognition) -> str:
    picture = answer.picture
    lines = [f"release {answer.release}, {picture.width} x {picture.height} pixels"]
    lines += [f"left out: {count} ({reason})" for reason, count in answer.dropped.items()]
    if not answer.objects:
        lines.append("nothing found")
    for found in answer.objects:
        lines.append(f"{found.category} {found.score:.3f} at {found.box.to_json()}")
        lines += [f"  {label.score:.3f}  {label.name}" for label in found.labels]
        lines += [
            f"  {key}: {value['name'] if isinstance(value, dict) and 'name' in value else value}"
            for key, value in found.attributes.items()
            if key not in {"heatmap", "vector", "polygon"}
        ]
    return "\n".join(lines)


def _said_text(answer: TextAnswer) -> str:
    rows = [
        [f"{m.score:.3f}", m.id, m.text, ", ".join(str(item["id"]) for item in m.items) or m.picture.uri or ""]
        for m in answer.matches
    ]
    found = table(rows, ["score", "object", "text", "items"]) if rows else "nowhere"
    return f"release {answer.release}, sequence {answer.sequence}\n{found}"


def _verification_text(answer: Verification) -> str:
    verdict = {True: "the same", False: "not the same", None: "no threshold is set"}[answer.same]
    limit = "" if answer.threshold is None else f", threshold {answer.threshold:.3f}"
    return f"{verdict}: likeness {answer.score:.3f}{limit}"


def _names(labels: tuple[Label, ...], category: str) -> str:
    if not labels:
        return f"{category}:"
    return "this looks like: " + ", ".join(f"{label.name} {label.score:.2f}" for label in labels[:3])
