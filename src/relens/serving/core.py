"""An engine: one lens, loaded, that answers questions under the releases of that lens.

A question pins the view it began with; the view is opened once and its segments are verified once per engine. The same
engine runs in a process of its own behind a socket, and in this process for commands and tests.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relens import gallery as galleries
from relens.errors import BadInput, Broken
from relens.gallery.filtering import matching
from relens.recipes import Cropped, Described, Pipeline, attributes_of
from relens.recipes.ranking import DEPTH, Ranking
from relens.serving.descriptions import Description
from relens.serving.narrowed import search_narrowed
from relens.serving.questions import Answer, Question
from relens.serving.views import OpenView, Views
from relens.store import Blobs, Catalog
from relens.telemetry import Stopwatch
from relens.values import FoundObject, Match, MatchedObject, PictureInfo, Recognition, SearchAnswer, digest_of
from relens.vectors import Hits

MAX_K = 1000
NOTHING = Hits(np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Seen:
    """What an engine saw in a question's picture: objects with what is said of them, and what was left out, and why."""

    picture: PictureInfo
    objects: tuple[tuple[Cropped, Described], ...]
    dropped: Mapping[str, int]


class Engine:
    """Answers for one lens. Safe to use from many threads."""

    def __init__(self, catalog: Catalog, blobs: Blobs, pipeline: Pipeline) -> None:
        self.lens = pipeline.lens
        self._catalog = catalog
        self._pipeline = pipeline
        self._views = Views(catalog, blobs, pipeline.lens)
        # One model names everything, or each kind of object has a namer of its own and whatever is there is meant.
        self._ranking = Ranking(self.lens.recipe.rerank)
        self._labeller = self.lens.labellers[0] if len(self.lens.labellers) == 1 else None

    def answer(self, question: Question) -> Answer:
        """Answer one question. Conflict if its release is of another lens, or the gallery has not come so far.

        A description is given under the lens alone, whatever release the question names.
        """
        watch = Stopwatch()
        if question.use == "describe":
            seen = self._look(question, watch)
            return Description(self.lens.digest, seen.picture, seen.objects, seen.dropped, watch.ms)
        with watch.phase("open"):
            view = self._views.see(question.release, question.must_see)
        _check(view, question, self.lens.recipe.categories)
        seen = self._look(question, watch)
        if question.use == "recognize":
            return self._recognition(view, seen, watch)
        return self._matches(view, seen, question, watch)

    def _look(self, question: Question, watch: Stopwatch) -> Seen:
        with watch.phase("decode"):
            decoded = self._pipeline.decode(question.data)
            picture = PictureInfo(digest_of(question.data), decoded.width, decoded.height)
        with watch.phase("crop"):
            crops = self._pipeline.crop(decoded)
            reasons = [self._pipeline.reason(crop) for crop in crops]
            kept = [crop for crop, reason in zip(crops, reasons, strict=True) if reason is None]
            dropped = Counter(reason for reason in reasons if reason is not None)
        with watch.phase("describe"):
            described = self._pipeline.describe_all(kept, include=question.include)
        return Seen(picture, tuple(zip(kept, described, strict=True)), dropped)

    def _recognition(self, view: OpenView, seen: Seen, watch: Stopwatch) -> Recognition:
        objects = tuple(
            FoundObject(
                crop.box, crop.score, crop.category, said.labels, attributes_of(crop, said), landmarks=crop.landmarks
            )
            for crop, said in seen.objects
        )
        release = view.release
        return Recognition(release.name, release.recipe, seen.picture, objects, watch.ms, dropped=seen.dropped)

    def _matches(self, view: OpenView, seen: Seen, question: Question, watch: Stopwatch) -> SearchAnswer:
        assert view.release.gallery is not None
        # Few items are off the shelf: what is found is looked at first, and only then searched for with that in mind.
        picky = question.where.asks_items
        while True:
            with watch.phase("search"):
                hits = [self._search(view, crop, said, question, picky=picky) for crop, said in seen.objects]
            with watch.phase("fetch"):
                stored, thresholds = self._describe_hits(view.release.gallery.id, hits)
            if picky or question.where.off_shelf or not any(_is_off_shelf(one) for one in stored.values()):
                break
            picky = True
        found = [self._matches_of(hit, stored, question) for hit in hits]
        objects = tuple(
            MatchedObject(
                crop.box,
                matches,
                said.labels,
                crop.category,
                self._is_match(matches, question, question.where.category or crop.category, thresholds),
            )
            for (crop, said), matches in zip(seen.objects, found, strict=True)
        )
        gallery = view.release.gallery.name
        return SearchAnswer(
            view.release.name, view.sequence, gallery, seen.picture, objects, watch.ms, dropped=seen.dropped
        )

    def _search(self, view: OpenView, crop: Cropped, said: Described, question: Question, *, picky: bool) -> Hits:
        """What looks like an object among those of its category; nothing if it has no vector.

        picky  whether each is looked up, and only those that may answer are taken
        """
        assert view.release.gallery is not None
        gallery, where = view.release.gallery.id, question.where
        category = where.category or crop.category
        space = self.lens.space_of(category)
        if said.vector is None or space is None or space.digest != said.vector.space:
            return NOTHING
        vector = said.vector
        searchable = view.searchable(category, None if where.days == (None, None) else where.takes_day)

        def find(count: int, allowed: NDArray[np.int64] | None) -> Hits:
            return searchable.search(vector, count, allowed=allowed)

        def chosen(among: Collection[int] | None) -> set[int]:
            with self._catalog.read() as tx:
                return matching(tx, gallery, where, among)

        depth = max(question.k, DEPTH) if self._ranking else question.k
        return search_narrowed(find, chosen, depth, picky=where.asks_items) if picky else find(depth, None)

    def _describe_hits(
        self, gallery: int, hits: list[Hits]
    ) -> tuple[dict[int, galleries.StoredObject], dict[str, float]]:
        """What was found, by id, with all that an answer shows of it; and the gallery's thresholds by space."""
        wanted = sorted({int(one) for hit in hits for one in hit.ids})
        with self._catalog.read() as tx:
            stored = galleries.describe(tx, wanted, model=self._labeller)
            thresholds = galleries.thresholds_of(tx, gallery)
        if lost := set(wanted) - set(stored):
            raise Broken(
                "serving.unknown-object", f"the view names objects that the catalog does not know: {sorted(lost)}"
            )
        return stored, thresholds

    def _matches_of(
        self, hits: Hits, stored: Mapping[int, galleries.StoredObject], question: Question
    ) -> tuple[Match, ...]:
        """What was found, in the order of the recipe's rules."""
        found = [_match(stored[int(one)], float(score)) for one, score in zip(hits.ids, hits.scores, strict=True)]
        return tuple(self._ranked(found, question)[: question.k])

    def _ranked(self, matches: list[Match], question: Question) -> list[Match]:
        if not self._ranking:
            return matches
        ranked = [
            replace(match, rank=match.score + self._ranking.boost(match.items, question.hints)) for match in matches
        ]
        return sorted(ranked, key=lambda match: (-(match.rank or 0.0), match.id))

    def _is_match(
        self, matches: tuple[Match, ...], question: Question, category: str, thresholds: Mapping[str, float]
    ) -> bool | None:
        """Whether the best of what was found is good enough; None if nobody said what that is."""
        space = self.lens.space_of(category)
        ours = None if space is None else thresholds.get(space.digest, self.lens.thresholds.get("match"))
        threshold = ours if question.threshold is None else question.threshold
        if threshold is None:
            return None
        return max((match.score for match in matches), default=-1.0) >= threshold


