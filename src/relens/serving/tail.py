"""An engine's copy of what single enrolments and deletions did to a gallery since its views were built.

Rows are read from the catalog once, in the order of their sequences, and kept in arrays that grow; what a question sees
of them is cut out by sequence, so that one that began earlier still gets what it began with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relens import gallery as galleries
from relens.errors import Conflict
from relens.gallery import tail as rows_of_tail
from relens.gallery.tail import TailRow
from relens.store import Tx
from relens.values import Floats
from relens.vectors import Ids, Manifest, Segment
from relens.vectors.files import unit_rows

FEWEST_ROWS = 64


class Part(NamedTuple):
    """What the rows of one array have in common, as those of a segment have."""

    space: str
    category: str
    day: str


class Tail:
    """The tail of one gallery in the spaces of one lens. Not safe for two threads at once.

    after       rows are here from after this sequence
    dead_after  deletions are here from after this one
    seen        both are here up to this one
    """

    def __init__(self, gallery: int, spaces: Collection[str], *, after: int, dead_after: int) -> None:
        self.after = after
        self.dead_after = self.seen = min(after, dead_after)
        self._gallery = gallery
        self._spaces = spaces
        self._rows: dict[Part, _Rows] = {}
        self._dead = _Column()
        self._dead_sequences = _Column()

    def read(self, tx: Tx, upto: int) -> None:
        """See what the catalog has up to a sequence. Conflict if the gallery has not come so far."""
        if upto <= self.seen:
            return
        rows = rows_of_tail.between(tx, self._gallery, self._spaces, max(self.seen, self.after), upto)
        dead, sequences = galleries.dead_since(tx, self._gallery, self.seen, upto)
        # Looked at last: what was there then, was there when the rows were read.
        sequence, forgotten = rows_of_tail.extent(tx, self._gallery)
        if upto > sequence:
            raise Conflict("serving.too-old", f"the gallery is at sequence {sequence}, not at {upto}")
        if forgotten > max(self.seen, self.after):
            self.after = forgotten
            self._rows.clear()
            rows = [row for row in rows if row.sequence > forgotten]
        for part, some in groupby(sorted(rows, key=_by_part), key=_part_of):
            self._rows.setdefault(part, _Rows()).add(list(some))
        self._dead.add(dead)
        self._dead_sequences.add(sequences)
        self.seen = upto

    def segments(self, after: int, upto: int) -> Iterator[Segment]:
        """What was enrolled after one sequence and up to another, as segments in memory."""
        for part, rows in sorted(self._rows.items()):
            ids, vectors = rows.between(after, upto)
            if len(ids):
                dim = vectors.shape[1]
                about = (self._gallery, part.category, part.day, part.space, dim, len(ids), upto)
                yield Segment(Manifest(*about, data=f"tail after {after}", data_bytes=0), ids, vectors)

    def dead(self, after: int, upto: int) -> tuple[Ids, Ids]:
        """What was deleted after one sequence and up to another, in this order: (n,) ids and (n,) sequences."""
        sequences = self._dead_sequences.values
        part = slice(*np.searchsorted(sequences, [after, upto], side="right"))
        return self._dead.values[part], sequences[part]

    def forget(self, *, after: int, dead_after: int) -> None:
        """Let go of what nobody needs any more: rows and deletions up to these sequences."""
        if after > self.after:
            self.after = after
            kept = {part: rows.since(after) for part, rows in self._rows.items()}
            self._rows = {part: rows for part, rows in kept.items() if rows is not None}
        if dead_after > self.dead_after:
            self.dead_after = dead_after
            dead, sequences = self.dead(dead_after, self.seen)
            self._dead, self._dead_sequences = _Column(dead), _Column(sequences)


class _Column:
    """Numbers that become more: (n,) int64."""

    def __init__(self, given: NDArray[np.int64] | None = None) -> None:
        self._held = np.empty(FEWEST_ROWS, np.int64)
        self._count = 0
        if given is not None:
            self.add(given)

    @property
    def values(self) -> NDArray[np.int64]:
        return self._held[: self._count]

    def add(self, given: NDArray[np.int64]) -> None:
        self._held = _with_room(self._held, self._count, len(given))
        self._held[self._count : self._count + len(given)] = given
        self._count += len(given)


class _Rows:
    """Rows of one part: ids and sequences increase together, because both are taken under the gallery's lock."""

    def __init__(self) -> None:
        self._ids = _Column()
        self._sequences = _Column()
        self._vectors: Floats = np.empty((0, 0), np.float32)

    def add(self, rows: Sequence[TailRow]) -> None:
        count = len(self._ids.values)
        halves = np.frombuffer(b"".join(row.vector for row in rows), "<f2").reshape(len(rows), -1)
        if not count:
            self._vectors = np.empty((FEWEST_ROWS, halves.shape[1]), np.float32)
        self._vectors = _with_room(self._vectors, count, len(rows))
        self._vectors[count : count + len(rows)] = unit_rows(halves)
        self._ids.add(np.array([row.object for row in rows], np.int64))
        self._sequences.add(np.array([row.sequence for row in rows], np.int64))

    def between(self, after: int, upto: int) -> tuple[Ids, Floats]:
        part = slice(*np.searchsorted(self._sequences.values, [after, upto], side="right"))
        return self._ids.values[part], self._vectors[: len(self._ids.values)][part]

    def since(self, after: int) -> _Rows | None:
        """A copy of the later rows; None if there are none."""
        first = int(np.searchsorted(self._sequences.values, after, side="right"))
        count = len(self._ids.values)
        if first == count:
            return None
        kept = _Rows()
        kept._ids, kept._sequences = _Column(self._ids.values[first:]), _Column(self._sequences.values[first:])
        kept._vectors = self._vectors[first:count].copy()
        return kept


def _with_room(held: NDArray[Any], count: int, more: int) -> NDArray[Any]:
    """The same rows with room for more. What was cut out of the old array stays as it is."""
    if count + more <= len(held):
        return held
    grown = np.empty((max(2 * len(held), count + more), *held.shape[1:]), held.dtype)
    grown[:count] = held[:count]
    return grown


def _part_of(row: TailRow) -> Part:
    return Part(row.space, row.category, row.day)


def _by_part(row: TailRow) -> tuple[Part, int]:
    return _part_of(row), row.object
