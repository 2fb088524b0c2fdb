"""The main job on real pictures: import them, search with edited copies, and write a page that shows what was found.

`make demo` takes photographs that come with scikit-image, `make demo DEMO=folder` takes yours (a folder, or a .csv or
.jsonl listing). Everything is made in `demo/`; a second run goes on from there. Ends with 0 only if all of it worked.
"""
# ruff: noqa: T201 - telling what happens is its job

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from relens.bulk import find_source
from relens.bulk.listings import Entry, path_of
from relens.console import Asked, Drawn, demo_page
from relens.errors import BadInput, Missing, RelensError
from relens.gateway import Gateway
from relens.models.wheels import Wheel, read_wheel
from relens.narrowing import read_where
from relens.store.blobs import write_file_durably
from relens.values import FoundObject, Match, Pixels, digest_of
from relens.vision import decode, encode_jpeg
from relens.wiring import open_local

ROOT = Path(__file__).resolve().parent
DEMO = ROOT / "demo"
HOME = DEMO / "home"
PICTURES = DEMO / "pictures"
QUERIES = DEMO / "queries"
PAGE = DEMO / "index.html"
RECIPE = "photos"
SHOWN = 6
PARTLY_DONE = 4  # exit code of an import that left pictures out

Edit = Callable[[Pixels], bytes]


PACKAGE = "scikit-image"
VERSION = "0.26.0"
UNSAID = "no terms of its own; the package is BSD-3-Clause"
MIDDLEBURY = "Middlebury stereo benchmark 2014 (Scharstein et al.)"

# File in the wheel: what it shows, and whose it is, as the package says.
PHOTOGRAPHS = {
    "astronaut.png": ("Astronaut Eileen Collins", "NASA, public domain"),
    "brick.png": ("Brick wall", "CC0Textures, CC0"),
    "camera.png": ("Man with a camera", "Lav Varshney, CC0"),
    "cell.png": ("Cell floating in saline", "Paul Müller et al., CC0"),
    "chelsea.png": ("Chelsea the cat", "Stefan van der Walt, CC0"),
    "clock_motion.png": ("Wall clock, blurred by motion", "Stefan van der Walt, public domain"),
    "coffee.png": ("Cup of coffee", "Rachel Michetti and Pikolo Espresso Bar, CC0"),
    "coins.png": ("Greek coins from Pompeii", "Brooklyn Museum, no known copyright restrictions"),
    "grass.png": ("Grass", "linolafett, CC0"),
    "gravel.png": ("Gravel", "CC0Textures, CC0"),
    "hubble_deep_field.jpg": ("Hubble eXtreme Deep Field", "NASA, public domain"),
    "ihc.png": ("Stained tissue under a microscope", "CMMI, no known copyright restrictions"),
    "moon.png": ("Surface of the moon", UNSAID),
    "motorcycle_right.png": ("Motorcycle, right view", MIDDLEBURY),
    "page.png": ("Scanned page", UNSAID),
    "retina.jpg": ("Human retina", "Mikael Häggström, CC0"),
    "rocket.jpg": ("Falcon 9 before its launch", "SpaceX, public domain"),
    "text.png": ("Handwriting", "Wikipedia, public domain"),
}

# What each shows, as a column of the listing that a search can be narrowed by.
SUBJECTS = {
    "people": ("astronaut", "camera"),
    "animals": ("chelsea",),
    "textures": ("brick", "grass", "gravel"),
    "medicine": ("cell", "ihc", "retina"),
    "space": ("hubble_deep_field", "moon", "rocket"),
    "writing": ("page", "text"),
    "things": ("clock_motion", "coffee", "coins", "motorcycle_right"),
}
KINDS = {name: subject for subject, names in SUBJECTS.items() for name in names}

# Asked, and never imported: its sister picture is in the gallery.
STRANGER = "motorcycle_left.png"
STRANGER_SHOWS = ("Motorcycle, left view", MIDDLEBURY)

