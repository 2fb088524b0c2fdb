"""The questions: what is in a picture, what looks like it, where does it say this, is it the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from relens import gallery as galleries
from relens import releases
from relens.config import Settings
from relens.errors import BadInput, Missing, RelensError
from relens.gallery.texts import find_text
from relens.gateway.checking import category_of, check_threshold, limits_of
from relens.gateway.drawing import draw_answer
from relens.gateway.likeness import likeness_of
from relens.narrowing import EVERYTHING, NO_HINTS, Hints, Where
from relens.recipes import INCLUDES, Lens, RecipeBook
from relens.releases import Release
from relens.serving import Answerer, Question
from relens.serving.views import Views
from relens.store import Blobs, Catalog
from relens.telemetry import LATENCY, PHASES, REQUESTS
from relens.values import FoundObject, Recognition, SearchAnswer, TextAnswer, TextMatch, Verification

MAX_TEXTS = 1000


class Asking:
    """The questions, over one home. Safe to use from many threads."""

    _settings: Settings
    _catalog: Catalog
    _blobs: Blobs
    _book: RecipeBook
    _answers: Answerer

    def recognize(self, data: bytes, *, recipe: str | Path, include: Sequence[str] = ()) -> Recognition:
        """What is in a picture (its bytes), under the lens that the recipe resolves to now.

        `recipe` is a name, or the path of a file, which only a caller on this machine should choose.
        `include` may name "vector", "subject" and "heatmap". BadInput for a picture that cannot be used.
        """
        _check_include(include)
        return self._recognize(self._recipe_release(self._book.lens(recipe)), data, include)

    def search(
        self,
        data: bytes,
        *,
        gallery: str,
        k: int = 10,
        where: Where = EVERYTHING,
        hints: Hints = NO_HINTS,
        threshold: float | None = None,
    ) -> SearchAnswer:
        """The `k` objects of a gallery that look most like the picture, best first, as of now.

        where      which objects may answer
        hints      what is known of the thing, for the recipe's rules of ranking
        threshold  cosine under which nothing matches, instead of the recipe's
        """
        check_threshold(threshold)
        timeout_s = self._settings.server.timeout_s
        question = Question("search", "", data, k, timeout_s=timeout_s, where=where, hints=hints, threshold=threshold)
        answer = self._ask_live(gallery, question)
        assert isinstance(answer, SearchAnswer)
        return answer

    def search_text(self, text: str, *, gallery: str, k: int = 10, where: Where = EVERYTHING) -> TextAnswer:
        """The `k` objects of a gallery in which all words of the text were read, best first.

        where  which objects may answer; of every category, if none is named

        BadInput for a text without a word. Words in double quotes must follow each other.
        """
        if not 1 <= k <= MAX_TEXTS:
            raise BadInput("serving.bad-k", f"k is {k}, not 1 to {MAX_TEXTS}")
        with self._catalog.read() as tx:
            live = releases.point(tx, gallery)
            held = galleries.get(tx, gallery)
            found = find_text(tx, held.id, text, upto_sequence=live.sequence, limit=k, where=where)
            stored = galleries.describe(tx, [one for one, _ in found])
        matches = tuple(_text_match(stored[one], score) for one, score in found if one in stored)
        return TextAnswer(live.release, live.sequence, gallery, text, matches)

    def verify(self, one: bytes, other: bytes, *, recipe: str | Path, threshold: float | None = None) -> Verification:
        """Whether the strongest objects of two pictures are the same, by the cosine of their vectors.

        BadInput, saying which picture, if one cannot be used or nothing is found in it; also for objects of two
        categories.
        """
        check_threshold(threshold)
        lens = self._book.lens(recipe)
        release = self._recipe_release(lens)
        answers = [self._numbered(number, data, release) for number, data in enumerate((one, other), 1)]
        best = [_strongest(answer, number) for number, answer in enumerate(answers, 1)]
        if best[0].category != best[1].category:
            raise BadInput(
                "gateway.not-alike",
                f"the first picture shows a {best[0].category}, the second a {best[1].category}",
                hint="objects of different kinds are not compared",
            )
        vectors = [np.asarray(found.attributes["vector"], np.float64) for found in best]
        cosine = float(vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1]))
        return Verification(
            release=release.name,
            score=cosine,
            threshold=lens.thresholds.get("match") if threshold is None else threshold,
            boxes=(best[0].box, best[1].box),
            found=(len(answers[0].objects), len(answers[1].objects)),
        )

    def likeness(self, gallery: str, *, category: str | None = None, same: str | None = None) -> dict[str, Any]:
        """How alike the objects of a category of a gallery are, and the threshold that this suggests.

        category  one of its recipe's; may be left out if there is only one
        same      column of the items that says what is the same thing, such as `person`

        See `likeness_of`. BadInput for a category that there is not; Conflict if it has too few objects with vectors.
        """
        with self._catalog.read() as tx:
            live = releases.point(tx, gallery)
            lens = releases.get_lens(tx, live.lens)
        wanted = category_of(lens, category)
        view = Views(self._catalog, self._blobs, lens).see(live.release, live.sequence)
        segments = [segment for segment in view.segments if segment.manifest.category == wanted]

        def things(ids: Sequence[int]) -> dict[int, str]:
            with self._catalog.read() as tx:
                stored = galleries.describe(tx, ids)
            told = {one: [item.to_json().get(same or "") for item in found.items] for one, found in stored.items()}
            known = {one: [value for value in values if value is not None] for one, values in told.items()}
            return {one: str(values[0]) for one, values in known.items() if values}

        return likeness_of(segments, view.dead, None if same is None else things)

    def draw(self, data: bytes, answer: Recognition) -> bytes:
        """The picture as a JPEG, with what was recognised in it: boxes, names, scores, and a heat map if it has one."""
        return draw_answer(data, answer, limits_of(self._settings))

    def _recognize(self, release: Release, data: bytes, include: Sequence[str]) -> Recognition:
        question = Question(
            "recognize", release.name, data, include=tuple(include), timeout_s=self._settings.server.timeout_s
        )
        answer = self._ask(release.lens, question)
        assert isinstance(answer, Recognition)
        return answer

    def _numbered(self, number: int, data: bytes, release: Release) -> Recognition:
        """What is in one of two pictures, with its vectors; an error says in which of them."""
        try:
            return self._recognize(release, data, ("vector",))
        except BadInput as error:
            raise BadInput(error.code, f"picture {number}: {error.message}", hint=error.hint) from error

    def _ask_live(self, gallery: str, question: Question, tries: int = 3) -> Any:
        """Ask what answers for a gallery now; anew, if that is retired while the question is on its way."""
        with self._catalog.read() as tx:
            live = releases.point(tx, gallery)
        try:
            return self._ask(live.lens, replace(question, release=live.release, must_see=live.sequence))
        except Missing as error:
            if error.code != "releases.retired" or tries == 1:
                raise
            return self._ask_live(gallery, question, tries - 1)

    def _ask(self, lens: str, question: Question) -> Any:
        start = time.perf_counter()
        outcome = "failed"
        try:
            answer = self._answers.ask(lens, question)
            outcome = "answered"
        except RelensError as error:
            outcome = error.code
            raise
        finally:
            REQUESTS.labels(question.use, outcome).inc()
            LATENCY.labels(question.use).observe(time.perf_counter() - start)
        for phase, took_ms in answer.timings_ms.items():
            PHASES.labels(question.use, phase).observe(took_ms / 1000)
        return answer

    def _recipe_release(self, lens: Lens) -> Release:
        with self._catalog.read() as tx:
            known = releases.find_recipe_release(tx, lens)
        if known is not None:
            return known
        with self._catalog.begin() as tx:
            return releases.open_recipe(tx, lens, self._catalog.now(tx))


def _strongest(answer: Recognition, number: int) -> FoundObject:
    """The object with the best score, the larger of two that are as good."""
    if not answer.objects:
        raise BadInput(
            "gateway.nothing-found",
            f"nothing is found in picture {number} by recipe {answer.recipe}",
            hint="is it the right way up, and large enough? `relens recognize --draw` shows what is found",
        )
    best = max(answer.objects, key=lambda found: (round(found.score, 3), found.box.w * found.box.h))
    if "vector" not in best.attributes:
        raise BadInput(
            "gateway.no-vector",
            f"recipe {answer.recipe} gives a {best.category} no vector",
            hint="name a recipe that embeds what is to be compared",
        )
    return best


def _text_match(stored: galleries.StoredObject, score: float) -> TextMatch:
    items = tuple(item.to_json() for item in stored.items)
    return TextMatch(stored.id, score, str(stored.attributes.get("text", "")), stored.box, stored.picture, items)


def _check_include(include: Sequence[str]) -> None:
    if unknown := sorted(set(include) - set(INCLUDES)):
        raise BadInput(
            "gateway.bad-include", f"cannot include {', '.join(unknown)}", hint=f"known: {', '.join(INCLUDES)}"
        )
