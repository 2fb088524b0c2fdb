"""faiss, loaded when it is first needed: that takes 0.3 s, and who searches exactly never needs it."""

from __future__ import annotations

from typing import Any


def load_faiss() -> Any:
    """The module, untyped: most of it is generated."""
    import faiss  # noqa: PLC0415 - as above

    return faiss
