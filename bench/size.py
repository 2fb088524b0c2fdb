"""What the default install puts on the disk: a fresh environment, `pip install .` without extras."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bench.figures import Figure, Report, Setup

ROOT = Path(__file__).parent.parent
BROUGHT = {"pip", "setuptools"}  # by the environment itself
LARGEST = 10
MB = 1e6


def measure(setup: Setup) -> Report:
    if setup.quick:
        return Report((), remarks=("skipped: a fresh install takes a minute; leave out --quick",))
    sizes = install(setup.folder / "venv")
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST]
    total = sum(sizes.values())
    rows = {name: f"{sizes[name] / MB:.1f} MB" for name in largest}
    rows["all others"] = f"{(total - sum(sizes[name] for name in largest)) / MB:.1f} MB"
    figure = Figure("default install", f"{total / MB:.0f} MB, {len(sizes)} packages")
    return Report((figure,), {"Largest packages of the default install": rows})


def install(venv: Path) -> dict[str, int]:
    """Bytes on the disk of each package that a default install brings."""
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, str(ROOT)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip install ended with {done.returncode}: {done.stderr[-2000:]}")
    [packages] = venv.glob("lib/python*/site-packages")
    found = metadata.distributions(path=[str(packages)])
    return {one.name: _on_disk(one) for one in found if one.name not in BROUGHT}


def _on_disk(distribution: metadata.Distribution) -> int:
    """Blocks of all its files, compiled ones too, as `du` counts."""
    paths = [Path(str(file.locate())) for file in distribution.files or ()]
    return sum(path.stat().st_blocks * 512 for path in paths if path.is_file())
