"""Crops in tar shards, in the WebDataset convention: `<key>.jpg` and `<key>.json`, one pair an object.

A crop is read back with one range read, by the offset and length that the catalog keeps.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from relens.errors import Broken
from relens.recipes import Cropped
from relens.store import Blob, Blobs
from relens.values import canonical_json


class ShardWriter:
    """A shard in the making. Leaving the context without `finish` stores nothing."""

    def __init__(self, blobs: Blobs) -> None:
        self._context = blobs.writer()

    def __enter__(self) -> Self:
        self._writer = self._context.__enter__()
        # tarfile needs only `write` and `tell` to write.
        self._tar = tarfile.open(fileobj=self._writer, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)

    def add(self, sha256: str, number: int, crop: Cropped) -> tuple[int, int]:
        """Add the crop of a picture's object: (offset, length) of its JPEG bytes in the shard."""
        key = f"{sha256}-{number}"
        offset = self._add(f"{key}.jpg", crop.jpeg)
        about: dict[str, Any] = {
            "picture": sha256,
            "box": crop.box.to_json(),
            "score": crop.score,
            "category": crop.category,
        }
        if crop.cut != crop.box:
            about["cut"] = crop.cut.to_json()
        if crop.landmarks:
            about["landmarks"] = [list(point) for point in crop.landmarks]
        self._add(f"{key}.json", canonical_json(about))
        return offset, len(crop.jpeg)

    def copy(self, key: str, jpeg: bytes, about: bytes) -> tuple[int, int]:
        """Add a crop of another shard as it was there: (offset, length) of its JPEG bytes in this one."""
        offset = self._add(f"{key}.jpg", jpeg)
        self._add(f"{key}.json", about)
        return offset, len(jpeg)

    def finish(self) -> Blob:
        """Store the shard."""
        self._tar.close()
        return self._writer.finish()

    def _add(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        offset = self._writer.tell() + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(data))
        return offset


@dataclass(frozen=True, slots=True)
class Member:
    """A crop of a shard: `<sha256 of its picture>-<number>`, where its JPEG bytes lie, and what stands beside it."""

    key: str
    offset: int
    length: int
    about: tuple[int, int]

    @property
    def sha256(self) -> str:
        """Of the picture."""
        return self.key.rpartition("-")[0]


def read_members(path: Path) -> list[Member]:
    """All crops of a shard, by offset; only the heads of its files are read. Broken if it is no shard of ours."""
    try:
        with tarfile.open(path, "r:") as tar:
            files = {info.name: (info.offset_data, info.size) for info in tar}
        keys = [name.removesuffix(".jpg") for name in files if name.endswith(".jpg")]
        return [Member(key, *files[f"{key}.jpg"], files[f"{key}.json"]) for key in keys]
    except (tarfile.TarError, KeyError) as error:
        raise Broken("enrolment.corrupt-shard", f"shard {path.name} cannot be read: {error}") from error
