"""What a search is narrowed by, as parameters of its address."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from relens.narrowing import Where, read_where

Category = Annotated[str | None, Query(description="search this category instead of that of each object found")]
LabelName = Annotated[str | None, Query(description="only objects whose best name is this")]
Days = Annotated[str | None, Query(description="only objects of these days: `2026-01-01..2026-01-31`, either end open")]
ItemConditions = Annotated[
    list[str] | None,
    Query(
        alias="item",
        description="only objects that show an item like this: `shop=north`, `price=5..10`, `size=S|M`; repeat it to "
        "ask for more",
    ),
]
OffShelf = Annotated[bool, Query(description="also objects that only items off the shelf show")]


def _where(
    category: Category = None,
    label: LabelName = None,
    days: Days = None,
    item: ItemConditions = None,
    off_shelf: OffShelf = False,
) -> Where:
    return read_where(category=category, label=label, days=days, items=item or (), off_shelf=off_shelf)


Narrowed = Annotated[Where, Depends(_where)]
