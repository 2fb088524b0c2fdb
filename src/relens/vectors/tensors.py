"""The safetensors container, spelled by ourselves: the same tensors are the same bytes, and their data are aligned.

The library's own writer orders metadata at random and aligns to 8 bytes; digests need the one, mapping into memory
the other. Any reader of safetensors reads these files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

ALIGNMENT = 64
ITEM_BYTES = {"F16": 2, "F32": 4, "I64": 8}
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's name, its element type in the words of safetensors, and its shape."""

    name: str
    dtype: Literal["F16", "F32", "I64"]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


def head_bytes(tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> bytes:
    """All that stands before the data. The tensors follow in their order, without gaps, from a multiple of 64 bytes."""
    head: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for tensor in tensors:
        offsets = [offset, offset + tensor.size]
        head[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        offset += tensor.size
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_head(data: bytes) -> dict[str, Any]:
    """The JSON that a file begins with. ValueError if it begins with something else."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    head = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    if not isinstance(head, dict):
        raise ValueError("the head is no JSON object")  # noqa: TRY004 - one error for whatever is wrong with a file
    return head
