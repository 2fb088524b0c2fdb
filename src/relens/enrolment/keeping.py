"""What a gallery keeps of pictures that come in, by its retention: their bytes and crops, crops, or nothing at all.

Where nothing is kept, nothing is written: neither to the store nor to a temporary file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from relens.enrolment.shards import ShardWriter
from relens.gallery import Retention
from relens.recipes import Cropped
from relens.store import Blob, Blobs

Place = tuple[int, int]
"""Offset and length of a crop in its shard."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was stored: the shard with the crops, None if there is none, and pictures by their SHA-256."""

    retention: Retention
    shard: Blob | None
    originals: Mapping[str, Blob]

    @property
    def digests(self) -> list[str]:
        return [*([] if self.shard is None else [self.shard.digest]), *(one.digest for one in self.originals.values())]

    @property
    def named(self) -> list[tuple[Blob, str]]:
        """Every blob with its kind."""
        shard = [] if self.shard is None else [(self.shard, "shard")]
        return shard + [(one, "original") for one in self.originals.values()]

    def crop(self, place: Place | None) -> tuple[str, int, int] | None:
        """Shard, offset and length of a crop; None if it was not kept."""
        return None if self.shard is None or place is None else (self.shard.digest, *place)


class Keeper:
    """Keeps pictures and crops as they come. Leaving the context without `finish` stores no crop."""

    def __init__(self, blobs: Blobs, retention: Retention) -> None:
        self._blobs = blobs
        self._retention = retention
        self._open = contextlib.ExitStack()
        self._shard: ShardWriter | None = None
        self._originals: dict[str, Blob] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def picture(self, data: bytes, sha256: str) -> None:
        """A picture whose objects are kept."""
        if self._retention == "originals":
            self._originals[sha256] = self._blobs.put(data)

    def crop(self, sha256: str, number: int, crop: Cropped) -> Place | None:
        """The crop of a picture's object: where it lies in the shard."""
        if self._retention == "none":
            return None
        if self._shard is None:
            self._shard = self._open.enter_context(ShardWriter(self._blobs))
        return self._shard.add(sha256, number, crop)

    def finish(self) -> Kept:
        """Store what came."""
        return Kept(self._retention, None if self._shard is None else self._shard.finish(), self._originals)
