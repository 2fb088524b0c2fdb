"""Restoring a backup into an empty home: files and blobs first, and then the catalog in one transaction.

Until the catalog is there the home holds nothing, so that a restore that was broken off goes on when it is asked for
again. Ids, sequences and counters are those of the backup; an older schema is brought forward.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import sqlalchemy as sa

from relens.backup.copying import Report, copy_blobs, write_out
from relens.backup.folder import Backup, BackupFolder
from relens.config import FILE, Home
from relens.errors import BadInput, Conflict
from relens.models.artifacts import MARKER
from relens.store import Blobs, Catalog
from relens.store.blobs import write_file_durably
from relens.store.dumps import Dumped, drop_tables, is_empty, load_dump
from relens.store.schema import packs, pins

NOTE = "restoring.json"
BEGUN, COPYING, LOADING = "begun", "copying", "loading"
"""How far a restore is: settings written; all was found empty; the catalog was empty a moment ago, and is filled."""


def begin_restore(folder: BackupFolder, backup: Backup, home: Home) -> None:
    """Put the settings of a backup into a home that has none. Settings that are there are kept.

    BadInput if the home has other things and no settings: it is no home, or not an empty one.
    """
    if home.file.is_file():
        return
    if _note(home) is None and home.path.exists() and any(home.path.iterdir()):
        raise BadInput(
            "backup.no-empty-home", f"{home.path} is neither empty nor a home", hint="name a new folder with --home"
        )
    _write_note(home, backup, BEGUN)
    settings = backup.files[FILE]
    write_out(folder.blobs, settings.digest, settings.size, home.file)


def restore(
    folder: BackupFolder, backup: Backup, home: Home, catalog: Catalog, blobs: Blobs, *, report: Report
) -> None:
    """Fill an empty home, its catalog and its store of blobs with a backup. Broken off, it goes on when called again.

    Conflict if one of them is not empty; Broken, naming it, if something of the backup is damaged, or if a newer relens
    made it.
    """
    from relens.store.upgrading import require_known  # noqa: PLC0415 - the migration library, which few commands need

    require_known(backup.revision)
    with catalog.read() as tx:
        empty = is_empty(tx)
    if not empty and _note(home) == (backup.name, LOADING):  # killed when all was done
        _end(home)
        return
    if not empty:
        raise _not_empty(_in_words(catalog))
    _require_empty(backup, home, blobs)
    _write_note(home, backup, COPYING)
    copy_blobs(folder.blobs, blobs, backup.blobs, report)
    # A model without its marker is not there: it comes last.
    for path, blob in sorted(backup.files.items(), key=lambda one: (Path(one[0]).name == MARKER, one[0])):
        if path != FILE:
            write_out(folder.blobs, blob.digest, blob.size, _inside(home, path))
    with folder.blobs.path(backup.catalog.digest, verify=True).open("rb") as dump:
        restore_catalog(dump, catalog, ready=lambda: _write_note(home, backup, LOADING))
    _end(home)


def restore_catalog(dump: BinaryIO, catalog: Catalog, *, ready: Callable[[], None] = lambda: None) -> Dumped:
    """Fill an empty catalog from a dump, and bring it forward. Conflict if it is not empty.

    `ready` is called when it was found empty and is about to be filled.
    """
    from relens.store.upgrading import bring_forward  # noqa: PLC0415 - as above

    with catalog.begin() as tx:
        if not is_empty(tx):
            raise _not_empty(_in_words(catalog))
        ready()
        drop_tables(tx)
        dumped = load_dump(tx, dump)
        bring_forward(tx)
        # Whoever worked on them does so in another home.
        free = {"state": "open", "host": None, "pid": None, "started": None, "lease_until": None, "in_hand": None}
        tx.execute(sa.update(packs).where(packs.c.state == "running").values(**free, progress=0))
        tx.execute(sa.delete(pins))
    return dumped


# -- what is empty, and what was begun ------------------------------------------------------------------------------


def _require_empty(backup: Backup, home: Home, blobs: Blobs) -> None:
    """That nothing is in the way but what an earlier try has copied."""
    begun = _note(home)
    copying = begun is not None and begun[1] != BEGUN
    if begun is not None and copying and begun[0] == backup.name:
        return
    full = next(blobs.digests(), None) is not None
    if begun is not None and copying and full:
        raise Conflict(
            "backup.other-begun",
            f"the restore of backup {begun[0]} into {home.path} was not finished",
            hint=f"finish it with --backup {begun[0]}, or restore into another home",
        )
    if full:  # perhaps another home's: what one collects, the other would miss
        raise _not_empty("the store of blobs")
    if home.models.is_dir() and any(home.models.iterdir()):
        raise _not_empty(str(home.models))


def _not_empty(what: str) -> Conflict:
    return Conflict(
        "backup.not-empty",
        f"{what} is not empty",
        hint="restore into a new home (--home), with `catalog:` and `blobs:` in its relens.yaml if they are elsewhere",
    )


def _in_words(catalog: Catalog) -> str:
    return f"the catalog at {catalog.url.render_as_string(hide_password=True)}"


def _inside(home: Home, path: str) -> Path:
    """Where a file of a backup goes. BadInput for a path that leads out of the home."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise BadInput("backup.bad-path", f"{path!r} leads out of the home", hint="this is no backup that relens made")
    return home.path / path


def _write_note(home: Home, backup: Backup, state: str) -> None:
    for one in home.folders:
        one.mkdir(parents=True, exist_ok=True)
    write_file_durably(home.run / NOTE, json.dumps({"backup": backup.name, "state": state}).encode())


def _note(home: Home) -> tuple[str, str] | None:
    """Which backup is being restored into a home, and how far that is."""
    try:
        note: dict[str, str] = json.loads((home.run / NOTE).read_bytes())
        return note["backup"], note["state"]
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _end(home: Home) -> None:
    (home.run / NOTE).unlink(missing_ok=True)
