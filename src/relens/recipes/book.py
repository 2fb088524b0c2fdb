"""The recipes of a home: YAML files that people edit, and the lenses that they resolve to now."""

from __future__ import annotations

import contextlib
import threading
from importlib import resources
from pathlib import Path

from relens.errors import BadInput, Broken, Missing
from relens.models import Artifact, Registered, Shelf, registry
from relens.recipes.filters import require_function
from relens.recipes.kinds import NAME
from relens.recipes.lens import Lens, freeze
from relens.recipes.recipe import Recipe
from relens.recipes.written import read_recipe
from relens.store import Catalog
from relens.store.blobs import write_file_durably
from relens.values import digest_of

BUILT_IN = ("photos", "faces", "text")
FROZEN = "frozen"
"""The folder of copies of the user's own filters, by SHA-256: lenses go on with what they were frozen with."""


class RecipeBook:
    """Finds recipes by name (`recipes/NAME.yaml` in the home) or by file, and freezes them.

    A name never leaves the folder of recipes, so that it may come from a stranger.
    """

    def __init__(self, folder: Path, catalog: Catalog, shelf: Shelf) -> None:
        self._folder = folder
        self._catalog = catalog
        self._shelf = shelf
        self._read: dict[Path, tuple[tuple[int, int], Recipe]] = {}
        self._artifacts: dict[str, Artifact] = {}
        self._functions: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def lens(self, named: str | Path) -> Lens:
        """The lens that a recipe resolves to now. Missing if there is no such recipe or model."""
        recipe = self.recipe(named)
        with self._catalog.read() as tx:
            return freeze(
                recipe,
                lambda reference: registry.resolve(tx, reference),
                self._open,
                self._checked,
            )

    def code(self, lens: Lens) -> dict[str, bytes]:
        """The files of a lens's own filters, as it was frozen with. Broken if one is lost."""
        return {file: self._as_frozen(file, digest) for file, digest in lens.code.items()}

    def _as_frozen(self, file: str, digest: str) -> bytes:
        for path in (self._folder / FROZEN / digest, self._folder / file):
            with contextlib.suppress(OSError):
                text = path.read_bytes()
                if digest_of(text) == digest:
                    return text
        raise Broken(
            "recipes.code-changed",
            f"{self._folder / file} is not the one that the lens was frozen with, and there is no copy of that",
            hint=f"put the original, of SHA-256 {digest}, into {self._folder / FROZEN} under that name",
        )

    def _checked(self, file: str, function: str) -> str:
        """The digest of a file of the user's own, of which a copy is kept for the lenses that are frozen with it.

        BadInput if it is no Python, or has no such function.
        """
        text = self._code(file)
        digest = digest_of(text)
        with self._lock:
            known = (digest, function) in self._functions
        if not known:
            require_function(file, function, text)
            self._keep(digest, text)
            with self._lock:
                self._functions.add((digest, function))
        return digest

    def _keep(self, digest: str, text: bytes) -> None:
        copy = self._folder / FROZEN / digest
        if not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            write_file_durably(copy, text)

    def _code(self, file: str) -> bytes:
        """A file of the user's own beside the recipes. A name never leaves that folder."""
        if not NAME.fullmatch(file):
            raise BadInput(
                "recipes.bad-name", f"{file!r} is no file beside the recipes", hint=f"put it in {self._folder}"
            )
        try:
            return (self._folder / file).read_bytes()
        except OSError as error:
            raise Missing(
                "recipes.no-code", f"{self._folder / file} cannot be read: {error.strerror}", hint="a filter names it"
            ) from error

    def recipe(self, named: str | Path) -> Recipe:
        """A recipe by name (text) or by file (a path), as it is written now."""
        path = self._path(named)
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            with self._lock:
                known = self._read.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            recipe = read_recipe(path.read_bytes(), source=str(path))
            if not isinstance(named, Path) and recipe.name != named:
                raise BadInput(
                    "recipes.other-name", f"{path} calls itself {recipe.name!r}", hint=f"write `recipe: {named}` in it"
                )
        except IsADirectoryError:
            raise BadInput("recipes.bad-recipe", f"{path} is a folder, not a recipe") from None
        except (FileNotFoundError, NotADirectoryError):
            have = ", ".join(self.names()) or "none"
            raise Missing(
                "recipes.missing",
                f"there is no recipe {str(named)!r} (there is {have})",
                hint=f"recipes are YAML files in {self._folder}",
            ) from None
        with self._lock:
            self._read[path] = (stamp, recipe)
        return recipe

    def names(self) -> list[str]:
        """Names of the home's recipes."""
        return sorted(path.stem for path in self._folder.glob("*.yaml"))

    def _path(self, named: str | Path) -> Path:
        if isinstance(named, Path):
            return named
        if not NAME.fullmatch(named):
            raise BadInput("recipes.bad-name", f"{named!r} is no recipe's name", hint=f"recipes are in {self._folder}")
        return self._folder / f"{named}.yaml"

    def _open(self, model: Registered) -> Artifact:
        with self._lock:
            known = self._artifacts.get(model.digest)
        if known is None:
            known = self._shelf.open(model.name, model.version)
            with self._lock:
                self._artifacts[model.digest] = known
        return known


def built_in(name: str) -> bytes:
    """The text of a recipe that comes with relens."""
    return (resources.files("relens.recipes") / f"{name}.yaml").read_bytes()
