"""Which ids faiss may answer, as it wants it said: a table of bits where ids are dense, else a set."""

from __future__ import annotations

from typing import Any

import numpy as np

from relens.vectors.library import load_faiss
from relens.vectors.segments import Ids

BITS_PER_ID = 64  # a set takes about as much memory for each


def only(ids: Ids) -> Any:
    """A selector of these ids; negative ones are nobody's."""
    faiss = load_faiss()
    ids = ids[ids >= 0]
    top = int(ids.max()) + 1 if len(ids) else 0
    if top > BITS_PER_ID * max(len(ids), 1):
        return faiss.IDSelectorBatch(ids)
    chosen = np.zeros(-(-top // 8) * 8, np.bool_)
    chosen[ids] = True
    return faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))


def all_but(ids: Ids) -> Any:
    """A selector of every other id."""
    return load_faiss().IDSelectorNot(only(ids))


def both(one: Any, other: Any) -> Any:
    """What both select; either may be None, which selects everything."""
    if one is None or other is None:
        return one if other is None else other
    return load_faiss().IDSelectorAnd(one, other)
