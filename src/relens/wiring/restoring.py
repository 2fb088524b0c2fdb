"""A home from a backup, and a catalog from its copy: the parts are opened before there is anything in them."""

from __future__ import annotations

from pathlib import Path

from relens import backup, config
from relens.backup import Backup, BackupFolder, Report
from relens.config import Home
from relens.store import Catalog
from relens.store.dumps import Dumped
from relens.wiring import open_blobs, start_logging_early


def restore_home(folder: Path, named: str | Path | None, name: str | None, report: Report) -> tuple[Home, Backup]:
    """Restore a backup, by name or the newest, into an empty home. Conflict if it is not empty."""
    home = config.find_home(named)
    source = BackupFolder(folder)
    chosen = source.open(name)
    backup.begin_restore(source, chosen, home)
    settings = config.load(home)
    start_logging_early(settings)
    catalog = Catalog(home.catalog_url(settings))
    try:
        backup.restore(source, chosen, home, catalog, open_blobs(home, settings), report=report)
    finally:
        catalog.close()
    return home, chosen


def restore_copy(file: Path, named: str | Path | None) -> tuple[Home, Dumped]:
    """Fill the empty catalog of a home from the copy that was made before an upgrade. Conflict if it is not empty."""
    home = config.find_home(named)
    settings = config.load(home)
    catalog = Catalog(home.catalog_url(settings))
    try:
        with file.open("rb") as dump:
            return home, backup.restore_catalog(dump, catalog)
    finally:
        catalog.close()
