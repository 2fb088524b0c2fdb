"""Importing again: a folder of which one picture in a hundred has changed, beside its first import.

Both are the real command with as many workers as cores. What is counted is the CPU of the command and its workers.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

from bench import homes, pictures
from bench.figures import Figure, Report, Setup, at_least

LEAST = 20
CHANGED = 100


def measure(setup: Setup) -> Report:
    count = setup.choose(20_000, 1_000)
    source = pictures.folder(setup.folder / f"pictures-{count}", count)
    others = pictures.folder(setup.folder / f"pictures-{count // CHANGED}-changed", count // CHANGED, seed=5_000_000)
    folder = setup.folder / "reimported"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = sorted(path.name for path in source.glob("*.jpg"))
    for name in names:
        os.link(source / name, folder / name)
    home = homes.fresh_home(setup, "reimport")
    first_s = _import(home, folder)
    for name, other in zip(names[::CHANGED], sorted(others.glob("*.jpg")), strict=True):
        (folder / name).unlink()
        shutil.copyfile(other, folder / name)
    second_s = _import(home, folder)
    shutil.rmtree(home)
    shutil.rmtree(folder)
    ratio = first_s / second_s
    figure = Figure(
        f"import of {count:,} pictures again, 1 % changed",
        f"{second_s:.1f} s of CPU",
        f"{first_s:.1f} s the first time",
        ratio,
        at_least(ratio, LEAST),
    )
    return Report((figure,))


def _import(home: Path, folder: Path) -> float:
    """CPU seconds of an import by the real command, its workers included."""
    argv = [*homes.RELENS, "import", str(folder), "--gallery", homes.GALLERY, "--home", str(home), "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the import ended with {done.returncode}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
