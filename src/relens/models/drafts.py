"""Drafts: what a user has of a model (a file or a folder, a card or none) made into a card and the files it names.

A draft is not a version yet: nothing was run, nothing is kept. Where there is no card, one is inferred; where card and
file contradict each other, the draft says so.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from relens.errors import BadInput, Missing
from relens.models.artifacts import read_labels
from relens.models.card import Card, read_card
from relens.models.savedmodel import MARK, SIGNATURE, convert, is_saved_model, version_of
from relens.values import canonical_json

CARD = "card.yaml"
HIDDEN = frozenset({"__pycache__"})
MAX_FOLDER_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user says of a model besides its file.

    card      a card file; without one it is looked for beside the model
    infer     make a card from the model's file
    labels    a file of class names
    name      for the card, as `version`; without them the card's own, or what follows from the file's name
    changes   `key=value`, keys with dots for what is inside, values in YAML
    signature which one of a TensorFlow SavedModel
    """

    card: Path | None = None
    infer: bool = False
    labels: Path | None = None
    name: str | None = None
    version: int | None = None
    changes: Sequence[str] = ()
    signature: str = SIGNATURE


@dataclass(frozen=True, slots=True)
class Draft:
    """A card with its files by name, how the card is known, and where it contradicts the model.

    numbered   whether somebody chose the version number
    """

    card: Card
    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    numbered: bool = False


def draft_model(source: Path, wish: Wish, *, called: str = "") -> Draft:
    """A draft of a model file, of a folder with a card and all that it needs, or of a TensorFlow SavedModel.

    called   the file's name where it came from, if `source` is named otherwise

    Missing for a file that is not there; BadInput for a card that cannot be read, and if there is none.
    """
    if not source.exists():
        raise Missing("models.no-file", f"there is no {source}", hint="name a model's file, a folder, or an address")
    called = called or source.name
    if _is_to_convert(source, wish):
        return _converted(source, wish, called)
    if wish.infer:
        return _inferred(_read(source), wish, called, source.parent)
    card_file = wish.card or _card_beside(source)
    if card_file is None:
        raise BadInput(
            "models.no-card",
            f"{called} comes without a card, which says how it is run and read",
            hint="name one with --card, or let one be inferred with --infer",
        )
    given = _card_json(card_file)
    numbered = wish.version is not None or "version" in given
    card = _wished({"name": default_name(called), "version": 1} | given, wish)
    files = _folder(source) if source.is_dir() else {card.file: _read(source)}
    if card.format == "onnx" and card.file in files:
        files = _in_one(files, card, (source / card.file if source.is_dir() else source).parent)
    if wish.labels is not None and card.labels is not None:
        files[card.labels] = _labels(wish.labels)
    files |= {name: _found(name, card_file, source) for name in card.files if name not in files}
    return replace(_checked(card, files), numbered=numbered)


def require_agreement(draft: Draft) -> None:
    """BadInput that names every contradiction of a draft, if it has any."""
    if draft.contradictions:
        raise BadInput(
            "models.contradiction",
            f"card and model of {draft.card.name} contradict each other: {'; '.join(draft.contradictions)}",
            hint="correct the card, or say it with --set key=value",
        )


def default_name(called: str) -> str:
    """A model's name from the name of its file."""
    stem = called.rpartition("/")[2].partition(".")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_") or "model"


def _is_to_convert(source: Path, wish: Wish) -> bool:
    """Whether this is a SavedModel, and not the folder of a card that names another of its files."""
    if not is_saved_model(source):
        return False
    card_file = wish.card or _card_beside(source)
    if wish.infer or card_file is None:
        return True
    given = _card_json(card_file)
    return given.get("format") == "onnx" and not (source / str(given.get("file"))).is_file()


def _converted(source: Path, wish: Wish, called: str) -> Draft:
    """A draft of the ONNX file that a SavedModel becomes. Its card tells what became of it."""
    converted = convert(source, signature=wish.signature)
    if version_of(source) is not None:  # as TensorFlow Serving names folders
        called = source.absolute().parent.name
    with tempfile.TemporaryDirectory(prefix="relens-model-") as temporary:
        file = Path(temporary) / "model.onnx"
        file.write_bytes(converted.data)
        card = None if wish.infer else wish.card or _card_beside(source)
        draft = draft_model(file, replace(wish, card=card), called=called)
    told = converted.told()
    before = [part for part in draft.card.source.split("; ") if part and not part.startswith(MARK)]
    noted = replace(draft.card, source="; ".join([*before, told]))
    return replace(draft, card=noted, notes=(*draft.notes, told))


