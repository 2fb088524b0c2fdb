"""Import: a listing becomes a plan with its packs, in one transaction.

The same request while its plan is unfinished continues that plan. What a pack does is in `packs`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import os
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relens import gallery as galleries
from relens import releases
from relens.bulk.listings import Source, escape_path, write_listing
from relens.errors import BadInput
from relens.jobs import pins, plans
from relens.jobs.plans import Pack, Task
from relens.recipes import Lens
from relens.recipes.recipe import WHOLE_PICTURE
from relens.store import Blob, Blobs, Catalog, Tx, insert_if_absent
from relens.store.schema import blobs as blob_rows
from relens.values import digest_of

KIND = "import"
PACK_STAGE = "import"
SEAL_STAGE = "seal"
READ, DECODE, CROP, FILTER, EMBED, SEAL = "read", "decode", "crop", "filter", "embed", "seal"
PACKS_PER_WORKER = 4
MIN_PACK = 16


def tasks_of(lens: Lens) -> tuple[Task, ...]:
    """The tasks of an import under a lens. Objects are filtered where there is something to leave out."""
    entries = [Task(name, PACK_STAGE, "entry") for name in (READ, DECODE, CROP)]
    sifts = (FILTER, EMBED) if filters(lens) else (EMBED,)
    objects = [Task(name, PACK_STAGE, "object") for name in sifts]
    return (*entries, *objects, Task(SEAL, SEAL_STAGE, "object"))


def filters(lens: Lens) -> bool:
    """Whether a lens may leave out objects that were found."""
    return lens.recipe.detect != WHOLE_PICTURE or bool(lens.recipe.filters)


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What was asked for. The same request while its plan is unfinished continues that plan."""

    source: Source
    gallery: str
    recipe: str
    lens: Lens
    pack_size: int
    workers: int


def plan_import(catalog: Catalog, blobs: Blobs, request: ImportRequest) -> tuple[int, bool]:
    """Write the plan of an import with its packs, in one transaction: its id, and whether it was there already.

    Conflict if the gallery keeps another lens; BadInput if the source holds nothing to import.
    """
    unfinished = _continue(catalog, request)
    if unfinished is not None:
        return unfinished, True
    entries = list(request.source.entries())
    if not entries:
        raise BadInput(
            "bulk.nothing-to-import",
            f"there is no picture in {request.source.path}",
            hint="files that end in .jpg, .jpeg, .png, .webp, .bmp, .gif, .tif or .tiff are taken",
        )
    listing, slices = write_listing(blobs, entries, _pack_size(len(entries), request))
    work = [Pack(PACK_STAGE, number, dataclasses.asdict(cut), cut.count) for number, cut in enumerate(slices, 1)]
    work.append(Pack(SEAL_STAGE, 1, {}, 0, after=PACK_STAGE))
    with catalog.begin() as tx:
        now = catalog.now(tx)
        gallery = releases.open_gallery(tx, request.gallery, request.lens, now)
        galleries.lock(tx, gallery.id)
        unfinished = plans.find_unfinished(tx, KIND, _key(gallery.id, request))
        if unfinished is not None:  # somebody typed the same at the same moment
            return unfinished, True
        pins.secure(tx, blobs, [listing])
        add_blob(tx, Blob(listing, blobs.size(listing)), "listing", now)
        plan = plans.create(
            tx,
            kind=KIND,
            key=_key(gallery.id, request),
            gallery=gallery.id,
            lens=request.lens.digest,
            spec=_spec(request, listing),
            day=dt.datetime.fromtimestamp(now).astimezone().date().isoformat(),
            todo=tasks_of(request.lens),
            work=work,
            now=now,
        )
    return plan, False


def _continue(catalog: Catalog, request: ImportRequest) -> int | None:
    """The unfinished plan of the same request, with its resting packs set free. Conflict if the lens is another."""
    with catalog.begin() as tx:
        gallery = galleries.find(tx, request.gallery)
        if gallery is None:
            return None
        releases.require_lens(tx, gallery, request.lens)
        unfinished = plans.find_unfinished(tx, KIND, _key(gallery.id, request))
        if unfinished is not None:
            plans.resume(tx, unfinished)
        return unfinished


def _spec(request: ImportRequest, listing: str) -> dict[str, Any]:
    return {
        "source": escape_path(os.fsencode(request.source.path)),
        "root": os.fsencode(request.source.root).hex(),
        "listing": listing,
        "recipe": request.recipe,
    }


def _key(gallery: int, request: ImportRequest) -> str:
    """What makes two requests the same."""
    return digest_of({"gallery": gallery, "source": os.fsencode(request.source.path).hex(), "recipe": request.recipe})


def _pack_size(count: int, request: ImportRequest) -> int:
    """Even packs, some for each worker, none larger than the setting."""
    packs = max(math.ceil(count / request.pack_size), min(request.workers * PACKS_PER_WORKER, count // MIN_PACK), 1)
    return math.ceil(count / packs)


def add_blob(tx: Tx, blob: Blob, kind: str, now: float) -> None:
    """Write a blob down. Again says that it is named anew, which keeps it from being collected at this moment."""
    insert_if_absent(tx, blob_rows, digest=blob.digest, size=blob.size, kind=kind, created_at=now)
    tx.execute(sa.update(blob_rows).where(blob_rows.c.digest == blob.digest).values(created_at=now))
