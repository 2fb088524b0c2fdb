"""Memory of one worker after few and after many pictures, imported by the real command; and how fast that went.

The gallery that it fills stays, for `http-search`.
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import homes, pictures
from bench.figures import Figure, Report, Setup, at_most
from relens import wiring

GROWTH, MOST_MB = 1.05, 600
SAMPLE_S = 0.25
WINDOW = 0.05  # of all pictures: samples within it make one figure
MB = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """How far the plan was, and what its one worker held then."""

    done: int
    rss: int
    peak: int


def measure(setup: Setup) -> Report:
    few, many = setup.choose(2_000, 300), setup.choose(20_000, 1_000)
    source = pictures.folder(setup.folder / f"pictures-{many}", many)
    home = homes.fresh_home(setup, homes.filled_home(setup, many).name)
    start = time.perf_counter()
    samples = list(sample_import(home, source))
    took_s = time.perf_counter() - start
    window = WINDOW * many
    early = statistics.median(sample.rss for sample in samples if few <= sample.done < few + window)
    late = statistics.median(sample.rss for sample in samples if many - window <= sample.done < many)
    peak = max(sample.peak for sample in samples)
    growth = late / early
    return Report(
        (
            Figure(
                f"a worker's memory after {many:,} pictures",
                f"{late / MB:.0f} MB",
                f"{early / MB:.0f} MB after {few:,}",
                growth,
                at_most(growth, GROWTH),
            ),
            Figure(
                "a worker's memory at its peak, sealing included",
                f"{peak / MB:.0f} MB",
                target=at_most(peak / MB, MOST_MB, " MB"),
            ),
            Figure(f"import of {many:,} VGA pictures, one worker, wall clock", f"{many / took_s:.0f} pictures/s"),
        )
    )


def sample_import(home: Path, source: Path) -> Iterator[Sample]:
    """Import with one worker, and look at it now and then until it is over."""
    argv = [*homes.RELENS, "import", str(source), "--gallery", homes.GALLERY, "--workers", "1", "--home", str(home)]
    gateway = wiring.open_local(home)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (home / "import.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                plans = gateway.plans()["plans"]
                with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                    worker = next(iter(psutil.Process(process.pid).children()), None)
                    if plans and worker is not None:
                        held, peak = worker.memory_info().rss, _peak(worker.pid)
                        yield Sample(plans[0]["progress"]["done"], held, peak)
                time.sleep(SAMPLE_S)
        finally:
            process.terminate()
            process.wait()
            gateway.close()
    if process.returncode:
        raise RuntimeError(f"the import ended with {process.returncode}; its words are in {home / 'import.log'}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (home / homes.CPU).write_text(f"{spent:.3f}")  # what `reimport` is measured beside


def _peak(pid: int) -> int:
    """The most memory that a process ever held, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise psutil.NoSuchProcess(pid)  # it has ended, and its parent has not noticed yet
