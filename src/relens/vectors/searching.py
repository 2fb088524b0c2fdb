"""Search: the living rows that are nearest to a query, of segments with indexes over some of them.

Scores are exact always, and so are the rows of a segment that no index covers. Of the others an index says which are
probably near; each of those is looked up in its segment and scored again, so what is answered lives, may be answered,
and comes in the order of exact search. Vectors of two spaces are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from relens.errors import BadInput
from relens.values import Vector, require_same_space
from relens.vectors.covered import Asked, Covered
from relens.vectors.exact import Hits, Rows, better, nothing, rows_of, rows_of_increasing, scan
from relens.vectors.indexes import Index
from relens.vectors.segments import Ids, Segment

NOBODY: Mapping[str, Ids] = MappingProxyType({})


def search(
    segments: Sequence[Segment],
    query: Vector,
    k: int,
    *,
    dead: Mapping[str, Ids] = NOBODY,
    indexes: Sequence[Index] = (),
    allowed: Ids | None = None,
    nprobe: int | None = None,
) -> Hits:
    """The k nearest living rows by cosine, as `Searchable` finds them; who asks more than once keeps one of those."""
    return Searchable(segments, dead=dead, indexes=indexes).search(query, k, allowed=allowed, nprobe=nprobe)


class Searchable:
    """Segments, the dead among their rows and the indexes over them, made ready once. Safe to search from many threads.

    dead     segment digest -> ids that are gone, in any order; ids that the segment does not hold are ignored
    indexes  those with the most rows are used first. One is left out if another has taken a segment of it, or if it
             lacks living rows: it was built when more were dead. Segments of an index that are not among `segments`
             (a dropped day) are not answered from

    Ids are unique across the segments of a view; one that two segments hold is found twice.
    """

    def __init__(
        self, segments: Sequence[Segment], *, dead: Mapping[str, Ids] = NOBODY, indexes: Sequence[Index] = ()
    ) -> None:
        self._spaces = {(segment.manifest.space, segment.manifest.dim): segment.digest for segment in segments}
        self._spaces |= {(index.manifest.space, index.manifest.dim): index.digest for index in indexes}
        gone = {segment.digest: rows_of(segment.ids, dead.get(segment.digest)) for segment in segments}
        self._covered: list[Covered] = []
        taken: set[str] = set()
        for index in sorted(indexes, key=lambda one: (-one.manifest.count, one.digest)):
            covers = set(index.manifest.covers)
            mine = [segment for segment in segments if segment.digest in covers]
            if mine and not covers & taken and Covered.lacks_nobody(index, mine, gone):
                self._covered.append(Covered(index, mine, gone))
                taken |= covers
        self._scanned = [(one, gone[one.digest]) for one in segments if one.digest not in taken]

    def search(self, query: Vector, k: int, *, allowed: Ids | None = None, nprobe: int | None = None) -> Hits:
        """The k nearest living rows by cosine; fewer if there are fewer.

        allowed  the only ids that may be answered, increasing; None for all. More lists are searched then
        nprobe   how many lists of each index are searched; None for as many as the index was measured to need

        Conflict that names both spaces, if any segment or index is of another than the query. BadInput for k < 1, for
        a query of another length and for allowed ids that do not increase.
        """
        self._require(query, k, allowed, nprobe)
        asked = Asked(query.values)
        best = nothing()
        for covered in self._covered:
            found = covered.search(asked, k, allowed, nprobe)
            best = better(best, found, k) if len(best.ids) else found
        for segment, gone in self._scanned:
            rows: Rows | None = None if allowed is None else rows_of_increasing(segment.ids, allowed)
            best = scan(segment, asked.values, k, gone=gone, allowed=rows, best=best)
        return best

    def _require(self, query: Vector, k: int, allowed: Ids | None, nprobe: int | None) -> None:
        if k < 1:
            raise BadInput("vectors.bad-k", f"k is at least 1, not {k}")
        if nprobe is not None and nprobe < 1:
            raise BadInput("vectors.bad-nprobe", f"at least one list is searched, not {nprobe}")
        for (space, dim), digest in self._spaces.items():
            require_same_space(query.space, space)
            if len(query.values) != dim:
                raise BadInput(
                    "vectors.wrong-shape", f"the query has {len(query.values)} values, segment {digest} has {dim}"
                )
        if allowed is not None and (allowed.dtype != np.int64 or (allowed[1:] <= allowed[:-1]).any()):
            raise BadInput(
                "vectors.unordered-ids",
                "the allowed ids are not increasing int64",
                hint="sort them, and give each once",
            )
