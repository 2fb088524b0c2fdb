"""Answers as HTML: the query with its names and where the model looked, then the look-alikes, best first."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from relens.errors import Missing
from relens.gateway import Gateway
from relens.values import WHOLE, Box, FoundObject, PictureInfo, SearchAnswer
from relens.vision import Limits, decode, encode_jpeg, overlay, shrink

QUERY_PX = 480
"""Short side of the query on a page, at most: twice what a phone or the left column shows."""

CROP_PX = 240
QUALITY = 82

LEAST_PERCENT = 0.005
"""What is smaller would be shown as 0."""

UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What HTML cannot hold or UTF-8 cannot say; on a page it is a replacement character."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture that was searched for (its bytes), and what came back.

    explained   the picture's object as `recognize` tells it with "subject" and "heatmap": shown where they are given
    title       what the picture is, for people
    note        one sentence on why it was asked
    """

    query: bytes
    answer: SearchAnswer
    explained: FoundObject | None = None
    title: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture in which something was recognised, with that drawn on it (a JPEG), and what was said of it in words."""

    title: str
    note: str
    jpeg: bytes
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a template needs of one question: pictures are data URIs, crops by object id, None for a deleted one."""

    asked: Asked
    picture: str
    heat: str | None
    boxes: tuple[Box, ...]
    crops: Mapping[int, str | None]


def search_page(gateway: Gateway, query: bytes, answer: SearchAnswer, explained: FoundObject | None) -> str:
    """A page that shows what a search found. BadInput if the query is no picture.

    A match that was deleted since is shown without its crop.
    """
    return _render("search.html.j2", shown=_show(gateway, Asked(query, answer, explained)))


def demo_page(
    gateway: Gateway,
    asked: Sequence[Asked],
    *,
    plans: Sequence[Mapping[str, Any]],
    origin: str,
    sources: Mapping[str, str],
    commands: Sequence[str],
    drawn: Sequence[Drawn] = (),
) -> str:
    """A page on a whole run: what several searches found, what was imported, and the commands for it.

    drawn      pictures in which something was recognised
    plans      imports as `Gateway.plan` gives them, in the order to be shown
    origin     where the pictures come from, a paragraph
    sources    the same for single pictures: title to origin and licence
    commands   what a person would type for the same
    """
    shown = [_show(gateway, one) for one in asked]
    recognised = [(one, _data_uri(one.jpeg)) for one in drawn]
    return _render(
        "demo.html.j2",
        shown=shown,
        recognised=recognised,
        plans=plans,
        origin=origin,
        sources=sources,
        commands=commands,
    )


# -- pictures -------------------------------------------------------------------------------------------------------


def _show(gateway: Gateway, asked: Asked) -> _Shown:
    limits = _admitted(asked.query, asked.answer.picture)
    pixels = shrink(decode(asked.query, limits=limits, short_side_px=QUERY_PX).pixels, QUERY_PX, long_side_px=960)
    attributes = {} if asked.explained is None else asked.explained.attributes
    heat = None
    if (given := attributes.get("heatmap")) is not None:
        cam = np.array(given["values"], np.float32)
        heat = _data_uri(encode_jpeg(overlay(pixels, cam, Box.from_json(given["box"])), quality=QUALITY))
    found = {match.id for one in asked.answer.objects for match in one.matches}
    return _Shown(
        asked=asked,
        picture=_data_uri(encode_jpeg(pixels, quality=QUALITY)),
        heat=heat,
        boxes=_boxes(asked.answer, attributes),
        crops={one: _crop(gateway, one) for one in found},
    )


def _admitted(query: bytes, picture: PictureInfo) -> Limits:
    """Limits that just let the query pass: it was answered, so it was within those of the settings."""
    pixels = max(1, (picture.width or 1) * (picture.height or 1))
    return Limits(max_bytes=max(1, len(query)), max_pixels=pixels, max_progressive_pixels=pixels)


def _boxes(answer: SearchAnswer, attributes: Mapping[str, Any]) -> tuple[Box, ...]:
    """What is framed in the query: the main subject if it is known, else objects that are not the whole picture."""
    if "subject" in attributes:
        return (Box.from_json(attributes["subject"]),)
    return tuple(one.box for one in answer.objects if one.box != WHOLE)


def _crop(gateway: Gateway, object_id: int) -> str | None:
    try:
        jpeg = gateway.crop(object_id)
    except Missing:
        return None
    pixels = shrink(decode(jpeg, short_side_px=CROP_PX).pixels, CROP_PX, long_side_px=2 * CROP_PX)
    return _data_uri(encode_jpeg(pixels, quality=QUALITY))


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


# -- text -----------------------------------------------------------------------------------------------------------


def _render(template: str, **values: Any) -> str:
    return _PAGES.get_template(template).render(**values)


def _printable(value: Any) -> Any:
    return UNSEEN.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _percent(share: float) -> str:
    """A share of 1, with a space that does not break."""
    return "<\u00a01\u00a0%" if 0 < share < LEAST_PERCENT else f"{100 * share:.0f}\u00a0%"


def _middle(text: object, most: int = 56) -> str:
    """Text of at most `most` characters: what is longer loses its middle."""
    full = str(text)
    return full if len(full) <= most else f"{full[: most // 3]}…{full[-(most - most // 3 - 1) :]}"


def _breakable(text: str) -> Markup:
    """A path that may wrap behind its slashes."""
    return Markup("/<wbr>").join(_printable(text).split("/"))


_PAGES = Environment(
    loader=PackageLoader("relens.console"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_printable,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters |= {"percent": _percent, "middle": _middle, "breakable": _breakable}
