"""What an engine sees of galleries: views with their segments mapped, as of the sequence that a question must see.

A segment is verified once per engine; every later deletion and enrolment is read once, when the first question must see
it. A release that was retired is let go of, so that nothing purged stays mapped.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from relens import releases
from relens.errors import Conflict, Missing, RelensError
from relens.recipes import Lens
from relens.releases import Release, View
from relens.serving.tail import Tail
from relens.store import Blobs, Catalog
from relens.vectors import Ids, Index, Searchable, Segment, open_index, open_segment

KEPT_VIEWS = 2
"""Per gallery: the one that answers now, and the one before it for what is under way."""
KEPT_RELEASES = 64


@dataclass(frozen=True, slots=True)
class OpenView:
    """A release as of a sequence: segments, those of the tail among them, and by digest the ids that are gone."""

    release: Release
    segments: tuple[Segment, ...]
    dead: Mapping[str, Ids]
    sequence: int
    indexes: tuple[Index, ...] = ()
    _ready: dict[str, Searchable] = field(default_factory=dict, compare=False, repr=False)

    def searchable(self, category: str, takes_day: Callable[[str], bool] | None = None) -> Searchable:
        """The segments of a category, made ready to be searched; only those of some days, if that is asked for."""
        known = self._ready.get(category) if takes_day is None else None
        if known is not None:
            return known
        segments = [
            segment
            for segment in self.segments
            if segment.manifest.category == category and (takes_day is None or takes_day(segment.manifest.day))
        ]
        over = [index for index in self.indexes if index.manifest.category == category]
        made = Searchable(segments, dead=self.dead, indexes=over)
        if takes_day is None:
            self._ready[category] = made
        return made


@dataclass(frozen=True, slots=True)
class _Choice:
    """What of a release's view answers: segments and indexes, by digest, and the first day of its window."""

    segments: tuple[str, ...]
    indexes: tuple[Index, ...]
    first_day: str


