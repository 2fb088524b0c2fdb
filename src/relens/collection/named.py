"""Which blobs the catalog names, in its rows and through the manifests that they name.

A blob of a kind that is not known here counts as named: who adds a kind says here what names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from relens.collection.doomed import Doomed
from relens.errors import Broken, RelensError
from relens.store import Blobs, Tx
from relens.store.schema import blobs as blob_rows
from relens.store.schema import crops, indexes, objects, packs, pictures, plans, quantizers, segments, vectors
from relens.values import digest_of

KINDS = ("listing", "shard", "vectors", "segment", "segment-data", "index", "index-data", "quantizer", "original")
DIGEST = re.compile(r"[0-9a-f]{64}")
MANIFEST_BYTES = 1 << 20
"""No manifest is longer."""


def named_blobs(tx: Tx, blobs: Blobs, doomed: Doomed, *, ended_since: float) -> set[str]:
    """Digests of all blobs that are named when what is doomed is gone, by plans that ended since then too.

    Broken if a manifest cannot be read: what it names would be taken for garbage.
    """
    named: set[str] = set()
    for column, table in ((crops.c.shard, crops), (vectors.c.file, vectors)):
        named.update(tx.execute(_of_living(column, table, doomed)).scalars())
    for table, gone in ((segments, doomed.segments), (indexes, doomed.indexes), (quantizers, doomed.quantizers)):
        for digest in tx.execute(sa.select(table.c.digest)).scalars():
            if digest in doomed.idle:
                named |= {digest} | _mentioned_if_there(blobs, digest)
            elif digest not in gone:
                named |= {digest} | _mentioned(blobs, digest)
    for document in _plans(tx, ended_since):
        named.update(DIGEST.findall(json.dumps(document)))
    named.update(tx.execute(_originals(doomed)).scalars())
    named.update(tx.execute(sa.select(blob_rows.c.digest).where(blob_rows.c.kind.not_in(KINDS))).scalars())
    return named


def _of_living(column: sa.Column[str], table: sa.Table, doomed: Doomed) -> sa.Select[Any]:
    query = sa.select(column).distinct()
    if not doomed.galleries:
        return query
    return query.join(objects, objects.c.id == table.c.object).where(objects.c.gallery.not_in(doomed.galleries))


def _originals(doomed: Doomed) -> sa.Select[Any]:
    """Pictures that are kept as they came: blobs of the same digest."""
    kept = sa.select(pictures.c.sha256).join(blob_rows, blob_rows.c.digest == pictures.c.sha256)
    return kept.where(pictures.c.gallery.not_in(doomed.galleries)) if doomed.galleries else kept


def _plans(tx: Tx, ended_since: float) -> Iterator[object]:
    """What plans are to do: those that are not over, and those that ended a short time ago."""
    recent = sa.or_(plans.c.ended_at.is_(None), plans.c.ended_at >= ended_since)
    yield from tx.execute(sa.select(plans.c.spec).where(recent)).scalars()
    yield from tx.execute(
        sa.select(packs.c.spec).join(plans, plans.c.id == packs.c.plan).where(plans.c.ended_at.is_(None))
    ).scalars()


def _mentioned(blobs: Blobs, digest: str) -> set[str]:
    """Every digest that is written in a manifest. One too many keeps a blob, one too few would lose it."""
    try:
        if blobs.size(digest) > MANIFEST_BYTES:
            return set()  # data, not a manifest
        data = blobs.read(digest)
    except RelensError as error:
        raise _cannot_tell(digest, error.message) from error
    if digest_of(data) != digest:
        raise _cannot_tell(digest, "its bytes differ from its digest")
    return set(DIGEST.findall(data.decode("latin-1")))


def _mentioned_if_there(blobs: Blobs, digest: str) -> set[str]:
    """The same of a manifest that nothing needs: it may have been purged."""
    try:
        return _mentioned(blobs, digest)
    except Broken:
        return set()


def _cannot_tell(digest: str, why: str) -> Broken:
    return Broken(
        "collection.cannot-tell",
        f"the manifest {digest} cannot be read, so nobody knows what it names: {why}",
        hint="nothing was collected; `relens doctor --deep` lists what is damaged, restore it from a backup first",
    )
