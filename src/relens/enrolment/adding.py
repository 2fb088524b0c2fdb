"""Enrolment: one picture into a gallery, now. What the live lens sees in it is found when the call returns.

An engine describes the picture, its bytes are stored as far as the gallery keeps any, and one short transaction takes a
sequence and adds objects, crops, vectors (to the tail), names and the item. A crash leaves garbage, never half of it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relens import gallery as galleries
from relens import releases
from relens.enrolment.changing import lock
from relens.enrolment.fields import read_fields
from relens.enrolment.keeping import Keeper, Kept, Place
from relens.enrolment.naming import name_blobs
from relens.errors import BadInput, Conflict
from relens.gallery import Gallery, Item, KnownPicture, NewObject, NewPicture, deleting, tail
from relens.gallery import items as shelf
from relens.gallery.tail import TailRow
from relens.recipes import Cropped, Described, Lens, attributes_of
from relens.serving import Description
from relens.store import Blobs, Catalog, Tx
from relens.telemetry import Stopwatch
from relens.values import digest_of

ATTEMPTS = 5
"""How often a picture is described anew because the gallery's lens changed meanwhile, or its bytes were collected."""

Describe = Callable[[str, str, bytes], Description]
"""Lens, release and picture to what an engine of that lens sees in it."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What an enrolment came to: picture, objects, item, and the gallery's sequence as of which all this is so."""

    gallery: str
    picture: str
    objects: tuple[int, ...]
    item: str
    sequence: int
    changed: bool
    timings_ms: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "gallery": self.gallery,
            "picture": self.picture,
            "objects": list(self.objects),
            "item": self.item,
            "sequence": self.sequence,
            "changed": self.changed,
            "timings_ms": dict(self.timings_ms),
        }


class Enroller:
    """Takes pictures into galleries. Safe to use from many threads."""

    def __init__(self, catalog: Catalog, blobs: Blobs, describe: Describe) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._describe = describe

    def enrol(self, gallery: str, data: bytes, given: Mapping[str, Any], *, allow_empty: bool = False) -> Enrolled:
        """Enrol a picture (its bytes) with what is said of its item; see `fields.read_fields`.

        The item's id is the picture's SHA-256 if none is given; an item of that id shows this picture from now on, and
        has what is said of it here. The same again changes nothing. BadInput for a picture that cannot be used, or in
        which nothing is found, unless that is allowed.
        """
        asked = _Asked(gallery, data, digest_of(data), read_fields(given), allow_empty)
        watch = Stopwatch()
        for _ in range(ATTEMPTS):
            try:
                done = self._try(asked, watch)
            except Conflict as error:
                if error.code != "jobs.blob-collected":
                    raise
                continue
            if done is not None:
                return replace(done, timings_ms=watch.ms)
        raise Conflict(
            "enrolment.changed",
            f"gallery {gallery} changed each time while the picture was looked at",
            hint="try again",
        )

    def _try(self, asked: _Asked, watch: Stopwatch) -> Enrolled | None:
        """One try: what became of it, None if something changed meanwhile."""
        with watch.phase("look"), self._catalog.read() as tx:
            live = releases.point(tx, asked.gallery)
            here = galleries.get(tx, asked.gallery)
            known = galleries.find_picture(tx, here.id, asked.sha256)
        description = None
        if not _is_here(known, allow_empty=asked.allow_empty):
            with watch.phase("describe"):
                description = self._describe(live.lens, live.release, asked.data)
            _require_objects(description, allow_empty=asked.allow_empty)
        with watch.phase("store"):
            kept, places = _store(self._blobs, here, description, asked)
        with watch.phase("commit"), self._catalog.begin() as tx:
            commit = _Commit(tx, self._catalog.now(tx), lock(tx, asked.gallery), asked)
            return commit.write(self._blobs, description, kept, places)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked for: a picture with its digest, and what is said of its item."""

    gallery: str
    data: bytes
    sha256: str
    fields: Mapping[str, Any]
    allow_empty: bool


def _is_here(known: KnownPicture | None, *, allow_empty: bool) -> bool:
    """Whether a picture need not be looked at: the gallery shows what is in it, or holds it although nothing is."""
    return known is not None and not known.staged and (bool(known.objects) or allow_empty)


def _require_objects(description: Description, *, allow_empty: bool) -> None:
    if description.objects or allow_empty:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in description.dropped.items())
    raise BadInput(
        "enrolment.nothing-found",
        "nothing is found in the picture" + (f" but what the recipe leaves out: {reasons}" if reasons else ""),
        hint="look with `relens recognize`; the item alone is taken with --allow-empty (allow_empty=true)",
    )


def _store(
    blobs: Blobs, here: Gallery, description: Description | None, asked: _Asked
) -> tuple[Kept, list[Place | None]]:
    """The bytes that the gallery keeps, stored, and where each object's crop lies."""
    with Keeper(blobs, here.retention) as keeper:
        if description is None:
            return keeper.finish(), []
        keeper.picture(asked.data, asked.sha256)
        places = [keeper.crop(asked.sha256, number, crop) for number, (crop, _) in enumerate(description.objects)]
        return keeper.finish(), places


