"""One object in or out, now: enrolments, changes of items, deletions.

Each is one short transaction under the gallery's lock with a sequence of its own, and visible in every engine when the
call returns. Long work on whole galleries is `bulk`'s.
"""

from relens.enrolment.adding import Enrolled, Enroller
from relens.enrolment.changing import change_item, delete, read_item
from relens.enrolment.fields import check_day
from relens.enrolment.keeping import Keeper, Kept, Place
from relens.enrolment.naming import name_blobs

__all__ = [
    "Enrolled",
    "Enroller",
    "Keeper",
    "Kept",
    "Place",
    "change_item",
    "check_day",
    "delete",
    "name_blobs",
    "read_item",
]
