"""Building indexes: assigning and encoding the rows of segments, or joining what was assigned and encoded before.

A day's segment gets an index when it is built; a window's days are joined to one index per category by copying lists,
many times quicker than doing them again. Every living row of the segments that are named is in the result: the count
is compared. Whatever was joined, the same rows make the same data, byte for byte.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput, Conflict
from relens.store import Blob, Blobs
from relens.values import require_same_space
from relens.vectors.exact import Rows, rows_of
from relens.vectors.indexes import DEPTHS, Index, IndexManifest, open_data
from relens.vectors.lists import Codes, imbalance, write_lists
from relens.vectors.quantizers import Numbers, Quantizer
from relens.vectors.recall import Recall, least_of, measure_recall
from relens.vectors.searching import NOBODY
from relens.vectors.segments import Ids, Segment

CHUNK_ROWS = 1 << 14


def build_index(
    blobs: Blobs, quantizer: Quantizer, segments: Sequence[Segment], *, dead: Mapping[str, Ids] = NOBODY
) -> IndexManifest:
    """Assign and encode the living rows of segments; store the index, measured, and name it.

    dead     segment digest -> ids that are gone, as for a search

    In memory are the codes, a quarter of what the segments take: build a large index by joining small ones. BadInput
    for segments of different galleries, categories or spaces, and for ids that are negative or held twice. Conflict
    for a quantizer of another space. Dying half-way leaves nothing, or data without a manifest.
    """
    held = _Held(segments, dead)
    require_same_space(held.segments[0].manifest.space, quantizer.manifest.space)
    held.require_unique()
    ids, numbers, codes = _encode(quantizer, held)
    order = np.lexsort((ids, numbers))
    sizes = np.bincount(numbers, minlength=quantizer.manifest.nlist)
    spans = zip(np.cumsum(sizes) - sizes, sizes, strict=True)
    lists = (order[start : start + size] for start, size in spans)
    data = write_lists(blobs, sizes, codes.shape[1], ((codes[rows].tobytes(), ids[rows].tobytes()) for rows in lists))
    return _store(blobs, quantizer, held, sizes, data, known=None)


def merge_indexes(
    blobs: Blobs,
    indexes: Sequence[Index],
    segments: Sequence[Segment],
    *,
    dead: Mapping[str, Ids] = NOBODY,
    remeasure: bool = True,
) -> IndexManifest:
    """One index of the living rows of segments, joined from indexes that cover them; measured, stored and named.

    indexes    opened with `verify`: what is copied gets a new digest, and damaged lists would be vouched for
    segments   what the result covers: rows of others are dropped. Each is covered by one of the indexes
    dead       segment digest -> ids that are gone, as for a search; they are dropped as well
    remeasure  read the segments to measure recall; otherwise the most lists and the least recall of the indexes count

    Lists are copied in one pass, some at a time. Conflict that names both, for indexes of two quantizers, which faiss
    would join without a word; Conflict if a segment is covered by none or by two of them, or if a row that lives is in
    none. BadInput as for `build_index`.
    """
    held = _Held(segments, dead)
    quantizer = _one_quantizer(indexes)
    require_same_space(held.segments[0].manifest.space, quantizer.manifest.space)
    parts = _parts(indexes, held)
    in_order = all(one.last < other.first for one, other in pairwise(parts))
    if not in_order:
        held.require_unique()
    sizes = np.sum([part.sizes for part in parts], axis=0)
    joined = _appended(parts) if in_order else _sorted(parts)
    data = write_lists(blobs, sizes, quantizer.empty.code_size, joined)
    return _store(blobs, quantizer, held, sizes, data, known=None if remeasure else least_of(indexes))


class _Held:
    """What an index is to hold: the living rows of segments, which are in the order of their digests."""

    def __init__(self, segments: Sequence[Segment], dead: Mapping[str, Ids]) -> None:
        self.segments = [one for _, one in sorted({segment.digest: segment for segment in segments}.items())]
        self.gone = [rows_of(segment.ids, dead.get(segment.digest)) for segment in self.segments]
        self._require_alike()

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(segment.digest for segment in self.segments)

    @property
    def count(self) -> int:
        return sum(len(segment.ids) - len(gone) for segment, gone in zip(self.segments, self.gone, strict=True))

    def of(self, digests: Collection[str]) -> list[tuple[Segment, Rows]]:
        """Some of the segments, and what is gone of them."""
        both = zip(self.segments, self.gone, strict=True)
        return [(segment, gone) for segment, gone in both if segment.digest in digests]

    def require_unique(self) -> None:
        ids = np.sort(_living_ids(self.of(self.digests)))
        again = ids[1:] == ids[:-1]
        if again.any():
            raise BadInput(
                "vectors.repeated-id",
                f"id {ids[again.argmax()]} lives in two segments; an index holds an id once",
                hint="a row that replaces another is to be dead where the other is",
            )

    def _require_alike(self) -> None:
        if not self.segments:
            raise BadInput("vectors.no-segments", "an index is of one segment at least")
        first = self.segments[0]
        for segment in self.segments:
            require_same_space(first.manifest.space, segment.manifest.space)
            one, other = ((of.gallery, of.category, of.dim) for of in (first.manifest, segment.manifest))
            if one != other:
                raise BadInput(
                    "vectors.unlike-segments",
                    f"segments {first.digest} and {segment.digest} are of gallery, category, length {one} and {other}",
                )
            if len(segment.ids) and segment.ids[0] < 0:
                raise BadInput(
                    "vectors.negative-id", f"segment {segment.digest} has id {segment.ids[0]}; faiss knows ids from 0"
                )


class _Part:
    """What one index gives to those it is joined to."""

    def __init__(self, index: Index, mine: Sequence[tuple[Segment, Rows]]) -> None:
        self._lists = index.lists
        self._kept = _kept(index, mine)
        self.first = min((int(one.ids[0]) for one, _ in mine if len(one.ids)), default=0)
        self.last = max((int(one.ids[-1]) for one, _ in mine if len(one.ids)), default=-1)
        self._ends = np.cumsum(index.lists.sizes)
        self.sizes = index.lists.sizes
        if self._kept is not None:
            numbers = np.repeat(np.arange(len(self.sizes)), self.sizes)
            self.sizes = np.bincount(numbers[self._kept], minlength=len(self.sizes))
        living = sum(len(segment.ids) - len(gone) for segment, gone in mine)
        if int(self.sizes.sum()) != living:
            raise Conflict(
                "vectors.incomplete-index",
                f"index {index.digest} holds {int(self.sizes.sum())} of the {living} rows that live in its segments",
                hint="it was built when more were dead: build it again from its segments",
            )

    def spelled(self, number: int) -> tuple[memoryview | bytes, memoryview | bytes]:
        if self._kept is None:
            return self._lists.spelled(number)
        codes, ids = self.rows(number)
        return codes.tobytes(), ids.tobytes()

    def rows(self, number: int) -> tuple[Codes, Ids]:
        codes, ids = self._lists.rows(number)
        if self._kept is None:
            return codes, ids
        kept = self._kept[self._ends[number] - len(ids) : self._ends[number]]
        return codes[kept], ids[kept]


def _parts(indexes: Sequence[Index], held: _Held) -> list[_Part]:
    """What each index gives, by id. Each segment is taken from one index."""
    left = set(held.digests)
    parts = []
    for index in indexes:
        mine = held.of(index.manifest.covers)
        if not mine:
            continue
        if twice := {segment.digest for segment, _ in mine} - left:
            raise Conflict("vectors.covered-twice", f"segment {min(twice)} is covered by two of the indexes")
        left -= set(index.manifest.covers)
        parts.append(_Part(index, mine))
    if left:
        raise Conflict(
            "vectors.not-covered",
            f"segment {min(left)} is covered by none of the indexes",
            hint="build an index of that segment first",
        )
    return sorted(parts, key=lambda part: (part.first, part.last))


def _kept(index: Index, mine: Sequence[tuple[Segment, Rows]]) -> NDArray[np.bool_] | None:
    """Which rows of an index are kept, list by list; None for all of them."""
    if len(mine) < len(index.manifest.covers):
        return np.isin(index.lists.ids(), _living_ids(mine))
    dead = np.concatenate([np.empty(0, np.int64), *(segment.ids[gone] for segment, gone in mine)])
    if not len(dead):
        return None
    return ~np.isin(index.lists.ids(), np.setdiff1d(dead, _living_ids(mine)))  # who lives elsewhere is not dead


def _appended(parts: Sequence[_Part]) -> Iterator[list[memoryview | bytes]]:
    """Each list of all parts, when those of one have smaller ids than those of the next: whole pieces are copied."""
    for number in range(len(parts[0].sizes)):
        pieces = [part.spelled(number) for part in parts]
        yield [codes for codes, _ in pieces] + [ids for _, ids in pieces]


def _sorted(parts: Sequence[_Part]) -> Iterator[list[memoryview | bytes]]:
    """Each list of all parts, its rows put in the order of their ids."""
    for number in range(len(parts[0].sizes)):
        rows = [part.rows(number) for part in parts]
        codes, ids = np.concatenate([codes for codes, _ in rows]), np.concatenate([ids for _, ids in rows])
        order = np.argsort(ids)
        yield [codes[order].tobytes(), ids[order].tobytes()]


def _one_quantizer(indexes: Sequence[Index]) -> Quantizer:
    if not indexes:
        raise BadInput("vectors.no-indexes", "there is nothing to join")
    first = indexes[0]
    for index in indexes:
        if index.quantizer.digest != first.quantizer.digest:
            raise Conflict(
                "vectors.other-quantizer",
                f"index {first.digest} is of quantizer {first.quantizer.digest} in space {first.manifest.space}, "
                f"index {index.digest} of quantizer {index.quantizer.digest} in space {index.manifest.space}",
                hint="lists of two quantizers mean different things: build one of them again with the other's",
            )
    return first.quantizer


def _encode(quantizer: Quantizer, held: _Held) -> tuple[Ids, Numbers, Codes]:
    """Ids, numbers of lists and codes of all living rows."""
    ids = np.empty(held.count, np.int64)
    numbers = np.empty(held.count, np.int64)
    codes = np.empty((held.count, quantizer.empty.code_size), np.uint8)
    at = 0
    for segment, gone in held.of(held.digests):
        for start in range(0, len(segment.ids), CHUNK_ROWS):
            part = slice(start, min(start + CHUNK_ROWS, len(segment.ids)))
            here = gone[np.searchsorted(gone, part.start) : np.searchsorted(gone, part.stop)] - start
            vectors = np.delete(segment.vectors[part], here, axis=0) if len(here) else segment.vectors[part]
            to = slice(at, at + len(vectors))
            ids[to] = np.delete(segment.ids[part], here)
            numbers[to] = quantizer.assign(vectors)
            codes[to] = quantizer.encode(vectors, numbers[to])
            at += len(vectors)
    return ids, numbers, codes


def _store(
    blobs: Blobs, quantizer: Quantizer, held: _Held, sizes: NDArray[np.int64], data: Blob, *, known: Recall | None
) -> IndexManifest:
    """Measure what was written, if its recall is not known, and only then name it."""
    of = held.segments[0].manifest
    manifest = IndexManifest(
        gallery=of.gallery,
        category=of.category,
        space=of.space,
        dim=of.dim,
        count=int(sizes.sum()),
        quantizer=quantizer.digest,
        covers=held.digests,
        data=data.digest,
        data_bytes=data.size,
        probes=(1,) * len(DEPTHS),
        reach=(0.0,) * len(DEPTHS),
        overfetch=1,
        recall=0.0,
        imbalance=round(imbalance(sizes), 4),
    )
    found = known or measure_recall(open_data(blobs, manifest, quantizer, verify=False), held.segments, held.gone)
    manifest = replace(manifest, **asdict(found))
    blobs.put(manifest.to_bytes())
    return manifest


def _living_ids(some: Sequence[tuple[Segment, Rows]]) -> Ids:
    return np.concatenate([np.empty(0, np.int64), *(np.delete(segment.ids, gone) for segment, gone in some)])