def _is_off_shelf(stored: galleries.StoredObject) -> bool:
    """Whether there are items that show an object, and all of them are off the shelf."""
    return bool(stored.items) and all(item.off_shelf for item in stored.items)


def _match(stored: galleries.StoredObject, score: float) -> Match:
    return Match(
        id=stored.id,
        score=score,
        box=stored.box,
        labels=stored.labels,
        picture=stored.picture,
        items=tuple(item.to_json() for item in stored.items),
        attributes=stored.attributes,
    )


def _check(view: OpenView, question: Question, categories: Sequence[str]) -> None:
    """Refuse what cannot be answered before any work is done for it."""
    if question.use != "search":
        return
    if view.release.gallery is None:
        raise BadInput("serving.no-gallery", f"release {view.release.name} has no gallery to search")
    if not 1 <= question.k <= MAX_K:
        raise BadInput("serving.bad-k", f"k is {question.k}, not 1 to {MAX_K}")
    category = question.where.category
    if category is not None and category not in categories:
        raise BadInput(
            "serving.no-category",
            f"no object of {view.release.gallery.name} has category {category!r}",
            hint=f"its recipe gives {', '.join(categories)}",
        )


class InProcess:
    """Answers in this process, one engine a lens: for commands and tests."""

    def __init__(self, start: Any) -> None:
        self._start = start
        self._engines: dict[str, Engine] = {}
        self._starting = threading.Lock()

    def ask(self, lens: str, question: Question) -> Answer:
        with self._starting:
            if lens not in self._engines:
                self._engines[lens] = self._start(lens)
        return self._engines[lens].answer(question)

    def running(self) -> list[dict[str, Any]]:
        return [{"lens": lens, "state": "ready", "in_process": True} for lens in self._engines]

    def rest(self, idle_s: float) -> None:
        """Nothing: a command does not live that long."""

    def close(self) -> None:
        self._engines.clear()
