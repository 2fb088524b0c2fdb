"""Deaths: a process that ends at an exact moment as `kill -9` ends it, and what comes after it takes its leases."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from relens import wiring
from relens.jobs import Worker, this_host
from relens.recipes import Pipeline
from relens.store import Blob, Catalog, LocalBlobs, Tx
from relens.store.blobs import _LocalWriter

NOBODY = 2**22 + 1  # no process has this pid


class Killed(BaseException):
    """What ends a worker as a kill does: nothing of ours catches it."""


class Death:
    """Counts moments of the thread that made it, and strikes at the given ones, each in a life of its own."""

    def __init__(self, moments: Iterable[int]) -> None:
        self._moments = list(moments)
        self._thread = threading.get_ident()
        self.now = 0

    def moment(self) -> None:
        if threading.get_ident() != self._thread:
            return
        self.now += 1
        if self._moments and self.now == self._moments[0]:
            del self._moments[0]
            self.now = 0
            raise Killed


@contextlib.contextmanager
def deadly(moments: Iterable[int]) -> Iterator[Death]:
    """Around every commit, every blob that is stored or removed and every described picture one can be killed."""
    death = Death(moments)
    begin, finish, describe, remove = (
        Catalog.begin,
        _LocalWriter.finish,
        Pipeline.describe_all,
        LocalBlobs.remove,
    )

    @contextlib.contextmanager
    def dying_begin(catalog: Catalog) -> Iterator[Tx]:
        with begin(catalog) as tx:
            yield tx
            death.moment()
        death.moment()

    def dying_finish(writer: _LocalWriter) -> Blob:
        death.moment()
        blob = finish(writer)
        death.moment()
        return blob

    def dying_describe(pipeline: Pipeline, *given: Any, **options: Any) -> Any:
        death.moment()
        return describe(pipeline, *given, **options)

    def dying_remove(blobs: LocalBlobs, digest: str) -> None:
        death.moment()
        remove(blobs, digest)
        death.moment()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Catalog, "begin", dying_begin)
        patched.setattr(_LocalWriter, "finish", dying_finish)
        patched.setattr(Pipeline, "describe_all", dying_describe)
        patched.setattr(LocalBlobs, "remove", dying_remove)
        # Like a process that is not there: the next life frees at once what a dead one held.
        patched.setattr(wiring, "this_worker", lambda: Worker(this_host(), NOBODY, "then"))
        yield death
