"""The catalog's tables, in the words of the domain. Their history is in `migrations/`.

Ids of objects are increasing and never used again (AUTOINCREMENT, sequences). Times are seconds since 1970 by the
database's clock where there is one. Nothing is deleted from `objects`: tombstones say what is gone, and since when.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = BigInteger().with_variant(Integer, "sqlite")
Document = JSON().with_variant(JSONB(), "postgresql")


def _id() -> Column[int]:
    return Column("id", Id, primary_key=True, autoincrement=True)


def _to(target: str, name: str, *, nullable: bool = False, primary_key: bool = False) -> Column[Any]:
    """A column that names a row of another table."""
    return Column(name, ForeignKey(target), nullable=nullable, primary_key=primary_key)


def _table(name: str, *parts: Any) -> Table:
    return Table(name, metadata, *parts, sqlite_autoincrement=True)


# -- models ---------------------------------------------------------------------------------------------------------

models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),  # of the manifest
    Column("card", Document, nullable=False),
    Column("created_at", Double, nullable=False),
)

model_labels = Table(
    "model_labels",
    metadata,
    Column("name", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)

# Which back-end runs a model on a host; not part of any space.
backend_choices = Table(
    "backend_choices",
    metadata,
    Column("host", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("backend", Text, nullable=False),
    Column("figures", Document, nullable=False),
    Column("chosen_at", Double, nullable=False),
)

spaces = Table(
    "spaces",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("dim", Integer, nullable=False),
    Column("document", Document, nullable=False),
)

# -- lenses, galleries, views, releases -----------------------------------------------------------------------------

lenses = Table(
    "lenses",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("recipe", Text, nullable=False),
    Column("document", Document, nullable=False),
    Column("created_at", Double, nullable=False),
)

galleries = _table(
    "galleries",
    _id(),
    Column("name", Text, nullable=False),
    Column("recipe", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("removed_at", Double),
    Column("retention", Text, nullable=False, server_default="crops"),  # originals | crops | none
    Column("tail_from", BigInteger, nullable=False, server_default="0"),  # rows of the tail up to here are forgotten
    Index(
        "ux_galleries_name",
        "name",
        unique=True,
        sqlite_where=text("removed_at IS NULL"),
        postgresql_where=text("removed_at IS NULL"),
    ),
)

# Cosines under which nothing of a gallery matches: of another space they would mean something else.
thresholds = Table(
    "thresholds",
    metadata,
    _to("galleries.id", "gallery", primary_key=True),
    Column("space", Text, primary_key=True),
    Column("value", Double, nullable=False),
)

# The newest published view of each lens of a gallery: what publishing compares and swaps.
heads = Table(
    "heads",
    metadata,
    _to("galleries.id", "gallery", primary_key=True),
    _to("lenses.digest", "lens", primary_key=True),
    Column("view", Id, nullable=False),
)

# scope: "gallery:<id>" or "recipe:<name>". An alias names a lens; the newest view of a lens follows by itself.
aliases = Table(
    "aliases",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    _to("lenses.digest", "lens"),
    Column("moved_at", Double, nullable=False),
)

segments = Table(
    "segments",
    metadata,
    Column("digest", Text, primary_key=True),  # of the manifest, which is a blob of that name
    _to("galleries.id", "gallery"),
    Column("category", Text, nullable=False),
    Column("day", Text, nullable=False),
    Column("space", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("as_of", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

views = _table(
    "views",
    _id(),
    _to("galleries.id", "gallery"),
    _to("lenses.digest", "lens"),
    Column("parent", Id),
    Column("plan", Id),
    Column("state", Text, nullable=False),  # published | held
    Column("sequence", BigInteger),  # taken when published
    Column("folded_to", BigInteger, nullable=False),
    Column("checks", Document, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("window_days", Integer),  # only segments of the newest so many days are chosen; successors keep it
)

view_segments = Table(
    "view_segments",
    metadata,
    _to("views.id", "view", primary_key=True),
    _to("segments.digest", "segment", primary_key=True),
)

# Segments that are current and not chosen: of a dropped day, or outside the window.
shelved = Table(
    "shelved",
    metadata,
    _to("galleries.id", "gallery", primary_key=True),
    _to("lenses.digest", "lens", primary_key=True),
    _to("segments.digest", "segment", primary_key=True),
)

# What approximate indexes of a gallery and space share, trained once; a newer one replaces it in a full rebuild.
quantizers = Table(
    "quantizers",
    metadata,
    Column("digest", Text, primary_key=True),
    _to("galleries.id", "gallery"),
    Column("space", Text, nullable=False),
    Column("trained_on", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

# An approximate index over segments of one category; without it they are searched exactly.
indexes = Table(
    "indexes",
    metadata,
    Column("digest", Text, primary_key=True),  # of the manifest, which is a blob of that name
    _to("galleries.id", "gallery"),
    Column("category", Text, nullable=False),
    Column("space", Text, nullable=False),
    _to("quantizers.digest", "quantizer"),
    Column("covers", Document, nullable=False),  # digests of segments
    Column("count", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

view_indexes = Table(
    "view_indexes",
    metadata,
    _to("views.id", "view", primary_key=True),
    _to("indexes.digest", "index", primary_key=True),
)

releases = _table(
    "releases",
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("scope", Text, nullable=False),
    _to("lenses.digest", "lens"),
    _to("views.id", "view", nullable=True),
    Column("created_at", Double, nullable=False),
    Column("retired_at", Double),  # what its view held was purged: it cannot be asked any more
    Index("ix_releases_view", "view"),
)

# -- the truth about objects ----------------------------------------------------------------------------------------

pictures = _table(
    "pictures",
    _id(),
    _to("galleries.id", "gallery"),
    Column("sha256", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("day", Text, nullable=False),
    Column("released", Boolean, nullable=False, default=False),  # no item shows it any more
    Index(
        "ux_pictures_sha256",
        "gallery",
        "sha256",
        unique=True,
        sqlite_where=text("NOT released"),
        postgresql_where=text("NOT released"),
    ),
)

items = _table(
    "items",
    _id(),
    _to("galleries.id", "gallery"),
    Column("key", Text, nullable=False),  # the user's id
    _to("pictures.id", "picture"),
    Column("uri", Text, nullable=False),
    Column("title", Text),
    Column("price", Double),
    Column("shop", Text),
    Column("day", Text, nullable=False),
    Column("data", Document, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("off_shelf", Boolean, nullable=False, server_default=false()),  # kept, and left out of answers
    UniqueConstraint("gallery", "key"),
    Index("ix_items_picture", "picture"),
)

# What a plan says of items; it takes effect with the plan's sequence.
staged_items = Table(
    "staged_items",
    metadata,
    _to("plans.id", "plan", primary_key=True),
    Column("key", Text, primary_key=True),
    _to("pictures.id", "picture"),
    Column("uri", Text, nullable=False),
    Column("title", Text),
    Column("price", Double),
    Column("shop", Text),
    Column("day", Text, nullable=False),
    Column("undated", Boolean, nullable=False),  # an item that exists keeps its day
    Column("data", Document, nullable=False),
    Column("off_shelf", Boolean),  # None: an item that exists keeps its flag
    Index("ix_staged_items_picture", "picture"),
)

# Staged by a plan until that takes its sequence; a single enrolment has a sequence of its own.
objects = _table(
    "objects",
    _id(),
    _to("galleries.id", "gallery"),
    _to("pictures.id", "picture"),
    Column("plan", Id),
    Column("sequence", BigInteger),
    Column("x", Double, nullable=False),
    Column("y", Double, nullable=False),
    Column("w", Double, nullable=False),
    Column("h", Double, nullable=False),
    Column("landmarks", Document),
    Column("score", Double, nullable=False),
    Column("category", Text, nullable=False),
    Column("day", Text, nullable=False),
    Column("attributes", Document, nullable=False),
    Index("ix_objects_picture", "picture"),
    Index("ix_objects_plan", "plan"),
)

crops = Table(
    "crops",
    metadata,
    _to("objects.id", "object", primary_key=True),
    Column("shard", Text, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", Integer, nullable=False),
    # The part of the picture that the crop shows, in the units of a box; may reach beyond it. None: the object's box.
    Column("x", Double),
    Column("y", Double),
    Column("w", Double),
    Column("h", Double),
)

vectors = Table(
    "vectors",
    metadata,
    _to("objects.id", "object", primary_key=True),
    Column("space", Text, primary_key=True),
    Column("file", Text, nullable=False),
    Column("row", Integer, nullable=False),
)

# Vectors of single enrolments that no view has folded in yet, beside those that the newest views have.
tail = Table(
    "tail",
    metadata,
    _to("objects.id", "object", primary_key=True),
    Column("space", Text, primary_key=True),
    _to("galleries.id", "gallery"),
    Column("sequence", BigInteger, nullable=False),
    Column("category", Text, nullable=False),
    Column("day", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),  # (d,) float16, little-endian
    Index("ix_tail_gallery", "gallery", "space", "sequence"),
)

labels = Table(
    "labels",
    metadata,
    _to("objects.id", "object", primary_key=True),
    Column("model", Text, primary_key=True),  # digest of the model that gave them
    Column("labels", Document, nullable=False),  # best first
)

# What was read in an object. `tokens` is what is searched: see `gallery.texts`.
texts = Table(
    "texts",
    metadata,
    _to("objects.id", "object", primary_key=True),
    _to("galleries.id", "gallery"),
    Column("text", Text, nullable=False),
    Column("tokens", Text, nullable=False),
)

# The index of `texts.tokens`, which the migrations make as well: FTS5 on SQLite, GIN on PostgreSQL.
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
for _dialect, _statements in TEXT_INDEX.items():
    for _statement in _statements:
        event.listen(texts, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]

tombstones = Table(
    "tombstones",
    metadata,
    _to("objects.id", "object", primary_key=True),
    _to("galleries.id", "gallery"),
    Column("plan", Id),
    Column("sequence", BigInteger, nullable=False),
    Index("ix_tombstones_gallery", "gallery", "sequence"),
    Index("ix_tombstones_plan", "plan"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),  # listing | shard | vectors | segment | segment-data
    Column("created_at", Double, nullable=False),
)

# Blobs that a pack in flight has written or reads; nobody collects them.
pins = Table(
    "pins",
    metadata,
    _to("packs.id", "pack", primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("at", Double, nullable=False),
)

backups = _table(
    "backups",
    _id(),
    Column("folder", Text, nullable=False),
    Column("digest", Text, nullable=False),  # of the backup's manifest
    Column("sequences", Document, nullable=False),  # gallery -> sequence that it holds
    Column("at", Double, nullable=False),
)

# -- plans, packs, ledger -------------------------------------------------------------------------------------------

plans = _table(
    "plans",
    _id(),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),  # digest of what was asked: the same, typed again, continues
    _to("galleries.id", "gallery", nullable=True),
    _to("lenses.digest", "lens", nullable=True),
    Column("state", Text, nullable=False),  # running | held | failed | done | cancelled
    Column("cancelling", Boolean, nullable=False, default=False),
    Column("spec", Document, nullable=False),
    Column("day", Text, nullable=False),
    Column("sequence", BigInteger),
    Column("view", Id),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    Index(
        "ux_plans_open",
        "kind",
        "key",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)

tasks = Table(
    "tasks",
    metadata,
    _to("plans.id", "plan", primary_key=True),
    Column("name", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("stage", Text, nullable=False),  # tasks of one stage run fused in its packs
    Column("unit", Text, nullable=False),
)

packs = _table(
    "packs",
    _id(),
    _to("plans.id", "plan"),
    Column("stage", Text, nullable=False),
    Column("after", Text),  # claimable when no pack of this stage is open
    Column("number", Integer, nullable=False),
    Column("spec", Document, nullable=False),
    Column("size", Integer, nullable=False),
    Column("state", Text, nullable=False),  # open | running | done | failed | cancelled
    Column("epoch", Integer, nullable=False, default=0),
    Column("host", Text),
    Column("pid", Integer),
    Column("started", Text),  # when that pid was started, so that a pid used again is not taken for it
    Column("lease_until", Double),
    Column("not_before", Double, nullable=False, default=0.0),
    Column("attempts", Integer, nullable=False, default=0),  # errors of disk, catalog or engine in a row
    Column("losses", Integer, nullable=False, default=0),  # leases lost so far
    Column("in_hand", Text),
    Column("progress", Integer, nullable=False, default=0),
    Column("error", Text),
    Column("claimed_at", Double),
    Column("ended_at", Double),
    UniqueConstraint("plan", "stage", "number"),
    Index("ix_packs_state", "state"),
)

# How often a lease was lost with this entry in hand.
suspects = Table(
    "suspects",
    metadata,
    _to("packs.id", "pack", primary_key=True),
    Column("entry", Text, primary_key=True),
    Column("losses", Integer, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    _to("plans.id", "plan", primary_key=True),
    _to("packs.id", "pack", primary_key=True),
    Column("task", Text, primary_key=True),
    Column("category", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("in", BigInteger, nullable=False),
    Column("out", BigInteger, nullable=False),
    Column("dropped", Document, nullable=False),  # reason -> count
    Column("failed", BigInteger, nullable=False),
    Column("made", BigInteger, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    _to("plans.id", "plan", primary_key=True),
    Column("number", Integer, primary_key=True),  # of the entry in its listing
    Column("entry", Text, nullable=False),
    _to("packs.id", "pack"),
    Column("uri", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("at", Double, nullable=False),
)
