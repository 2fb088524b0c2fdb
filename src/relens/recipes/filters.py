"""Filters: whether an object that was found is kept, and if not, why. The reason is the filter's name.

They see one object at a time, in the order of the recipe, before its models describe it; what compares objects with
each other (`duplicate`) is done where a plan is sealed. A filter of the user's own is a function in a file beside his
recipe, whose digest is part of the lens.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relens.errors import BadInput, Broken
from relens.recipes.crops import Cropped
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
    """`function(pixels, about) -> bool`, with `about` the object's box, score, category and measures."""
    file, name = options["file"], options["function"]
    module = types.ModuleType(f"relens_filter_{digest_of(own[file])[:12]}")
    try:
        exec(compile(own[file], file, "exec"), vars(module))  # noqa: S102 - it is the user's own, by digest
        function = getattr(module, name)
    except Exception as error:
        raise BadInput(
            "recipes.bad-filter", f"{file}: {name} cannot be used: {type(error).__name__}: {error}"
        ) from error

    def keep(crop: Cropped, pixels: Callable[[], Pixels]) -> bool:
        try:
            return bool(function(pixels(), crop.about))
        except Exception as error:
            raise Broken(
                "recipes.filter-failed",
                f"{file}: {name} failed: {type(error).__name__}: {error}",
                hint="mend the function; an import that waits for it goes on with `relens plan resume`",
            ) from error

    return keep


_MAKE: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, bytes]], Keep]] = {
    "short-side": _short_side,
    "score": _score,
    "blur": _blur,
    "quality": _quality,
    "own": _own,
}


def _make(rule: Rule, own: Mapping[str, bytes]) -> Keep:
    return _MAKE[rule.name](rule.options, own)
