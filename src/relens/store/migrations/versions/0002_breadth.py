"""Live galleries, approximate indexes, windows, texts, pins and backups."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0002"
down_revision = "0001"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Document = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

TEXT_INDEX = {
    "sqlite": (
        "CREATE VIRTUAL TABLE text_index USING fts5(tokens, content='texts', content_rowid='object')",
        (
            "CREATE TRIGGER texts_insert AFTER INSERT ON texts BEGIN "
            "INSERT INTO text_index(rowid, tokens) VALUES (new.object, new.tokens); END"
        ),
        (
            "CREATE TRIGGER texts_delete AFTER DELETE ON texts BEGIN "
            "INSERT INTO text_index(text_index, rowid, tokens) VALUES ('delete', old.object, old.tokens); END"
        ),
        (
            "CREATE TRIGGER texts_update AFTER UPDATE ON texts BEGIN "
            "INSERT INTO text_index(text_index, rowid, tokens) VALUES ('delete', old.object, old.tokens); "
            "INSERT INTO text_index(rowid, tokens) VALUES (new.object, new.tokens); END"
        ),
    ),
    "postgresql": ("CREATE INDEX ix_texts_tokens ON texts USING gin (to_tsvector('simple', tokens))",),
}


def upgrade() -> None:
    op.create_table(
        "backups",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("sequences", Document, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "quantizers",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("trained_on", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_quantizers_gallery")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_quantizers")),
    )
    op.create_table(
        "indexes",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("quantizer", sa.Text(), nullable=False),
        sa.Column("covers", Document, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_indexes_gallery")),
        sa.ForeignKeyConstraint(["quantizer"], ["quantizers.digest"], name=op.f("fk_indexes_quantizer")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_indexes")),
    )
    op.create_table(
        "shelved",
        sa.Column("gallery", Id, nullable=False),
        sa.Column("lens", sa.Text(), nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_shelved_gallery")),
        sa.ForeignKeyConstraint(["lens"], ["lenses.digest"], name=op.f("fk_shelved_lens")),
        sa.ForeignKeyConstraint(["segment"], ["segments.digest"], name=op.f("fk_shelved_segment")),
        sa.PrimaryKeyConstraint("gallery", "lens", "segment", name=op.f("pk_shelved")),
    )
    op.create_table(
        "staged_items",
        sa.Column("plan", Id, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("picture", Id, nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("price", sa.Double(), nullable=True),
        sa.Column("shop", sa.Text(), nullable=True),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("undated", sa.Boolean(), nullable=False),
        sa.Column("data", Document, nullable=False),
        sa.Column("off_shelf", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(["picture"], ["pictures.id"], name=op.f("fk_staged_items_picture")),
        sa.ForeignKeyConstraint(["plan"], ["plans.id"], name=op.f("fk_staged_items_plan")),
        sa.PrimaryKeyConstraint("plan", "key", name=op.f("pk_staged_items")),
    )
    op.create_index("ix_staged_items_picture", "staged_items", ["picture"], unique=False)
    op.create_table(
        "pins",
        sa.Column("pack", Id, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["pack"], ["packs.id"], name=op.f("fk_pins_pack")),
        sa.PrimaryKeyConstraint("pack", "epoch", "digest", name=op.f("pk_pins")),
    )
    op.create_table(
        "tail",
        sa.Column("object", Id, nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_tail_gallery")),
        sa.ForeignKeyConstraint(["object"], ["objects.id"], name=op.f("fk_tail_object")),
        sa.PrimaryKeyConstraint("object", "space", name=op.f("pk_tail")),
    )
    op.create_index("ix_tail_gallery", "tail", ["gallery", "space", "sequence"], unique=False)
    op.create_table(
        "texts",
        sa.Column("object", Id, nullable=False),
        sa.Column("gallery", Id, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["gallery"], ["galleries.id"], name=op.f("fk_texts_gallery")),
        sa.ForeignKeyConstraint(["object"], ["objects.id"], name=op.f("fk_texts_object")),
        sa.PrimaryKeyConstraint("object", name=op.f("pk_texts")),
    )
    op.create_table(
        "view_indexes",
        sa.Column("view", Id, nullable=False),
        sa.Column("index", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["index"], ["indexes.digest"], name=op.f("fk_view_indexes_index")),
        sa.ForeignKeyConstraint(["view"], ["views.id"], name=op.f("fk_view_indexes_view")),
        sa.PrimaryKeyConstraint("view", "index", name=op.f("pk_view_indexes")),
    )
    op.add_column("crops", sa.Column("x", sa.Double(), nullable=True))
    op.add_column("crops", sa.Column("y", sa.Double(), nullable=True))
    op.add_column("crops", sa.Column("w", sa.Double(), nullable=True))
    op.add_column("crops", sa.Column("h", sa.Double(), nullable=True))
    op.add_column("galleries", sa.Column("retention", sa.Text(), server_default="crops", nullable=False))
    op.add_column("galleries", sa.Column("tail_from", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("releases", sa.Column("retired_at", sa.Double(), nullable=True))
    op.add_column("items", sa.Column("off_shelf", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("views", sa.Column("window_days", sa.Integer(), nullable=True))

    for statement in TEXT_INDEX[op.get_context().dialect.name]:
        op.execute(statement)
