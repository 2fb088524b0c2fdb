"""Blobs that a transaction names: they are there, and nobody collects them before it ends."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from relens.jobs import pins
from relens.store import Blob, Blobs, Tx, insert_if_absent
from relens.store.schema import blobs as blob_rows


def name_blobs(tx: Tx, blobs: Blobs, named: Iterable[tuple[Blob, str]], now: float) -> None:
    """Write blobs down, each with its kind. Again says that they are named anew, and are no garbage.

    Conflict `jobs.blob-collected` if one was collected or purged at this moment: then it must be stored once more.
    """
    every = sorted(named, key=lambda one: one[0].digest)
    pins.secure(tx, blobs, [blob.digest for blob, _ in every])
    for blob, kind in every:
        insert_if_absent(tx, blob_rows, digest=blob.digest, size=blob.size, kind=kind, created_at=now)
        tx.execute(sa.update(blob_rows).where(blob_rows.c.digest == blob.digest).values(created_at=now))
