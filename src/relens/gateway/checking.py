"""What is asked, checked before anything is done, and what pictures may be."""

from __future__ import annotations

from relens.config import Settings
from relens.errors import BadInput
from relens.recipes import Lens
from relens.vision import Limits


def category_of(lens: Lens, named: str | None) -> str:
    """The category that is meant: the named one, or the only one. BadInput if there is no such, or no only one."""
    known = lens.recipe.categories
    if named is None and len(known) == 1:
        return known[0]
    if named is None or named not in known:
        what = "which category?" if named is None else f"no object has category {named!r}"
        raise BadInput("gateway.no-category", what, hint=f"recipe {lens.recipe.name} gives {', '.join(known)}")
    return named


def check_threshold(threshold: float | None) -> None:
    """BadInput for what is no cosine."""
    if threshold is not None and not -1 <= threshold <= 1:
        raise BadInput(
            "gateway.bad-threshold", f"threshold {threshold} is no cosine", hint="give a number from -1 to 1"
        )


def limits_of(settings: Settings) -> Limits:
    """What a picture may be, by the settings."""
    given = settings.limits
    return Limits(
        max_bytes=given.max_bytes,
        max_pixels=given.max_pixels,
        max_progressive_pixels=given.max_progressive_pixels,
    )
