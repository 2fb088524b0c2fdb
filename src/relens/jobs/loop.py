"""The life of a worker: claim, keep the lease, run the handler, and say honestly how it ended.

A handler commits its own results together with the end of its pack. Errors that are not a picture's only put the pack
aside; an interrupt gives it back at once; a lost lease is dropped without a trace.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import structlog

from relens.errors import Broken, RelensError
from relens.jobs import leases, plans
from relens.jobs.hosts import Worker
from relens.jobs.leases import Claim
from relens.store import Catalog

POLL_S = 0.2
HEARTBEAT_S = 1.0

log = structlog.get_logger(__name__)


class Interrupted(Exception):
    """The worker was asked to stop; the pack goes back."""


class Hold:
    """What a handler has of its lease: what it works on, how far it is, and whether to go on."""

    def __init__(self, catalog: Catalog, claim: Claim, lease_s: float, stop: Callable[[], bool]) -> None:
        self.claim = claim
        self.progress = 0
        self._catalog = catalog
        self._lease_s = lease_s
        self._stop = stop
        self._lost = threading.Event()
        self._over = threading.Event()

    def take_in_hand(self, entry: str) -> None:
        """Call before working on an entry. Interrupted if the worker is to stop; Conflict if the lease is lost.

        The entry is written down only when this pack has cost a worker already: the first loss makes it careful.
        """
        self.go_on()
        if self.claim.careful:
            with self._catalog.begin() as tx:
                leases.take_in_hand(tx, self.claim, entry)

    def go_on(self) -> None:
        """Call while waiting for something. Interrupted if the worker is to stop; Conflict if the lease is lost."""
        if self._stop():
            raise Interrupted
        if self._lost.is_set():
            raise leases.lease_lost(self.claim)

    def put_down(self) -> None:
        """Call when all entries are worked on: a worker lost from here on blames none of them."""
        if self.claim.careful:
            with self._catalog.begin() as tx:
                leases.put_down(tx, self.claim)

    def keep(self) -> None:
        """Send heartbeats until `release`. Runs in a thread of its own."""
        while not self._over.wait(min(HEARTBEAT_S, self._lease_s / 3)):
            try:
                with self._catalog.begin() as tx:
                    now = self._catalog.now(tx)
                    if not leases.heartbeat(tx, self.claim, now, self._lease_s, progress=self.progress):
                        self._lost.set()
                        return
            except Exception as error:  # noqa: BLE001 - without heartbeats the pack is lost: whatever it is, try again
                log.warning("heartbeat failed", pack=self.claim.pack, error=str(error))

    def release(self) -> None:
        self._over.set()


Handler = Callable[[Hold], None]


def run_worker(
    catalog: Catalog,
    worker: Worker,
    handlers: Mapping[tuple[str, str], Handler],
    *,
    lease_s: float,
    stop: Callable[[], bool],
    idle_s: float,
    plan: int | None = None,
) -> None:
    """Work packs off until told to stop, or until nothing was there to do for `idle_s` (0: until the plan is over).

    `handlers` by (kind of plan, stage). With `plan`, only that plan's packs are claimed.
    """
    idle_since = time.monotonic()
    while not stop():
        held = _claim(catalog, worker, lease_s, plan)
        if held is not None:
            _run(catalog, held, handlers[held.kind, held.stage], lease_s, stop)
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since >= idle_s and not _may_come(catalog, plan):
            return
        else:
            time.sleep(POLL_S)


def _claim(catalog: Catalog, worker: Worker, lease_s: float, plan: int | None) -> Claim | None:
    try:
        with catalog.begin() as tx:
            return leases.claim(tx, worker, catalog.now(tx), lease_s, plan=plan)
    except Broken as error:
        log.warning("no claim", error=error.message)
        time.sleep(1.0)
        return None


def _may_come(catalog: Catalog, plan: int | None) -> bool:
    try:
        with catalog.read() as tx:
            return plans.work_waits(tx) if plan is None else not plans.get(tx, plan).is_over
    except Broken:
        return True


def _run(catalog: Catalog, held: Claim, handler: Handler, lease_s: float, stop: Callable[[], bool]) -> None:
    hold = Hold(catalog, held, lease_s, stop)
    keeper = threading.Thread(target=hold.keep, name="heartbeat", daemon=True)
    keeper.start()
    bound = log.bind(plan=held.plan, pack=held.number, stage=held.stage)
    try:
        handler(hold)
        bound.info("pack done")
    except Interrupted:
        bound.info("pack given back")
        _try(catalog, lease_s, lambda tx, _now: leases.give_back(tx, held))
    except RelensError as error:
        if error.code == "jobs.lease-lost":
            bound.warning("lease lost")
        elif error.code == "gallery.changed":
            bound.info("pack runs again", why=error.message)
            _try(catalog, lease_s, lambda tx, _now: leases.give_back(tx, held))
        else:
            message = str(error)
            bound.warning("pack put aside", error=message, code=error.code)
            _try(catalog, lease_s, lambda tx, now: leases.back_off(tx, held, now, message))
    except (KeyboardInterrupt, SystemExit):
        _try(catalog, 0.0, lambda tx, _now: leases.give_back(tx, held))
        raise
    except Exception as error:  # noqa: BLE001 - a fault of ours must not take the worker down with it
        bound.exception("pack put aside")
        message = f"{type(error).__name__}: {error}"
        _try(catalog, lease_s, lambda tx, now: leases.back_off(tx, held, now, message))
    finally:
        hold.release()
        keeper.join()


def _try(catalog: Catalog, lease_s: float, write: Callable[..., None]) -> None:
    """Write how a pack ended. A catalog that does not serve is waited for, no longer than the lease would last."""
    deadline = time.monotonic() + lease_s
    while True:
        try:
            with catalog.begin() as tx:
                write(tx, catalog.now(tx))
        except Broken as error:
            log.warning("could not write how a pack ended", error=error.message)
            if time.monotonic() > deadline:
                return
            time.sleep(1.0)
        else:
            return
