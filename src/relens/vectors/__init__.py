"""Vectors: files of them, segments of an index, exact search, checks.

Everything here belongs to one space and says which; nothing of two spaces is compared (`vectors.space-mismatch`).
What is stored is named by its digest and refused when it is not as it was written. Views, tails and the question which
rows are dead are decided above.
"""

from relens.vectors.checks import Check, check_vectors
from relens.vectors.exact import Hits, search
from relens.vectors.files import read_vectors, write_vectors
from relens.vectors.segments import Ids, Manifest, Segment, build_segment, open_segment

__all__ = [
    "Check",
    "Hits",
    "Ids",
    "Manifest",
    "Segment",
    "build_segment",
    "check_vectors",
    "open_segment",
    "read_vectors",
    "search",
    "write_vectors",
]
