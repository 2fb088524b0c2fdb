"""The copy of a catalog that is made before its schema is changed, in the transaction that will change it.

Of SQLite a database that can be put in its place again; of PostgreSQL a dump, which `relens restore` reads. The newest
few are kept.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from pathlib import Path

import sqlalchemy as sa
import structlog

from relens.errors import Broken
from relens.store.blobs import sync_folder
from relens.store.catalog import Tx, revision_of
from relens.store.dumps import is_empty, table_names, write_dump

KEPT = 3

log = structlog.get_logger(__name__)


def copy_catalog(tx: Tx, folder: Path, now: str) -> Path | None:
    """Copy a catalog into a folder, with nobody writing to it until `tx` ends. None if there is nothing in it.

    now  date and time, as part of a file's name

    Broken if there is no room for it, or it cannot be written.
    """
    revision = revision_of(tx)
    if revision is None or is_empty(tx):
        return None
    if tx.dialect.name == "sqlite":
        database = str(tx.engine.url.database)
        pattern, name = f"{Path(database).name}.*.bak", f"{Path(database).name}.{revision}.bak"
    else:
        pattern, name = "catalog-*.jsonl.gz", f"catalog-{revision}-{now}.jsonl.gz"
    target, temporary = folder / name, folder / f".{name}.{uuid.uuid4().hex}"
    try:
        if tx.dialect.name == "sqlite":
            _require_room(tx, folder)
            _copy_sqlite(Path(database), temporary)
        else:
            _dump_server(tx, temporary)
        temporary.replace(target)
        sync_folder(folder)
    except (OSError, sqlite3.Error) as error:
        raise _cannot_copy(target, str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)
    _forget_old(folder, pattern)
    log.warning("the catalog's schema is brought forward; a copy is kept", revision=revision, copy=str(target))
    return target


def _copy_sqlite(database: Path, target: Path) -> None:
    """What is committed, by a connection of its own: the transaction that holds the write lock has written nothing."""
    source, copy = sqlite3.connect(database), sqlite3.connect(target)
    try:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, whole by itself
    finally:
        copy.close()
        source.close()
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _dump_server(tx: Tx, target: Path) -> None:
    # Readers go on; what a relens that still runs would write after the copy would not be in it.
    tables = ", ".join(sorted(tx.dialect.identifier_preparer.quote(name) for name in table_names(tx)))
    tx.exec_driver_sql(f"LOCK TABLE {tables} IN SHARE MODE")
    with target.open("xb") as file:
        write_dump(tx, file)
        file.flush()
        os.fsync(file.fileno())


def _require_room(tx: Tx, folder: Path) -> None:
    needed = int(
        tx.execute(sa.text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")).scalar_one()
    )
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _cannot_copy(folder, f"it takes {needed // 10**6 + 1} MB, and {free // 10**6} MB are free")


def _forget_old(folder: Path, pattern: str) -> None:
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in found[KEPT:]:
        path.unlink(missing_ok=True)


def _cannot_copy(target: Path, why: str) -> Broken:
    return Broken(
        "store.no-copy",
        f"the catalog must be brought forward, and cannot be copied to {target} first: {why}",
        hint="make room there and start again; the catalog is as it was, and the relens that wrote it still reads it",
    )
