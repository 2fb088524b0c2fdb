"""Taking a backup: one snapshot of the catalog, then all that it names, then the manifest.

The home serves and imports meanwhile. Nothing that the snapshot names is collected before the backup has it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from relens.backup.copying import Copied, Report, copy_blobs, has, read_file, store_verified
from relens.backup.folder import Backup, BackupFolder
from relens.config import FILE, Home
from relens.errors import Broken, Busy
from relens.models import Shelf
from relens.models.artifacts import MANIFEST, MARKER
from relens.store import Blob, Blobs, Catalog, Tx
from relens.store.blobs import corrupt_blob
from relens.store.dumps import write_dump
from relens.store.schema import backups, galleries, models
from relens.store.schema import blobs as blob_rows

BLOBS_LOCK = "blobs"
"""Held by backups together, and by who removes blobs alone."""

PATIENCE_S = 60.0
POLL_S = 0.05
SECRET = re.compile(r"secret|password|passwd|token|credential|(^|[._])key$", re.IGNORECASE)
PASSWORD_IN_URL = re.compile(r"(://[^/@:\s]*):[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What the catalog said at one moment. Its dump is stored."""

    revision: str
    dump: Blob
    sequences: dict[str, int]
    blobs: dict[str, int]
    models: dict[tuple[str, int], str]


def back_up(catalog: Catalog, blobs: Blobs, home: Home, folder: BackupFolder, report: Report) -> tuple[Backup, Copied]:
    """Add a backup of a home to a folder, with what of it is not there yet.

    Broken or Missing, naming it, for a blob or a model that is damaged or lost: what cannot be restored is no backup.
    Broken off, it leaves the earlier backups as they are, and the next one goes on with what it has copied.
    """
    folder.make()
    with _no_collector(catalog):
        with catalog.snapshot() as tx:
            snapshot = _take(tx, folder)
        copied = copy_blobs(blobs, folder.blobs, snapshot.blobs, report)
    settings, left_out = without_secrets(home.file.read_bytes())
    files = {FILE: folder.blobs.put(settings)}
    for path in sorted(home.recipes.rglob("*")):  # filters of the user's own lie beside them
        if path.is_file() and not path.name.startswith("."):
            files[path.relative_to(home.path).as_posix()] = folder.blobs.put(path.read_bytes())
    files |= _models(Shelf(home.models), snapshot, folder)
    with catalog.read() as tx:
        now = catalog.now(tx)
    made = folder.add(
        Backup(
            name="",
            relens=version("relens"),
            made_at=now,
            revision=snapshot.revision,
            catalog=snapshot.dump,
            sequences=snapshot.sequences,
            blobs=snapshot.blobs,
            files=files,
            left_out=tuple(left_out),
        )
    )
    with catalog.begin() as tx:
        row = {"folder": str(folder.path), "digest": made.digest, "sequences": dict(made.sequences), "at": now}
        tx.execute(sa.insert(backups).values(row))
    return made, copied


@contextlib.contextmanager
def _no_collector(catalog: Catalog) -> Iterator[None]:
    """Wait until nobody removes blobs, and let nobody begin. Busy if that takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with catalog.hold(BLOBS_LOCK, alone=False) as held:
            if held:
                yield
                return
        if time.monotonic() > deadline:
            raise Busy(
                "backup.collecting", "`relens gc` removes blobs at this moment", hint="try again when it is done"
            )
        time.sleep(POLL_S)


def _take(tx: Tx, folder: BackupFolder) -> _Snapshot:
    with folder.blobs.writer() as writer:
        dumped = write_dump(tx, writer)
        dump = writer.finish()
    living = sa.select(galleries.c.name, galleries.c.sequence).where(galleries.c.removed_at.is_(None))
    return _Snapshot(
        revision=dumped.revision,
        dump=dump,
        sequences={row.name: row.sequence for row in tx.execute(living)},
        blobs={row.digest: row.size for row in tx.execute(sa.select(blob_rows.c.digest, blob_rows.c.size))},
        models={(row.name, row.version): row.digest for row in tx.execute(sa.select(models))},
    )


# -- models ---------------------------------------------------------------------------------------------------------


def _models(shelf: Shelf, snapshot: _Snapshot, folder: BackupFolder) -> dict[str, Blob]:
    """Every file of every model that the catalog knows, by its path in the home."""
    files = {}
    for (name, number), digest in sorted(snapshot.models.items()):
        artifact = shelf.open(name, number)
        if artifact.digest != digest:
            raise Broken(
                "backup.other-model",
                f"model {artifact.reference} is not the one that was registered",
                hint="`relens model verify` says more; put the original folder back",
            )
        facts = json.loads((artifact.folder / MANIFEST).read_bytes())
        for file, fact in facts.items():
            blob = Blob(str(fact["sha256"]), int(fact["bytes"]))
            _store_file(artifact.folder / file, blob, folder)
            files[f"models/{name}/{number}/{file}"] = blob
        for file in (MANIFEST, MARKER):
            files[f"models/{name}/{number}/{file}"] = folder.blobs.put((artifact.folder / file).read_bytes())
    return files


def _store_file(path: Path, blob: Blob, folder: BackupFolder) -> None:
    if has(folder.blobs, blob.digest, blob.size):
        return
    try:
        store_verified(folder.blobs, blob.digest, read_file(path))
    except Broken as error:
        if error.code != corrupt_blob("", "").code:
            raise
        raise Broken(
            "models.corrupt", f"{path} is not what its manifest names", hint="fetch or add the model again"
        ) from error


# -- settings -------------------------------------------------------------------------------------------------------


def without_secrets(data: bytes) -> tuple[bytes, list[str]]:
    """A `relens.yaml` without its secrets, and the keys that held them. Without secrets it stays as it is."""
    given = yaml.safe_load(data)
    left_out: list[str] = []
    kept = _strip(given, "", left_out)
    if not left_out:
        return data, []
    head = f"# Left out of the backup, because they are secrets: {', '.join(left_out)}\n"
    return head.encode() + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).encode(), left_out


def _strip(value: Any, key: str, left_out: list[str]) -> Any:
    if isinstance(value, dict):
        kept = {}
        for name, inner in value.items():
            path = f"{key}.{name}" if key else str(name)
            if inner not in (None, "") and not isinstance(inner, dict) and SECRET.search(path):
                left_out.append(path)
            else:
                kept[name] = _strip(inner, path, left_out)
        return kept
    if isinstance(value, list):
        return [_strip(inner, key, left_out) for inner in value]
    if isinstance(value, str) and PASSWORD_IN_URL.search(value):
        left_out.append(f"password of {key}")
        return PASSWORD_IN_URL.sub(r"\1@", value)
    return value
