"""Thresholds of galleries, indexes for what a purge asks, and no list of pictures that lost an item."""

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_table("orphans")
    op.create_table(
        "thresholds",
        sa.Column("gallery", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_thresholds_gallery")),
        sa.PrimaryKeyConstraint("gallery", "space", name=op.f("pk_thresholds")),
    )
    op.create_index("ix_releases_view", "releases", ["view"], unique=False)
    op.create_index("ix_tombstones_plan", "tombstones", ["plan"], unique=False)
