"""A folder of backups: `backups/<UTC time>-<digest>.json`, and under `blobs/` all that they name, once.

Backups only ever add to it. One that is not finished has no manifest, and the next one finds what it has copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from relens.errors import BadInput, Broken, Missing
from relens.store import Blob, LocalBlobs
from relens.store.blobs import sync_folder, write_file_durably
from relens.values import canonical_json, digest_of

FORMAT = "relens-backup-1"
SHOWN_DIGITS = 16
"""Of the manifest's digest, in its name."""

MOMENT = "%Y%m%dT%H%M%S.%fZ"
TICK = timedelta(microseconds=1)
STALE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Backup:
    """What one backup holds; `name` is that of its manifest.

    revision   of the catalog's schema
    catalog    the blob with the dump of the catalog
    sequences  gallery -> the sequence that the backup holds of it
    blobs      digest -> bytes, of every blob that the catalog knows
    files      relative path in the home -> blob: settings, recipes, models
    left_out   settings that are secrets, and are not in it
    """

    name: str
    relens: str
    made_at: float
    revision: str
    catalog: Blob
    sequences: Mapping[str, int]
    blobs: Mapping[str, int]
    files: Mapping[str, Blob]
    left_out: tuple[str, ...] = field(default=())

    @property
    def digest(self) -> str:
        """Of the manifest's bytes."""
        return digest_of(self.to_bytes())

    def contents(self) -> dict[str, int]:
        """Digest -> bytes of all that it is made of."""
        kept = [self.catalog, *self.files.values()]
        return {**self.blobs, **{blob.digest: blob.size for blob in kept}}

    def to_bytes(self) -> bytes:
        values = {name: value for name, value in asdict(self).items() if name != "name"}
        return canonical_json({"format": FORMAT, **values})

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Backup:
        """ValueError, TypeError or KeyError for what is no manifest of ours."""
        given: dict[str, Any] = json.loads(data)
        if given.pop("format") != FORMAT:
            raise ValueError("another format")
        given["catalog"] = Blob(**given["catalog"])
        given["files"] = {path: Blob(**blob) for path, blob in given["files"].items()}
        return cls(name=name, **{**given, "left_out": tuple(given["left_out"])})


class BackupFolder:
    """Where backups are kept."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.blobs = LocalBlobs(self.path / "blobs")
        self._manifests = self.path / "backups"

    def make(self) -> None:
        """Make the folder, or go on in it. BadInput if something else is in it."""
        if not self._manifests.is_dir() and self.path.exists() and any(self.path.iterdir()):
            raise BadInput(
                "backup.other-folder",
                f"{self.path} holds something else than backups",
                hint="name a new folder, or one that has backups already",
            )
        self._manifests.mkdir(parents=True, exist_ok=True)
        sync_folder(self.path.parent)
        sync_folder(self.path)
        self.blobs.sweep(STALE_S)

    def names(self) -> list[str]:
        """Every backup, oldest first."""
        return sorted(path.stem for path in self._manifests.glob("*.json") if not path.name.startswith("."))

    def add(self, backup: Backup) -> Backup:
        """Write the manifest of a backup, durably: now it is there. The same with its name."""
        data = backup.to_bytes()
        name = f"{self._moment(backup):{MOMENT}}-{digest_of(data)[:SHOWN_DIGITS]}"
        write_file_durably(self._manifests / f"{name}.json", data)
        return Backup.from_bytes(name, data)

    def _moment(self, backup: Backup) -> datetime:
        """When it was made, but after all that are there: names tell the order, also when the clock was set back."""
        made = datetime.fromtimestamp(backup.made_at, UTC)
        latest = max((_moment_of(name) for name in self.names()), default=made - TICK)
        return max(made, latest + TICK)

    def open(self, name: str | None = None) -> Backup:
        """A backup by name, or the newest. Missing if there is none; Broken if its manifest is damaged."""
        names = self.names()
        if name is None and not names:
            raise Missing(
                "backup.none", f"there is no backup in {self.path}", hint="`relens backup DIR` makes one in DIR"
            )
        wanted = names[-1] if name is None else name.removesuffix(".json")
        if wanted not in names:
            raise Missing(
                "backup.missing",
                f"there is no backup {name} in {self.path}",
                hint=f"there is {', '.join(names) or 'none'}",
            )
        data = (self._manifests / f"{wanted}.json").read_bytes()
        if digest_of(data)[:SHOWN_DIGITS] != wanted.rpartition("-")[2]:
            raise _damaged(wanted, "its bytes are not those that its name tells")
        try:
            return Backup.from_bytes(wanted, data)
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(wanted, f"it cannot be read: {error}") from error


def _moment_of(name: str) -> datetime:
    try:
        return datetime.strptime(name.partition("-")[0], MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)  # no name of ours


def _damaged(name: str, why: str) -> Broken:
    return Broken(
        "backup.damaged", f"the manifest of backup {name} is damaged: {why}", hint="use another backup with --backup"
    )
