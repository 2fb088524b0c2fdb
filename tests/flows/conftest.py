"""Whole homes in this process, with the dummy model, on SQLite and on PostgreSQL; and small pictures to import."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import yaml
from PIL import Image

from relens import wiring
from relens.store.schema import crops, items, labels, objects, pictures, tombstones, vectors
from relens.testing.pictures import draw
from relens.vectors import read_vectors

NEVER = 2**22 + 1  # beyond the largest pid


class Home:
    """A home in a folder, with its catalog at a URL, and what tests ask of it."""

    def __init__(self, path, catalog_url, *, template=None, **imports):
        self.path = path
        self._opened = []
        if template is not None:
            shutil.copytree(template, path)
        path.mkdir(exist_ok=True)
        settings = {"catalog": catalog_url, "imports": {"pack_size": 8, **imports}}
        (path / "relens.yaml").write_text(yaml.safe_dump(settings))
        if template is None:
            wiring.make_home(path)
            self.recipe.write_text(self.recipe.read_text().replace("effnet-lite0/1", "dummy/1"))
            self.local().parts.onboarding.fetch("dummy")

    @property
    def recipe(self):
        return self.path / "recipes" / "photos.yaml"

    def local(self):
        """A new way in, as a new process would have it."""
        self._opened.append(wiring.open_local(self.path))
        return self._opened[-1]

    def run(self, source, gallery="album", **options):
        """Import, and the plan as it ended."""
        return self.local().run_import(source, gallery=gallery, **options)

    def close(self):
        while self._opened:
            self._opened.pop().close()

    # -- looking inside

    def contents(self, gallery="album"):
        """Every living object of a gallery: picture, box, items, names, the bytes of its crop, its vector."""
        parts = self.local().parts
        with parts.catalog.read() as tx:
            gallery_id = tx.execute(
                sa.text("SELECT id FROM galleries WHERE name = :n AND removed_at IS NULL"), {"n": gallery}
            )
            alive = ~sa.exists().where(tombstones.c.object == objects.c.id)
            query = (
                sa.select(
                    objects,
                    pictures.c.sha256,
                    pictures.c.uri,
                    crops,
                    vectors.c.file,
                    vectors.c.row,
                    vectors.c.space,
                    labels.c.labels,
                )
                .select_from(objects.join(pictures).join(crops).join(vectors).join(labels))
                .where(objects.c.gallery == gallery_id.scalar_one(), alive)
            )
            rows = tx.execute(query).mappings().all()
            shown = {}
            for item in tx.execute(sa.select(items).order_by(items.c.key)).mappings():
                told = {key: item[key] for key in ("key", "uri", "title", "price", "shop", "day", "data")}
                shown.setdefault(item["picture"], []).append(told)
        return sorted(
            (
                {
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
            ),
            key=lambda found: found["sha256"],
        )

    def items(self, gallery="album"):
        """Digest of the picture of each item, by key."""
        return {item["key"]: found["sha256"] for found in self.contents(gallery) for item in found["items"]}

    def ids(self, gallery="album"):
        """Ids of the objects that a search can find now."""
        found = self.search(draw(10**6), gallery=gallery, k=1000)
        return sorted(match.id for match in found)

    def search(self, data, gallery="album", k=10):
        """Matches of a picture, best first."""
        return self.local().search(data, gallery=gallery, k=k).objects[0].matches


def short(plan):
    """The books of a plan: by task (in, out, dropped, failed, made)."""
    return {t["name"]: (t["in"], t["out"], t["dropped"], t["failed"], t["made"]) for t in plan["tasks"]}


def quarantine(plan):
    """What went to quarantine: entry, task and code."""
    return [(q["entry"], q["task"], q["code"]) for q in plan.get("quarantine", [])]


def png(seed):
    out = io.BytesIO()
    Image.open(io.BytesIO(draw(seed))).save(out, "PNG")
    return out.getvalue()


def fill(folder, files):
    """Write files into a folder: bytes by name; a number is the seed of a picture."""
    for name, data in files.items():
        path = os.path.join(os.fsencode(folder), os.fsencode(name))  # noqa: PTH118
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(draw(data) if isinstance(data, int) else data)
    return Path(folder)


@pytest.fixture
def new_home(databases, tmp_path):
    """Makes homes, each with a catalog of its own."""
    made = []

    def make(**options):
        made.append(Home(tmp_path / f"home-{len(made)}", databases.ready(), **options))
        return made[-1]

    yield make
    for home in made:
        home.close()


@pytest.fixture
def home(new_home):
    return new_home()
