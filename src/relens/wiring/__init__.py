"""Settings to real parts: the only place that names concrete back-ends.

Everything gets its dependencies here, as constructor arguments; tests build the same from other parts. Child processes
are started from the argument vectors that are made here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from relens import bulk, config, releases
from relens.bulk import KIND, PACK_STAGE, SEAL_STAGE, Importer, Reader, Sealer, Windower, windows
from relens.config import Home, Settings
from relens.gateway import Gateway, Waiting
from relens.jobs import run_worker, this_worker
from relens.jobs.loop import Handler
from relens.models import Shelf, registry
from relens.onboarding import Onboarding
from relens.quantization import DEFAULT_BOUNDS, Bounds, Report, quantize, require_quantizable, unreported
from relens.recipes import BUILT_IN, Lens, LoadedModel, Pipeline, RecipeBook, built_in
from relens.runtimes import Dummy, OnnxRuntime, Python, Remote
from relens.serving import Engine, Engines, InProcess
from relens.store import Blobs, Catalog, LocalBlobs
from relens.store.blobs import write_file_durably
from relens.store.remote import open_remote
from relens.telemetry import start_logging
from relens.vision import Limits


@dataclass(frozen=True, slots=True)
class Parts:
    """The real parts of one home."""

    home: Home
    settings: Settings
    catalog: Catalog
    blobs: Blobs
    shelf: Shelf
    onboarding: Onboarding
    book: RecipeBook

    @property
    def limits(self) -> Limits:
        given = self.settings.limits
        return Limits(
            max_bytes=given.max_bytes,
            max_pixels=given.max_pixels,
            max_progressive_pixels=given.max_progressive_pixels,
        )

    def start_logging(self, *, quiet: bool = False) -> None:
        """Log to stderr as the settings say; `quiet` leaves only errors."""
        logs = self.settings.logs
        start_logging("error" if quiet else logs.level, logs.format, for_good=True)

    def pipeline(self, lens: Lens) -> Pipeline:
        """A lens with its models loaded and verified."""
        loaded: dict[str, LoadedModel] = {}
        for role, digest in lens.digests.items():
            same = next((model for model in loaded.values() if model.artifact.digest == digest), None)
            name, _, version = lens.recipe.models[role].partition("/")
            loaded[role] = same or self.onboarding.start(name, int(version), digest=digest)
        return Pipeline(lens, loaded, self.limits, self.book.code(lens))

    def engine(self, lens_digest: str) -> Engine:
        """The engine of a lens, in this process."""
        with self.catalog.read() as tx:
            lens = releases.get_lens(tx, lens_digest)
        return Engine(self.catalog, self.blobs, self.pipeline(lens))

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """What a worker can do, by kind of plan and stage."""
        reader = Reader(self.settings.fetch, self.home.fetched, max_bytes=self.settings.limits.max_bytes)
        importer = Importer(self.catalog, self.blobs, self.pipeline, reader)
        handlers: dict[tuple[str, str], Handler] = {
            (KIND, PACK_STAGE): importer,
            (KIND, SEAL_STAGE): Sealer(self.catalog, self.blobs),
            (windows.KIND, windows.STAGE): Windower(self.catalog, self.blobs),
            (bulk.REBUILD, bulk.REBUILD): bulk.Rebuilder(self.catalog, self.blobs),
            (bulk.DROP, bulk.DROP): bulk.Dropper(self.catalog),
            (bulk.PURGE, bulk.PURGE): bulk.Purger(self.catalog, self.blobs),
        }
        return handlers | {(kind, bulk.FOLD): bulk.Folder(self.catalog, self.blobs) for kind in bulk.KINDS}

    def in_process(self) -> Local:
        """Every use with engines in this process, for commands and Python."""
        return Local(self)

    def with_engines(self) -> Gateway:
        """Every use with engines in processes of their own, for servers."""
        return Gateway(
            home=self.home,
            settings=self.settings,
            catalog=self.catalog,
            blobs=self.blobs,
            book=self.book,
            answers=Engines(lambda: engine_argv(self.home)),
        )


class Local(Gateway):
    """Every use of a home, in this process, and imports that are worked off here."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(
            home=parts.home,
            settings=parts.settings,
            catalog=parts.catalog,
            blobs=parts.blobs,
            book=parts.book,
            answers=InProcess(parts.engine),
        )
        self.parts = parts

    def run_import(self, source: str | Path, *, gallery: str, recipe: str | None = None) -> dict[str, Any]:
        """Import a folder or listing and work the plan off in this process. The plan as it ended."""
        return self.run(self.start_import(source, gallery=gallery, recipe=recipe))

    def run(self, waiting: Waiting) -> dict[str, Any]:
        """Work a plan that was written down off in this process. The plan as it ended."""
        self.work(waiting.plan)
        return self.plan(waiting.plan)

    def quantize(
        self,
        model: str,
        calibrate: str | Path,
        *,
        pictures: int = 300,
        bounds: Bounds = DEFAULT_BOUNDS,
        report: Report = unreported,
    ) -> dict[str, Any]:
        """A model in int8 as a new version: the version with its fidelity, and whether it was `made` or there already.

        calibrate  a gallery or a folder; up to so many `pictures` of it are read, of which every fourth is kept to
                   compare the two versions on
        report     is told pictures that are done, and pictures in all

        Conflict, and no version, if it does not reach the bounds.
        """
        with self._catalog.read() as tx:
            original = registry.resolve(tx, model)
        require_quantizable(original)
        done = quantize(self.parts.onboarding, original, self.sample(calibrate, original, pictures), bounds, report)
        return {**self.model(done.artifact.reference), "made": done.made}

    def work(self, plan: int) -> None:
        """Work a plan off in this process, until it is over."""
        parts = self.parts
        lease_s = parts.settings.imports.lease_s
        run_worker(
            parts.catalog, this_worker(), parts.handlers(), lease_s=lease_s, stop=lambda: False, idle_s=0, plan=plan
        )


