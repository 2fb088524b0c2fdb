"""Approximate indexes: immutable accelerators over segments of one gallery, category and space; never the truth.

An index is two blobs like a segment: a manifest, whose digest names it, and data, the inverted lists that faiss maps
into memory. Centroids and ranges are its quantizer's, which many indexes share. It says which rows are probably near;
how near they are, and whether they live, is asked of the segments (`Searchable`).
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from relens.errors import Broken, Missing
from relens.store import Blobs
from relens.values import Floats, canonical_json, digest_of
from relens.vectors.library import load_faiss
from relens.vectors.lists import Lists, read_lists
from relens.vectors.quantizers import Numbers, Quantizer, new_index, open_quantizer
from relens.vectors.segments import Ids

DEPTH = 10
"""Neighbours that recall is measured for."""
DEPTHS = (1, 10, 100)
"""Times as many: how deep a search goes that asks for more, or of which only some rows may be answered."""
SPREAD = 4  # times the usual number of lists are searched at most, for a query that is far from everything


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """What an index holds, and what it was measured to do.

    quantizer   digest of the quantizer whose lists these are
    covers      digests of segments, sorted: all their rows are here, but for those that were dead when it was built
    data        digest of the blob with the lists, of `data_bytes` bytes
    probes      how many lists hold 95 % of the 10, 100 and 1000 nearest rows of a sample of rows
    reach       the same in cosines: how much farther from the query the centroids of those lists are than the nearest
    overfetch   times as many candidates as are asked for: 8 bits confuse neighbours, exact scores put them right
    recall      share of the ten nearest rows that searches find, for the sample
    imbalance   how many times more rows a search meets than if all lists were of one length
    """

    gallery: int
    category: str
    space: str
    dim: int
    count: int
    quantizer: str
    covers: tuple[str, ...]
    data: str
    data_bytes: int
    probes: tuple[int, ...]
    reach: tuple[float, ...]
    overfetch: int
    recall: float
    imbalance: float

    @property
    def nprobe(self) -> int:
        """How many lists find enough of ten neighbours, if every query has as many searched."""
        return self.probes[0]

    @property
    def digest(self) -> str:
        """The index's name, and that of the manifest's blob."""
        return digest_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        return canonical_json(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> IndexManifest:
        """ValueError or TypeError for what is no manifest."""
        fields: dict[str, Any] = dict(json.loads(data))
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**fields | lists)


@dataclass(frozen=True, eq=False)
class Index:
    """An open index. Safe to search from many threads.

    lists   its rows as they lie in the file
    mapped  the same for faiss
    """

    manifest: IndexManifest
    quantizer: Quantizer
    lists: Lists
    mapped: Any
    digest: str = field(init=False)
    parameters: dict[int, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.manifest.digest)

    def lists_within_reach(self, closeness: Floats, depth: float) -> Numbers:
        """Which lists to search for the `depth` nearest rows.

        closeness  (nlist,) product of the query and each centroid

        They are few for a query in the midst of much, and many for one that lies between: on average a third less than
        would find as much if all queries searched the same number.
        """
        probes, reach = self._deep(depth)
        within = (closeness >= closeness.max() - np.float32(reach)).nonzero()[0]
        return within if len(within) <= SPREAD * probes else nearest_lists(closeness, SPREAD * probes)

    def lists_at_most(self, depth: float) -> int:
        """How many lists a search for the `depth` nearest rows reads, about."""
        return self._deep(depth)[0]

    def nearest(self, query: Floats, closeness: Floats, lists: Numbers, count: int, selector: Any) -> Ids:
        """Ids of those `count` rows of some lists, or fewer, that look nearest.

        selector   of ids that may be answered; None for all
        """
        count = min(count, self.manifest.count)
        if not count:
            return np.empty(0, np.int64)
        faiss = load_faiss()
        close, found, scores = closeness[lists], np.empty(count, np.int64), np.empty(count, np.float32)
        pointers = [faiss.swig_ptr(array) for array in (lists, close, scores, found)]
        parameters = self._parameters(len(lists), selector)
        faiss.omp_set_num_threads(1)  # of this thread's searches; many threads search at once
        # The wrapper without _c takes no parameters, and the shared object's are never changed.
        self.mapped.search_preassigned_c(1, faiss.swig_ptr(query), count, *pointers, False, parameters)
        return found if found[-1] >= 0 else found[found >= 0]  # -1 where there was nobody

    def _parameters(self, lists: int, selector: Any) -> Any:
        """Making them takes a twentieth of a search: those without a selector are kept."""
        if selector is not None:
            return load_faiss().SearchParametersIVF(sel=selector, nprobe=lists)
        if lists not in self.parameters:
            self.parameters[lists] = load_faiss().SearchParametersIVF(nprobe=lists)
        return self.parameters[lists]

    def _deep(self, depth: float) -> tuple[int, float]:
        """Lists and reach between the depths that were measured, and beyond the last as between the last two."""
        probes, reach = self.manifest.probes, self.manifest.reach
        if depth <= DEPTH:
            return probes[0], reach[0]
        decades = math.log10(depth / DEPTH)
        step = min(int(decades), len(probes) - 2)
        part = decades - step
        lists = probes[step] * (probes[step + 1] / probes[step]) ** part
        return min(math.ceil(lists), len(self.lists.sizes)), reach[step] + part * (reach[step + 1] - reach[step])


def nearest_lists(closeness: Floats, count: int) -> Numbers:
    """So many lists whose centroids are nearest, or all."""
    return np.arange(len(closeness)) if count >= len(closeness) else np.argpartition(closeness, -count)[-count:]


def open_index(blobs: Blobs, digest: str, *, verify: bool) -> Index:
    """Map an index into memory. Manifest, quantizer and the size of the data are always checked, the data if `verify`.

    Missing if there is no such manifest; Broken that names the index if anything in it is not as it was written.
    """
    manifest = _read_manifest(blobs, digest)
    try:
        return open_data(blobs, manifest, open_quantizer(blobs, manifest.quantizer), verify=verify)
    except (Broken, Missing) as error:
        raise _corrupt(digest, error.message) from error
    except ValueError as error:
        raise _corrupt(digest, f"its data are not those of its manifest: {error}") from error


def open_data(blobs: Blobs, manifest: IndexManifest, quantizer: Quantizer, *, verify: bool) -> Index:
    """An index from its parts; ValueError if the data are not what the manifest says."""
    said = (manifest.space, manifest.dim, manifest.quantizer)
    if said != (quantizer.manifest.space, quantizer.manifest.dim, quantizer.digest):
        raise ValueError("its quantizer is of another space or length")
    path = blobs.path(manifest.data, verify=verify)
    if path.stat().st_size != manifest.data_bytes:
        raise ValueError(f"{path.stat().st_size} bytes, not {manifest.data_bytes}")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if manifest.data_bytes else b""
    lists = read_lists(content, quantizer.manifest.nlist, quantizer.empty.code_size, manifest.count)
    return Index(manifest, quantizer, lists, _map(str(path), quantizer, manifest.count))


def _map(path: str, quantizer: Quantizer, count: int) -> Any:
    faiss = load_faiss()
    lists = faiss.downcast_InvertedLists(faiss.read_InvertedLists(faiss.FileIOReader(path), faiss.IO_FLAG_MMAP))
    lists.prefetch_nthread = 0  # 32 threads are started for each search otherwise: 500 µs instead of 200
    mapped = new_index(quantizer.empty.quantizer, quantizer.manifest.nlist)
    mapped.sq = quantizer.empty.sq
    mapped.replace_invlists(lists, True)
    mapped.ntotal, mapped.is_trained = count, True
    return mapped


def _read_manifest(blobs: Blobs, digest: str) -> IndexManifest:
    data = blobs.read(digest)
    if digest_of(data) != digest:
        raise _corrupt(digest, "the bytes of its manifest differ from its digest")
    try:
        return IndexManifest.from_bytes(data)
    except (ValueError, TypeError) as error:
        raise _corrupt(digest, f"its manifest cannot be read: {error}") from error


def _corrupt(digest: str, why: str) -> Broken:
    return Broken(
        "vectors.corrupt-index",
        f"index {digest} cannot be used: {why}",
        hint="restore its blobs from a backup or build it again; without it its segments are searched exactly",
    )
