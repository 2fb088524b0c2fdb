"""What is kept in galleries, one thing at a time: enrol, look at, change, delete. And what they are to keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relens import bulk, enrolment, releases
from relens import gallery as galleries
from relens.config import Settings
from relens.enrolment import Enrolled, Enroller, check_day
from relens.enrolment.fields import read_fields
from relens.errors import BadInput, Conflict
from relens.gateway import views
from relens.gateway.checking import category_of, check_threshold
from relens.recipes import RecipeBook
from relens.serving import Description, Question
from relens.store import Blobs, Catalog

NOTHING_SAID: Mapping[str, Any] = {}
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Long work that was written down: its plan, and whether that was there already."""

    plan: int
    continued: bool


class Keeping:
    """Changes of galleries, over one home. What is done is visible, in every engine, when the call returns."""

    _settings: Settings
    _catalog: Catalog
    _blobs: Blobs
    _book: RecipeBook

    _ask: Callable[[str, Question], Any]

    def create_gallery(
        self, name: str, *, recipe: str | Path | None = None, retention: str | None = None
    ) -> dict[str, Any]:
        """An empty gallery, to be enrolled into: the gallery, as `gallery` gives it. The same again changes nothing.

        recipe     a name, or the path of a file; the settings' if none is named. The gallery keeps its lens
        retention  what it keeps of pictures: "originals" (with crops), "crops", as is usual, or "none"

        Conflict if there is one of that name with another lens or retention.
        """
        galleries.check_name(name)
        wanted = None if retention is None else galleries.check_retention(retention)
        lens = self._book.lens(recipe or self._settings.imports.recipe)
        with self._catalog.begin() as tx:
            now = self._catalog.now(tx)
            before = galleries.find(tx, name)
            here = releases.open_gallery(tx, name, lens, now)
            galleries.lock(tx, here.id)
            ours = before is None and here.created_at == now  # and nobody else's of this moment
            if ours and wanted is not None:
                galleries.set_retention(tx, here.id, wanted)
            elif wanted not in {None, here.retention}:
                raise Conflict(
                    "gateway.other-retention",
                    f"there is a gallery {name}, and it keeps {here.retention}",
                    hint=f"`relens gallery set {name} --retention {wanted}` changes that",
                )
            return views.gallery_json(tx, galleries.get(tx, name))

    def set_retention(self, name: str, retention: str) -> dict[str, Any]:
        """What a gallery keeps of pictures from now on: the gallery. What is stored already stays until a purge."""
        wanted = galleries.check_retention(retention)
        with self._catalog.begin() as tx:
            here = galleries.get(tx, name)
            galleries.lock(tx, here.id)
            galleries.set_retention(tx, here.id, wanted)
            return views.gallery_json(tx, galleries.get(tx, name))

    def set_threshold(self, name: str, threshold: float | None, *, category: str | None = None) -> dict[str, Any]:
        """The cosine under which nothing of a gallery matches from now on: the gallery. None: what its recipe says.

        category  one of its recipe's; may be left out if there is only one. Those of one space have one threshold

        It holds for the space that the gallery has now. BadInput for a category that there is not, or without vectors.
        """
        check_threshold(threshold)
        with self._catalog.begin() as tx:
            here = galleries.get(tx, name)
            galleries.lock(tx, here.id)
            lens = releases.live_lens(tx, here)
            wanted = category_of(lens, category)
            space = lens.space_of(wanted)
            if space is None:
                raise BadInput("gateway.no-vectors", f"objects of category {wanted} have no vectors to compare")
            galleries.set_threshold(tx, here.id, space.digest, threshold)
            return views.gallery_json(tx, here)

    def enrol(
        self, data: bytes, *, gallery: str, item: Mapping[str, Any] = NOTHING_SAID, allow_empty: bool = False
    ) -> Enrolled:
        """Take a picture (its bytes) into a gallery, with what is said of its item: id, title, price, shop, day, uri,
        data, off_shelf.

        The item's id is the picture's SHA-256 if none is given. The same again changes nothing. BadInput for a picture
        that cannot be used, and for one in which nothing is found, unless `allow_empty`.
        """
        enroller = Enroller(self._catalog, self._blobs, self._describe)
        return enroller.enrol(gallery, data, item, allow_empty=allow_empty)

    def item(self, gallery: str, key: str) -> dict[str, Any]:
        """An item with its picture and the ids of the objects in it. Missing if there is none."""
        return enrolment.read_item(self._catalog, gallery, _key(key))

    def change_item(self, gallery: str, key: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change columns of an item; those that are not named stay, None clears title, price and shop. The item."""
        enrolment.change_item(self._catalog, gallery, _key(key), changes)
        return self.item(gallery, key)

    def delete(
        self, gallery: str, *, objects: Sequence[int] = (), pictures: Sequence[str] = (), items: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Delete objects by id, pictures by SHA-256 and items by their ids, all or none, under one sequence.

        With its last item, or its last object, goes a picture, and with a picture all that it has. Missing, with
        `gone` if it was deleted before, if one is not there. The bytes stay in the store until a purge.
        """
        if strange := [one for one in pictures if not SHA256.fullmatch(one)]:
            raise BadInput("gateway.bad-digest", f"{strange[0]!r} is no SHA-256", hint="64 digits from 0-9 and a-f")
        keys = [_key(one) for one in items]
        return enrolment.delete(self._catalog, gallery, objects=objects, pictures=pictures, items=keys)

    def delete_object(self, object_id: int) -> dict[str, Any]:
        """Delete an object by id alone."""
        with self._catalog.read() as tx:
            gallery = galleries.get_object(tx, object_id).gallery
        return self.delete(gallery, objects=[object_id])

    # -- upkeep

    def compact(self, gallery: str) -> Waiting:
        """Fold what was enrolled one by one into segments, and merge small ones: the plan of it."""
        return self._upkeep(gallery, bulk.COMPACT)

    def compact_due(self) -> list[int]:
        """Plans of the galleries that are to be compacted now, by the setting `galleries.compact_at`."""
        at = self._settings.galleries.compact_at
        with self._catalog.read() as tx:
            due = [gallery.name for gallery in galleries.every(tx) if bulk.is_due(tx, gallery, at)]
        return [self.compact(name).plan for name in due]

    def rebuild_day(self, gallery: str, day: str) -> Waiting:
        """Build the segments of a day anew from its objects' vectors: the plan of it. A dropped day comes back."""
        return self._upkeep(gallery, bulk.REBUILD, day=check_day(day))

    def drop_day(self, gallery: str, day: str) -> Waiting:
        """Take the segments of a day out of answers: the plan of it. Its objects stay, and are there by their ids."""
        return self._upkeep(gallery, bulk.DROP, day=check_day(day))

    def purge(self, gallery: str) -> Waiting:
        """Take all bytes and data of what was deleted out of store and catalog: the plan of it.

        What the gallery keeps of living pictures is brought in line with its retention. When the plan is done, nothing
        is left of what was deleted before it was asked for.
        """
        return self._upkeep(gallery, bulk.PURGE)

    def segments(self, gallery: str) -> dict[str, Any]:
        """`{"segments": […], "tail": n}`: what answers for a gallery, by category and day; those on the shelf too."""
        with self._catalog.read() as tx:
            return views.segments_json(tx, galleries.get(tx, gallery))

    def _upkeep(self, gallery: str, kind: str, **spec: Any) -> Waiting:
        return Waiting(*bulk.plan_upkeep(self._catalog, gallery, kind, spec=spec))

    def _describe(self, lens: str, release: str, data: bytes) -> Description:
        question = Question("describe", release, data, timeout_s=self._settings.server.timeout_s)
        answer = self._ask(lens, question)
        assert isinstance(answer, Description)
        return answer


def _key(given: str) -> str:
    """The id of an item, as a catalog can be asked for it. BadInput for what no item can be called."""
    return str(read_fields({"id": given})["key"])
