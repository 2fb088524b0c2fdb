"""Indexes for what a purge asks, and without the list of pictures that lost an item, which nobody needs."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_table("orphans")
    op.create_index("ix_releases_view", "releases", ["view"], unique=False)
    op.create_index("ix_tombstones_plan", "tombstones", ["plan"], unique=False)
