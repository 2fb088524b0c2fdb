"""Collecting: the catalog first, then the blobs that it does not name any more.

A blob goes only if nothing named it in a snapshot, it is older than the oldest claim, no pack in flight has pinned it,
and nobody has named it since: who names a blob writes its row anew, and a row that has changed is not deleted. The row
goes before the bytes, so that being killed leaves bytes without a row, which the next time finds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from relens.collection.doomed import Doomed, Limits, Rules, find_doomed, limits
from relens.collection.named import named_blobs
from relens.collection.rows import delete_doomed
from relens.errors import Conflict, Missing
from relens.jobs import leases, pins, this_host
from relens.store import Blobs, Catalog, Tx
from relens.store.schema import blobs as blob_rows
from relens.store.schema import objects

BATCH = 100
BATCH_S = 0.2
"""What one transaction takes at most, about: stores at a URL answer slowly, and writers wait."""

STALE_S = 24 * 3600.0
"""Temporary files that are older have no writer any more."""

BLOBS_LOCK = "blobs"
"""Held by who removes blobs alone, and by backups together."""

Report = Callable[[int, int], None]
"""Is told blobs that are done, and blobs that may go."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What went, or would go. `young` counts blobs that nothing names and that stay for now."""

    galleries: int
    objects: int
    views: int
    segments: int
    indexes: int
    blobs: int
    bytes: int
    young: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def collect(catalog: Catalog, blobs: Blobs, rules: Rules, report: Report, *, dry_run: bool = False) -> Collected:
    """Collect, or with `dry_run` only say what would go.

    Conflict if a backup runs, which keeps all that it names. Broken if a manifest that is needed cannot be read.
    """
    with _alone(catalog):
        pass  # said before anything is deleted
    if not dry_run:
        with catalog.begin() as tx:
            leases.free_lost(tx, this_host(), catalog.now(tx))  # as the next worker would: they protect nothing
            pins.drop_stale(tx)
    with catalog.snapshot() as tx:
        doomed = find_doomed(tx, rules, limits(tx, rules, catalog.now(tx), lapsed=not dry_run))
        count = _count_objects(tx, doomed)
    if not dry_run:
        delete_doomed(catalog, doomed)
    with catalog.snapshot() as tx:
        limit = limits(tx, rules, catalog.now(tx), lapsed=not dry_run)
        left = doomed if dry_run else doomed.deleted()
        named = named_blobs(tx, blobs, left, ended_since=limit.blobs)
        rows = {row.digest: row for row in tx.execute(sa.select(blob_rows))}
    unnamed = sorted({*blobs.digests(), *rows} - named)
    old = [digest for digest in unnamed if _is_old(blobs, digest, limit)]
    if dry_run:
        with catalog.read() as tx:
            pinned = _pinned(tx, old)
        gone = {digest: _size(blobs, digest) for digest in old if digest not in pinned}
    else:
        seen = {digest: rows[digest].created_at for digest in old if digest in rows}
        gone = _sweep(catalog, blobs, old, seen, limit, report)
        blobs.sweep(STALE_S)
    return Collected(
        galleries=len(doomed.galleries),
        objects=count,
        views=len(doomed.views),
        segments=len(doomed.segments),
        indexes=len(doomed.indexes),
        blobs=len(gone),
        bytes=sum(gone.values()),
        young=len(unnamed) - len(gone),
    )


@contextlib.contextmanager
def _alone(catalog: Catalog) -> Iterator[None]:
    """While no backup runs, and no other collection removes blobs. Conflict otherwise."""
    with catalog.hold(BLOBS_LOCK, alone=True) as held:
        if not held:
            raise Conflict(
                "collection.backup-runs",
                "a backup runs, or another collection",
                hint="what a backup names is kept until it is done; collect again then",
            )
        yield


def _sweep(  # noqa: PLR0917 - all that it takes
    catalog: Catalog, blobs: Blobs, old: Sequence[str], seen: Mapping[str, float], limit: Limits, report: Report
) -> dict[str, int]:
    """Remove blobs, a few at a time. Digest -> bytes of those that went. `seen` is when each was named last."""
    gone: dict[str, int] = {}
    for start in range(0, len(old), BATCH):
        some = list(old[start : start + BATCH])
        with _alone(catalog):
            with catalog.begin() as tx:
                _forget(tx, {digest: seen[digest] for digest in some if digest in seen})
            while some:
                with catalog.begin() as tx:
                    pins.collect_alone(tx)
                    gone |= _remove_some(tx, blobs, some, limit)
        report(min(start + BATCH, len(old)), len(old))
    return gone


def _forget(tx: Tx, seen: Mapping[str, float]) -> None:
    """Delete the rows of blobs that nobody has named since."""
    same = (blob_rows.c.digest == sa.bindparam("named"), blob_rows.c.created_at == sa.bindparam("at"))
    if seen:
        tx.execute(sa.delete(blob_rows).where(*same), [{"named": digest, "at": at} for digest, at in seen.items()])


def _remove_some(tx: Tx, blobs: Blobs, some: list[str], limit: Limits) -> dict[str, int]:
    """Remove blobs that have no row and no pin, until time is up, and take them off the list."""
    deadline = time.monotonic() + BATCH_S
    # Pins first: a pack that commits in between has a row by then.
    kept = _pinned(tx, some) | set(
        tx.execute(sa.select(blob_rows.c.digest).where(blob_rows.c.digest.in_(some))).scalars()
    )
    gone: dict[str, int] = {}
    while some and time.monotonic() < deadline:
        digest = some.pop()
        if digest not in kept and _is_old(blobs, digest, limit):
            with contextlib.suppress(Missing):
                gone[digest] = blobs.size(digest)
                blobs.remove(digest)
    return gone


def _pinned(tx: Tx, some: Sequence[str]) -> set[str]:
    return set(tx.execute(pins.pinned()).scalars()).intersection(some)


def _is_old(blobs: Blobs, digest: str, limit: Limits) -> bool:
    """Whether it was stored before the limit; what is not there at all is as old as can be."""
    try:
        return blobs.modified(digest) < limit.blobs
    except Missing:
        return True


def _size(blobs: Blobs, digest: str) -> int:
    try:
        return blobs.size(digest)
    except Missing:
        return 0


def _count_objects(tx: Tx, doomed: Doomed) -> int:
    query = sa.select(sa.func.count()).where(objects.c.gallery.in_(doomed.galleries))
    return int(tx.execute(query).scalar_one()) if doomed.galleries else 0
