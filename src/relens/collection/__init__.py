"""Garbage collection: what nothing can name any more goes from the catalog, then from the store of blobs.

It keeps what answers, what a plan that is not over needs, what a pack in flight may have stored or reads, and all that
is young. It runs beside everything else, in short transactions, and can be broken off at any moment.
"""

from relens.collection.doomed import Doomed, Rules
from relens.collection.sweeping import Collected, Report, collect

__all__ = ["Collected", "Doomed", "Report", "Rules", "collect"]
