"""Things that happen at an exact moment: before a certain call, or while another thread waits for what we hold."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from relens.jobs import run_worker, this_worker
from relens.wiring import Local


def once(patch: pytest.MonkeyPatch, owner: Any, name: str, what: Callable[[], object], *, at: int = 1) -> None:
    """Do something before one call of a function, counted from 1; the call then goes on, unless it raised."""
    calls: list[None] = []
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == at:
            what()
        return original(*args, **kwargs)

    patch.setattr(owner, name, wrapped)


def raising(error: BaseException) -> Callable[[], None]:
    """A function that raises this."""

    def what() -> None:
        raise error

    return what


def wait_a_moment() -> None:
    """Long enough for another thread to reach the lock that we hold."""
    threading.Event().wait(0.3)


def work(local: Local, plan: int, *, packs_done: int | None = None, until: Callable[[], bool] = lambda: False) -> None:
    """Work on a plan, until it is over, or so many packs of its first stage are done, or a condition holds."""

    def stop() -> bool:
        done = local.plan(plan)["tasks"][0]["packs"]["done"]
        return until() or (packs_done is not None and done >= packs_done)

    handlers = local.parts.handlers()
    run_worker(local.parts.catalog, this_worker(), handlers, lease_s=60.0, stop=stop, idle_s=0.0, plan=plan)


def put_aside(local: Local, plan: int) -> Callable[[], bool]:
    """A condition: a pack of the plan was put aside after an error."""
    return lambda: "error" in local.plan(plan)
