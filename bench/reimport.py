"""Importing again: the folder of `memory`, of which one picture in a hundred has changed, beside its first import.

Both are the real command with one worker. What is counted is the CPU of the command and its worker.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import homes, memory, pictures
from bench.figures import Figure, Report, Setup, at_least

LEAST = 20
CHANGED = 100


def measure(setup: Setup) -> Report:
    count = setup.choose(20_000, 1_000)
    source = pictures.folder(setup.folder / f"pictures-{count}", count)
    filled = homes.filled_home(setup, count)
    if not (homes.has_gallery(filled, count) and (filled / homes.CPU).exists()):
        memory.measure(setup)
    first_s = float((filled / homes.CPU).read_text())
    home = setup.folder / "reimport"
    shutil.rmtree(home, ignore_errors=True)
    # Blobs never change: links will do.
    shutil.copytree(
        filled, home, copy_function=lambda a, b: os.link(a, b) if "blobs" in Path(a).parts else shutil.copy2(a, b)
    )
    with changed(source, setup.folder / "set-aside", count):
        second_s = _import(home, source)
    shutil.rmtree(home)
    ratio = first_s / second_s
    figure = Figure(
        f"import of {count:,} pictures again, 1 % changed",
        f"{second_s:.1f} s of CPU",
        f"{first_s:.1f} s the first time",
        ratio,
        at_least(ratio, LEAST),
    )
    return Report((figure,))


@contextlib.contextmanager
def changed(source: Path, aside: Path, count: int) -> Iterator[None]:
    """One picture in a hundred shows something else, until the end."""
    others = pictures.jpegs(8, seed=5_000_000)
    names = sorted(path.name for path in source.glob("*.jpg"))[::CHANGED]
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        for number, name in enumerate(names):
            (source / name).rename(aside / name)
            # Another byte behind the picture is another picture.
            (source / name).write_bytes(others[number % len(others)] + number.to_bytes(4, "big"))
        yield
    finally:
        for path in aside.glob("*.jpg"):
            path.replace(source / path.name)
        aside.rmdir()
    assert len(names) == -(-count // CHANGED)


def _import(home: Path, folder: Path) -> float:
    """CPU seconds of an import by the real command with one worker."""
    argv = [*homes.RELENS, "import", str(folder), "--gallery", homes.GALLERY, "--workers", "1", "--home", str(home)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the import ended with {done.returncode}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