SHA256 = {
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "brick.png": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    "cell.png": "8d23a7fb81f7cc877cd09f330357fc7f595651306e84e17252f6e0a1b3f61515",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "clock_motion.png": "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    "grass.png": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "gravel.png": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    "hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    "ihc.png": "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    "moon.png": "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577",
    "motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    "motorcycle_right.png": "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797",
    "page.png": "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
    "retina.jpg": "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    "text.png": "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
}

ORIGIN = (
    f"{len(PHOTOGRAPHS)} photographs that come with the Python package {PACKAGE} {VERSION}, taken from its wheel and "
    "checked by their SHA-256. The queries are edited copies, and one picture that the gallery has never seen."
)


@dataclass(frozen=True, slots=True)
class Query:
    """A picture to search for, and the item that should come first. `items` are conditions on what may answer."""

    title: str
    note: str
    file: Path
    data: bytes
    expected: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """A picture to recognise by a recipe, and words that must be among what is said of it."""

    title: str
    note: str
    file: Path
    recipe: str
    expected: str


@dataclass(frozen=True, slots=True)
class Job:
    """What is imported and what is asked. `strict`: it counts as a failure if an expected item does not come first."""

    source: Path
    gallery: str
    origin: str
    queries: tuple[Query, ...]
    strict: bool
    terms: dict[str, str] = field(default_factory=dict)
    looks: tuple[Look, ...] = ()


# -- pictures -------------------------------------------------------------------------------------------------------


def photographs() -> Job:
    """The photographs of scikit-image, with a listing that gives each its title."""
    fetch_photographs()
    listing = PICTURES / "pictures.csv"
    with listing.open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("uri", "id", "title", "terms", "subject"))
        names = {file: Path(file).stem for file in PHOTOGRAPHS}
        rows.writerows((file, names[file], *shows, KINDS[names[file]]) for file, shows in PHOTOGRAPHS.items())
    entries = {entry.id: entry for entry in find_source(listing).entries()}
    copies = edited_copies([entries[name] for name in ("chelsea", "coffee", "camera")])
    stranger = Query(
        STRANGER_SHOWS[0],
        "A picture that is not in the gallery; its sister, taken 19 cm further right, is.",
        QUERIES / STRANGER,
        (QUERIES / STRANGER).read_bytes(),
        "motorcycle_right",
    )
    narrowed = Query(
        "Man with a camera, among people and animals",
        "The same copy, narrowed to items whose subject is people or animals: there are three.",
        copies[2].file,
        copies[2].data,
        "camera",
        ("subject=people|animals",),
    )
    everything = PHOTOGRAPHS | {STRANGER: STRANGER_SHOWS}
    terms = {title: f"{whose} ({file})" for file, (title, whose) in everything.items()}
    return Job(listing, "demo", ORIGIN, (*copies, stranger, narrowed), strict=True, terms=terms, looks=LOOKS)


def fetch_photographs() -> None:
    """Put the photographs where they belong, unless they are there already, unchanged."""
    places = {file: (QUERIES if file == STRANGER else PICTURES) / file for file in SHA256}
    if all(path.is_file() and digest_of(path.read_bytes()) == SHA256[file] for file, path in places.items()):
        return
    print(f"$ pip download --no-deps --only-binary=:all: {PACKAGE}=={VERSION}", flush=True)
    wheel = Wheel(PACKAGE, VERSION, {f"skimage/data/{file}": SHA256[file] for file in places})
    try:
        found = read_wheel(wheel, None)
    except Missing as error:
        hint = "`make demo DEMO=folder` takes pictures of yours instead"
        raise Missing(error.code, error.message, hint=hint) from error
    for file, path in places.items():
        write_file_durably(path, found[f"skimage/data/{file}"])
    print(f"{len(places)} photographs, each with the SHA-256 that is pinned\n")


def pictures_of(path: Path) -> Job:
    """Somebody's own pictures, and edited copies of three of them."""
    source = find_source(path)
    entries = [entry for entry in source.entries() if entry.problem is None and entry.drop is None]
    origin = f"{len(entries)} pictures from {path}. The queries are edited copies of some of them."
    return Job(path, "yours", origin, tuple(edited_copies(spread(entries))), strict=False)


