"""Quantizers: what all approximate indexes of a gallery and space share, trained once.

A quantizer is centroids, each with a list of the rows nearest to it, and for each dimension a range that 8 bits spell.
It is two blobs, a manifest and faiss's trained, empty index. Numbers of lists and codes of two quantizers mean nothing
to each other, and faiss would not notice: indexes name theirs, and only those of one are merged.
"""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput, Broken, Missing
from relens.store import Blobs
from relens.values import Floats, canonical_json, digest_of
from relens.vectors.library import load_faiss
from relens.vectors.lists import Codes

LISTS_PER_ROOT = 4  # times the square root of the rows: half or double costs a tenth of a search's time
LEAST_ROWS_PER_LIST = 39  # with fewer to learn from, faiss warns that centroids are chance
ROUNDS = 10
CHUNK_ROWS = 1 << 13

Numbers = NDArray[np.int64]
"""(n,) int64, the number of a row's list."""


@dataclass(frozen=True, slots=True)
class QuantizerManifest:
    """What a quantizer is of. `trained_on` rows; `data` is the digest of the blob with centroids and ranges."""

    gallery: int
    space: str
    dim: int
    nlist: int
    trained_on: int
    seed: int
    data: str
    data_bytes: int

    @property
    def digest(self) -> str:
        """The quantizer's name, and that of the manifest's blob."""
        return digest_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        return canonical_json(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> QuantizerManifest:
        """ValueError or TypeError for what is no manifest."""
        return cls(**json.loads(data))


@dataclass(frozen=True, eq=False)
class Quantizer:
    """An open quantizer, held once however many indexes use it.

    centroids  (nlist, d) float32, of unit length
    empty      faiss's index without rows; never to be added to
    """

    manifest: QuantizerManifest
    centroids: Floats
    empty: Any
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.manifest.digest)

    def assign(self, vectors: Floats) -> Numbers:
        """The list of each row: that of the centroid with the largest product.

        numpy's product is used, which here assigns four times as many rows per second as faiss does.
        """
        return _nearest(vectors, self.centroids)[0]

    def encode(self, vectors: Floats, numbers: Numbers) -> Codes:
        """The codes of rows of these lists: each dimension of what differs from the centroid, in 8 bits."""
        faiss = load_faiss()
        codes = np.empty((len(vectors), self.empty.code_size), np.uint8)
        rows = np.ascontiguousarray(vectors)
        spelled = tuple(map(faiss.swig_ptr, (rows, np.ascontiguousarray(numbers), codes)))
        self.empty.encode_vectors(len(rows), *spelled)
        return codes


