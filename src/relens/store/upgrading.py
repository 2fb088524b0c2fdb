"""Brings a catalog's schema forward, revision by revision, in the transaction that it is given."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from relens.errors import Broken


def bring_forward(tx: sa.Connection) -> None:
    """Run the migrations that are missing. Broken if a newer relens wrote the schema."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    current = MigrationContext.configure(tx).get_current_revision()
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise Broken(
            "store.newer-schema",
            f"the catalog has schema {current}, which this relens does not know",
            hint="a newer relens wrote it: install that version, or restore a backup",
        )
    config.attributes["connection"] = tx
    command.upgrade(config, "head")
