"""Whole homes in this process, with the dummy model: what flow tests import into, search in and look inside of."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import yaml
from PIL import Image

from relens import wiring
from relens.gallery import Item
from relens.store.schema import crops, galleries, items, labels, objects, pictures, tombstones, vectors
from relens.testing.pictures import draw
from relens.values import Match
from relens.vectors import read_vectors

Plan = Mapping[str, Any]


class DummyHome:
    """A home in a folder, with its catalog at a URL; `imports` are settings of that section.

    With `blobs`, they are at that URL, reached by the settings `blob_store`.
    """

    def __init__(
        self,
        path: Path,
        catalog_url: str,
        *,
        blobs: str = "",
        blob_store: Mapping[str, Any] | None = None,
        **imports: Any,
    ) -> None:
        self.path = path
        self._opened: list[wiring.Local] = []
        path.mkdir(exist_ok=True)
        settings = {"catalog": catalog_url, "imports": {"pack_size": 8, **imports}}
        settings |= {"blobs": blobs, "blob_store": dict(blob_store or {})}
        (path / "relens.yaml").write_text(yaml.safe_dump(settings))
        wiring.make_home(path)
        self.recipe.write_text(self.recipe.read_text().replace("effnet-lite0/1", "dummy/1"))
        self.local().parts.onboarding.fetch("dummy")

    @property
    def recipe(self) -> Path:
        return self.path / "recipes" / "photos.yaml"

    def local(self) -> wiring.Local:
        """A new way in, as a new process would have it."""
        self._opened.append(wiring.open_local(self.path))
        return self._opened[-1]

    def run(self, source: Path, gallery: str = "album", **options: Any) -> Plan:
        """Import, and the plan as it ended."""
        return self.local().run_import(source, gallery=gallery, **options)

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()

    def search(self, data: bytes, gallery: str = "album", k: int = 10) -> tuple[Match, ...]:
        """Matches of a picture, best first."""
        return self.local().search(data, gallery=gallery, k=k).objects[0].matches

    def found(self, gallery: str = "album") -> list[int]:
        """Ids of all objects that a search can find now."""
        return sorted(match.id for match in self.search(draw(0), gallery, k=1000))

    def contents(self, gallery: str = "album") -> list[dict[str, Any]]:
        """Every living object of a gallery: picture, box, items, names, the bytes of its crop, its vector."""
        parts = self.local().parts
        alive = ~sa.exists().where(tombstones.c.object == objects.c.id)
        place = [crops.c.shard, crops.c.offset, crops.c.length, vectors.c.file, vectors.c.row, vectors.c.space]
        with parts.catalog.read() as tx:
            here = sa.select(galleries.c.id).where(galleries.c.name == gallery, galleries.c.removed_at.is_(None))
            rows = tx.execute(
                sa.select(objects, pictures.c.sha256, pictures.c.uri, labels.c.labels, *place)
                .select_from(objects.join(pictures).join(crops).join(vectors).join(labels))
                .where(objects.c.gallery == here.scalar_subquery(), alive)
                .order_by(pictures.c.sha256)
            ).mappings()
            shown: dict[int, list[dict[str, Any]]] = {}
            for item in tx.execute(sa.select(items).order_by(items.c.key)).mappings():
                told = {name: item[name] for name in Item.__dataclass_fields__}
                shown.setdefault(item["picture"], []).append(told)
            return [
                {
                    "id": row["id"],
                    "sha256": row["sha256"],
                    "uri": row["uri"],
                    "box": [row[side] for side in "xywh"],
                    "items": shown.get(row["picture"], []),
                    "labels": row["labels"],
                    "crop": parts.blobs.read(row["shard"], row["offset"], row["length"]),
                    "vector": read_vectors(parts.blobs, row["file"], np.array([row["row"]]), space=row["space"])[
                        0
                    ].tolist(),
                }
                for row in rows
            ]

    def items(self, gallery: str = "album") -> dict[str, str]:
        """SHA-256 of the picture that each item shows, by key."""
        return {item["key"]: found["sha256"] for found in self.contents(gallery) for item in found["items"]}

    def object_of(self, key: str, gallery: str = "album") -> int:
        """Id of the object that an item shows."""
        contents = self.contents(gallery)
        return next(int(found["id"]) for found in contents if key in [item["key"] for item in found["items"]])


def books(plan: Plan) -> dict[str, tuple[int, int, dict[str, int], int, int]]:
    """The books of a plan: by task in, out, dropped, failed and made."""
    return {t["name"]: (t["in"], t["out"], t["dropped"], t["failed"], t["made"]) for t in plan["tasks"]}


def quarantined(plan: Plan) -> list[tuple[str, str, str]]:
    """What went to quarantine: entry, task and code."""
    return [(one["entry"], one["task"], one["code"]) for one in plan.get("quarantine", [])]


def fill(folder: Path, files: Mapping[str | bytes, int | bytes]) -> Path:
    """Write files into a folder: bytes by name; a number is the seed of a made-up picture."""
    for name, data in files.items():
        path = os.path.join(os.fsencode(folder), os.fsencode(name))  # noqa: PTH118 - bytes: names need not be text
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(draw(data) if isinstance(data, int) else data)
    return folder


def as_png(picture: bytes) -> bytes:
    """The same pixels as a PNG: other bytes, another picture."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(out, "PNG")
    return out.getvalue()
