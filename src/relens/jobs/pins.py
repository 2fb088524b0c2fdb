"""Pins: blobs of packs in flight, which nothing in the catalog names yet or any more, and nobody may collect.

A pin belongs to one epoch of a pack: it holds while that claim does, and is gone with the commit that ends the pack.
Who names a blob without a pack says so in the transaction that names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from relens.errors import Conflict, Missing
from relens.jobs import leases
from relens.jobs.leases import Claim
from relens.store import Blobs, Catalog, Tx, insert_if_absent
from relens.store.schema import packs, pins

COLLECTING = 0x72656C656E73  # "relens", as a PostgreSQL advisory lock; SQLite has one writer anyway


def pin(catalog: Catalog, blobs: Blobs, held: Claim, digests: Iterable[str]) -> None:
    """Keep blobs for a claim. Call it when they are stored, before the commit that names them.

    Conflict if the lease is lost, and if one of them was just collected: then the pack must run again.
    """
    wanted = sorted(set(digests))
    with catalog.begin() as tx:
        leases.fence(tx, held)
        keep_collectors_out(tx)
        now = catalog.now(tx)
        for digest in wanted:
            insert_if_absent(tx, pins, pack=held.pack, epoch=held.epoch, digest=digest, at=now)
    _require(blobs, wanted)


def secure(tx: Tx, blobs: Blobs, digests: Iterable[str]) -> None:
    """For a transaction that names blobs without a pack: they are there, and nobody collects them before it ends.

    Conflict if one of them was just collected: then they must be stored again.
    """
    keep_collectors_out(tx)
    _require(blobs, digests)


def keep_collectors_out(tx: Tx) -> None:
    """No blob is removed between here and the end of the transaction."""
    if tx.dialect.name != "sqlite":
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(COLLECTING)))


def collect_alone(tx: Tx) -> None:
    """Nobody pins or names a blob between here and the end of the transaction."""
    if tx.dialect.name != "sqlite":
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(COLLECTING)))


def pinned() -> sa.Select[Any]:
    """The digests that are pinned by a claim that still holds."""
    return sa.select(pins.c.digest).join(packs, packs.c.id == pins.c.pack).where(*_HOLDS)


def drop_stale(tx: Tx) -> int:
    """Forget the pins of packs that are over, and of claims that were lost. The number of them."""
    holds = sa.exists().where(packs.c.id == pins.c.pack, *_HOLDS)
    return tx.execute(sa.delete(pins).where(~holds)).rowcount


_HOLDS = (packs.c.state == "running", packs.c.epoch == pins.c.epoch)


def _require(blobs: Blobs, digests: Iterable[str]) -> None:
    for digest in digests:
        try:
            blobs.size(digest)
        except Missing as error:
            raise Conflict(
                "jobs.blob-collected", f"blob {digest} was collected at this moment", hint="it is made once more"
            ) from error
