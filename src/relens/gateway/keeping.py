"""What is kept in galleries, one thing at a time: enrol, look at, change, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relens import enrolment
from relens import gallery as galleries
from relens.config import Settings
from relens.enrolment import Enrolled, Enroller
from relens.serving import Description, Question
from relens.store import Blobs, Catalog

NOTHING_SAID: Mapping[str, Any] = {}


class Keeping:
    """Changes of galleries, over one home. What is done is visible, in every engine, when the call returns."""

    _settings: Settings
    _catalog: Catalog
    _blobs: Blobs

    _ask: Callable[[str, Question], Any]

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
        return enrolment.read_item(self._catalog, gallery, key)

    def change_item(self, gallery: str, key: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change columns of an item; those that are not named stay, None clears title, price and shop. The item."""
        enrolment.change_item(self._catalog, gallery, key, changes)
        return self.item(gallery, key)

    def delete(
        self, gallery: str, *, objects: Sequence[int] = (), pictures: Sequence[str] = (), items: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Delete objects by id, pictures by SHA-256 and items by their ids, all or none, under one sequence.

        With its last item, or its last object, goes a picture, and with a picture all that it has. Missing, with
        `gone` if it was deleted before, if one is not there. The bytes stay in the store until a purge.
        """
        return enrolment.delete(self._catalog, gallery, objects=objects, pictures=pictures, items=items)

    def delete_object(self, object_id: int) -> dict[str, Any]:
        """Delete an object by id alone."""
        with self._catalog.read() as tx:
            gallery = galleries.get_object(tx, object_id).gallery
        return self.delete(gallery, objects=[object_id])

    def _describe(self, lens: str, release: str, data: bytes) -> Description:
        question = Question("describe", release, data, timeout_s=self._settings.server.timeout_s)
        answer = self._ask(lens, question)
        assert isinstance(answer, Description)
        return answer
