"""A gallery written out, as JSON objects one after the other or as a Parquet file."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, BinaryIO

from relens.gateway.contents import open_contents
from relens.gateway.parquet import write_parquet
from relens.store import Blobs, Catalog


class Exporting:
    """Galleries written out, over one home."""

    _catalog: Catalog
    _blobs: Blobs

    def export(self, gallery: str, *, vectors: bool = False) -> Generator[dict[str, Any]]:
        """All that a gallery shows as of one sequence, read as it is asked for.

        The first is `{"gallery", "release", "sequence"}`, then come objects by increasing id, then, without an id,
        pictures that items show although nothing was found in them. A snapshot of the catalog stays open until the
        last one, or until this is closed. Missing if there is no such gallery; Conflict if vectors went meanwhile.
        """
        with open_contents(self._catalog, self._blobs, gallery, vectors=vectors) as contents:
            yield contents.head
            for page in contents.pages():
                for one in page:
                    yield one.to_json()

    def export_parquet(self, gallery: str, file: BinaryIO, *, vectors: bool = False) -> dict[str, Any]:
        """Write the same to a Parquet file: what an export says first, and how many `rows` were written.

        Broken if the library for it is not installed.
        """
        with open_contents(self._catalog, self._blobs, gallery, vectors=vectors) as contents:
            return contents.head | {"rows": write_parquet(file, contents)}
