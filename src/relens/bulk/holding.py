"""Which blobs still hold what a gallery has deleted although nothing names them, and taking them away.

Nothing is taken that a pack in flight has pinned, or that a row names at that moment. Who has just stored a blob and
finds it gone stores it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from relens.enrolment.shards import read_members
from relens.errors import Missing, RelensError
from relens.gallery import forgetting
from relens.jobs import Hold, leases, pins
from relens.store import Blobs, Catalog, Tx
from relens.store.schema import blobs as blob_rows
from relens.store.schema import crops, heads, indexes, segments, shelved, vectors, view_indexes, view_segments
from relens.vectors import Ids, open_segment
from relens.vectors.tensors import read_head

BATCH = 20
"""Blobs that one transaction takes away: nobody enrols meanwhile."""
SNIFFED = 4096
TAR = slice(257, 262)


@dataclass(frozen=True, slots=True)
class Holder:
    """A blob, or a manifest with its data, that holds what was deleted. `kind` says what may name it."""

    kind: str  # shard | vectors | original | segment | index | garbage
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holders:
    """The blobs of a store as a purge of one gallery sees them. `dead`: increasing ids of what was deleted."""

    catalog: Catalog
    blobs: Blobs
    gallery: int
    spaces: frozenset[str]
    dead: Ids

    def condemned(self) -> list[str]:
        """Segments of the gallery, of whatever view or of none, that are there and hold a row of a deleted object."""
        with self.catalog.read() as tx:
            query = sa.select(segments.c.digest).where(segments.c.gallery == self.gallery)
            every = sorted(tx.execute(query).scalars())
        return [digest for digest in every if self._holds_dead(digest)]

    def covering(self, some: Iterable[str]) -> list[str]:
        """Indexes of the gallery over any of these segments."""
        wanted = set(some)
        with self.catalog.read() as tx:
            query = sa.select(indexes.c.digest, indexes.c.covers).where(indexes.c.gallery == self.gallery)
            return sorted(row.digest for row in tx.execute(query) if wanted & set(row.covers))

    def all(self) -> list[Holder]:
        """Everything that is to be taken away."""
        condemned = self.condemned()
        found = [Holder("segment", self._with_data(digest)) for digest in condemned]
        found += [Holder("index", self._with_data(digest)) for digest in self.covering(condemned)]
        with self.catalog.read() as tx:
            found += [Holder("shard", (one,)) for one in _unnamed(tx, "shard", crops.c.shard)]
            found += [Holder("vectors", (one,)) for one in _unnamed(tx, "vectors", vectors.c.file)]
            query = sa.select(blob_rows.c.digest).where(blob_rows.c.kind == "original")
            originals = list(tx.execute(query).scalars())
            kept = forgetting.kept_originals(tx, originals)
            known = set(tx.execute(sa.select(blob_rows.c.digest)).scalars())
        found += [Holder("original", (one,)) for one in sorted(set(originals) - kept)]
        found += [Holder("garbage", (one,)) for one in self._garbage(known)]
        return [holder for holder in found if any(self._is_there(one) for one in holder.digests)]

    def take_away(self, some: Sequence[Holder], hold: Hold) -> int:
        """Remove what nothing names and nobody has pinned. How many of these are still there."""
        left = 0
        for start in range(0, len(some), BATCH):
            hold.take_in_hand("blobs")
            with self.catalog.begin() as tx:
                leases.fence(tx, hold.claim)
                pins.collect_alone(tx)
                few = some[start : start + BATCH]
                needed = set(tx.execute(pins.pinned()).scalars()) | _named(tx, few)
                for holder in few:
                    if needed & set(holder.digests):
                        left += 1
                        continue
                    tx.execute(sa.delete(blob_rows).where(blob_rows.c.digest.in_(holder.digests)))
                    for digest in holder.digests:
                        self.blobs.remove(digest)
        return left

    def _holds_dead(self, digest: str) -> bool:
        try:
            ids = open_segment(self.blobs, digest, verify=False).ids
        except Missing:
            return False
        except RelensError:
            return self._is_there(digest)  # half of it is gone: the rest is to go, too
        return bool(np.isin(ids, self.dead).any())

    def _with_data(self, digest: str) -> tuple[str, ...]:
        """A manifest's blob and that of its data. The data go first: without the manifest nobody knows them."""
        try:
            return str(json.loads(self.blobs.read(digest))["data"]), digest
        except (Missing, ValueError, KeyError):
            return (digest,)

    def _is_there(self, digest: str) -> bool:
        try:
            self.blobs.size(digest)
        except Missing:
            return False
        return True

    # -- what nobody has written down

    def _garbage(self, known: set[str]) -> Iterator[str]:
        """Blobs that crashes have left and that may hold something of the gallery."""
        unknown = sorted(digest for digest in self.blobs.digests() if digest not in known)
        with self.catalog.read() as tx:
            gone = forgetting.pictures_among(tx, self.gallery, unknown, released=True)
            gone -= forgetting.kept_originals(tx, sorted(gone))
        for digest in unknown:
            if digest in gone or self._is_ours(digest):
                yield digest

    def _is_ours(self, digest: str) -> bool:
        try:
            head = self.blobs.read(digest, 0, min(SNIFFED, self.blobs.size(digest)))
            if head[TAR] == b"ustar":
                return self._has_pictures(digest)
            if head[:1] == b"{":
                return bool(json.loads(self.blobs.read(digest)).get("gallery") == self.gallery)
            return read_head(head).get("__metadata__", {}).get("space") in self.spaces
        except Missing:
            return False
        except (RelensError, ValueError, AttributeError):
            return False  # no file of ours

    def _has_pictures(self, shard: str) -> bool:
        pictures = sorted({member.sha256 for member in read_members(self.blobs.path(shard))})
        with self.catalog.read() as tx:
            return bool(forgetting.pictures_among(tx, self.gallery, pictures))


def _unnamed(tx: Tx, kind: str, column: sa.Column[str]) -> list[str]:
    """Blobs of a kind that no row of objects names any more."""
    query = sa.select(blob_rows.c.digest).where(blob_rows.c.kind == kind)
    return sorted(tx.execute(query.where(blob_rows.c.digest.not_in(sa.select(column)))).scalars())


def _named(tx: Tx, some: Sequence[Holder]) -> set[str]:
    """Which of these a row names at this moment: that of an object, or of a view that answers or is kept aside."""
    digests = [digest for holder in some for digest in holder.digests]
    answering = sa.select(view_segments.c.segment).join(heads, heads.c.view == view_segments.c.view)
    indexed = sa.select(view_indexes.c.index).join(heads, heads.c.view == view_indexes.c.view)
    by_kind: dict[str, sa.Select[Any] | sa.CompoundSelect[Any]] = {
        "shard": sa.select(crops.c.shard).where(crops.c.shard.in_(digests)),
        "vectors": sa.select(vectors.c.file).where(vectors.c.file.in_(digests)),
        "segment": sa.union(answering, sa.select(shelved.c.segment)),
        "index": indexed,
        "garbage": sa.select(blob_rows.c.digest).where(blob_rows.c.digest.in_(digests)),
    }
    named: set[str] = set()
    for kind in sorted({holder.kind for holder in some}):
        mine = {digest for holder in some if holder.kind == kind for digest in holder.digests}
        if kind == "original":
            named |= forgetting.kept_originals(tx, sorted(mine))
        else:
            named |= mine & set(tx.execute(by_kind[kind]).scalars())
    return named
