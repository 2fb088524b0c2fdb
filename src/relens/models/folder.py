"""A folder of models to serve: `<name>/<version>/`, looked at again and again while others write to it.

A version with a manifest is there when its completion marker is, a bare ONNX file when nothing in its folder has
changed from one look to the next: wherever the folder lies, on this machine or at a URL (`far`). Nothing is loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from relens.errors import BadInput, Broken, Missing
from relens.models.artifacts import CARD, MANIFEST, MARKER
from relens.models.card import NAME, read_card
from relens.values import digest_of

VERSION = re.compile(r"[1-9][0-9]{0,17}")
SUFFIX = ".onnx"
NOT_FETCHED = "models.not-fetched"
"""What an error is called that says nothing of the version itself: its files could not be had just now."""

Key = tuple[str, int]
"""Name and version of a model."""

Stamp = tuple[tuple[str, int, str], ...]
"""Of every file of a version: name relative to its folder, bytes, mark. Another one: somebody has written."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version as it lies in the folder.

    where   where it lies, for people
    folder  where its files are on this machine, once they are fetched
    stamp   empty as long as it is known that something is still to come
    file    the model's file; None if there is none, or more than one
    digest  SHA-256 of that file, if a manifest says it
    digests SHA-256 of every file that a manifest names
    whole   whether a marker says that nothing is missing
    problem why it cannot be served, whatever comes
    """

    key: Key
    where: str
    folder: Path
    stamp: Stamp
    file: Path | None = None
    digest: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    problem: str | None = None


class Place(Protocol):
    """Where versions lie. One thread looks, others fetch."""

    where: str
    """Names it for people."""

    def check(self) -> None:
        """Raise why nothing can be served from here."""

    def versions(self) -> Mapping[Key, Stamp]:
        """What lies there now; of a version that is not to be looked at yet, an empty stamp. Broken if nobody knows."""

    def read(self, key: Key, name: str) -> bytes:
        """A small file of a version. FileNotFoundError if it cannot be had now."""

    def folder(self, key: Key, stamp: Stamp) -> Path:
        """Where the files of a version are once they are fetched."""

    def fetch(self, version: Version, given_up: Callable[[], bool]) -> None:
        """See to it that a version's files are in its folder, as stamped, and stay there until it is released.

        Broken or Conflict if they cannot be had, or are not what they have to be; Busy soon after it is given up.
        """

    def release(self, version: Version) -> None:
        """Nothing of a version is read any more, until it is fetched again."""


class ModelFolder:
    """Looks at a folder of models, and remembers the look before."""

    def __init__(self, place: Place) -> None:
        self.where = place.where
        self.check = place.check
        self.fetch = place.fetch
        self.release = place.release
        self._place = place
        self._before: Mapping[Key, Version] = {}
        self._stamps: Mapping[Key, Stamp] = {}

    def look(self) -> tuple[dict[Key, Version], set[Key]]:
        """The versions that are whole, and those that are not yet. Broken if the folder cannot be read."""
        stamps = self._place.versions()
        found = {key: self._version(key, stamp) for key, stamp in stamps.items()}
        rests = {key for key, one in found.items() if one.stamp and self._stamps.get(key) == one.stamp}
        whole = {key: one for key, one in found.items() if one.whole or key in rests}
        self._before, self._stamps = found, stamps
        return whole, set(found) - set(whole)

    def _version(self, key: Key, stamp: Stamp) -> Version:
        """A version by its stamp. What files say is read only when one has changed."""
        known = self._before.get(key)
        if known is not None and known.stamp == stamp:
            return known
        where, folder = f"{self.where}/{key[0]}/{key[1]}", self._place.folder(key, stamp)
        names = {name for name, *_ in stamp}
        if MARKER in names:
            try:
                return _published(self._place, key, where, folder, stamp)
            except (FileNotFoundError, NotADirectoryError):  # it goes while it is looked at
                return Version(key, where, folder, ())
        if MANIFEST in names:
            return Version(key, where, folder, ())  # its marker, which comes last, is still to come
        models = sorted(name for name in names if name.endswith(SUFFIX) and "/" not in name)
        if len(models) == 1:
            return Version(key, where, folder, stamp, folder / models[0])
        problem = f"it has {len(models)} files *{SUFFIX}: one is served, and of several nobody says which"
        return Version(
            key, where, folder, stamp, problem=problem if models else f"it has no file *{SUFFIX}, and no card"
        )


class Here:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self.where = str(self._root)

    def check(self) -> None:
        if not self._root.is_dir():
            raise Missing(
                "models.no-folder",
                f"there is no folder {self._root}",
                hint="name one with <model>/<version>/model.onnx",
            )

    def versions(self) -> Mapping[Key, Stamp]:
        found = {}
        try:
            for model in sorted(self._root.iterdir()):
                if not NAME.fullmatch(model.name) or not model.is_dir():
                    continue
                for folder in sorted(model.iterdir()):
                    if VERSION.fullmatch(folder.name) and folder.is_dir():
                        found[model.name, int(folder.name)] = _stamp(folder)
        except OSError as error:
            raise Broken(
                "models.folder",
                f"the folder of models {self._root} cannot be read: {error.strerror}",
                hint="what is loaded is served on; is the disk there?",
            ) from error
        return found

    def read(self, key: Key, name: str) -> bytes:
        return (self.folder(key, ()) / name).read_bytes()

    def folder(self, key: Key, stamp: Stamp) -> Path:  # noqa: ARG002 - elsewhere each stamp has a folder of its own
        return self._root / key[0] / str(key[1])

    def fetch(self, version: Version, given_up: Callable[[], bool]) -> None:
        """Nothing: the files are here."""

    def release(self, version: Version) -> None:
        """Nothing."""


def of_version(name: str) -> bool:
    """Whether `<name>/<version>/file` may be of a version; of a folder, whose name ends in `/`, whether such are in it.

    Hidden files and folders are not.
    """
    model, *rest = name.removesuffix("/").split("/")
    if not NAME.fullmatch(model) or (rest and not VERSION.fullmatch(rest[0])):
        return False
    return all(part and not part.startswith(".") for part in rest)


def _stamp(folder: Path) -> Stamp:
    """The stamp of a folder. OSError if the disk does not tell it, which says nothing of what is there."""
    facts = []
    try:
        for inner, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(inner, name)
                if name.startswith(".") or not path.is_file():
                    continue
                told = path.stat()
                facts.append((path.relative_to(folder).as_posix(), told.st_size, f"{told.st_mtime_ns}:{told.st_ino}"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # it goes while it is looked at, or is not for us
        return ()
    return tuple(sorted(facts))


def _raise(error: OSError) -> None:
    raise error


def _published(place: Place, key: Key, where: str, folder: Path, stamp: Stamp) -> Version:
    """A version with a manifest, as `models.artifacts` writes them."""

    def bad(problem: str) -> Version:
        return Version(key, where, folder, stamp, whole=True, problem=problem)

    sizes = {name: size for name, size, _ in stamp}
    if not {MANIFEST, CARD} <= set(sizes):
        raise FileNotFoundError
    manifest = place.read(key, MANIFEST)
    if place.read(key, MARKER).decode(errors="replace").strip() != digest_of(manifest):
        return bad("its manifest is not the one that its marker names")
    try:
        facts = json.loads(manifest)
        card = read_card(place.read(key, CARD))
        digests = {name: str(fact["sha256"]) for name, fact in facts.items()}
        wrong = sorted(name for name, fact in facts.items() if sizes.get(name) != int(fact["bytes"]))
        file, digest = folder / card.file, digests[card.file]
    except (ValueError, KeyError, TypeError, AttributeError, BadInput) as error:
        return bad(f"its manifest or card cannot be read: {error}")
    if wrong:
        return bad(f"it lacks, or has in another size: {', '.join(wrong)}")
    if card.format != "onnx":
        return bad(f"models of format {card.format} are not served as they are")
    return Version(key, where, folder, stamp, file, digest, digests, whole=True)
