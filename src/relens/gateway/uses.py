"""The uses: recognize, search, import, and looking at what there is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from relens import backup, bulk, collection, releases
from relens import gallery as galleries
from relens.backup import BackupFolder
from relens.bulk import ImportRequest
from relens.bulk.windows import AS_BEFORE
from relens.config import Home, Settings
from relens.errors import Broken, Conflict, Missing, RelensError
from relens.gallery import StoredObject
from relens.gateway import views
from relens.gateway.asking import Asking
from relens.gateway.exporting import Exporting
from relens.gateway.keeping import Keeping, Waiting
from relens.gateway.sampling import Sampling
from relens.jobs import plans
from relens.models import Shelf, registry
from relens.recipes import RecipeBook
from relens.serving import Answerer
from relens.store import Blobs, Catalog, Tx

MIN_FREE_BYTES = 512 * 1024 * 1024
LEAST_AGE_S = 600.0
"""What is younger is never collected: somebody may be about to name it."""


def _untold(_done: int, _total: int) -> None:
    """For who does not want to know how far it is."""


class Gateway(Asking, Keeping, Exporting, Sampling):
    """Every use, over one home. Safe to use from many threads."""

    def __init__(
        self,
        *,
        home: Home,
        settings: Settings,
        catalog: Catalog,
        blobs: Blobs,
        book: RecipeBook,
        answers: Answerer,
    ) -> None:
        self._home = home
        self._settings = settings
        self._catalog = catalog
        self._blobs = blobs
        self._book = book
        self._answers = answers

    # -- plans

    def start_import(
        self, source: str | Path, *, gallery: str, recipe: str | Path | None = None, workers: int = 1
    ) -> Waiting:
        """Write the plan of an import; the same import, asked for again while unfinished, continues its plan.

        The gallery remembers its recipe. Conflict if the recipe resolves to another lens than the gallery keeps.
        """
        galleries.check_name(gallery)
        found = bulk.find_source(source, self._settings.fetch)
        lens = self._book.lens(recipe or self._recipe_of(gallery))
        request = ImportRequest(
            source=found,
            gallery=gallery,
            recipe=lens.recipe.name,
            lens=lens,
            pack_size=self._settings.imports.pack_size,
            workers=workers,
        )
        plan, continued = bulk.plan_import(self._catalog, self._blobs, request)
        return Waiting(plan, continued)

    def _recipe_of(self, gallery: str) -> str:
        with self._catalog.read() as tx:
            known = galleries.find(tx, gallery)
        return self._settings.imports.recipe if known is None else known.recipe

    def start_window(self, gallery: str, *, days: int | str | None = AS_BEFORE, retrain: bool = False) -> Waiting:
        """Write the plan that chooses which days of a gallery answer, and indexes what is large.

        days     the newest so many; None: all; AS_BEFORE: as it is now
        retrain  learn centroids anew, and build every index again
        """
        least = self._settings.search.exact_rows
        plan, continued = bulk.plan_window(self._catalog, gallery, days=days, retrain=retrain, least_rows=least)
        return Waiting(plan, continued)

    def index_large(self) -> list[int]:
        """Start what indexes galleries that have outgrown exact search: ids of the plans. For who has workers."""
        with self._catalog.read() as tx:
            waiting = [
                gallery.name
                for gallery in galleries.every(tx)
                if max(self._unindexed(tx, gallery.id).values(), default=0) >= self._settings.search.exact_rows
                and not plans.unfinished(tx, gallery.id)
            ]
        return [self.start_window(name).plan for name in waiting]

    def _unindexed(self, tx: Tx, gallery: int) -> dict[str, int]:
        lens = releases.alias_of(tx, releases.gallery_scope(gallery))
        return {} if lens is None else bulk.rows_without_index(tx, gallery, lens)

    def plans(self) -> dict[str, Any]:
        """`{"plans": […]}`, newest first."""
        with self._catalog.read() as tx:
            return {"plans": [views.plan_json(tx, plan, name) for plan, name in plans.newest_first(tx)]}

    def plan(self, plan_id: int) -> dict[str, Any]:
        """A plan with its funnel. Missing if there is none."""
        with self._catalog.read() as tx:
            plan = plans.get(tx, plan_id)
            name = None if plan.gallery is None else galleries.by_id(tx, plan.gallery).name
            return views.plan_json(tx, plan, name)

    def resume(self, plan_id: int) -> dict[str, Any]:
        """Let a plan go on that rests after errors, or whose view was held. Conflict if it is over."""
        with self._catalog.begin() as tx:
            plans.resume(tx, plan_id)
        return self.plan(plan_id)

    def cancel(self, plan_id: int) -> dict[str, Any]:
        """Book what did not run as cancelled; what is committed is sealed by a worker. Conflict if the plan is over.

        A plan that cannot be sealed is given up: what it staged is deleted.
        """
        bulk.cancel(self._catalog, plan_id)
        return self.plan(plan_id)

    def unfinished(self) -> bool:
        """Whether some plan has work for a worker."""
        with self._catalog.read() as tx:
            return plans.work_waits(tx)

    # -- what there is

    def object(self, object_id: int) -> StoredObject:
        """An object by id. Missing, with `gone` if it was deleted."""
        with self._catalog.read() as tx:
            return galleries.get_object(tx, object_id)

    def crop(self, object_id: int) -> bytes:
        """The stored crop of an object, a JPEG. Missing like `object`, and if its gallery keeps none."""
        try:
            return self._crop(object_id)
        except Missing as error:
            if error.code != "store.missing-blob":
                raise
            return self._crop(object_id)  # a purge has just moved it to another shard

    def _crop(self, object_id: int) -> bytes:
        with self._catalog.read() as tx:
            galleries.get_object(tx, object_id)
            shard, offset, length = galleries.crop_location(tx, object_id)
        return self._blobs.read(shard, offset, length)

    def picture(self, object_id: int) -> bytes:
        """The bytes of an object's picture as they came. Missing like `object`, and if its gallery keeps none."""
        with self._catalog.read() as tx:
            sha256 = galleries.original_of(tx, galleries.get_object(tx, object_id))
        return self._blobs.read(sha256)

    def galleries(self) -> dict[str, Any]:
        """`{"galleries": […]}`, by name."""
        with self._catalog.read() as tx:
            return {"galleries": [views.gallery_json(tx, gallery) for gallery in galleries.every(tx)]}

    def gallery(self, name: str) -> dict[str, Any]:
        """A gallery with its counts and the release that answers for it."""
        with self._catalog.read() as tx:
            return views.gallery_json(tx, galleries.get(tx, name))

    def remove_gallery(self, name: str) -> dict[str, Any]:
        """Remove a gallery: its plans are cancelled, its objects are gone from answers, its name is free."""
        with self._catalog.begin() as tx:
            gallery = galleries.get(tx, name)
            now = self._catalog.now(tx)
            unfinished = plans.unfinished(tx, gallery.id)
            for plan in unfinished:
                bulk.give_up(tx, plan, now)
            galleries.lock(tx, gallery.id)
            if plans.unfinished(tx, gallery.id):  # everything is taken back
                raise Conflict(
                    "gallery.busy", f"an import into {name} has just begun", hint="wait for it, or remove it once more"
                )
            galleries.remove(tx, gallery.id, now)
        return {"removed": name, "cancelled_plans": unfinished}

    def releases(self) -> dict[str, Any]:
        """`{"releases": […]}`, newest first."""
        with self._catalog.read() as tx:
            return {"releases": [views.release_json(tx, release) for release in releases.newest_first(tx)]}

    def release(self, name: str) -> dict[str, Any]:
        """A release: its lens, its view with the checks that it passed."""
        with self._catalog.read() as tx:
            return views.release_json(tx, releases.get(tx, name))

    def models(self) -> dict[str, Any]:
        """`{"models": […]}`, by name and version."""
        with self._catalog.read() as tx:
            return {"models": [views.model_json(tx, model) for model in registry.every(tx)]}

    def model(self, reference: str) -> dict[str, Any]:
        """A model version by `name/version`, `name/label` or `name`; with its `fidelity` if it was made of another."""
        with self._catalog.read() as tx:
            known = registry.resolve(tx, reference)
            shown = views.model_json(tx, known)
        try:
            fidelity = Shelf(self._home.models).open(known.name, known.version).fidelity()
        except (
            RelensError
        ):  # the catalog may know a version whose folder is elsewhere, or was changed: `verify` says so
            fidelity = None
        return views.present(shown | {"fidelity": fidelity})

    # -- upkeep

    def back_up(self, folder: Path, *, report: backup.Report = _untold) -> dict[str, Any]:
        """Add a backup of this home to a folder. Broken or Missing, naming it, for what is damaged or lost.

        `report` is told bytes that are done, and bytes in all.
        """
        target = BackupFolder(folder)
        made, copied = backup.back_up(self._catalog, self._blobs, self._home, target, report)
        return {
            "backup": made.name,
            "folder": str(target.path),
            "sequences": dict(made.sequences),
            "blobs": len(made.blobs),
            "bytes": sum(made.contents().values()),
            "copied": {"blobs": copied.blobs, "bytes": copied.bytes},
            "left_out": list(made.left_out),
        }

    def collect_garbage(
        self, *, older_than_s: float = 3600.0, dry_run: bool = False, report: collection.Report = _untold
    ) -> dict[str, Any]:
        """Remove what nothing can name any more, or only say what would go. Conflict while a backup runs.

        `report` is told blobs that are done, and blobs that may go.
        """
        kept = collection.Rules(keep_views=self._settings.gc.keep_views, older_than_s=max(older_than_s, LEAST_AGE_S))
        found = collection.collect(self._catalog, self._blobs, kept, report, dry_run=dry_run)
        return {"dry_run": dry_run, **found.to_json()}

    # -- health

    def missing(self) -> list[str]:
        """What is missing for answering, as sentences; empty when ready."""
        problems = []
        try:
            with self._catalog.read() as tx:
                if not registry.every(tx) and not self._settings.models.folder:
                    problems.append("no model: run `relens model fetch imagenet`")
        except Broken as error:
            problems.append(str(error))
        if not os.access(self._home.path, os.W_OK):
            problems.append(f"{self._home.path} is not writable")
        elif (free := shutil.disk_usage(self._home.path).free) < MIN_FREE_BYTES:
            problems.append(f"only {free // 1024 // 1024} MB free on the disk of {self._home.path}")
        return problems

    def status(self) -> dict[str, Any]:
        """Engines, unfinished plans, galleries and models at a glance."""
        with self._catalog.read() as tx:
            running = [views.plan_json(tx, plan, name) for plan, name in plans.newest_first(tx, only_unfinished=True)]
        return {
            "home": str(self._home.path),
            "missing": self.missing(),
            "engines": self._answers.running(),
            "plans": running,
            "galleries": self.galleries()["galleries"],
            "models": [f"{model['name']}/{model['version']}" for model in self.models()["models"]],
        }

    def rest_engines(self) -> None:
        """End the engines that nobody has asked for as long as the settings say."""
        if self._settings.server.engine_idle_s:
            self._answers.rest(self._settings.server.engine_idle_s)

    def close(self) -> None:
        """End the engines and let go of the catalog."""
        self._answers.close()
        self._catalog.close()
