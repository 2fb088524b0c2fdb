"""The truth about objects: galleries, pictures, items, objects with their crops, vectors and labels, tombstones.

Every gallery has a sequence, taken under its row lock, so that it never skips; what a plan staged becomes visible with
the sequence that the plan takes. Ids of objects are increasing and never used again. Searching is not done here.
"""

from relens.gallery.galleries import (
    Gallery,
    by_id,
    check_name,
    count_objects,
    create,
    every,
    find,
    get,
    lock,
    remove,
    take_sequence,
)
from relens.gallery.reading import StoredObject, crop_location, dead_since, describe, get_object
from relens.gallery.staging import (
    Item,
    NewObject,
    NewPicture,
    Partition,
    count_released,
    count_staged,
    discard,
    known_pictures,
    release_orphans,
    stage,
    staged_elsewhere,
    staged_partitions,
    staged_vectors,
    upsert_items,
)

__all__ = [
    "Gallery",
    "Item",
    "NewObject",
    "NewPicture",
    "Partition",
    "StoredObject",
    "by_id",
    "check_name",
    "count_objects",
    "count_released",
    "count_staged",
    "create",
    "crop_location",
    "dead_since",
    "describe",
    "discard",
    "every",
    "find",
    "get",
    "get_object",
    "known_pictures",
    "lock",
    "release_orphans",
    "remove",
    "stage",
    "staged_elsewhere",
    "staged_partitions",
    "staged_vectors",
    "take_sequence",
    "upsert_items",
]
