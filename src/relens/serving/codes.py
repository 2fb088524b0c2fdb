"""gRPC's codes of what went wrong. TensorFlow Serving tells them over HTTP as well, of versions that ended."""

from __future__ import annotations

from relens.errors import BadInput, Broken, Busy, Conflict, Denied, Missing, RelensError

QUEUE_FULL = "runtimes.queue-full"
"""The code of what is refused because too much waits; protocols tell it from what is not ready yet."""

FAMILIES: tuple[tuple[type[RelensError], str], ...] = (
    (BadInput, "INVALID_ARGUMENT"),
    (Denied, "PERMISSION_DENIED"),
    (Missing, "NOT_FOUND"),
    (Conflict, "FAILED_PRECONDITION"),
    (Busy, "UNAVAILABLE"),
    (Broken, "INTERNAL"),
)


def rpc_code(error: RelensError) -> str:
    """The name of the code of an error."""
    if error.code == QUEUE_FULL:
        return "RESOURCE_EXHAUSTED"
    return next((code for family, code in FAMILIES if isinstance(error, family)), "UNKNOWN")