class Views:
    """The views of one lens. Safe to use from many threads."""

    def __init__(self, catalog: Catalog, blobs: Blobs, lens: Lens) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._lens = lens
        self._releases: OrderedDict[str, Release] = OrderedDict()
        self._choices: dict[str, _Choice] = {}
        self._parts: dict[str, _Part] = {}
        self._indexes: dict[str, Index] = {}
        self._tails: dict[int, Tail] = {}
        self._seen: dict[str, OpenView] = {}
        self._verified: set[str] = set()
        self._lock = threading.Lock()

    def see(self, name: str, must_see: int = 0) -> OpenView:
        """A release by name, as of its view's sequence or of `must_see` if that is newer.

        Missing if it was never there, with `gone` if it was retired; Conflict if it is of another lens, or the gallery
        has not come so far.
        """
        with self._lock:
            release = self._release(name)
            if release.view is None:
                return OpenView(release, (), {}, 0)
            assert release.view.sequence is not None
            upto = max(must_see, release.view.sequence)
            seen = self._seen.get(name)
            if seen is None or seen.sequence != upto:
                seen = self._seen[name] = self._look(release, release.view, upto)
            return seen

    def _look(self, release: Release, view: View, upto: int) -> OpenView:
        choice = self._choices[release.name]
        parts = [self._parts[digest] for digest in choice.segments]
        tail = self._tail(view, parts)
        with self._catalog.read() as tx:
            tail.read(tx, upto)
        if tail.after > view.folded_to:
            raise _retired(release.name)
        dead = {part.segment.digest: part.dead(tail, upto) for part in parts}
        live = [one for one in tail.segments(view.folded_to, upto) if one.manifest.day >= choice.first_day]
        gone = np.sort(tail.dead(view.folded_to, upto)[0])
        dead |= {segment.digest: gone[np.searchsorted(gone, segment.ids[0]) :] for segment in live}
        segments = (*(part.segment for part in parts), *live)
        gone_of = {digest: ids for digest, ids in dead.items() if len(ids)}
        return OpenView(release, segments, gone_of, upto, choice.indexes)

    def _tail(self, view: View, parts: Sequence[_Part]) -> Tail:
        """The gallery's tail, as far back as this view needs it."""
        dead_after = min([view.folded_to, *(part.upto for part in parts)])
        tail = self._tails.get(view.gallery)
        if tail is None or tail.after > view.folded_to or tail.dead_after > dead_after:
            tail = Tail(view.gallery, _spaces(self._lens), after=view.folded_to, dead_after=dead_after)
            self._tails[view.gallery] = tail
        return tail

    # -- opening

    def _release(self, name: str) -> Release:
        known = self._releases.get(name)
        if known is None:
            known = self._open(name)
            self._releases[name] = known
            self._forget(known)
        self._releases.move_to_end(name)
        return known

    def _open(self, name: str) -> Release:
        with self._catalog.read() as tx:
            release = releases.get(tx, name)
        if release.lens != self._lens.digest:
            raise Conflict("serving.other-lens", f"release {name} is of lens {release.lens}, not {self._lens.digest}")
        if release.retired_at is not None:
            raise _retired(name)
        try:
            if release.view is not None:
                self._choices[name] = self._choose(release.view)
        except RelensError:
            with self._catalog.read() as tx:
                if releases.get(tx, name).retired_at is not None:  # since we looked
                    raise _retired(name) from None
            raise
        return release

    def _choose(self, view: View) -> _Choice:
        """Open what of a view answers."""
        with self._catalog.read() as tx:
            chosen = releases.chosen(tx, view)
        for digest in chosen:
            self._open_segment(digest)
        days = [self._parts[digest].segment.manifest.day for digest in chosen]
        first = releases.first_day(max(days), view.window_days) if days and view.window_days is not None else ""
        return _Choice(chosen, tuple(self._open_index(digest) for digest in view.indexes), first)

    def _open_index(self, digest: str) -> Index:
        if digest not in self._indexes:
            self._indexes[digest] = open_index(self._blobs, digest, verify=digest not in self._verified)
            self._verified.add(digest)
        return self._indexes[digest]

    def _open_segment(self, digest: str) -> None:
        if digest not in self._parts:
            # Every byte once per engine; manifest and size whenever it is opened.
            segment = open_segment(self._blobs, digest, verify=digest not in self._verified)
            self._verified.add(digest)
            self._parts[digest] = _Part(segment)

    # -- letting go

    def _forget(self, newest: Release) -> None:
        """Let go of releases that are too many or retired, and of what only they needed."""
        if newest.view is not None:
            gallery = newest.view.gallery
            others = [name for name in self._of(gallery) if name != newest.name]
            with self._catalog.read() as tx:
                retired = releases.retired(tx, others)
            kept = [name for name in others if name not in retired]
            for name in [*retired, *kept[: len(kept) - (KEPT_VIEWS - 1)]]:
                self._let_go(name)
        while len(self._releases) > KEPT_RELEASES:
            self._let_go(next(iter(self._releases)))
        views = [release.view for release in self._releases.values() if release.view is not None]
        used = {digest for name in self._choices for digest in self._choices[name].segments}
        self._parts = {digest: part for digest, part in self._parts.items() if digest in used}
        over = {digest for view in views for digest in view.indexes}
        self._indexes = {digest: index for digest, index in self._indexes.items() if digest in over}
        for gallery in list(self._tails):
            mine = [view for view in views if view.gallery == gallery]
            if not mine:
                del self._tails[gallery]
                continue
            after = min(view.folded_to for view in mine)
            known_to = [self._parts[one].upto for view in mine for one in view.segments if one in self._parts]
            self._tails[gallery].forget(after=after, dead_after=min([after, *known_to]))

    def _of(self, gallery: int) -> list[str]:
        """Names of a gallery's releases, the one that was asked last at the end."""
        every = self._releases.items()
        return [name for name, release in every if release.view is not None and release.view.gallery == gallery]

    def _let_go(self, name: str) -> None:
        del self._releases[name]
        self._choices.pop(name, None)
        self._seen.pop(name, None)


class _Part:
    """A segment, and which of its rows were deleted since it was built: in the order of their sequences."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.upto = segment.manifest.as_of
        self._dead = np.empty(0, np.int64)
        self._sequences = np.empty(0, np.int64)

    def dead(self, tail: Tail, upto: int) -> Ids:
        """Ids of its rows that are gone as of a sequence, which the tail has seen."""
        if upto > self.upto:
            ids, sequences = tail.dead(self.upto, upto)
            held = self.segment.ids
            at = np.searchsorted(held, ids)
            ours = at < len(held)
            ours[ours] = held[at[ours]] == ids[ours]
            self._dead = np.concatenate([self._dead, ids[ours]])
            self._sequences = np.concatenate([self._sequences, sequences[ours]])
            self.upto = upto
        return self._dead[: np.searchsorted(self._sequences, upto, side="right")]


def _retired(name: str) -> Missing:
    return Missing(
        "releases.retired",
        f"release {name} was retired: what it held was folded into newer views, or purged",
        hint="ask the gallery, which answers from its newest view",
        gone=True,
    )


def _spaces(lens: Lens) -> set[str]:
    """The spaces of all vectors that are made through a lens."""
    own = {space.digest for space in lens.spaces.values() if space is not None}
    return own | {lens.space} if lens.space else own
