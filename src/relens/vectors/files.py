"""Files of vectors: the truth of what was embedded, one blob per pack and space; indexes are rebuilt from it.

Half precision on disk, unit length again when read. A file says its space, and is read for no other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relens.errors import BadInput, Broken
from relens.store import Blob, Blobs
from relens.values import Floats, digest_of, require_same_space
from relens.vectors.tensors import Tensor, head_bytes, read_head

FORMAT = "relens-vectors-1"
UNIT_TOLERANCE = 1e-2  # of the squared length, as in values.Vector
HEAD_BYTES = 4096
"""No head is longer."""


def write_vectors(blobs: Blobs, vectors: Floats, *, space: str) -> Blob:
    """Store vectors as float16; the same vectors and space are the same blob.

    vectors  (n, d) float32, rows of unit length

    BadInput for another shape or type, and for a row that is zero, not finite or not normalised.
    """
    if vectors.ndim != 2 or vectors.dtype != np.float32:  # noqa: PLR2004 - rows and columns
        raise BadInput(
            "vectors.wrong-shape", f"vectors are (n, d) float32; these are {vectors.shape} {vectors.dtype.name}"
        )
    off = ~(np.abs(np.vecdot(vectors, vectors) - 1) <= UNIT_TOLERANCE)  # true for NaN as well
    if off.any():
        raise BadInput(
            "vectors.not-unit",
            f"{int(off.sum())} of {len(vectors)} vectors have no unit length; the first is row {int(off.argmax())}",
            hint="does the model give zeros or NaN for this picture?",
        )
    return write_halves(blobs, vectors.astype(np.float16), space=space)


def write_halves(blobs: Blobs, halves: NDArray[np.float16], *, space: str) -> Blob:
    """Store rows that were stored before, (n, d) float16, bit for bit."""
    return blobs.put(_head(len(halves), halves.shape[1], space) + halves.tobytes())


def read_halves(blobs: Blobs, digest: str, *, space: str) -> NDArray[np.float16]:
    """All rows of a file as they are stored: (n, d) float16. Errors as of `read_vectors`."""
    data = blobs.read(digest)
    if digest_of(data) != digest:
        raise _corrupt(digest, "its bytes differ from its digest")
    halves, held = _parse(digest, data)
    require_same_space(space, held)
    return halves


def count_rows(blobs: Blobs, digest: str) -> int:
    """How many rows a file has, by its head. Errors as of `read_vectors`."""
    try:
        return int(read_head(blobs.read(digest, 0, min(HEAD_BYTES, blobs.size(digest))))["vectors"]["shape"][0])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _corrupt(digest, f"it is no file of vectors: {error}") from error


def read_vectors(blobs: Blobs, digest: str, rows: NDArray[np.int64] | None, *, space: str) -> Floats:
    """Vectors of a file, in the order of `rows`, or all of them; the bytes are checked against the digest.

    rows     (m,) int64 row numbers, 0 to n-1, repeats allowed
    returns  (m, d) float32, rows of unit length

    Conflict that names both, if the file holds another space. BadInput for a row that it does not have. Missing if
    there is no such blob; Broken if its bytes are not those that were written, or no vectors at all.
    """
    halves = read_halves(blobs, digest, space=space)
    if rows is not None:
        if rows.size and not (rows.min() >= 0 and rows.max() < len(halves)):
            raise BadInput(
                "vectors.no-such-row",
                f"vectors {digest} has rows 0 to {len(halves) - 1}; asked were {rows.min()} to {rows.max()}",
            )
        halves = halves[rows]
    return unit_rows(halves)


def unit_rows(halves: NDArray[np.float16]) -> Floats:
    """Stored rows, (n, d) float16, as they are searched: (n, d) float32 of unit length."""
    vectors = halves.astype(np.float32)
    vectors /= np.sqrt(np.vecdot(vectors, vectors))[:, None]
    return vectors


def _head(count: int, dim: int, space: str) -> bytes:
    return head_bytes([Tensor("vectors", "F16", (count, dim))], {"format": FORMAT, "space": space})


def _parse(digest: str, data: bytes) -> tuple[NDArray[np.float16], str]:
    """The stored rows and their space. What we did not write, byte for byte, is refused."""
    try:
        head = read_head(data)
        count, dim = head["vectors"]["shape"]
        space = head["__metadata__"]["space"]
        expected = _head(count, dim, space)
        halves = np.frombuffer(data, np.float16, offset=len(expected)).reshape(count, dim)
    except (ValueError, KeyError, TypeError) as error:
        raise _corrupt(digest, f"it is no file of vectors: {error}") from error
    if not data.startswith(expected):
        raise _corrupt(digest, "it is no file of vectors of this kind")
    return halves, space


def _corrupt(digest: str, why: str) -> Broken:
    return Broken(
        "vectors.corrupt-file", f"vectors {digest} cannot be used: {why}", hint="restore that blob from a backup"
    )
