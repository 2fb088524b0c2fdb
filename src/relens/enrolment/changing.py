"""Items that change, and objects, pictures and items that go.

Each call takes one sequence, if it changes anything, and what it did is visible in every engine when it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from relens import gallery as galleries
from relens.enrolment.fields import read_fields
from relens.errors import BadInput, Missing
from relens.gallery import Gallery, deleting
from relens.gallery import items as shelf
from relens.store import Catalog, Tx


def read_item(catalog: Catalog, gallery: str, key: str) -> dict[str, Any]:
    """An item with its picture and the objects in it, as JSON. Missing if there is none."""
    with catalog.read() as tx:
        here = galleries.get(tx, gallery)
        item, picture = shelf.get_item(tx, here.id, key)
        info, objects = galleries.picture_of(tx, picture)
    return item.to_json() | {"gallery": gallery, "picture": replace(info, uri=item.uri).to_json(), "objects": objects}


def change_item(catalog: Catalog, gallery: str, key: str, given: Mapping[str, Any]) -> None:
    """Change what is said of an item: `given` by the names of its columns; what is not named stays.

    Its objects stay in the segment of the day that they came in on. Missing if there is no such item.
    """
    changes = read_fields(given)
    if "key" in changes:
        raise BadInput("enrolment.bad-field", "the id of an item stays", hint="enrol it anew, and delete this one")
    with catalog.begin() as tx:
        here = lock(tx, gallery)
        item, picture = shelf.get_item(tx, here.id, key)
        changed = replace(item, **changes)
        if changed != item:
            galleries.take_sequence(tx, here.id)
            shelf.put_item(tx, here.id, changed, picture, catalog.now(tx))


def delete(
    catalog: Catalog,
    gallery: str,
    *,
    objects: Sequence[int] = (),
    pictures: Sequence[str] = (),
    items: Sequence[str] = (),
) -> dict[str, Any]:
    """Delete all of these, or none: `{"gallery", "deleted", "sequence"}` with the number of objects that went.

    objects   by id; with the last one of a picture go the picture and the items that show it
    pictures  by SHA-256, with their objects and the items that show them
    items     by the user's ids; with its last item goes a picture with its objects

    Missing, naming it, if one of them is not there, with `gone` if it was deleted before. BadInput if none is named.
    """
    if not (objects or pictures or items):
        raise BadInput("enrolment.nothing-named", "nothing was named that is to be deleted")
    with catalog.begin() as tx:
        here = lock(tx, gallery)
        deleting.require_living(tx, here.id, objects)
        released = [_shown_picture(tx, here, sha256) for sha256 in dict.fromkeys(pictures)]
        left = {key: shelf.get_item(tx, here.id, key)[1] for key in items}
        sequence = galleries.take_sequence(tx, here.id)
        # From the small to the large, so that nothing is buried twice.
        deleting.delete_objects(tx, here.id, list(dict.fromkeys(objects)), sequence)
        for key in left:
            shelf.delete_item(tx, here.id, key)
        deleting.release_unshown(tx, here.id, sorted(set(left.values())), sequence)
        deleting.release(tx, here.id, released, sequence)
        dead, _ = galleries.dead_since(tx, here.id, sequence - 1, sequence)
    return {"gallery": gallery, "deleted": len(dead), "sequence": sequence}


def lock(tx: Tx, gallery: str) -> Gallery:
    """A gallery by name, locked, as it is then. Missing if there is none."""
    here = galleries.get(tx, gallery)
    return replace(here, sequence=galleries.lock(tx, here.id))


def _shown_picture(tx: Tx, here: Gallery, sha256: str) -> int:
    picture = galleries.find_picture(tx, here.id, sha256)
    if picture is None or picture.staged:
        raise Missing("gallery.no-picture", f"gallery {here.name} shows no picture {sha256}")
    return picture.id
