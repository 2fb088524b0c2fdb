"""The truth about objects: galleries, pictures, items, objects with their crops, vectors and labels, tombstones, tail.

Every gallery has a sequence, taken under its row lock, so that it never skips; what a plan staged becomes visible with
the sequence that the plan takes. Ids of objects are increasing and never used again. Searching is not done here.
"""

from relens.gallery.deleting import dead_since
from relens.gallery.galleries import (
    RETENTIONS,
    Gallery,
    Retention,
    by_id,
    check_name,
    check_retention,
    count_objects,
    create,
    every,
    find,
    get,
    lock,
    remove,
    set_retention,
    set_threshold,
    take_sequence,
    thresholds_of,
)
from relens.gallery.items import Item
from relens.gallery.reading import (
    KnownPicture,
    StoredObject,
    crop_location,
    describe,
    find_picture,
    get_object,
    original_of,
    picture_of,
)
from relens.gallery.staging import (
    NewObject,
    NewPicture,
    Partition,
    add,
    count_released,
    known_pictures,
    stage,
    staged_elsewhere,
    staged_partitions,
    staged_vectors,
)

__all__ = [
    "RETENTIONS",
    "Gallery",
    "Item",
    "KnownPicture",
    "NewObject",
    "NewPicture",
    "Partition",
    "Retention",
    "StoredObject",
    "add",
    "by_id",
    "check_name",
    "check_retention",
    "count_objects",
    "count_released",
    "create",
    "crop_location",
    "dead_since",
    "describe",
    "every",
    "find",
    "find_picture",
    "get",
    "get_object",
    "known_pictures",
    "lock",
    "original_of",
    "picture_of",
    "remove",
    "set_retention",
    "set_threshold",
    "stage",
    "staged_elsewhere",
    "staged_partitions",
    "staged_vectors",
    "take_sequence",
    "thresholds_of",
]
