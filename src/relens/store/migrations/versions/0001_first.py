"""The first schema."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0001"
down_revision = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Document = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "backend_choices",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("figures", Document, nullable=False),
        sa.Column("chosen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("host", "model", name=op.f("pk_backend_choices")),
    )
    op.create_table(
        "blobs",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blobs")),
    )
    op.create_table(
        "galleries",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_galleries")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ux_galleries_name",
        "galleries",
        ["name"],
        unique=True,
        sqlite_where=sa.text("removed_at IS NULL"),
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_table(
        "lenses",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("document", Document, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_lenses")),
    )
    op.create_table(
        "model_labels",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", "label", name=op.f("pk_model_labels")),
    )
    op.create_table(
        "models",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("card", Document, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name=op.f("pk_models")),
        sa.UniqueConstraint("digest", name=op.f("uq_models_digest")),
    )
    op.create_table(
        "spaces",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("document", Document, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_spaces")),
    )
    op.create_table(
        "aliases",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("lens", sa.Text(), nullable=False),
        sa.Column("moved_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["lens"], ["lenses.digest"], name=op.f("fk_aliases_lens")),
        sa.PrimaryKeyConstraint("scope", "alias", name=op.f("pk_aliases")),
    )
    op.create_table(
        "heads",
        sa.Column("gallery", Id, nullable=False),
        sa.Column("lens", sa.Text(), nullable=False),
        sa.Column("view", Id, nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_heads_gallery")),
        sa.ForeignKeyConstraint(["lens"], ["lenses.digest"], name=op.f("fk_heads_lens")),
        sa.PrimaryKeyConstraint("gallery", "lens", name=op.f("pk_heads")),
    )
    op.create_table(
        "pictures",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("released", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_pictures_gallery")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pictures")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ux_pictures_sha256",
        "pictures",
        ["gallery", "sha256"],
        unique=True,
        sqlite_where=sa.text("NOT released"),
        postgresql_where=sa.text("NOT released"),
    )
    op.create_table(
        "plans",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("gallery", Id, nullable=True),
        sa.Column("lens", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("cancelling", sa.Boolean(), nullable=False),
        sa.Column("spec", Document, nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("view", Id, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_plans_gallery")),
        sa.ForeignKeyConstraint(["lens"], ["lenses.digest"], name=op.f("fk_plans_lens")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ux_plans_open",
        "plans",
        ["kind", "key"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "segments",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_segments_gallery")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_segments")),
    )
    op.create_table(
        "views",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("lens", sa.Text(), nullable=False),
        sa.Column("parent", Id, nullable=True),
        sa.Column("plan", Id, nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("folded_to", sa.BigInteger(), nullable=False),
        sa.Column("checks", Document, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_views_gallery")),
        sa.ForeignKeyConstraint(["lens"], ["lenses.digest"], name=op.f("fk_views_lens")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_views")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "items",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("picture", Id, nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("price", sa.Double(), nullable=True),
        sa.Column("shop", sa.Text(), nullable=True),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("data", Document, nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_items_gallery")),
        sa.ForeignKeyConstraint(["picture"], ["pictures.id"], name=op.f("fk_items_picture")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_items")),
        sa.UniqueConstraint("gallery", "key", name=op.f("uq_items_gallery_key")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_items_picture", "items", ["picture"], unique=False)
    op.create_table(
        "objects",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("picture", Id, nullable=False),
        sa.Column("plan", Id, nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("x", sa.Double(), nullable=False),
        sa.Column("y", sa.Double(), nullable=False),
        sa.Column("w", sa.Double(), nullable=False),
        sa.Column("h", sa.Double(), nullable=False),
        sa.Column("landmarks", Document, nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("attributes", Document, nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_objects_gallery")),
        sa.ForeignKeyConstraint(["picture"], ["pictures.id"], name=op.f("fk_objects_picture")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_objects")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_objects_picture", "objects", ["picture"], unique=False)
    op.create_index("ix_objects_plan", "objects", ["plan"], unique=False)
    op.create_table(
        "orphans",
        sa.Column("plan", Id, nullable=False),
        sa.Column("picture", Id, nullable=False),
        sa.ForeignKeyConstraint(["picture"], ["pictures.id"], name=op.f("fk_orphans_picture")),
        sa.ForeignKeyConstraint(["plan"], ["plans.id"], name=op.f("fk_orphans_plan")),
        sa.PrimaryKeyConstraint("plan", "picture", name=op.f("pk_orphans")),
    )
    op.create_table(
        "packs",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("plan", Id, nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("spec", Document, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("started", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("in_hand", sa.Text(), nullable=True),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["plan"], ["plans.id"], name=op.f("fk_packs_plan")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packs")),
        sa.UniqueConstraint("plan", "stage", "number", name=op.f("uq_packs_plan_stage_number")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_packs_state", "packs", ["state"], unique=False)
    op.create_table(
        "releases",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("lens", sa.Text(), nullable=False),
        sa.Column("view", Id, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["lens"], ["lenses.digest"], name=op.f("fk_releases_lens")),
        sa.ForeignKeyConstraint(["view"], ["views.id"], name=op.f("fk_releases_view")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
        sa.UniqueConstraint("name", name=op.f("uq_releases_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tasks",
        sa.Column("plan", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["plan"], ["plans.id"], name=op.f("fk_tasks_plan")),
        sa.PrimaryKeyConstraint("plan", "name", name=op.f("pk_tasks")),
    )
    op.create_table(
        "view_segments",
        sa.Column("view", Id, nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["segment"], ["segments.digest"], name=op.f("fk_view_segments_segment")),
        sa.ForeignKeyConstraint(["view"], ["views.id"], name=op.f("fk_view_segments_view")),
        sa.PrimaryKeyConstraint("view", "segment", name=op.f("pk_view_segments")),
    )
    op.create_table(
        "crops",
        sa.Column("object", Id, nullable=False),
        sa.Column("shard", sa.Text(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["object"], ["objects.id"], name=op.f("fk_crops_object")),
        sa.PrimaryKeyConstraint("object", name=op.f("pk_crops")),
    )
    op.create_table(
        "labels",
        sa.Column("object", Id, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("labels", Document, nullable=False),
        sa.ForeignKeyConstraint(["object"], ["objects.id"], name=op.f("fk_labels_object")),
        sa.PrimaryKeyConstraint("object", "model", name=op.f("pk_labels")),
    )
    op.create_table(
        "ledger",
        sa.Column("plan", Id, nullable=False),
        sa.Column("pack", Id, nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("in", sa.BigInteger(), nullable=False),
        sa.Column("out", sa.BigInteger(), nullable=False),
        sa.Column("dropped", Document, nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("made", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["pack"], ["packs.id"], name=op.f("fk_ledger_pack")),
        sa.ForeignKeyConstraint(["plan"], ["plans.id"], name=op.f("fk_ledger_plan")),
        sa.PrimaryKeyConstraint("plan", "pack", "task", "category", "day", name=op.f("pk_ledger")),
    )
    op.create_table(
        "quarantine",
        sa.Column("plan", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("pack", Id, nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["pack"], ["packs.id"], name=op.f("fk_quarantine_pack")),
        sa.ForeignKeyConstraint(["plan"], ["plans.id"], name=op.f("fk_quarantine_plan")),
        sa.PrimaryKeyConstraint("plan", "number", name=op.f("pk_quarantine")),
    )
    op.create_table(
        "suspects",
        sa.Column("pack", Id, nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["pack"], ["packs.id"], name=op.f("fk_suspects_pack")),
        sa.PrimaryKeyConstraint("pack", "entry", name=op.f("pk_suspects")),
    )
    op.create_table(
        "tombstones",
        sa.Column("object", Id, nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("plan", Id, nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_tombstones_gallery")),
        sa.ForeignKeyConstraint(["object"], ["objects.id"], name=op.f("fk_tombstones_object")),
        sa.PrimaryKeyConstraint("object", name=op.f("pk_tombstones")),
    )
    op.create_index("ix_tombstones_gallery", "tombstones", ["gallery", "sequence"], unique=False)
    op.create_table(
        "vectors",
        sa.Column("object", Id, nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["object"], ["objects.id"], name=op.f("fk_vectors_object")),
        sa.PrimaryKeyConstraint("object", "space", name=op.f("pk_vectors")),
    )
