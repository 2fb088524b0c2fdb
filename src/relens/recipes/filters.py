"""Filters: whether an object that was found is kept, and if not, why. The reason is the filter's name.

They see one object at a time, in the order of the recipe, before its models describe it; what compares objects with
each other (`duplicate`) is done where a plan is sealed. A filter of the user's own is a function in a file beside his
recipe, whose digest is part of the lens.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from relens.errors import BadInput, Broken
from relens.recipes.crops import Cropped
from relens.recipes.kinds import shown
from relens.recipes.recipe import Rule
from relens.values import Pixels, digest_of
from relens.vision import decode
from relens.vision.quality import sharpness

Keep = Callable[[Cropped, Callable[[], Pixels]], bool]
"""Whether to keep an object; the pixels of its crop, (height, width, 3) RGB uint8, are decoded only when asked for."""


class Filters:
    """The filters of a lens. Safe to use from many threads, as far as the user's own are."""

    def __init__(self, rules: Sequence[Rule], own: Mapping[str, bytes]) -> None:
        """`own`: text of each file that a filter of the user's own names, as the lens froze it."""
        self._keeps = [(rule.name, _make(rule, own)) for rule in rules if rule.name in _MAKE]

    def reason(self, crop: Cropped) -> str | None:
        """Why an object is dropped; None if it is kept."""
        pixels: list[Pixels] = []

        def decoded() -> Pixels:
            if not pixels:
                pixels.append(decode(crop.jpeg).pixels)
                pixels[0].setflags(write=False)  # the next filter shall see the same
            return pixels[0]

        return next((name for name, keep in self._keeps if not keep(crop, decoded)), None)


def _short_side(options: Mapping[str, Any], _own: Mapping[str, bytes]) -> Keep:
    return lambda crop, _: crop.short_side_px >= options["min_px"]


def _score(options: Mapping[str, Any], _own: Mapping[str, bytes]) -> Keep:
    return lambda crop, _: crop.score >= options["min"]


def _blur(options: Mapping[str, Any], _own: Mapping[str, bytes]) -> Keep:
    return lambda _, pixels: sharpness(pixels()) >= options["min"]


def _quality(options: Mapping[str, Any], _own: Mapping[str, bytes]) -> Keep:
    return lambda crop, _: crop.measures.get("quality", 1.0) >= options["min"]


def _own(options: Mapping[str, Any], own: Mapping[str, bytes]) -> Keep:
    """`function(pixels, about) -> bool`, with `about` the object's box, score, category, label and measures.

    What it raises is the picture's fault, as the cause says: others are not held up by it. Only what the machine did,
    a file or a host that cannot be reached, is tried again.
    """
    file, name = options["file"], options["function"]
    function = _loaded(file, name, own[file])

    def keep(crop: Cropped, pixels: Callable[[], Pixels]) -> bool:
        seen = pixels()
        try:
            said = function(seen, crop.about)
        except (OSError, MemoryError) as error:
            raise Broken("recipes.filter-unavailable", f"{file}: {name} cannot run: {_told(error)}") from error
        except (Exception, SystemExit) as error:
            raise _failed(f"{file}: {name} failed: {_told(error)}") from error
        if not isinstance(said, bool | np.bool_):
            raise _failed(f"{file}: {name} says {shown(said)}, not True or False")
        return bool(said)

    return keep


def require_function(file: str, name: str, code: bytes) -> None:
    """BadInput if a file is no Python, or makes nothing of this name. Nothing of it is run."""
    try:
        made = compile(code, file, "exec", dont_inherit=True).co_names
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput("recipes.bad-filter", f"{file} is no Python: {error}") from error
    if name not in made:
        raise _no_function(file, name)


def _loaded(file: str, name: str, code: bytes) -> Callable[[Pixels, dict[str, Any]], Any]:
    """A function of a file. BadInput if the file cannot be run, or has no such function."""
    module = types.ModuleType(f"relens_filter_{digest_of(code)}")
    # Dataclasses and pickle look a class's module up by its name.
    sys.modules[module.__name__] = module
    try:
        exec(compile(code, file, "exec", dont_inherit=True), vars(module))  # noqa: S102 - it is the user's own, by digest
    except (Exception, SystemExit) as error:
        raise BadInput("recipes.bad-filter", f"{file} cannot be run: {_told(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise _no_function(file, name)
    return function  # type: ignore[no-any-return]


def _no_function(file: str, name: str) -> BadInput:
    return BadInput("recipes.bad-filter", f"{file} has no function {name}", hint=f"def {name}(pixels, about): ...")


def _failed(message: str) -> BadInput:
    hint = "mend the function; that makes another lens, and a gallery keeps the one that it was made with"
    return BadInput("recipes.filter-failed", message, hint=hint)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


_MAKE: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, bytes]], Keep]] = {
    "short-side": _short_side,
    "score": _score,
    "blur": _blur,
    "quality": _quality,
    "own": _own,
}


def _make(rule: Rule, own: Mapping[str, bytes]) -> Keep:
    return _MAKE[rule.name](rule.options, own)