def spread(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The entries in an order that begins with three far apart."""
    picks = [len(entries) * share // 6 for share in (1, 3, 5)]
    first = dict.fromkeys(picks) if entries else {}
    yield from (entries[number] for number in first)
    yield from (entry for number, entry in enumerate(entries) if number not in first)


LOOKS = (
    Look(
        "Faces in a picture",
        "Recipe faces: where a face is, five points of it, and what models say of age and gender.",
        PICTURES / "astronaut.png",
        "faces",
        "face",
    ),
    Look(
        "A page that was read",
        "Recipe text: lines with their polygons, numbered in the order of reading, and what they say.",
        PICTURES / "page.png",
        "text",
        "Region-based segmentation",
    ),
)


# -- queries --------------------------------------------------------------------------------------------------------


def mirror(pixels: Pixels) -> bytes:
    return encode_jpeg(np.ascontiguousarray(pixels[:, ::-1]), quality=90)


def trim(pixels: Pixels) -> bytes:
    height, width = pixels.shape[:2]
    return encode_jpeg(pixels[height // 10 : height - height // 10, width // 10 : width - width // 10], quality=90)


def recompress(pixels: Pixels) -> bytes:
    return encode_jpeg(pixels, quality=40)


EDITS: tuple[tuple[str, str, Edit], ...] = (
    ("mirrored", "A mirrored copy: another file, and hardly a pixel where it was.", mirror),
    ("trimmed", "A copy with a tenth cut off each side.", trim),
    ("recompressed", "A copy saved as JPEG of quality 40.", recompress),
)


def edited_copies(entries: Sequence[Entry] | Iterator[Entry]) -> list[Query]:
    """One copy per edit, of the first pictures that can be read, written to `demo/queries` as well."""
    queries: list[Query] = []
    for entry in entries:
        if len(queries) == len(EDITS):
            break
        word, note, edit = EDITS[len(queries)]
        try:
            data = edit(decode(Path(path_of(entry.uri).decode(errors="surrogateescape")).read_bytes()).pixels)
        except (BadInput, OSError):
            continue  # the import says what is wrong with it
        file = QUERIES / f"{len(queries) + 1}-{word}.jpg"
        file.write_bytes(data)
        queries.append(Query(f"{entry.title or entry.id}, {word}", note, file, data, entry.id))
    return queries


# -- the run --------------------------------------------------------------------------------------------------------


class Transcript:
    """Runs commands of relens as a person would, and remembers what was typed."""

    def __init__(self) -> None:
        self.typed: list[str] = []

    def run(self, *arguments: str) -> int:
        """Run one command on the demo's home and show it. Its exit code."""
        words = [*arguments, "--home", shown(HOME)]
        self.typed.append(f"relens {shlex.join(words)}")
        print(f"$ {self.typed[-1]}", flush=True)
        code = subprocess.run([sys.executable, "-m", "relens.cli", *words], cwd=ROOT, check=False).returncode  # noqa: S603
        print(flush=True)
        return code


def shown(path: Path) -> str:
    """A path as it is typed in the project's folder."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def import_all(job: Job, transcript: Transcript) -> int:
    """Make the home, bring the model and the pictures in. The first exit code that is not 0, else 0."""
    imported = ("import", shown(job.source), "--gallery", job.gallery, "--recipe", RECIPE)
    fetched = [("model", "fetch", source) for source in ("imagenet", *(look.recipe for look in job.looks))]
    for command in (("init",), *fetched, imported):
        if code := transcript.run(*command):
            return code
    return 0


def ask(gateway: Gateway, gallery: str, query: Query) -> Asked:
    answer = gateway.search(query.data, gallery=gallery, k=SHOWN, where=read_where(items=query.items))
    explained = gateway.recognize(query.data, recipe=RECIPE, include=("subject", "heatmap"))
    return Asked(query.data, answer, explained.objects[0], query.title, query.note)


def look_at(gateway: Gateway, look: Look) -> Drawn:
    """What is recognised in a picture, drawn on it and in words."""
    data = look.file.read_bytes()
    answer = gateway.recognize(data, recipe=look.recipe)
    return Drawn(look.title, look.note, gateway.draw(data, answer), tuple(words(found) for found in answer.objects))


def words(found: FoundObject) -> str:
    """An object in a line."""
    if "text" in found.attributes:
        return str(found.attributes["text"])
    said = [f"{found.category} {found.score:.0%}"]
    for name, value in found.attributes.items():
        told = value["name"] if isinstance(value, dict) and "name" in value else value
        said.append(f"{name} {told:.{0 if told > 1 else 2}f}" if isinstance(told, float) else f"{name} {told}")
    return ", ".join(said)


def write_page(
    gateway: Gateway, job: Job, asked: Sequence[Asked], drawn: Sequence[Drawn], transcript: Transcript
) -> None:
    plans = [plan for plan in gateway.plans()["plans"] if plan.get("gallery") == job.gallery]
    first_and_last = [*plans[-1:], *plans[: min(1, len(plans) - 1)]]
    page = demo_page(
        gateway,
        asked,
        plans=first_and_last,
        origin=job.origin,
        sources=job.terms,
        commands=[*transcript.typed, *search_commands(job)],
        drawn=drawn,
    )
    write_file_durably(PAGE, page.encode())


def search_commands(job: Job) -> list[str]:
    """What asks the same from the command line."""
    searches = [
        ["search", shown(query.file), "--gallery", job.gallery, "-k", str(SHOWN)]
        + [word for condition in query.items for word in ("--item", condition)]
        for query in job.queries
    ]
    looks = [["recognize", shown(look.file), "--recipe", look.recipe, "--draw", "drawn.jpg"] for look in job.looks]
    return [f"relens {shlex.join([*command, '--home', shown(HOME)])}" for command in (*searches, *looks)]


def report(query: Query, asked: Asked) -> bool:
    """Print what was found, in a line. Whether what was expected came first."""
    matches = [match for found in asked.answer.objects for match in found.matches]
    names = [label for found in asked.answer.objects for label in found.labels[:1]]
    place = next((place for place, match in enumerate(matches, 1) if query.expected in ids(match)), None)
    said = f"{names[0].name} {names[0].score:.0%}" if names else "no name"
    where = f"not among the first {SHOWN}" if place is None else f"number {place}, {matches[place - 1].score:.3f}"
    print(f"  {query.title}: {query.expected} is {where}; looks like {said}")
    return place == 1


def report_look(look: Look, drawn: Drawn) -> bool:
    """Print what was recognised, in a line. Whether what was expected is among it."""
    count, first = len(drawn.lines), drawn.lines[0] if drawn.lines else "nothing"
    print(f"  {look.title}: {count} found; {first}")
    return any(look.expected in line for line in drawn.lines)


def ids(match: Match) -> set[str]:
    return {str(item["id"]) for item in match.items}


def main(arguments: Sequence[str]) -> int:
    for folder in (PICTURES, QUERIES):
        folder.mkdir(parents=True, exist_ok=True)
    job = pictures_of(Path(arguments[0]).absolute()) if arguments else photographs()
    transcript = Transcript()
    code = import_all(job, transcript)
    if code not in {0, PARTLY_DONE}:
        print("demo: stopped, because the last command did not work", file=sys.stderr)
        return code
    if not job.queries:
        print(f"demo: none of the pictures in {job.source} could be read", file=sys.stderr)
        return 1
    gateway = open_local(HOME)
    try:
        asked = [ask(gateway, job.gallery, query) for query in job.queries]
        drawn = [look_at(gateway, look) for look in job.looks]
        write_page(gateway, job, asked, drawn, transcript)
    finally:
        gateway.close()
    print("Found:")
    found = [report(query, one) for query, one in zip(job.queries, asked, strict=True)]
    found += [report_look(look, one) for look, one in zip(job.looks, drawn, strict=True)]
    print(f"\nThe page: {PAGE}")
    if code == PARTLY_DONE:
        print("demo: some pictures could not be imported, see above and on the page", file=sys.stderr)
    return code or (1 if job.strict and not all(found) else 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RelensError as error:
        sys.exit(f"demo: {error}")
