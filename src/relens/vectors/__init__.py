"""Vectors: files of them, segments of an index, exact and approximate search, checks.

Everything here belongs to one space and says which; nothing of two spaces is compared (`vectors.space-mismatch`).
What is stored is named by its digest and refused when it is not as it was written. Views, tails and the question which
rows are dead are decided above.
"""

from relens.vectors.building import build_index, merge_indexes
from relens.vectors.checks import Check, check_vectors
from relens.vectors.exact import Hits
from relens.vectors.files import read_vectors, write_vectors
from relens.vectors.indexes import Index, IndexManifest, open_index
from relens.vectors.quantizers import Quantizer, QuantizerManifest, choose_nlist, open_quantizer, train_quantizer
from relens.vectors.searching import Searchable, search
from relens.vectors.segments import Ids, Manifest, Segment, build_segment, open_segment

__all__ = [
    "Check",
    "Hits",
    "Ids",
    "Index",
    "IndexManifest",
    "Manifest",
    "Quantizer",
    "QuantizerManifest",
    "Searchable",
    "Segment",
    "build_index",
    "build_segment",
    "check_vectors",
    "choose_nlist",
    "merge_indexes",
    "open_index",
    "open_quantizer",
    "open_segment",
    "read_vectors",
    "search",
    "train_quantizer",
    "write_vectors",
]
