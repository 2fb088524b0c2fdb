"""What every catalog must do: one schema everywhere, all of a transaction or nothing, writers one after another."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from relens.errors import Broken
from relens.store import Catalog, insert_if_absent
from relens.store.catalog import last_id
from relens.store.schema import galleries, lenses, metadata, packs
from relens.testing.rows import NOW

THREADS = 8
VERSION = sa.table("alembic_version", sa.column("version_num", sa.Text))


class CatalogContract:
    """Subclass it as `TestX`, with two fixtures.

    catalog_url   URL of an empty database
    catalog       an empty catalog at the newest schema
    """

    # -- the schema

    def test_the_migrations_make_what_the_code_expects(self, catalog: Catalog) -> None:
        with catalog.read() as tx:
            opts = {"compare_type": True, "compare_server_default": True, "include_name": _is_ours}
            context = MigrationContext.configure(tx, opts=opts)
            assert compare_metadata(context, metadata) == []

    def test_upgrading_again_changes_nothing(self, catalog_url: str) -> None:
        catalog = Catalog(catalog_url)
        catalog.upgrade()
        with catalog.begin() as tx:
            add_gallery(tx, "kept")
        catalog.upgrade()
        assert names(catalog) == ["kept"]
        assert len(versions(catalog)) == 1
        catalog.close()

    def test_many_that_upgrade_at_once_upgrade_once(self, catalog_url: str) -> None:
        start = threading.Barrier(THREADS)

        def upgrade() -> list[str]:
            catalog = Catalog(catalog_url)
            start.wait()
            catalog.upgrade()
            seen = versions(catalog)
            catalog.close()
            return seen

        with ThreadPoolExecutor(THREADS) as pool:
            seen = [future.result() for future in [pool.submit(upgrade) for _ in range(THREADS)]]
        assert len(seen[0]) == 1
        assert all(one == seen[0] for one in seen)

    def test_a_newer_schema_is_refused_and_left_alone(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            add_gallery(tx, "kept")
            tx.execute(sa.update(VERSION).values(version_num="9999"))
        with pytest.raises(Broken) as caught:
            catalog.upgrade()
        assert caught.value.code == "store.newer-schema"
        assert "9999" in caught.value.message
        assert versions(catalog) == ["9999"]
        assert names(catalog) == ["kept"]

    def test_a_migration_that_fails_leaves_nothing_behind(
        self, catalog_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        catalog = Catalog(catalog_url)
        with monkeypatch.context() as patched:
            patched.setattr("alembic.operations.Operations.create_index", _fail)
            with pytest.raises(ZeroDivisionError):
                catalog.upgrade()
        with catalog.read() as tx:
            assert not sa.inspect(tx).get_table_names()
        catalog.upgrade()
        assert len(versions(catalog)) == 1
        catalog.close()

    # -- transactions

    def test_an_error_takes_back_the_whole_transaction_and_passes_through(self, catalog: Catalog) -> None:
        def write_and_fail() -> None:
            with catalog.begin() as tx:
                add_gallery(tx, "one")
                raise ValueError(add_gallery(tx, "two"))

        with pytest.raises(ValueError, match="2"):
            write_and_fail()
        assert names(catalog) == []

    def test_what_was_committed_another_catalog_reads(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            add_gallery(tx, "seen")
        other = Catalog(catalog.url.render_as_string(hide_password=False))
        assert names(other) == ["seen"]
        other.close()

    def test_a_reader_neither_waits_for_a_writer_nor_sees_what_he_has_not_committed(self, catalog: Catalog) -> None:
        with catalog.begin() as tx, ThreadPoolExecutor(1) as pool:
            add_gallery(tx, "unfinished")
            assert pool.submit(names, catalog).result(timeout=5) == []
        assert names(catalog) == ["unfinished"]

    def test_writers_that_lock_a_row_come_one_after_another(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery = add_gallery(tx, "counted")
        rounds = 10

        def count() -> None:
            for _ in range(rounds):
                with catalog.begin() as tx:
                    read = sa.select(galleries.c.sequence).where(galleries.c.id == gallery).with_for_update()
                    value = tx.execute(read).scalar_one()
                    tx.execute(sa.update(galleries).values(sequence=value + 1))

        with ThreadPoolExecutor(THREADS) as pool:
            for future in [pool.submit(count) for _ in range(THREADS)]:
                future.result()
        with catalog.read() as tx:
            assert tx.execute(sa.select(galleries.c.sequence)).scalar_one() == THREADS * rounds

    def test_a_row_is_inserted_once_whoever_comes_first(self, catalog: Catalog) -> None:
        """Also when the other one has not committed yet, and nobody is told of an error."""
        row = {"name": "album", "recipe": "photos", "sequence": 0, "created_at": NOW}

        def insert() -> int | None:
            with catalog.begin() as tx:
                inserted: int | None = insert_if_absent(tx, galleries, galleries.c.id, **row)
                return inserted

        with ThreadPoolExecutor(1) as pool:
            with catalog.begin() as tx:
                first = insert_if_absent(tx, galleries, galleries.c.id, **row)
                second = pool.submit(insert)
                time.sleep(0.2)  # long enough to reach what we hold
            assert second.result(timeout=10) is None
        with catalog.begin() as tx:
            assert insert_if_absent(tx, galleries, **{**row, "name": "zoo"}) is None  # no column was asked for
            tx.execute(sa.update(galleries).where(galleries.c.id == first).values(removed_at=NOW))
            again = insert_if_absent(tx, galleries, galleries.c.id, **row)
        assert again > first
        assert names(catalog) == ["album", "album", "zoo"]

    def test_a_row_that_names_nothing_is_refused(self, catalog: Catalog) -> None:
        row = {"plan": 77, "stage": "s", "number": 1, "spec": {}, "size": 1, "state": "open"}
        with pytest.raises(sa.exc.IntegrityError), catalog.begin() as tx:
            tx.execute(sa.insert(packs).values(row))

    def test_documents_come_back_as_they_were(self, catalog: Catalog) -> None:
        document = {"ünïcode": "☃ 🂡", "deep": [{"a": [1, 2.5, True, None, ""]}], "big": 2**53, "empty": {}}
        with catalog.begin() as tx:
            tx.execute(sa.insert(lenses).values(digest="d", recipe="r", document=document, created_at=NOW))
        with catalog.read() as tx:
            assert tx.execute(sa.select(lenses.c.document)).scalar_one() == document

    def test_a_snapshot_sees_one_moment_whatever_is_written_meanwhile(self, catalog: Catalog) -> None:
        with catalog.snapshot() as reading:
            assert not reading.execute(sa.select(galleries)).all()
            with catalog.begin() as tx:
                add_gallery(tx, "later")
            assert not reading.execute(sa.select(galleries)).all()
            assert not reading.execute(sa.select(lenses)).all()
        assert names(catalog) == ["later"]

    # -- locks

    def test_a_lock_is_held_by_one_alone_or_by_many_together(self, catalog: Catalog) -> None:
        other = Catalog(catalog.url.render_as_string(hide_password=False))
        with catalog.hold("a", alone=False) as one, other.hold("a", alone=False) as two:
            assert one
            assert two
            with other.hold("a", alone=True) as three, other.hold("b", alone=True) as another:
                assert not three
                assert another
        with catalog.hold("a", alone=True) as one, other.hold("a", alone=False) as two:
            assert one
            assert not two
        with other.hold("a", alone=True) as again:
            assert again
        other.close()

    def test_a_lock_ends_with_an_error_and_neither_waits_nor_holds_up_writers(self, catalog: Catalog) -> None:
        with pytest.raises(ZeroDivisionError), catalog.hold("a", alone=True):
            raise ZeroDivisionError
        with catalog.hold("a", alone=True) as held, catalog.begin() as tx:
            assert held
            add_gallery(tx, "written")
        assert names(catalog) == ["written"]

    def test_the_last_id_is_known_when_its_row_is_gone(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            assert last_id(tx, galleries.name) == 0
            add_gallery(tx, "one")
            last = add_gallery(tx, "two")
            tx.execute(sa.delete(galleries))
            assert last_id(tx, galleries.name) == last

    # -- time and failure

    def test_its_clock_goes_forward_and_is_about_right(self, catalog: Catalog) -> None:
        with catalog.read() as tx:
            first = catalog.now(tx)
            time.sleep(0.01)
            assert first < catalog.now(tx) < first + 5
            assert abs(first - time.time()) < 60  # noqa: PLR2004 - a minute

    def test_a_catalog_that_cannot_be_reached_is_broken_and_keeps_its_password(self, catalog: Catalog) -> None:
        nowhere = "/nowhere/at all"
        url = catalog.url.set(database=nowhere) if catalog.is_sqlite else catalog.url.set(query={"host": nowhere})
        away = Catalog(url.set(password=None if catalog.is_sqlite else "s3cret").render_as_string(hide_password=False))
        for use in (away.begin, away.read):
            with pytest.raises(Broken) as caught, use():
                pass
            assert caught.value.code == "store.catalog"
            assert "s3cret" not in str(caught.value)


def add_gallery(tx: sa.Connection, name: str) -> int:
    values = {"name": name, "recipe": "photos", "sequence": 0, "created_at": NOW}
    return int(tx.execute(sa.insert(galleries).values(values).returning(galleries.c.id)).scalar_one())


def names(catalog: Catalog) -> list[str]:
    with catalog.read() as tx:
        return list(tx.execute(sa.select(galleries.c.name).order_by(galleries.c.name)).scalars())


def versions(catalog: Catalog) -> list[str]:
    with catalog.read() as tx:
        return list(tx.execute(sa.select(VERSION.c.version_num)).scalars())


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """The index of texts is no table or index that the metadata could describe."""
    return kind == "schema" or not str(name).startswith(("text_index", "ix_texts_tokens"))


def _fail(*_args: object, **_options: object) -> None:
    raise ZeroDivisionError
