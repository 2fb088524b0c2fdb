"""The catalog: one SQL database, SQLite in the home or PostgreSQL by URL.

Writers get short transactions that hold the write lock from their first statement on SQLite; on PostgreSQL they lock
rows. The schema goes forward on start and is refused when a newer relens wrote it. No domain knowledge lives here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from relens.errors import Broken

SCHEMA_REVISION = "0003"
"""The newest revision in `migrations/`."""

BUSY_TIMEOUT_S = 30
POLL_S = 0.05
UPGRADING = "upgrade"

NOT_THE_CATALOGS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
"""Errors of what was asked, as the drivers sort them; all others say that the database does not work."""

Tx = sa.Connection
"""An open transaction. Parts that write take one; the flow opens it."""


def insert_if_absent(tx: Tx, table: sa.Table, returning: sa.Column[Any] | None = None, /, **values: Any) -> Any:
    """Insert a row unless one with the same unique values is there, or is being inserted by somebody at this moment.

    The value of the column `returning` of the row that was inserted; None if none was.
    """
    insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(**values).on_conflict_do_nothing()
    if returning is None:
        tx.execute(statement)
        return None
    return tx.execute(statement.returning(returning)).scalar_one_or_none()


def last_id(tx: Tx, table: str) -> int:
    """The last id that a table gave to a row, whether that is still there or not; 0 before the first."""
    if tx.dialect.name == "sqlite":
        query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        return int(tx.execute(query, {"name": table}).scalar_one_or_none() or 0)
    sequence = id_sequence(tx, table)
    asked = f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}"  # noqa: S608 - its own name
    return int(tx.exec_driver_sql(asked).scalar_one())


def id_sequence(tx: Tx, table: str) -> str:
    """What numbers the rows of a table on PostgreSQL."""
    return str(tx.execute(sa.select(sa.func.pg_get_serial_sequence(table, "id"))).scalar_one())


class Catalog:
    """The database of one home. Safe to use from many threads; not to be carried over a fork."""

    def __init__(self, url: str | Path) -> None:
        """`url` of a database, or the path of an SQLite file."""
        self.url = sa.URL.create("sqlite", database=str(url)) if isinstance(url, Path) else sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        try:
            self._engine = _sqlite_engine(self.url) if self.is_sqlite else _server_engine(self.url)
        except ModuleNotFoundError as error:
            raise Broken(
                "store.no-driver",
                f"the driver for {self.url.drivername} is not installed ({error.name})",
                hint="pip install 'relens[postgres]'",
            ) from error

    @contextlib.contextmanager
    def begin(self) -> Iterator[Tx]:
        """A writing transaction: committed on leaving, rolled back on an error. Broken if the catalog cannot serve."""
        with self._translated(), self._engine.connect() as opened:
            connection = opened.execution_options(writes=True)
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Tx]:
        """A reading transaction; on SQLite one snapshot."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """A reading transaction of one snapshot, on every database. Long ones are for backups and the like."""
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._translated(), self._engine.connect() as opened:
            connection = opened.execution_options(**level)
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def hold(self, lock: str, *, alone: bool) -> Iterator[bool]:
        """Hold a lock of that name among all who use this catalog, alone or with others: whether it was free.

        It does not wait, is no row's lock and belongs to no transaction; it ends with the context or the process.
        """
        with (self._file_lock if self.is_sqlite else self._server_lock)(lock, alone=alone) as held:
            yield held

    def now(self, tx: Tx) -> float:
        """Seconds since 1970 by the database's clock, so that hosts agree; SQLite lives on one host and uses its."""
        if self.is_sqlite:
            return time.time()
        return float(tx.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def upgrade(self, copies: Path | None = None) -> None:
        """Bring the schema to this relens's revision. Broken if a newer one has written it.

        A catalog with something in it is copied into the folder `copies` first; Broken if there is no room.
        """
        with self.read() as tx:
            if revision_of(tx) == SCHEMA_REVISION:
                return
        with self._turn(), self.begin() as tx:
            if revision_of(tx) == SCHEMA_REVISION:
                return
            # Every command opens a catalog, few change its schema: the migration library is read only for those.
            from relens.store.copies import copy_catalog  # noqa: PLC0415
            from relens.store.upgrading import bring_forward, require_known  # noqa: PLC0415

            require_known(revision_of(tx))
            if copies is not None:
                copy_catalog(tx, copies, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.now(tx))))
            bring_forward(tx)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until nobody else upgrades: that may take longer than a writer's patience."""
        while True:
            with self.hold(UPGRADING, alone=True) as ours:
                if ours:
                    yield
                    return
            time.sleep(POLL_S)

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def _file_lock(self, lock: str, *, alone: bool) -> Iterator[bool]:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        with Path(f"{self.url.database}.{lock}.lock").open("a") as file:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextlib.contextmanager
    def _server_lock(self, lock: str, *, alone: bool) -> Iterator[bool]:
        key = int.from_bytes(hashlib.sha256(f"relens {lock}".encode()).digest()[:8], signed=True)
        kind = "" if alone else "_shared"
        with self._translated(), self._engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT")  # or it would be a long transaction
            held = bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_lock{kind}({key})").scalar_one())
            try:
                yield held
            finally:
                with contextlib.suppress(DBAPIError):  # a connection that is gone holds nothing
                    if held:
                        connection.exec_driver_sql(f"SELECT pg_advisory_unlock{kind}({key})")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except NOT_THE_CATALOGS:
            raise
        except (DBAPIError, PoolTimeoutError) as error:
            raise _unavailable(self.url, error) from error


def _unavailable(url: sa.URL, error: DBAPIError | PoolTimeoutError) -> Broken:
    return Broken(
        "store.catalog",
        f"the catalog at {url.render_as_string(hide_password=True)} does not serve: {getattr(error, 'orig', error)}",
        hint="is its disk full or read-only, the server down, or another process holding it?",
    )


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    arguments = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True)  # parameters are people's data

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        _use_log(cursor)
        cursor.execute("PRAGMA synchronous=FULL")  # what was answered as done survives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _use_log(cursor: sqlite3.Cursor) -> None:
    """Write ahead. In a new file the first one changes the mode, for which SQLite lets the others not wait."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
        else:
            return


def _server_engine(url: sa.URL) -> sa.Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, pool_size=5, max_overflow=20)


def revision_of(tx: Tx) -> str | None:
    """The revision that wrote the schema, None if there is none yet."""
    if not sa.inspect(tx).has_table("alembic_version"):
        return None
    return tx.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
