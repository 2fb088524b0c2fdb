"""What suites start from: a lens, a gallery, a plan with packs, pictures to be staged. The same every time."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

from relens import releases
from relens.gallery import Gallery, Item, NewObject, NewPicture
from relens.jobs import Worker, plans
from relens.jobs.plans import Pack, Task
from relens.recipes import Lens, Recipe
from relens.store import Catalog, Tx
from relens.values import WHOLE, Label, digest_of

NOW = 1_000_000.0
DAY = "2025-06-01"
SPACE = digest_of(b"a space")
MODEL = digest_of(b"a model")
KIND, WORK, SEAL = "import", "import", "seal"
TASKS = (
    Task("read", WORK, "entry"),
    Task("crop", WORK, "entry"),
    Task("embed", WORK, "object"),
    Task("seal", SEAL, "object"),
)

_hosts = itertools.count(1)


class _Failed(Exception):
    pass


@contextlib.contextmanager
def taken_back(catalog: Catalog) -> Iterator[Tx]:
    """A writing transaction that fails at its end."""
    with contextlib.suppress(_Failed), catalog.begin() as tx:
        yield tx
        raise _Failed


def a_worker() -> Worker:
    """A worker on a host of its own, whose processes nobody here can look at."""
    return Worker(f"host-{next(_hosts)}", 1, "then")


def a_lens(name: str = "photos", *, model: str = MODEL) -> Lens:
    """A lens of one model. Another model, another lens."""
    recipe = Recipe(name, "whole", 320, 90, 5, {"embed": f"{model[:8]}/1", "classify": f"{model[:8]}/1"})
    return Lens(recipe, {"embed": model, "classify": model}, digest_of(model.encode()), 4, {})


def a_gallery(tx: Tx, name: str = "album", *, lens: Lens | None = None) -> Gallery:
    """A gallery by name, made if there is none."""
    return releases.open_gallery(tx, name, lens or a_lens(), NOW)


def a_plan(
    tx: Tx, gallery: Gallery, *, key: str = "key", packs: int = 3, size: int = 10, tasks: Sequence[Task] = TASKS
) -> int:
    """A plan of `packs` packs, numbered from 1, and one that seals them."""
    work = [Pack(WORK, number, {"number": number}, size) for number in range(1, packs + 1)]
    return plans.create(
        tx,
        kind=KIND,
        key=key,
        gallery=gallery.id,
        lens=a_lens().digest,
        spec={"source": "nowhere"},
        day=DAY,
        todo=tasks,
        work=[*work, Pack(SEAL, 1, {}, 0, after=WORK)],
        now=NOW,
    )


def an_item(key: str, *, day: str = DAY, title: str | None = None) -> Item:
    """An item with every kind of column."""
    return Item(key, f"file:///{key}", day, title, 9.5, "corner shop", {"colour": "rosé", "sizes": [1, 2.5, None]})


def a_picture(name: str, *, objects: int = 1, day: str = DAY, category: str = "all") -> NewPicture:
    """A picture with objects, and an item of the same name."""
    found = tuple(
        NewObject(
            WHOLE,
            0.5,
            category,
            (Label(f"{name} {number}", number, 0.75),),
            (f"shard of {name}", 512 * number, 100 + number),
            (f"vectors of {name}", number),
        )
        for number in range(objects)
    )
    return NewPicture(digest_of(name.encode()), 1000, 64, 48, an_item(name, day=day), found)
