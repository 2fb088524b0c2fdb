"""A folder of models to serve: `<name>/<version>/`, looked at again and again while others write to it.

A version with a manifest is there when its completion marker is, a bare ONNX file when nothing in its folder has
changed from one look to the next. Nothing is loaded here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from relens.errors import Broken
from relens.models.artifacts import CARD, MANIFEST, MARKER
from relens.models.card import NAME, read_card
from relens.values import digest_of

VERSION = re.compile(r"[1-9][0-9]{0,17}")
SUFFIX = ".onnx"

Key = tuple[str, int]
"""Name and version of a model."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""Of every file of a version: relative name, size, time of change in ns, inode. Another one: somebody has written."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version as it lies in the folder.

    stamp   empty as long as it is known that something is still to come
    file    the model's file; None if there is none, or more than one
    digest  SHA-256 of that file, if a manifest says it
    labels  file of class names, if a card names one
    whole   whether a marker says that nothing is missing
    problem why it cannot be served, whatever comes
    """

    folder: Path
    stamp: Stamp
    file: Path | None = None
    digest: str | None = None
    labels: Path | None = None
    whole: bool = False
    problem: str | None = None


class ModelFolder:
    """Looks at a folder of models, and remembers the look before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._before: Mapping[Key, Stamp] = {}

    def look(self) -> tuple[dict[Key, Version], set[Key]]:
        """The versions that are whole, and those that are not yet. Broken if the folder cannot be read."""
        try:
            found = dict(_versions(self.root))
        except OSError as error:
            raise Broken(
                "models.folder",
                f"the folder of models {self.root} cannot be read: {error.strerror}",
                hint="what is loaded is served on; is the disk there?",
            ) from error
        rests = {key for key, one in found.items() if one.stamp and self._before.get(key) == one.stamp}
        whole = {key: one for key, one in found.items() if one.whole or key in rests}
        self._before = {key: one.stamp for key, one in found.items()}
        return whole, set(found) - set(whole)


def _versions(root: Path) -> Iterator[tuple[Key, Version]]:
    for model in sorted(root.iterdir()):
        if not NAME.fullmatch(model.name) or not model.is_dir():
            continue
        for folder in sorted(model.iterdir()):
            if VERSION.fullmatch(folder.name) and folder.is_dir():
                yield (model.name, int(folder.name)), _version(folder)


def _version(folder: Path) -> Version:
    try:
        stamp = _stamp(folder)
        if (folder / MARKER).is_file():
            return _published(folder, stamp)
    except (FileNotFoundError, NotADirectoryError):  # it goes while it is looked at
        return Version(folder, ())
    if any(name == MANIFEST for name, *_ in stamp):
        return Version(folder, ())  # its marker, which comes last, is still to come
    models = [folder / name for name, *_ in stamp if name.endswith(SUFFIX) and "/" not in name]
    if len(models) == 1:
        return Version(folder, stamp, models[0])
    problem = f"it has {len(models)} files *{SUFFIX}: one is served, and of several nobody says which"
    return Version(folder, stamp, problem=problem if models else f"it has no file *{SUFFIX}, and no card")


def _stamp(folder: Path) -> Stamp:
    facts = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            stat = path.stat()
            facts.append((path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(facts)


def _published(folder: Path, stamp: Stamp) -> Version:
    """A version with a manifest, as `models.artifacts` writes them."""
    manifest = (folder / MANIFEST).read_bytes()
    if (folder / MARKER).read_text(encoding="utf-8").strip() != digest_of(manifest):
        return Version(folder, stamp, whole=True, problem="its manifest is not the one that its marker names")
    try:
        facts = json.loads(manifest)
        card = read_card((folder / CARD).read_bytes())
        file, digest = folder / card.file, str(facts[card.file]["sha256"])
        sizes = {name: int(fact["bytes"]) for name, fact in facts.items()}
    except (ValueError, KeyError, TypeError) as error:
        return Version(folder, stamp, whole=True, problem=f"its manifest or card cannot be read: {error}")
    has = {name: size for name, size, *_ in stamp}
    if wrong := sorted(name for name, size in sizes.items() if has.get(name) != size):
        return Version(folder, stamp, whole=True, problem=f"it lacks, or has in another size: {', '.join(wrong)}")
    if card.format != "onnx":
        return Version(folder, stamp, whole=True, problem=f"models of format {card.format} are not served as they are")
    labels = None if card.labels is None else folder / card.labels
    return Version(folder, stamp, file, digest, labels, whole=True)
