"""The catalog against the contract on SQLite and PostgreSQL, and what is true of one of them only."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from relens.errors import Broken
from relens.store import Catalog
from relens.store.catalog import SCHEMA_REVISION
from relens.store.schema import galleries, metadata
from relens.store.upgrading import bring_forward
from relens.testing.catalogs import CatalogContract, add_gallery, versions

OPENING = "import sys; from relens.store import Catalog; Catalog(sys.argv[1]).upgrade()"


class TestCatalog(CatalogContract):
    def test_processes_that_upgrade_at_once_all_succeed(self, catalog_url):
        started = [subprocess.Popen([sys.executable, "-c", OPENING, catalog_url]) for _ in range(3)]
        assert [process.wait(60) for process in started] == [0, 0, 0]

    def test_the_migrations_make_the_very_tables_of_the_schema(self, databases):
        """Also what alembic does not compare: AUTOINCREMENT, names of constraints, conditions of indexes."""
        migrated, made = Catalog(databases.ready()), Catalog(databases.empty())
        with made.begin() as tx:
            metadata.create_all(tx)
        assert definitions(migrated) == definitions(made)
        migrated.close()
        made.close()

    def test_the_revision_that_needs_no_upgrade_is_the_newest_there_is(self, catalog):
        with catalog.begin() as tx:
            bring_forward(tx)
        assert versions(catalog) == [SCHEMA_REVISION]

    def test_homes_that_are_opened_at_once_do_not_disturb_each_other(self, databases):
        urls = [databases.empty() for _ in range(6)]
        start = threading.Barrier(len(urls))

        def upgrade(url):
            catalog = Catalog(url)
            start.wait()
            catalog.upgrade()
            with catalog.read() as tx:
                assert "galleries" in sa.inspect(tx).get_table_names()
            catalog.close()

        with ThreadPoolExecutor(len(urls)) as pool:
            for future in [pool.submit(upgrade, url) for url in urls]:
                future.result()

    def test_a_scheme_without_a_driver_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(Broken) as caught:
            Catalog("postgresql://localhost/relens")
        assert caught.value.code == "store.no-driver"
        assert "relens[postgres]" in caught.value.hint


def test_connections_that_a_server_cuts_are_replaced(postgres_server):
    catalog = Catalog(postgres_server.ready())
    other = Catalog(catalog.url.render_as_string(hide_password=False))
    others = "datname = current_database() AND pid != pg_backend_pid()"
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
    with pytest.raises(Broken) as caught, catalog.begin() as tx:
        add_gallery(tx, "lost")
        with other.read() as killing:
            killing.exec_driver_sql(cut)
        tx.execute(sa.select(galleries))
    assert caught.value.code == "store.catalog"
    with other.read() as killing:
        killing.exec_driver_sql(cut)
    with catalog.begin() as tx:
        assert not tx.execute(sa.select(galleries)).all()
    catalog.close()
    other.close()
    postgres_server.drop()


def test_a_reading_transaction_of_sqlite_is_one_snapshot(sqlite_files):
    catalog = Catalog(sqlite_files.ready())
    with catalog.read() as reading:
        assert not reading.execute(sa.select(galleries)).all()
        with catalog.begin() as tx:
            add_gallery(tx, "later")
        assert not reading.execute(sa.select(galleries)).all()
    catalog.close()


def test_sqlite_keeps_what_was_answered_as_done(sqlite_files):
    catalog = Catalog(sqlite_files.ready())
    with catalog.read() as tx:
        assert tx.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert tx.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert tx.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
    catalog.close()


def test_a_file_that_is_no_database_is_broken(tmp_path):
    (tmp_path / "catalog.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(Broken) as caught:
        Catalog(f"sqlite:///{tmp_path / 'catalog.sqlite3'}").upgrade()
    assert caught.value.code == "store.catalog"


def test_a_damaged_page_of_sqlite_is_broken(tmp_path, sqlite_files):
    url = sqlite_files.ready()
    path = sa.make_url(url).database
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    page = 4096
    with open(path, "r+b") as file:  # noqa: PTH123
        size = file.seek(0, 2)
        file.seek(page)
        file.write(b"\xff" * (size - page))
    with pytest.raises(Broken) as caught, Catalog(url).read() as tx:
        tx.execute(sa.select(galleries)).all()
    assert caught.value.code == "store.catalog"


def definitions(catalog):
    """How the database itself describes what is in it, by name; the order of constraints is nobody's business."""
    queries = (
        ["SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name != 'alembic_version'"]
        if catalog.is_sqlite
        else [
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename != 'alembic_version'",
            """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
               WHERE connamespace = 'public'::regnamespace AND conname NOT LIKE 'alembic_version%'""",
            """SELECT table_name || '.' || column_name, concat_ws(' ', data_type, is_nullable, column_default)
               FROM information_schema.columns WHERE table_schema = 'public' AND table_name != 'alembic_version'""",
        ]
    )
    with catalog.read() as tx:
        rows = [row for query in queries for row in tx.exec_driver_sql(query.replace("%", "%%"))]
    return {
        name: sorted(" ".join(part.split()).rstrip(" )") for part in (text or "").split(", ")) for name, text in rows
    }