def open_parts(named: str | Path | None = None) -> Parts:
    """The parts of a home, its catalog's schema brought forward, after a copy. Missing if the home was never made."""
    home = config.find_home(named)
    settings = config.load(home)
    catalog = Catalog(home.catalog_url(settings))
    start_logging_early(settings)
    catalog.upgrade(home.path)
    shelf = Shelf(home.models)
    return Parts(
        home=home,
        settings=settings,
        catalog=catalog,
        blobs=open_blobs(home, settings),
        shelf=shelf,
        onboarding=Onboarding(catalog, shelf, (OnnxRuntime(), Remote(), Python(home.environments), Dummy())),
        book=RecipeBook(home.recipes, catalog, shelf),
    )


def start_logging_early(settings: Settings) -> None:
    """Logs go to stderr from the first line on; a process that logs already goes on as it does."""
    if not structlog.is_configured():
        start_logging(settings.logs.level, settings.logs.format)


def open_blobs(home: Home, settings: Settings) -> Blobs:
    """The store of blobs that the settings name. BadInput or Broken if its URL or driver is not right."""
    if "://" in settings.blobs:
        return open_remote(settings.blobs, settings.blob_store, home.cache)
    return LocalBlobs(home.blob_folder(settings))


def open_local(named: str | Path | None = None) -> Local:
    """Every use of a home as methods, in this process."""
    return Local(open_parts(named))


def make_home(named: str | Path | None = None) -> tuple[Home, list[Path]]:
    """Make the folders and files of a home; what exists is left as it is. The home, and the files that were made."""
    home = config.find_home(named)
    for folder in home.folders:
        folder.mkdir(parents=True, exist_ok=True)
    wanted = {home.file: config.template().encode()}
    wanted |= {home.recipes / f"{name}.yaml": built_in(name) for name in BUILT_IN}
    made = [path for path in wanted if not path.exists()]
    for path in made:
        write_file_durably(path, wanted[path])
    open_parts(home.path).catalog.close()
    return home, made


def engine_argv(home: Home) -> list[str]:
    """Starts an engine process; `--lens` and `--fd` are to be added."""
    return [sys.executable, "-m", "relens.cli", "engine", "--home", str(home.path)]


def worker_argv(home: Home, *, plan: int | None = None) -> list[str]:
    """Starts a worker process, for every plan, or for one that a command watches."""
    argv = [sys.executable, "-m", "relens.cli", "worker", "--home", str(home.path)]
    return argv if plan is None else [*argv, "--plan", str(plan), "--quiet"]
