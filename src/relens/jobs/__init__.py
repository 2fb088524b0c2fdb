"""Durable leased work in the catalog: plans, packs, leases, quarantine.

A pack is worked off by one worker at a time and exactly once in effect: its results and its end are one transaction,
fenced by the epoch of the claim. Which handler runs a pack, and what it means, is decided above.
"""

from relens.jobs.hosts import Worker, host_name, is_alive, start_time, this_host, this_worker
from relens.jobs.leases import MAX_LOSSES, Claim
from relens.jobs.loop import Hold, Interrupted, run_worker
from relens.jobs.pool import WorkerPool, parent_is_gone

__all__ = [
    "MAX_LOSSES",
    "Claim",
    "Hold",
    "Interrupted",
    "Worker",
    "WorkerPool",
    "host_name",
    "is_alive",
    "parent_is_gone",
    "run_worker",
    "start_time",
    "this_host",
    "this_worker",
]
