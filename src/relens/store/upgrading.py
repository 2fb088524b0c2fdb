"""Brings a catalog's schema forward, revision by revision, in the transaction that it is given."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from relens.errors import Broken

_RUNNING = threading.Lock()  # alembic keeps what it works on in a global


def bring_forward(tx: sa.Connection) -> None:
    """Run the migrations that are missing. Broken if a newer relens wrote the schema."""
    require_known(MigrationContext.configure(tx).get_current_revision())
    _run(tx, "head")


def make_schema(tx: sa.Connection, revision: str) -> None:
    """Make the tables of a revision in an empty database. Broken if a newer relens knows it, and this one does not."""
    require_known(revision)
    _run(tx, revision)


def require_known(revision: str | None) -> None:
    """Broken for a revision of a newer relens."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise Broken(
            "store.newer-schema",
            f"the catalog has schema {revision}, which this relens does not know",
            hint="a newer relens wrote it: install that version, or restore a backup",
        )


def _run(tx: sa.Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = tx
    with _RUNNING:
        command.upgrade(config, revision)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
