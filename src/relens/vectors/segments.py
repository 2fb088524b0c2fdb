"""Segments: immutable parts of an index, each of one gallery, category, day and space.

A segment is two blobs: a manifest, whose digest names the segment, and the data that the manifest names. Opening maps
the data into memory and reads none of it. Which segments make up a view is the catalog's to know.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput, Broken, Missing
from relens.store import Blobs
from relens.values import Floats, canonical_json, digest_of
from relens.vectors.tensors import Tensor, head_bytes

FORMAT = "relens-segment-1"

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a segment holds.

    as_of       the gallery's sequence when it was built: newer tombstones apply to it
    data        digest of the blob with ids and vectors, of `data_bytes` bytes
    """

    gallery: int
    category: str
    day: str
    space: str
    dim: int
    count: int
    as_of: int
    data: str
    data_bytes: int

    @property
    def digest(self) -> str:
        """The segment's name, and that of the manifest's blob."""
        return digest_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        return canonical_json(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """ValueError or TypeError for what is no manifest."""
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True)
class Segment:
    """An open segment.

    ids      (n,) int64, strictly increasing
    vectors  (n, d) float32, rows of unit length; the memory is the file's and is not to be written to
    """

    manifest: Manifest
    ids: Ids
    vectors: Floats
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.manifest.digest)  # taken once: a search asks every segment


def build_segment(
    blobs: Blobs,
    *,
    gallery: int,
    category: str,
    day: str,
    space: str,
    as_of: int,
    parts: Iterable[tuple[Ids, Floats]],
    count: int,
    dim: int,
) -> Manifest:
    """Store a segment and name it; one part is in memory at a time, beside all ids.

    parts    (m,) int64 ids and (m, d) float32 unit rows; ids strictly increasing within and across parts
    count    rows of all parts together

    The same rows make the same segment, however they are cut into parts. BadInput if the parts are not as said. Whether
    the rows are unit vectors is for `check_vectors` to say. Dying half-way leaves nothing, or data without a manifest.
    """
    with blobs.writer() as writer:
        writer.write(_head(count, dim, space))
        seen: list[Ids] = []
        for ids, vectors in parts:
            _require_part(ids, vectors, dim)
            seen.append(np.array(ids))
            if len(ids):
                writer.write(np.ascontiguousarray(vectors).data.cast("B"))
        ids = np.concatenate(seen) if seen else np.empty(0, np.int64)
        _require_ids(ids, count)
        writer.write(ids.tobytes())
        data = writer.finish()
    manifest = Manifest(gallery, category, day, space, dim, count, as_of, data.digest, data.size)
    blobs.put(manifest.to_bytes())
    return manifest


def open_segment(blobs: Blobs, digest: str, *, verify: bool) -> Segment:
    """Map a segment into memory. The manifest and the size of the data are always checked, the content if `verify`.

    Missing if there is no such manifest; Broken that names the segment if anything in it is not as it was written.
    """
    manifest = _read_manifest(blobs, digest)
    head = _head(manifest.count, manifest.dim, manifest.space)
    try:
        path = blobs.path(manifest.data, verify=verify)
    except (Broken, Missing) as error:
        raise _corrupt(digest, error.message) from error
    mapped = _map(path)
    expected = sum(tensor.size for tensor in _tensors(manifest.count, manifest.dim)) + len(head)
    if not len(mapped) == manifest.data_bytes == expected:
        raise _corrupt(digest, f"its data are {len(mapped)} bytes, not the {manifest.data_bytes} of its manifest")
    if mapped[: len(head)] != head:
        raise _corrupt(digest, "its data are described otherwise than by its manifest")
    values = manifest.count * manifest.dim
    vectors = np.frombuffer(mapped, np.float32, values, len(head)).reshape(manifest.count, manifest.dim)
    ids = np.frombuffer(mapped, np.int64, manifest.count, len(head) + vectors.nbytes)
    return Segment(manifest, np.require(ids, requirements="A"), vectors)  # odd count and dim: ids are copied


def _tensors(count: int, dim: int) -> list[Tensor]:
    """Vectors first: they are streamed before the last id is known, and begin aligned."""
    return [Tensor("vectors", "F32", (count, dim)), Tensor("ids", "I64", (count,))]


def _head(count: int, dim: int, space: str) -> bytes:
    return head_bytes(_tensors(count, dim), {"format": FORMAT, "space": space})


def _require_part(ids: Ids, vectors: Floats, dim: int) -> None:
    good = ids.ndim == 1 and ids.dtype == np.int64 and vectors.dtype == np.float32
    if not (good and vectors.shape == (len(ids), dim)):
        raise BadInput(
            "vectors.wrong-shape",
            f"a part is (m,) int64 ids with (m, {dim}) float32 vectors; this one is {ids.shape} {ids.dtype.name} with "
            f"{vectors.shape} {vectors.dtype.name}",
        )


def _require_ids(ids: Ids, count: int) -> None:
    if len(ids) != count:
        raise BadInput("vectors.wrong-count", f"{count} rows were announced and {len(ids)} came")
    disordered = ids[1:] <= ids[:-1]
    if disordered.any():
        at = int(disordered.argmax())
        raise BadInput(
            "vectors.unordered-ids",
            f"id {ids[at + 1]} follows {ids[at]}; the ids of a segment are strictly increasing",
            hint="sort the rows by id and give each once",
        )


def _read_manifest(blobs: Blobs, digest: str) -> Manifest:
    data = blobs.read(digest)
    if digest_of(data) != digest:
        raise _corrupt(digest, "the bytes of its manifest differ from its digest")
    try:
        return Manifest.from_bytes(data)
    except (ValueError, TypeError) as error:
        raise _corrupt(digest, f"its manifest cannot be read: {error}") from error


def _map(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _corrupt(digest: str, why: str) -> Broken:
    return Broken(
        "vectors.corrupt-segment",
        f"segment {digest} cannot be used: {why}",
        hint="restore its blobs from a backup, or build it again from the vectors",
    )
