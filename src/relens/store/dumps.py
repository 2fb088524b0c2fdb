"""A catalog as one compressed file of JSON lines, the same from SQLite and PostgreSQL, of any revision of the schema.

A header with the revision and the counters of ids, then for each table its columns and rows, parents before children,
and at the end how many rows there are. Ids that were given and deleted are not given again where it is loaded.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import sqlalchemy as sa

from relens.errors import Broken
from relens.store.catalog import Tx, id_sequence, last_id, revision_of
from relens.store.schema import metadata

FORMAT = "relens-catalog-1"
BATCH = 500
LEVEL = 3  # of gzip: half the time of its default, for a tenth more bytes
VERSION_TABLE = "alembic_version"


class Sink(Protocol):
    """Where a dump is written to: a file, or a blob in the making."""

    def write(self, data: bytes, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Dumped:
    """What a dump holds: the schema's revision, and rows by table."""

    revision: str
    rows: Mapping[str, int]


def write_dump(tx: Tx, sink: Sink) -> Dumped:
    """Write all rows of a catalog, in a transaction that sees them as of one moment. Its schema need not be ours."""
    revision = revision_of(tx)
    assert revision is not None
    tables = _tables(tx)
    rows = {}
    with gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=cast("BinaryIO", sink), mtime=0) as out:
        _write(out, {"format": FORMAT, "revision": revision, "counters": _counters(tx, tables)})
        for table in tables:
            _write(out, {"table": table.name, "columns": [column.name for column in table.columns]})
            rows[table.name] = _write_rows(tx, table, out)
        _write(out, {"rows": rows})
    return Dumped(revision, rows)


def load_dump(tx: Tx, source: BinaryIO) -> Dumped:
    """Make the schema of a dump in an empty database and fill it, in one transaction.

    Broken if the dump is damaged or ends too early, or if a newer relens wrote it. Bringing it forward is another step.
    """
    from relens.store.upgrading import make_schema  # noqa: PLC0415 - the migration library, which few commands need

    lines = _lines(source)
    header = next(lines, None)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _damaged("it does not begin as one")
    make_schema(tx, header["revision"])
    tables = {table.name: table for table in _tables(tx)}
    found: dict[str, int] = {}
    told: Mapping[str, int] | None = None
    for given, rows in _sections(lines):
        if "rows" in given:
            told = given["rows"]
        else:
            if given["table"] not in tables:
                raise _damaged(f"it has a table {given['table']}, which schema {header['revision']} has not")
            found[given["table"]] = _load_rows(tx, tables[given["table"]], given["columns"], rows)
    if told != found:
        raise _damaged("it ends too early")
    _set_counters(tx, header["counters"])
    return Dumped(header["revision"], found)


def is_empty(tx: Tx) -> bool:
    """Whether no table of the catalog has a row."""
    return not any(tx.execute(sa.select(sa.literal(1)).select_from(one).limit(1)).first() for one in _tables(tx))


def drop_tables(tx: Tx) -> None:
    """Take the schema away, with all that is in it; what is not ours stays."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql("DROP TABLE IF EXISTS text_index")
    for name in [*reversed(table_names(tx)), VERSION_TABLE]:
        tx.exec_driver_sql(f"DROP TABLE IF EXISTS {tx.dialect.identifier_preparer.quote(name)}")


def table_names(tx: Tx) -> list[str]:
    """The catalog's tables, parents before children; without what the database or others keep beside them."""
    found = [name for name, _ in sa.inspect(tx).get_sorted_table_and_fkc_names()]
    return [name for name in found if name is not None and name in metadata.tables]


def _tables(tx: Tx) -> list[sa.TableClause]:
    """The tables as the database describes them, so that a dump of an older schema needs no knowledge of it."""
    inspector = sa.inspect(tx)
    return [
        sa.table(name, *[sa.column(c["name"], _type(c["type"], c["nullable"])) for c in inspector.get_columns(name)])
        for name in table_names(tx)
    ]


def _type(found: sa.types.TypeEngine[Any], nullable: bool) -> sa.types.TypeEngine[Any]:
    """A nullable document that is not there is NULL, not the document `null`."""
    return type(found)(none_as_null=nullable) if isinstance(found, sa.JSON) else found


# -- writing --------------------------------------------------------------------------------------------------------


def _write(out: gzip.GzipFile, value: Any) -> None:
    out.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")


def _write_rows(tx: Tx, table: sa.TableClause, out: gzip.GzipFile) -> int:
    count = 0
    encode = _for_binaries(list(table.columns), lambda value: base64.b64encode(value).decode())
    order = [table.c.id] if "id" in table.c else []
    # As an option of the statement: the connection would keep it.
    result = tx.execute(sa.select(table).order_by(*order), execution_options={"yield_per": BATCH})
    for some in result.partitions():
        out.write(b"".join(json.dumps(encode(row), separators=(",", ":")).encode() + b"\n" for row in some))
        count += len(some)
    return count


def _for_binaries(
    columns: Sequence[sa.ColumnClause[Any]], change: Callable[[Any], Any]
) -> Callable[[Iterable[Any]], list[Any]]:
    """A row as a list, with its binary values changed: JSON has none."""
    binary = {at for at, column in enumerate(columns) if isinstance(column.type, sa.LargeBinary)}
    if not binary:
        return list
    return lambda row: [change(v) if at in binary and v is not None else v for at, v in enumerate(row)]


# -- reading --------------------------------------------------------------------------------------------------------


def _lines(source: BinaryIO) -> Iterator[Any]:
    try:
        with gzip.GzipFile(fileobj=source, mode="rb") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, EOFError, ValueError) as error:  # gzip's and JSON's own
        raise _damaged(str(error)) from error


def _sections(lines: Iterator[Any]) -> Iterator[tuple[dict[str, Any], Iterator[list[Any]]]]:
    """Each description with the rows that follow it. The rows must be read before the next one."""
    waiting: list[dict[str, Any]] = []

    def rows() -> Iterator[list[Any]]:
        for line in lines:
            if isinstance(line, dict):
                waiting.append(line)
                return
            yield line

    for _ in rows():
        raise _damaged("it has rows of no table")
    while waiting:
        yield waiting.pop(), rows()


def _load_rows(tx: Tx, table: sa.TableClause, columns: Sequence[str], rows: Iterator[list[Any]]) -> int:
    decode = _for_binaries([table.c[name] for name in columns], base64.b64decode)
    count = 0
    for some in _batches(rows):
        tx.execute(sa.insert(table), [dict(zip(columns, decode(row), strict=True)) for row in some])
        count += len(some)
    return count


def _batches(rows: Iterator[list[Any]]) -> Iterator[list[list[Any]]]:
    some: list[list[Any]] = []
    for row in rows:
        some.append(row)
        if len(some) == BATCH:
            yield some
            some = []
    if some:
        yield some


def _damaged(why: str) -> Broken:
    return Broken(
        "store.damaged-dump", f"this is no whole copy of a catalog: {why}", hint="take another backup, or another copy"
    )


# -- counters of ids ------------------------------------------------------------------------------------------------


def _counters(tx: Tx, tables: Iterable[sa.TableClause]) -> dict[str, int]:
    """The last id that was given, by table."""
    return {table.name: last_id(tx, table.name) for table in tables if "id" in table.c}


def _set_counters(tx: Tx, counters: Mapping[str, int]) -> None:
    for table, last in counters.items():
        if tx.dialect.name == "sqlite":
            tx.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table})
            row = {"name": table, "last": last}
            tx.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), row)
        elif last > 0:
            tx.execute(sa.select(sa.func.setval(id_sequence(tx, table), last)))