class _Commit:
    """The one transaction of an enrolment, with the gallery locked."""

    def __init__(self, tx: Tx, now: float, here: Gallery, asked: _Asked) -> None:
        self._tx = tx
        self._now = now
        self._here = here
        self._sha256 = asked.sha256
        self._size = len(asked.data)
        self._fields = asked.fields

    def write(
        self, blobs: Blobs, description: Description | None, kept: Kept, places: Sequence[Place | None]
    ) -> Enrolled | None:
        """Add what is new. None if it must be looked at anew: by another lens, or under another retention."""
        tx, here = self._tx, self._here
        known = galleries.find_picture(tx, here.id, self._sha256)
        if known is not None and not known.staged and (known.objects or description is None):
            return self._show(known)
        lens = releases.live_lens(tx, here)
        if description is None or lens.digest != description.lens or kept.retention != here.retention:
            return None
        sequence = galleries.take_sequence(tx, here.id)
        name_blobs(tx, blobs, kept.named, self._now)
        if known is not None:  # staged by a plan, or nothing was in it: this takes its place
            deleting.set_aside(tx, known.id)
        item, before = self._item()
        objects = [
            _new_object(crop, said, kept.crop(place), lens)
            for (crop, said), place in zip(description.objects, places, strict=True)
        ]
        picture, ids = self._add(sequence, description, objects, item.uri)
        if known is not None:
            deleting.replace_picture(tx, here.id, known.id, picture, sequence)
        shelf.put_item(tx, here.id, item, picture, self._now)
        if before is not None:
            deleting.release_unshown(tx, here.id, [before], sequence)
        return self._enrolled(item, ids, sequence)

    def _show(self, known: KnownPicture) -> Enrolled:
        """The gallery holds the picture: only the item can change."""
        tx, here = self._tx, self._here
        item, before = self._item(known.id)
        if before == known.id and shelf.find_item(tx, here.id, item.key) == (item, before):
            return self._enrolled(item, known.objects, here.sequence, changed=False)
        sequence = galleries.take_sequence(tx, here.id)
        shelf.put_item(tx, here.id, item, known.id, self._now)
        if before is not None:
            deleting.release_unshown(tx, here.id, [before], sequence)
        return self._enrolled(item, known.objects, sequence)

    def _item(self, picture: int | None = None) -> tuple[Item, int | None]:
        """The item as it is to be, and the picture that it showed before. An item that exists keeps its day."""
        key = self._fields.get("key", self._sha256)
        before = shelf.find_item(self._tx, self._here.id, key)
        said: dict[str, Any] = {"uri": f"urn:sha256:{self._sha256}", "day": self._today}
        if before is not None:
            old, shown = before
            said |= {"day": old.day, "off_shelf": old.off_shelf}
            said |= {"uri": old.uri} if shown == picture else {}
        return Item(**{**said, **self._fields, "key": key}), None if before is None else before[1]

    @property
    def _today(self) -> str:
        return dt.datetime.fromtimestamp(self._now).astimezone().date().isoformat()

    def _add(
        self, sequence: int, description: Description, objects: Sequence[NewObject], uri: str
    ) -> tuple[int, list[int]]:
        """The picture with its objects, and their vectors in the tail. Their day is the one that they come in on."""
        day = self._fields.get("day", self._today)
        picture = NewPicture(
            sha256=self._sha256,
            size=self._size,
            width=description.picture.width or 0,
            height=description.picture.height or 0,
            item=Item(self._sha256, uri, day),
            objects=tuple(objects),
        )
        picture_id, ids = galleries.add(self._tx, self._here.id, sequence, picture)
        rows = [
            TailRow(one, said.vector.space, sequence, crop.category, day, said.vector.values.astype("<f2").tobytes())
            for one, (crop, said) in zip(ids, description.objects, strict=True)
            if said.vector is not None
        ]
        tail.append(self._tx, self._here.id, rows)
        return picture_id, ids

    def _enrolled(self, item: Item, ids: Sequence[int], sequence: int, *, changed: bool = True) -> Enrolled:
        return Enrolled(self._here.name, self._sha256, tuple(ids), item.key, sequence, changed, {})


def _new_object(crop: Cropped, said: Described, place: tuple[str, int, int] | None, lens: Lens) -> NewObject:
    return NewObject(
        box=crop.box,
        score=crop.score,
        category=crop.category,
        labels=said.labels,
        crop=place,
        vector=None,
        attributes=attributes_of(crop, said),
        cut=None if crop.cut == crop.box else crop.cut,
        landmarks=crop.landmarks,
        text=said.text,
        model=lens.labeller_of(crop.category),
    )
