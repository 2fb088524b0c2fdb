"""What a gallery shows as of one sequence: its objects with all that is kept of them, a page at a time.

Pages follow each other by increasing id inside one snapshot of the catalog, so that what is enrolled, changed or
deleted meanwhile is not mixed in. No more than a page is held, with the files that its vectors lie in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa

from relens import gallery as galleries
from relens import releases
from relens.errors import Conflict, Missing
from relens.gallery import Item, StoredObject
from relens.gallery.deleting import living, published
from relens.gallery.items import item_of
from relens.recipes import Lens
from relens.store import Blobs, Catalog, Tx
from relens.store.schema import items, objects, pictures, plans, tail, texts
from relens.store.schema import vectors as filed
from relens.values import Floats, PictureInfo
from relens.vectors import read_vectors
from relens.vectors.files import unit_rows

PAGE = 500
DIGITS = 6
"""Of a vector's values, as in answers; it is stored with three."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Exported:
    """An object with all that is kept of it. Without `stored`: a picture that items show and nothing was found in.

    day     of the picture
    vector  (d,) float32 of unit length in `space`, if it was asked for and there is one
    """

    picture: PictureInfo
    day: str
    items: tuple[Item, ...]
    stored: StoredObject | None = None
    text: str | None = None
    space: str | None = None
    vector: Floats | None = None

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"picture": self.picture.to_json() | {"day": self.day}}
        if self.stored is not None:
            one = self.stored.to_json()
            named = {key: one[key] for key in ("box", "score", "category", "labels", "attributes", "sequence")}
            more = {"landmarks": self.stored.landmarks, "text": self.text, "space": self.space}
            shown = {"id": self.stored.id, **shown, **named, **{k: v for k, v in more.items() if v is not None}}
        if self.vector is not None:
            shown["vector"] = np.round(self.vector.astype(np.float64), DIGITS).tolist()
        return shown | {"items": [item.to_json() for item in self.items]}


@contextlib.contextmanager
def open_contents(catalog: Catalog, blobs: Blobs, gallery: str, *, vectors: bool) -> Iterator[Contents]:
    """What a gallery shows now, for as long as the context lasts. Missing if there is no such gallery."""
    with catalog.snapshot() as tx:
        live = releases.point(tx, gallery)
        head = {"gallery": gallery, "release": live.release, "sequence": live.sequence}
        lens = releases.get_lens(tx, live.lens)
        found = _Vectors(tx, blobs, lens) if vectors else None
        yield Contents(tx, head, galleries.get(tx, gallery).id, lens, found)


# -- pages ----------------------------------------------------------------------------------------------------------

_OBJECTS = (
    sa.select(objects.c.id, objects.c.category, pictures.c.day, texts.c.text)
    .join(pictures, pictures.c.id == objects.c.picture)
    .outerjoin(plans, plans.c.id == objects.c.plan)
    .outerjoin(texts, texts.c.object == objects.c.id)
    .where(objects.c.gallery == sa.bindparam("gallery"), objects.c.id > sa.bindparam("after"), published(), living())
    .order_by(objects.c.id)
    .limit(PAGE)
)
_FOUND = sa.select(objects.c.id).outerjoin(plans, plans.c.id == objects.c.plan)
_BARE = (
    sa.select(pictures)
    .where(
        pictures.c.gallery == sa.bindparam("gallery"),
        pictures.c.id > sa.bindparam("after"),
        sa.exists().where(items.c.picture == pictures.c.id),
        ~_FOUND.where(objects.c.picture == pictures.c.id, published(), living()).exists(),
    )
    .order_by(pictures.c.id)
    .limit(PAGE)
)
_ITEMS = sa.select(items).where(items.c.picture.in_(sa.bindparam("ids", expanding=True))).order_by(items.c.key)


