"""The only door to disk: the catalog (SQL) for facts, blobs for bytes.

Facts are committed in short transactions; bytes are stored first and are immutable, named by their SHA-256. What they
mean is decided above.
"""

from relens.store.blobs import Blob, Blobs, BlobWriter, LocalBlobs
from relens.store.catalog import Catalog, Tx, insert_if_absent

__all__ = ["Blob", "BlobWriter", "Blobs", "Catalog", "LocalBlobs", "Tx", "insert_if_absent"]
