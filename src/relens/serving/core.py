"""An engine: one lens, loaded, that answers questions under the releases of that lens.

A question pins the view it began with; the view is opened once and its segments are verified once per engine. The same
engine runs in a process of its own behind a socket, and in this process for commands and tests.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relens import gallery as galleries
from relens import releases
from relens.errors import BadInput, Broken, Conflict
from relens.recipes import Cropped, Described, Pipeline
from relens.releases import Release
from relens.serving.questions import Answer, Question
from relens.store import Blobs, Catalog
from relens.telemetry import Stopwatch
from relens.values import FoundObject, Match, MatchedObject, PictureInfo, Recognition, SearchAnswer, digest_of
from relens.vectors import Hits, Segment, open_segment, search

KEPT_VIEWS = 16
MAX_K = 1000


@dataclass(frozen=True, slots=True)
class OpenView:
    """A release with its segments mapped, and for each segment the ids deleted since it was built."""

    release: Release
    segments: tuple[Segment, ...]
    dead: Mapping[str, NDArray[np.int64]]

    @property
    def sequence(self) -> int:
        assert self.release.view is not None
        assert self.release.view.sequence is not None
        return self.release.view.sequence


class Engine:
    """Answers for one lens. Safe to use from many threads."""

    def __init__(self, catalog: Catalog, blobs: Blobs, pipeline: Pipeline) -> None:
        self.lens = pipeline.lens
        self._catalog = catalog
        self._blobs = blobs
        self._pipeline = pipeline
        self._releases: OrderedDict[str, OpenView] = OrderedDict()
        self._segments: dict[str, Segment] = {}
        self._verified: set[str] = set()
        self._opening = threading.Lock()

    def answer(self, question: Question) -> Answer:
        """Answer one question. Conflict if its release is of another lens, or has not seen what it must."""
        watch = Stopwatch()
        with watch.phase("open"):
            view = self._open(question.release)
        _check(view, question)
        picture, described = self._look(question, watch)
        if question.use == "recognize":
            return self._recognition(view, picture, described, watch)
        return self._matches(view, picture, described, question, watch)

    def _look(self, question: Question, watch: Stopwatch) -> tuple[PictureInfo, list[tuple[Cropped, Described]]]:
        with watch.phase("decode"):
            decoded = self._pipeline.decode(question.data)
            sha256 = digest_of(question.data)
        with watch.phase("crop"):
            crops = self._pipeline.crop(decoded)
        with watch.phase("describe"):
            described = [(crop, self._pipeline.describe(crop.jpeg, include=question.include)) for crop in crops]
        return PictureInfo(sha256, decoded.width, decoded.height), described

    def _recognition(
        self, view: OpenView, picture: PictureInfo, described: list[tuple[Cropped, Described]], watch: Stopwatch
    ) -> Recognition:
        objects = tuple(
            FoundObject(crop.box, crop.score, crop.category, said.labels, said.attributes) for crop, said in described
        )
        return Recognition(view.release.name, view.release.recipe, picture, objects, watch.ms)

    def _matches(
        self,
        view: OpenView,
        picture: PictureInfo,
        described: list[tuple[Cropped, Described]],
        question: Question,
        watch: Stopwatch,
    ) -> SearchAnswer:
        assert view.release.gallery is not None
        with watch.phase("search"):
            hits = [search(view.segments, said.vector, question.k, dead=view.dead) for _, said in described]
        with watch.phase("fetch"):
            matches = self._describe_hits(hits)
        objects = tuple(
            MatchedObject(crop.box, tuple(found), said.labels)
            for (crop, said), found in zip(described, matches, strict=True)
        )
        return SearchAnswer(view.release.name, view.sequence, view.release.gallery.name, picture, objects, watch.ms)

    def _describe_hits(self, hits: list[Hits]) -> list[list[Match]]:
        wanted = sorted({int(one) for hit in hits for one in hit.ids})
        with self._catalog.read() as tx:
            stored = galleries.describe(tx, wanted, model=self.lens.digests["classify"])
        if lost := set(wanted) - set(stored):
            raise Broken(
                "serving.unknown-object", f"the view names objects that the catalog does not know: {sorted(lost)}"
            )
        return [
            [
                Match(
                    id=int(one),
                    score=float(score),
                    box=stored[int(one)].box,
                    labels=stored[int(one)].labels,
                    picture=stored[int(one)].picture,
                    items=tuple(item.to_json() for item in stored[int(one)].items),
                )
                for one, score in zip(hit.ids, hit.scores, strict=True)
            ]
            for hit in hits
        ]

    def _open(self, name: str) -> OpenView:
        with self._opening:
            known = self._releases.get(name)
            if known is None:
                known = self._open_release(name)
                self._releases[name] = known
                while len(self._releases) > KEPT_VIEWS:
                    self._releases.popitem(last=False)
                self._forget_segments()
            else:
                self._releases.move_to_end(name)
            return known

    def _open_release(self, name: str) -> OpenView:
        with self._catalog.read() as tx:
            release = releases.get(tx, name)
            if release.lens != self.lens.digest:
                raise Conflict(
                    "serving.other-lens", f"release {name} is of lens {release.lens}, not {self.lens.digest}"
                )
            if release.view is None or release.view.sequence is None:
                return OpenView(release, (), {})
            opened = tuple(self._open_segment(digest) for digest in release.view.segments)
            dead = {
                segment.digest: galleries.dead_since(
                    tx, release.view.gallery, segment.manifest.as_of, release.view.sequence
                )
                for segment in opened
            }
        return OpenView(release, opened, dead)

    def _open_segment(self, digest: str) -> Segment:
        if digest not in self._segments:
            # Every byte once per engine; manifest and size whenever it is opened.
            self._segments[digest] = open_segment(self._blobs, digest, verify=digest not in self._verified)
            self._verified.add(digest)
        return self._segments[digest]

    def _forget_segments(self) -> None:
        used = {segment.digest for view in self._releases.values() for segment in view.segments}
        self._segments = {digest: segment for digest, segment in self._segments.items() if digest in used}


def _check(view: OpenView, question: Question) -> None:
    """Refuse what cannot be answered before any work is done for it."""
    if question.use != "search":
        return
    if view.release.gallery is None:
        raise BadInput("serving.no-gallery", f"release {view.release.name} has no gallery to search")
    if question.must_see > view.sequence:
        raise Conflict(
            "serving.too-old", f"release {view.release.name} has seen sequence {view.sequence}, not {question.must_see}"
        )
    if not 1 <= question.k <= MAX_K:
        raise BadInput("serving.bad-k", f"k is {question.k}, not 1 to {MAX_K}")


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

    def close(self) -> None:
        self._engines.clear()