class Contents:
    """A gallery inside one snapshot. `head` is its name, its release, and the sequence that all this is as of."""

    def __init__(self, tx: Tx, head: Mapping[str, Any], gallery: int, lens: Lens, vectors: _Vectors | None) -> None:
        self.head = dict(head)
        self._tx = tx
        self._gallery = gallery
        self._lens = lens
        self._vectors = vectors

    def pages(self) -> Iterator[list[Exported]]:
        """Objects by increasing id, then pictures without one by theirs.

        Conflict if a file of vectors has gone since the snapshot was taken.
        """
        for rows in self._keyset(_OBJECTS):
            yield self._objects(rows)
        for rows in self._keyset(_BARE):
            yield self._bare(rows)

    def _keyset(self, query: sa.Select[Any]) -> Iterator[Sequence[sa.RowMapping]]:
        after = 0
        while rows := self._tx.execute(query, {"gallery": self._gallery, "after": after}).mappings().all():
            yield rows
            after = rows[-1]["id"]

    def _objects(self, rows: Sequence[sa.RowMapping]) -> list[Exported]:
        stored: dict[int, StoredObject] = {}
        for model, ids in _grouped((self._lens.labeller_of(row["category"]), row["id"]) for row in rows).items():
            stored |= galleries.describe(self._tx, ids, model=model)
        found = {} if self._vectors is None else self._vectors.of({row["id"]: row["category"] for row in rows})
        page = []
        for row in rows:
            one = stored[row["id"]]
            space, vector = found.get(one.id, (None, None))
            page.append(Exported(one.picture, row["day"], one.items, one, row["text"], space, vector))
        return page

    def _bare(self, rows: Sequence[sa.RowMapping]) -> list[Exported]:
        shown = self._tx.execute(_ITEMS, {"ids": [row["id"] for row in rows]}).mappings()
        of = _grouped((item["picture"], item_of(item)) for item in shown)
        page = []
        for row in rows:
            mine = tuple(of[row["id"]])
            picture = PictureInfo(row["sha256"], row["width"], row["height"], mine[0].uri)
            page.append(Exported(picture, row["day"], mine))
        return page


def _grouped(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    groups: dict[Key, list[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


# -- vectors --------------------------------------------------------------------------------------------------------

_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_TAIL = sa.select(tail.c.object, tail.c.space, tail.c.vector).where(tail.c.object.in_(_IDS))
_FILED = sa.select(filed.c.object, filed.c.space, filed.c.file, filed.c.row).where(filed.c.object.in_(_IDS))


class _Vectors:
    """Vectors of objects in the spaces of one lens: from the tail, else from their files."""

    def __init__(self, tx: Tx, blobs: Blobs, lens: Lens) -> None:
        self._tx = tx
        self._blobs = blobs
        self._lens = lens
        self._read: dict[str, Floats] = {}

    def of(self, categories: Mapping[int, str]) -> dict[int, tuple[str, Floats]]:
        """Space and vector of objects by id, given the category of each; those without a vector are left out."""
        spaces = {one: space for one, name in categories.items() if (space := self._lens.space_of(name)) is not None}
        wanted = {(one, space.digest) for one, space in spaces.items()}
        ids = {"ids": sorted(spaces)}
        found = {
            row.object: (row.space, unit_rows(np.frombuffer(row.vector, "<f2")[None])[0])
            for row in self._tx.execute(_TAIL, ids)
            if (row.object, row.space) in wanted
        }
        rows = [row for row in self._tx.execute(_FILED, ids) if (row.object, row.space) in wanted]
        rest = [row for row in rows if row.object not in found]
        # A file reaches over several pages: what was read for the last one is kept for this.
        self._read = {file: self._file(file, space) for file, space in {row.file: row.space for row in rest}.items()}
        return found | {row.object: (row.space, self._read[row.file][row.row]) for row in rest}

    def _file(self, file: str, space: str) -> Floats:
        if file in self._read:
            return self._read[file]
        try:
            return read_vectors(self._blobs, file, None, space=space)
        except Missing as error:
            raise Conflict(
                "gateway.export-overtaken",
                "vectors of the gallery have gone since the export began",
                hint="export again; if this is said again, `relens doctor --deep` lists what is missing",
            ) from error