def choose_nlist(count: int) -> int:
    """How many lists a quantizer for so many rows has: a power of two, near four times the root of the rows."""
    wanted = LISTS_PER_ROOT * max(count, 1) ** 0.5
    affordable = max(count // LEAST_ROWS_PER_LIST, 1)
    return int(2 ** min(round(math.log2(wanted)), math.floor(math.log2(affordable))))


def train_quantizer(blobs: Blobs, sample: Floats, *, gallery: int, space: str, nlist: int, seed: int) -> Quantizer:
    """Learn centroids and ranges from a sample of the gallery's rows, store them, and open the quantizer.

    sample   (n, d) float32 unit rows, drawn from all days and categories; 64 rows for each list are plenty

    The same sample and seed make the same quantizer on the same machine. Spherical k-means (Dhillon and Modha, Concept
    decompositions, 2001): cosines decide, centroids have unit length. BadInput for fewer rows than lists, and for rows
    that are no numbers.
    """
    if sample.ndim != 2 or sample.dtype != np.float32 or not 1 <= nlist <= len(sample):  # noqa: PLR2004 - a table
        raise BadInput(
            "vectors.bad-sample",
            f"{nlist} lists cannot be learnt from {sample.shape} {sample.dtype.name}",
            hint="give (n, d) float32 rows, at least one for each list; `choose_nlist` says how many lists rows want",
        )
    if not np.isfinite(sample.sum(axis=1)).all():
        raise BadInput("vectors.bad-sample", "the sample has rows that are not finite")
    centroids = _cluster(sample, nlist, seed)
    data = bytes(load_faiss().serialize_index(_empty_index(centroids, _ranges(sample, centroids))))
    blob = blobs.put(data)
    dim = sample.shape[1]
    manifest = QuantizerManifest(gallery, space, dim, nlist, len(sample), seed, blob.digest, blob.size)
    return open_quantizer(blobs, blobs.put(manifest.to_bytes()).digest)


_open: weakref.WeakValueDictionary[str, Quantizer] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def open_quantizer(blobs: Blobs, digest: str) -> Quantizer:
    """Read a quantizer, all of whose bytes are checked; one that is open already is shared.

    Missing if there is no such manifest; Broken that names the quantizer if anything is not as it was written.
    """
    with _opening:
        known = _open.get(digest)
        if known is None:
            known = _open[digest] = _read(blobs, digest)
        return known


def _read(blobs: Blobs, digest: str) -> Quantizer:
    stored = blobs.read(digest)
    if digest_of(stored) != digest:
        raise _corrupt(digest, "the bytes of its manifest differ from its digest")
    try:
        manifest = QuantizerManifest.from_bytes(stored)
        data = blobs.read(manifest.data)
    except (ValueError, TypeError, Missing) as error:
        raise _corrupt(digest, f"its manifest or data cannot be read: {error}") from error
    if digest_of(data) != manifest.data:
        raise _corrupt(digest, "its data differ from their digest")
    faiss = load_faiss()
    empty = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    if (empty.nlist, empty.d) != (manifest.nlist, manifest.dim):
        raise _corrupt(digest, f"its data are {(empty.nlist, empty.d)}, its manifest {(manifest.nlist, manifest.dim)}")
    return Quantizer(manifest, np.asarray(_Centroids(empty)), empty)


class _Centroids:
    """The centroids where they lie in faiss's memory, which lasts as long as an array of them."""

    def __init__(self, empty: Any) -> None:
        self._empty = empty
        address = int(load_faiss().downcast_index(empty.quantizer).get_xb())
        shape = (empty.nlist, empty.d)
        self.__array_interface__ = {"version": 3, "typestr": "<f4", "shape": shape, "data": (address, True)}


def _cluster(sample: Floats, nlist: int, seed: int) -> Floats:
    """Centroids of unit length. One that loses all its rows takes the row that is worst off where it is."""
    rng = np.random.default_rng(seed)
    centroids = sample[np.sort(rng.choice(len(sample), nlist, replace=False))]
    for _ in range(ROUNDS):
        numbers, scores = _nearest(sample, centroids)
        sums = np.zeros_like(centroids)
        for part in _chunks(len(sample)):
            order = np.argsort(numbers[part], kind="stable")
            held, starts = np.unique(numbers[part][order], return_index=True)
            sums[held] += np.add.reduceat(sample[part][order], starts, axis=0)
        empty = np.flatnonzero(np.bincount(numbers, minlength=nlist) == 0)
        sums[empty] = sample[np.argsort(scores, kind="stable")[: len(empty)]]
        centroids = _unit(sums, instead=centroids)
    return centroids


def _unit(sums: Floats, *, instead: Floats) -> Floats:
    """Rows of unit length; opposite rows may add up to nothing, which has no direction."""
    lengths = np.sqrt(np.vecdot(sums, sums))[:, None]
    return np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1), instead).astype(np.float32)


def _ranges(sample: Floats, centroids: Floats) -> Floats:
    """(2, d): the least and the largest that a dimension of a row differs from its centroid."""
    numbers = _nearest(sample, centroids)[0]
    least, most = np.full((2, sample.shape[1]), [[np.inf], [-np.inf]], np.float32)
    for part in _chunks(len(sample)):
        rest = sample[part] - centroids[numbers[part]]
        np.minimum(least, rest.min(axis=0), out=least)
        np.maximum(most, rest.max(axis=0), out=most)
    return np.stack([least, most])


def _nearest(vectors: Floats, centroids: Floats) -> tuple[Numbers, Floats]:
    """For each row the number of its centroid, and their product."""
    numbers, scores = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.float32)
    for part in _chunks(len(vectors)):
        products = vectors[part] @ centroids.T
        numbers[part] = products.argmax(axis=1)
        scores[part] = np.take_along_axis(products, numbers[part][:, None], axis=1)[:, 0]
    return numbers, scores


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK_ROWS, count)) for start in range(0, count, CHUNK_ROWS))


def _empty_index(centroids: Floats, ranges: Floats) -> Any:
    faiss = load_faiss()
    coarse = faiss.IndexFlatIP(centroids.shape[1])
    coarse.add(centroids)
    empty = new_index(coarse, len(centroids))
    empty.sq.train(ranges)  # faiss keeps the extremes of each dimension, and these rows are the extremes
    empty.is_trained = True
    return empty


def new_index(coarse: Any, nlist: int) -> Any:
    """faiss's index of our kind over these centroids, not trained."""
    faiss = load_faiss()
    kind = faiss.ScalarQuantizer.QT_8bit
    return faiss.IndexIVFScalarQuantizer(coarse, coarse.d, nlist, kind, faiss.METRIC_INNER_PRODUCT)


def _corrupt(digest: str, why: str) -> Broken:
    return Broken(
        "vectors.corrupt-quantizer",
        f"quantizer {digest} cannot be used: {why}",
        hint="restore its blobs from a backup, or train another and build the indexes again",
    )
