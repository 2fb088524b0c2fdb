"""faiss's file of inverted lists, spelled by ourselves: the same rows are the same bytes, and joining lists is copying.

A file holds, list by list, the codes of its rows and then their ids, increasing; a table of sizes stands before them.
It is written in one pass, hashed on the way, and read and mapped by faiss itself (`read_InvertedLists`).
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relens.store import Blob, Blobs
from relens.vectors.segments import Ids

Codes = NDArray[np.uint8]
"""(n, code_bytes) uint8, a row as the quantizer spells it."""

ID_BYTES = 8
BUFFER_BYTES = 1 << 20  # written at a time: small lists one by one take half as long again
_KIND, _EVERY_LIST = b"ilar", b"full"  # ArrayInvertedLists; of each list a size
_SIZES = np.dtype("<u8")


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists in mapped memory. `sizes` (nlist,) int64 says how many rows each has."""

    sizes: NDArray[np.int64]
    code_bytes: int
    _memory: memoryview
    _starts: list[int]
    _middles: list[int]

    def spelled(self, number: int) -> tuple[memoryview, memoryview]:
        """Codes and ids of one list, as they lie in the file."""
        start, middle = self._starts[number], self._middles[number]
        return self._memory[start:middle], self._memory[middle : self._starts[number + 1]]

    def rows(self, number: int) -> tuple[Codes, Ids]:
        """Codes and ids of one list."""
        codes, ids = self.spelled(number)
        return np.frombuffer(codes, np.uint8).reshape(-1, self.code_bytes), np.frombuffer(ids, np.int64)

    def ids(self) -> Ids:
        """All ids, list by list."""
        return np.frombuffer(b"".join(self.spelled(number)[1] for number in range(len(self.sizes))), np.int64)


def write_lists(
    blobs: Blobs, sizes: NDArray[np.int64], code_bytes: int, lists: Iterable[Sequence[bytes | memoryview]]
) -> Blob:
    """Store lists of these sizes; `lists` gives of each the bytes of its codes and then of its ids, in some pieces."""
    buffer, filled = memoryview(bytearray(BUFFER_BYTES)), 0
    with blobs.writer() as writer:
        for piece in itertools.chain([_head(sizes, code_bytes)], itertools.chain.from_iterable(lists)):
            if filled + len(piece) > BUFFER_BYTES:
                writer.write(buffer[:filled])
                filled = 0
            if len(piece) > BUFFER_BYTES:
                writer.write(piece)
            else:
                buffer[filled : filled + len(piece)] = piece
                filled += len(piece)
        writer.write(buffer[:filled])
        return writer.finish()


def read_lists(mapped: mmap.mmap | bytes, nlist: int, code_bytes: int, count: int) -> Lists:
    """The lists of a file, nothing of which is read but the sizes. ValueError if it is another file than that."""
    start = len(_head(np.empty(0, np.int64), code_bytes)) + nlist * _SIZES.itemsize
    whole = start + count * (code_bytes + ID_BYTES)
    if len(mapped) != whole:
        raise ValueError(f"it has {len(mapped)} bytes, and {count} rows in {nlist} lists are {whole}")
    sizes = np.frombuffer(mapped, _SIZES, nlist, start - nlist * _SIZES.itemsize).astype(np.int64)
    if mapped[:start] != _head(sizes, code_bytes):
        raise ValueError("it does not begin as lists do")
    ends = np.cumsum(np.clip(sizes, -1, count))
    if sizes.min() < 0 or sizes.max() > count or ends[-1] != count:
        raise ValueError(f"its lists have other sizes than {count} rows")
    starts = start + np.array([0, *ends]) * (code_bytes + ID_BYTES)
    middles = starts[:-1] + sizes * code_bytes
    return Lists(sizes, code_bytes, memoryview(mapped), starts.tolist(), middles.tolist())


def imbalance(sizes: NDArray[np.int64]) -> float:
    """How many times more rows a search meets than with lists of equal size, as faiss counts it; 1 for no rows."""
    total = int(sizes.sum())
    return len(sizes) * float(np.square(sizes.astype(np.float64)).sum()) / total**2 if total else 1.0


def _head(sizes: NDArray[np.int64], code_bytes: int) -> bytes:
    shape = np.array([len(sizes), code_bytes], _SIZES).tobytes()
    return _KIND + shape + _EVERY_LIST + np.array([len(sizes)], _SIZES).tobytes() + sizes.astype(_SIZES).tobytes()