def _in_one(files: Mapping[str, bytes], card: Card, folder: Path) -> dict[str, bytes]:
    """Files of a model, with weights that lie beside it within it."""
    # The onnx package takes half a second to import, which only models that come in should pay for.
    from relens.models.onnxfile import with_weights  # noqa: PLC0415

    whole, elsewhere = with_weights(files[card.file], folder)
    inside = {(Path(card.file).parent / name).as_posix() for name in elsewhere} - set(card.files)
    return {name: data for name, data in files.items() if name not in inside} | {card.file: whole}


def _inferred(data: bytes, wish: Wish, called: str, folder: Path) -> Draft:
    from relens.models.infer import infer_card  # noqa: PLC0415 - as above
    from relens.models.onnxfile import with_weights  # noqa: PLC0415 - as above

    data, _elsewhere = with_weights(data, folder)
    names = None if wish.labels is None else read_labels(_read(wish.labels), source=str(wish.labels))
    name = wish.name or default_name(called)
    inferred = infer_card(data, name=name, version=wish.version or 1, labels=names)
    card = _wished(inferred.card.to_json(), replace(wish, name=None, version=None))
    files = {card.file: data}
    if card.labels is not None:
        files[card.labels] = canonical_json(list(inferred.labels or names or ()))
    changed = {change.partition("=")[0] for change in wish.changes}
    notes = [str(note) for note in inferred.notes if not any(f"set {key}" in note.text for key in changed)]
    return replace(_checked(card, files), notes=tuple(notes), numbered=wish.version is not None)


def _checked(card: Card, files: Mapping[str, bytes]) -> Draft:
    if card.format != "onnx":
        return Draft(card, files)
    from relens.models.contradictions import contradictions  # noqa: PLC0415 - as above

    names = None if card.labels is None else read_labels(files[card.labels], source=card.labels)
    return Draft(card, files, contradictions=tuple(contradictions(card, files[card.file], labels=names)))


def _wished(given: dict[str, Any], wish: Wish) -> Card:
    """A card with what the user wants otherwise."""
    for change in wish.changes:
        _set(given, change)
    if wish.name is not None:
        given["name"] = wish.name
    if wish.version is not None:
        given["version"] = wish.version
    if wish.labels is not None and given.get("labels") is None:
        given["labels"] = "labels.json"
    return read_card(given)


def _set(given: dict[str, Any], change: str) -> None:
    key, equals, written = change.partition("=")
    if not equals or not key:
        raise BadInput("models.bad-change", f"{change!r} is no change", hint="write --set key=value")
    *outer, last = key.split(".")
    into = given
    for name in outer:
        into = into.setdefault(name, {})
        if not isinstance(into, dict):
            raise BadInput("models.bad-change", f"{key}: the card's {name} has no keys inside")
    try:
        into[last] = yaml.safe_load(written)
    except yaml.YAMLError as error:
        raise BadInput("models.bad-change", f"{change!r}: the value is no YAML: {error}") from error


def _card_beside(source: Path) -> Path | None:
    beside = source.absolute().with_name(f"{source.absolute().name}.{CARD}")
    if source.is_dir() and ((source / CARD).is_file() or not is_saved_model(source)):
        beside = source / CARD
    return beside if beside.is_file() else None


def _card_json(path: Path) -> dict[str, Any]:
    data = _read(path)
    try:
        given = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput("models.bad-card", f"{path} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise BadInput("models.bad-card", f"{path} holds no keys and values")
    return given


def _folder(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its relative name, the card and hidden ones left out."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path.relative_to(folder): path for path in paths}
    wanted = {
        name: path
        for name, path in names.items()
        if not any(part.startswith(".") or part in HIDDEN for part in name.parts) and name.as_posix() != CARD
    }
    size = sum(path.stat().st_size for path in wanted.values())
    if size > MAX_FOLDER_BYTES:
        raise BadInput("models.too-large", f"{folder} holds {size:,} bytes; {MAX_FOLDER_BYTES:,} are taken")
    return {name.as_posix(): path.read_bytes() for name, path in wanted.items()}


def _found(name: str, card_file: Path, source: Path) -> bytes:
    """A further file that a card names: beside the card, or beside the model."""
    for folder in dict.fromkeys((card_file.parent, source.parent)):
        if (folder / name).is_file():
            return _read(folder / name)
    raise Missing(
        "models.lacks-file",
        f"the card names {name}, which is neither beside it nor beside the model",
        hint="put it there; class names can also be given with --labels FILE",
    )


def _labels(path: Path) -> bytes:
    return canonical_json(read_labels(_read(path), source=str(path)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Missing("models.no-file", f"{path} cannot be read: {error.strerror}") from error
