"""Deleting the rows of what is doomed, a few at a time, each few in a transaction of their own.

What somebody has taken up again meanwhile stays: it is looked for once more in the transaction that deletes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from relens.collection.doomed import Doomed
from relens.store import Catalog, Tx
from relens.store.schema import (
    aliases,
    heads,
    indexes,
    metadata,
    objects,
    pictures,
    plans,
    quantizers,
    releases,
    segments,
    shelved,
    thresholds,
    view_indexes,
    view_segments,
    views,
)

BATCH = 100
"""Views, segments and the like that one transaction deletes: a writer waits for no more."""

OBJECTS = 500


def _columns_that_name(named: sa.Column[Any], *, but: Collection[sa.Table] = ()) -> list[sa.Column[Any]]:
    """Columns of other tables that name a row by this id."""
    keys = [key for table in metadata.sorted_tables if table not in but for key in table.foreign_keys]
    return [key.parent for key in keys if key.column is named]


OF_OBJECTS = _columns_that_name(objects.c.id)
OF_PICTURES = _columns_that_name(pictures.c.id, but=(objects,))


def delete_doomed(catalog: Catalog, doomed: Doomed) -> None:
    """Delete all that is doomed. Broken off, the rest is found doomed again."""
    for gallery in sorted(doomed.galleries):
        _delete_objects(catalog, gallery)
        _delete_pictures(catalog, gallery)
    _each(catalog, doomed.views, _delete_views)
    for gallery in sorted(doomed.galleries):
        with catalog.begin() as tx:
            tx.execute(sa.delete(shelved).where(shelved.c.gallery == gallery))
            tx.execute(sa.delete(thresholds).where(thresholds.c.gallery == gallery))
    _each(catalog, doomed.indexes, _delete_indexes)
    _each(catalog, doomed.quantizers, _delete_quantizers)
    _each(catalog, doomed.segments, _delete_segments)


def _each(catalog: Catalog, doomed: Collection[Any], delete: Callable[[Tx, Sequence[Any]], None]) -> None:
    for some in _batches(sorted(doomed), BATCH):
        try:
            with catalog.begin() as tx:
                delete(tx, some)
        except IntegrityError:  # one of them was taken up again at this moment: they wait for the next time
            continue


def _batches(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _delete_views(tx: Tx, some: Sequence[int]) -> None:
    """Views with their releases. A gallery that is gone has no heads any more, nor names for its lenses."""
    removed = sa.select(views.c.gallery).where(views.c.id.in_(some))
    # A head is doomed only where its gallery is gone; the last of its views takes it with it.
    tx.execute(sa.delete(heads).where(heads.c.view.in_(some)))
    scopes = [f"gallery:{gallery}" for gallery in set(tx.execute(removed).scalars())]
    tx.execute(sa.delete(view_segments).where(view_segments.c.view.in_(some)))
    tx.execute(sa.delete(view_indexes).where(view_indexes.c.view.in_(some)))
    tx.execute(sa.delete(releases).where(releases.c.view.in_(some)))
    tx.execute(sa.update(plans).where(plans.c.view.in_(some)).values(view=None))
    tx.execute(sa.delete(views).where(views.c.id.in_(some)))
    has_release = sa.exists().where(releases.c.scope == aliases.c.scope)
    tx.execute(sa.delete(aliases).where(aliases.c.scope.in_(scopes), ~has_release))


def _delete_indexes(tx: Tx, some: Sequence[str]) -> None:
    named = sa.exists().where(view_indexes.c.index == indexes.c.digest)
    tx.execute(sa.delete(indexes).where(indexes.c.digest.in_(some), ~named))


def _delete_quantizers(tx: Tx, some: Sequence[str]) -> None:
    named = sa.exists().where(indexes.c.quantizer == quantizers.c.digest)
    tx.execute(sa.delete(quantizers).where(quantizers.c.digest.in_(some), ~named))


def _delete_segments(tx: Tx, some: Sequence[str]) -> None:
    viewed = sa.exists().where(view_segments.c.segment == segments.c.digest)
    kept = sa.exists().where(shelved.c.segment == segments.c.digest)
    tx.execute(sa.delete(segments).where(segments.c.digest.in_(some), ~viewed, ~kept))


# -- galleries that are gone ----------------------------------------------------------------------------------------


def _delete_objects(catalog: Catalog, gallery: int) -> None:
    """Objects with all that is known of them. Their ids are not given again, and stay gone."""
    query = sa.select(objects.c.id).where(objects.c.gallery == gallery).order_by(objects.c.id).limit(OBJECTS)
    while True:
        with catalog.begin() as tx:
            ids = list(tx.execute(query).scalars())
            for column in OF_OBJECTS:
                tx.execute(sa.delete(column.table).where(column.in_(ids)))
            tx.execute(sa.delete(objects).where(objects.c.id.in_(ids)))
        if len(ids) < OBJECTS:
            return


def _delete_pictures(catalog: Catalog, gallery: int) -> None:
    """Pictures with the items that showed them."""
    query = sa.select(pictures.c.id).where(pictures.c.gallery == gallery).order_by(pictures.c.id).limit(OBJECTS)
    while True:
        with catalog.begin() as tx:
            ids = list(tx.execute(query).scalars())
            for column in OF_PICTURES:
                tx.execute(sa.delete(column.table).where(column.in_(ids)))
            tx.execute(sa.delete(pictures).where(pictures.c.id.in_(ids)))
        if len(ids) < OBJECTS:
            return
