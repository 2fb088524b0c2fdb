"""Who works: a host, a process and when it started, so that a dead worker is known as dead at once.

A host is a boot of a machine and its process namespace: two containers with one name are two hosts, and a machine that
was restarted is not the one that it was.
"""

from __future__ import annotations

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that claims packs. `started` tells a process from an earlier one with the same pid."""

    host: str
    pid: int
    started: str


def this_worker() -> Worker:
    """The calling process."""
    return Worker(this_host(), os.getpid(), start_time(os.getpid()) or "")


def host_name() -> str:
    """The name of this machine, the same after a restart."""
    return socket.gethostname()


@functools.cache
def this_host() -> str:
    """Name, boot and process namespace of this host."""
    boot = _read("/proc/sys/kernel/random/boot_id") or "unknown-boot"
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = "unknown-namespace"
    return f"{socket.gethostname()}/{boot}/{namespace}"


def is_alive(pid: int, started: str) -> bool:
    """Whether that very process still runs on this host. A zombie does not run."""
    return start_time(pid) == started


def start_time(pid: int) -> str | None:
    """Ticks since boot when a process was started; None if it does not run."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
