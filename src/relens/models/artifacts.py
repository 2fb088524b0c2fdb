"""Model versions on disk: a folder that never changes, `models/<name>/<version>/`.

Files, card, golden pictures with their outputs, a manifest of SHA-256 digests, and a marker that is written last: a
folder without its marker is not there. The digest of what decides the model's answers names the version; its golden
outputs, which differ in the last bits from machine to machine, and what was measured of a version are in the manifest
but not in that digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from relens.errors import BadInput, Broken, Conflict, Missing
from relens.models.card import Card, read_card, space_digest
from relens.store.blobs import sync_folder, write_file_durably
from relens.values import Floats, canonical_json, digest_of

CARD = "card.yaml"
MANIFEST = "manifest.json"
MARKER = "COMPLETE"
GOLDEN = "golden"
GOLDEN_OUTPUTS = "golden/outputs.safetensors"
FIDELITY = "golden/fidelity.json"
"""How close a version comes to the one that it was made of. It was measured, as golden outputs were."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A complete model version: its card, its digest (files and card, golden pictures left out), and its folder."""

    card: Card
    digest: str
    folder: Path
    weights: str

    @property
    def reference(self) -> str:
        return f"{self.card.name}/{self.card.version}"

    @property
    def space(self) -> str | None:
        """The space of its vectors; None if it gives none."""
        document = self.card.space(self.weights)
        return None if document is None else space_digest(document)

    @property
    def model_file(self) -> Path:
        return self.folder / self.card.file

    def labels(self) -> list[str]:
        """Class names by index; none if the card names no file of them."""
        if self.card.labels is None:
            return []
        return read_labels((self.folder / self.card.labels).read_bytes(), source=self.card.labels)

    def head(self) -> Floats | None:
        """(classes, d) float32 weights of the classifier, None if the card names none."""
        if self.card.head is None:
            return None
        return np.asarray(safetensors.numpy.load_file(self.folder / self.card.head)["weight"], dtype=np.float32)

    def golden_pictures(self) -> dict[str, bytes]:
        """File name to bytes of each golden picture, in order."""
        return {path.name: path.read_bytes() for path in sorted((self.folder / GOLDEN).glob("*.png"))}

    def golden_outputs(self) -> dict[str, Floats]:
        """Role to what the golden pictures gave, in their order, when the model came in."""
        return safetensors.numpy.load_file(self.folder / GOLDEN_OUTPUTS)

    def files(self) -> dict[str, bytes]:
        """Relative name to bytes of what the version came in with, its card left out."""
        facts = json.loads((self.folder / MANIFEST).read_bytes())
        names = [name for name in facts if name != CARD and not name.startswith(f"{GOLDEN}/")]
        return {name: (self.folder / name).read_bytes() for name in names}

    def fidelity(self) -> dict[str, Any] | None:
        """How close it comes to the version that it was made of; None if it came in by itself."""
        report = self.folder / FIDELITY
        return json.loads(report.read_bytes()) if report.is_file() else None


class Shelf:
    """The folder of models of one home."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, name: str, version: int) -> Path:
        return self._root / name / str(version)

    def publish(self, card: Card, files: Mapping[str, bytes]) -> Artifact:
        """Make a version of these files (relative name to bytes), the card included. Conflict if it exists.

        A version of the same content is given back as it is.
        """
        target = self.folder(card.name, card.version)
        every = {**files, CARD: card.to_yaml()}
        facts = {name: _fact(data) for name, data in sorted(every.items())}
        if (target / MARKER).is_file():
            try:
                existing = self.open(card.name, card.version, verify=True)
            except Broken:
                target.rename(target.with_name(f".{target.name}.corrupt-{uuid.uuid4().hex[:8]}"))
            else:
                return _same(existing, facts)
        self._write(target, every, canonical_json(facts))
        return _same(self.open(card.name, card.version, verify=True), facts)

    def open(self, name: str, version: int, *, verify: bool = False) -> Artifact:
        """A version whose manifest and sizes are right; with `verify`, every byte too.

        Missing if it is not there or not complete; Broken, naming the file, if it differs from its manifest.
        """
        folder = self.folder(name, version)
        if not (folder / MARKER).is_file():
            raise Missing(
                "models.missing",
                f"there is no model {name}/{version}",
                hint="`relens model ls` lists them; `relens model fetch imagenet` brings the default ones",
            )
        return open_version(folder, verify=verify)

    def versions(self) -> list[tuple[str, int]]:
        """Every complete version: (name, version), in order."""
        found = [marker.parent for marker in self._root.glob(f"*/*/{MARKER}")]
        return sorted((folder.parent.name, int(folder.name)) for folder in found if folder.name.isdigit())

    def _write(self, target: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            for name, data in {**files, MANIFEST: manifest, MARKER: digest_of(manifest).encode()}.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                write_file_durably(temporary / name, data)
            sync_folder(temporary)
            if target.exists() and not (target / MARKER).exists():  # half a version, left by a crash of a copy
                shutil.rmtree(target)
            with contextlib.suppress(OSError):  # somebody else has just published it: theirs stays, and is compared
                temporary.rename(target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def open_version(folder: Path, *, verify: bool = False) -> Artifact:
    """The version in a folder that has its marker. Broken, naming the file, if it differs from its manifest."""
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise _changed(folder, MANIFEST) from None
    if (folder / MARKER).read_text(encoding="utf-8").strip() != digest_of(manifest):
        raise _changed(folder, MANIFEST)
    facts = json.loads(manifest)
    for file, fact in facts.items():
        _check(folder, file, fact, verify=verify)
    card = read_card((folder / CARD).read_bytes())
    return Artifact(card, _identity(facts), folder, facts[card.file]["sha256"])


def read_labels(data: bytes, *, source: str) -> list[str]:
    """Class names from a JSON list, or from text with one a line. BadInput, naming `source`, for anything else."""
    try:
        text = data.decode()
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except ValueError as error:
        raise BadInput("models.bad-labels", f"{source} holds no class names: {error}") from error
    if not names or not all(isinstance(name, str) for name in names):
        hint = "write a JSON list, or one name a line"
        raise BadInput("models.bad-labels", f"{source} is no list of names", hint=hint)
    return list(names)


def _identity(facts: Mapping[str, Mapping[str, str | int]]) -> str:
    """The digest of a version: of all its files but the golden ones."""
    return digest_of({name: dict(fact) for name, fact in facts.items() if not name.startswith(f"{GOLDEN}/")})


def _same(existing: Artifact, facts: Mapping[str, Mapping[str, str | int]]) -> Artifact:
    if existing.digest != _identity(facts):
        raise Conflict(
            "models.version-exists",
            f"{existing.reference} exists with other content",
            hint="a version never changes: give the new content another version number",
        )
    return existing


def _fact(data: bytes) -> dict[str, str | int]:
    return {"sha256": digest_of(data), "bytes": len(data)}


def _check(folder: Path, file: str, fact: Mapping[str, str | int], *, verify: bool) -> None:
    try:
        path = folder / file
        same = path.stat().st_size == fact["bytes"]
        if same and verify:
            with path.open("rb") as opened:
                same = hashlib.file_digest(opened, "sha256").hexdigest() == fact["sha256"]
    except FileNotFoundError:
        same = False
    if not same:
        raise _changed(folder, file)


def _changed(folder: Path, file: str) -> Broken:
    return Broken(
        "models.corrupt",
        f"model {folder.parent.name}/{folder.name}: {file} is not what the manifest names",
        hint="a version never changes: remove the folder and fetch or add the model again",
    )
