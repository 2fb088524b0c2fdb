"""Files written anew without what was deleted: shards of crops and files of vectors, bit for bit otherwise.

New bytes first, then one short transaction that moves the rows. The old files are named by nothing then; taking them
away is for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relens import gallery as galleries
from relens.enrolment import name_blobs
from relens.enrolment.shards import Member, ShardWriter, read_members
from relens.errors import Missing
from relens.gallery import places
from relens.gallery.places import Lying
from relens.jobs import Hold, leases, pins
from relens.store import Blob, Blobs, Catalog, Tx
from relens.vectors.files import count_rows, read_halves, write_halves

AT_ONCE = 200
"""Files whose rows are asked for together: each time the gallery's are gone through."""


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Writes the files of one gallery anew that hold anything but what lived as of a sequence, in one pack."""

    catalog: Catalog
    blobs: Blobs
    hold: Hold
    gallery: int
    as_of: int

    def shards(self) -> int:
        """Write shards anew. How many held what they are not to hold."""
        found = 0
        for shard, members, living in self._unclean_shards():
            found += 1
            self._rewrite_shard(shard, [one for one in members if one.offset in living], living)
        return found

    def files(self) -> int:
        """Write files of vectors anew. How many held what they are not to hold."""
        found = 0
        for file, space, living in self._unclean_files():
            found += 1
            self._rewrite_file(file, space, living)
        return found

    # -- crops

    def _unclean_shards(self) -> Iterator[tuple[str, Sequence[Member], Mapping[int, int]]]:
        """Shards with a crop that no living object has: their crops, and object by offset of those that live."""
        with self.catalog.read() as tx:
            every = places.shards(tx, self.gallery)
        for shard, lying in self._lying(every, places.in_shards):
            living = {one.at: one.object for one in lying if one.lives}
            path = self._path(shard, needed=bool(living))
            if path is None:
                continue
            members = read_members(path)
            if any(member.offset not in living for member in members):
                yield shard, members, living

    def _rewrite_shard(self, old: str, members: Sequence[Member], living: Mapping[int, int]) -> None:
        if not members:
            return
        moved: dict[int, int] = {}
        with ShardWriter(self.blobs) as shard:
            for member in members:
                self.hold.take_in_hand("shard")
                jpeg = self.blobs.read(old, member.offset, member.length)
                offset, _ = shard.copy(member.key, jpeg, self.blobs.read(old, *member.about))
                moved[living[member.offset]] = offset
            new = shard.finish()
        self._move(new, "shard", lambda tx: places.move_crops(tx, old, new.digest, moved))

    # -- vectors

    def _unclean_files(self) -> Iterator[tuple[str, str, Mapping[int, int]]]:
        """Files with a row that no living object has: their space, and object by row of those that live."""
        with self.catalog.read() as tx:
            spaces = dict(places.files(tx, self.gallery))
        for file, lying in self._lying(sorted(spaces), places.in_files):
            living = {one.at: one.object for one in lying if one.lives}
            try:
                rows = count_rows(self.blobs, file)
            except Missing:
                if living:
                    raise
                continue
            if rows > len(living):
                yield file, spaces[file], living

    def _rewrite_file(self, old: str, space: str, living: Mapping[int, int]) -> None:
        if not living:
            return
        self.hold.take_in_hand("vectors")
        kept = sorted(living)
        halves = read_halves(self.blobs, old, space=space)[np.array(kept, dtype=np.int64)]
        new = write_halves(self.blobs, halves, space=space)
        moved = {living[row]: number for number, row in enumerate(kept)}
        self._move(new, "vectors", lambda tx: places.move_vectors(tx, old, new.digest, moved))

    # -- both

    def _lying(
        self, every: Sequence[str], look: Callable[..., dict[str, list[Lying]]]
    ) -> Iterator[tuple[str, list[Lying]]]:
        for start in range(0, len(every), AT_ONCE):
            with self.catalog.read() as tx:
                found = look(tx, self.gallery, every[start : start + AT_ONCE], self.as_of)
            for file, lying in found.items():
                self.hold.take_in_hand(file)
                yield file, lying

    def _path(self, shard: str, *, needed: bool) -> Path | None:
        """Where a shard can be read; None if it is gone and nobody needs it."""
        try:
            return self.blobs.path(shard)
        except Missing:
            if needed:
                raise
            return None

    def _move(self, new: Blob, kind: str, move: Callable[[Tx], None]) -> None:
        pins.pin(self.catalog, self.blobs, self.hold.claim, [new.digest])
        with self.catalog.begin() as tx:
            leases.fence(tx, self.hold.claim)
            galleries.lock(tx, self.gallery)
            name_blobs(tx, self.blobs, [(new, kind)], self.catalog.now(tx))
            move(tx)
