"""Pictures to calibrate a model with: of a gallery, as the model is given its objects, or of a folder.

So many are chosen, spread evenly over what there is, the same every time. They are read one by one, later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from relens import bulk, releases
from relens import gallery as galleries
from relens.bulk.listings import path_of
from relens.config import Settings
from relens.errors import BadInput, Conflict, Missing
from relens.gallery import Gallery
from relens.gallery.deleting import held, living, published
from relens.gateway.checking import limits_of
from relens.models import Registered
from relens.quantization import Look, Sample
from relens.recipes import Lens
from relens.recipes.crops import Cropped, see
from relens.store import Blobs, Catalog, Tx
from relens.store.schema import blobs, crops, objects, pictures, plans
from relens.values import Box, Floats
from relens.vision import decode, preprocess


class Sampling:
    """Pictures of galleries and folders as models are given them, over one home."""

    _settings: Settings
    _catalog: Catalog
    _blobs: Blobs

    crop: Callable[[int], bytes]

    def sample(self, source: str | Path, model: Registered, count: int) -> Sample:
        """Up to `count` pictures for a model: of the gallery of that name, else of the folder.

        A detector gets the originals of a gallery, any other model the crops of the objects that it is for. Missing if
        there is neither gallery nor folder; Conflict for a gallery that keeps no such pictures; BadInput for a folder
        without pictures, and for one if the model aligns by landmarks.
        """
        with self._catalog.read() as tx:
            gallery = galleries.find(tx, str(source))
        if gallery is not None:
            looks = self._of_gallery(gallery, model, count)
            return Sample(f"gallery {gallery.name}", looks)
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise Missing(
                "gateway.no-pictures",
                f"there is no gallery and no folder {source}",
                hint="`relens gallery ls` lists galleries",
            )
        return Sample(f"folder {folder.resolve().name}", self._of_folder(folder, model, count))

    def _of_folder(self, folder: Path, model: Registered, count: int) -> list[Look]:
        if model.card.preprocessing.align != "none":
            raise BadInput(
                "gateway.aligned",
                f"{model.reference} takes faces turned by their landmarks, which a picture does not tell",
                hint="name a gallery of a recipe that finds them, such as `faces`",
            )
        uris = [entry.uri for entry in bulk.find_source(folder).entries() if entry.problem is None]
        if not uris:
            raise BadInput(
                "gateway.no-pictures", f"there is no picture in {folder}", hint="folders are searched, by file endings"
            )
        return [partial(self._file, model, uri) for uri in _spread(uris, count)]

    def _of_gallery(self, gallery: Gallery, model: Registered, count: int) -> list[Look]:
        detects = model.card.task == "detect"
        with self._catalog.read() as tx:
            if detects:
                chosen: Sequence[Any] = _originals(tx, gallery, count)
            else:
                chosen = _objects(tx, gallery, _categories(releases.live_lens(tx, gallery), model), count)
        if not chosen:
            what = "originals, which a detector sees," if detects else "crops"
            raise Conflict(
                "gateway.nothing-kept",
                f"gallery {gallery.name} has no {what} to calibrate with; it keeps {gallery.retention}",
                hint="`relens gallery set NAME --retention originals|crops` keeps those that come from then on; "
                "or name a folder",
            )
        return [partial(self._original if detects else self._object, model, one) for one in chosen]

    def _file(self, model: Registered, uri: str) -> Floats:
        path = Path(path_of(uri).decode("utf-8", "surrogateescape"))
        try:
            if not path.is_file() or path.stat().st_size > self._settings.limits.max_bytes:
                raise BadInput("gateway.unreadable", f"{path} is no file, or too large")
            return self._whole(model, path.read_bytes())
        except OSError as error:
            raise BadInput("gateway.unreadable", f"{path} cannot be read: {error.strerror}") from error

    def _original(self, model: Registered, digest: str) -> Floats:
        return self._whole(model, self._blobs.read(digest))

    def _whole(self, model: Registered, data: bytes) -> Floats:
        prep = model.card.preprocessing
        # A picture may be decoded smaller where its short side is all that counts.
        short_side_px = prep.resize_px if prep.fit == "cut" else None
        return preprocess(decode(data, limits=limits_of(self._settings), short_side_px=short_side_px).pixels, prep)

    def _object(self, model: Registered, object_id: int) -> Floats:
        """An object as pipelines show it to the model. BadInput if it was deleted since, or has no landmarks."""
        try:
            jpeg = self.crop(object_id)
            with self._catalog.read() as tx:
                stored = galleries.get_object(tx, object_id)
                cut = _cut(tx, object_id)
        except Missing as error:
            raise BadInput("gateway.unreadable", error.message) from error
        landmarks = tuple((float(x), float(y)) for x, y in stored.landmarks or ())
        crop = Cropped(stored.box, stored.score, stored.category, jpeg, cut=cut or stored.box, landmarks=landmarks)
        return see(decode(jpeg).pixels, crop, model.card.preprocessing)


def _categories(lens: Lens, model: Registered) -> list[str]:
    """The categories whose objects the model is shown in a gallery; all of them, if it is shown none."""
    recipe = lens.recipe
    shown = []
    for category in recipe.categories:
        roles = {recipe.role(step, category) for step in ("embed", "classify")} | set(recipe.scores(category).values())
        if model.digest in {lens.digests[role] for role in roles if role is not None}:
            shown.append(category)
    return shown or list(recipe.categories)


def _objects(tx: Tx, gallery: Gallery, categories: Sequence[str], count: int) -> list[int]:
    """Ids of objects that the gallery shows, with a stored crop."""
    query = (
        sa.select(objects.c.id)
        .join(crops, crops.c.object == objects.c.id)
        .outerjoin(plans, plans.c.id == objects.c.plan)
        .where(objects.c.gallery == gallery.id, objects.c.category.in_(categories), published(), living())
    )
    return _chosen(tx, query, objects.c.id, count)


def _originals(tx: Tx, gallery: Gallery, count: int) -> list[str]:
    """Digests of the originals that the gallery keeps."""
    if gallery.retention != "originals":
        return []
    query = (
        sa.select(pictures.c.sha256)
        .join(blobs, blobs.c.digest == pictures.c.sha256)
        .where(pictures.c.gallery == gallery.id, held(), blobs.c.kind == "original")
    )
    return _chosen(tx, query, pictures.c.id, count)


def _chosen(tx: Tx, query: sa.Select[Any], order: sa.Column[Any], count: int) -> list[Any]:
    """So many rows of a query, spread over all; a gallery may hold millions."""
    total = tx.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one()
    step = max(1, total // count)
    rows = query.add_columns(sa.func.row_number().over(order_by=order).label("number")).subquery()
    some = sa.select(rows.c[0]).where((rows.c.number - 1) % step == 0).order_by(rows.c.number)
    return _spread(tx.execute(some).scalars().all(), count)


def _cut(tx: Tx, object_id: int) -> Box | None:
    """What of the picture a crop shows; None: the object's box."""
    row = tx.execute(sa.select(crops.c.x, crops.c.y, crops.c.w, crops.c.h).where(crops.c.object == object_id)).one()
    return None if row.x is None else Box(*row)


def _spread(every: Sequence[Any], count: int) -> list[Any]:
    """At most so many of these, the first one and others as far from each other as can be."""
    count = min(count, len(every))
    return [every[number * len(every) // count] for number in range(count)]
