"""Interpreters for models in Python: one environment for each lock file, made once and never changed.

Packages come by the package installer with the hashes of the lock file, as wheels only: nothing is built here. A model
whose lock file is empty runs on relens' own interpreter.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relens.errors import Broken
from relens.values import digest_of

MARKER = "COMPLETE"


def interpreter_of(lock: bytes, cache: Path) -> Path:
    """The interpreter that has what a lock file names, in `cache` by the digest of the lock file.

    lock   requirements with `--hash=sha256:…` for each package, those of packages included; empty means none

    Broken if an environment cannot be made; the next call tries again.
    """
    if not any(line.strip() and not line.strip().startswith(b"#") for line in lock.splitlines()):
        return Path(sys.executable)
    digest = digest_of([digest_of(lock), platform.python_version(), platform.machine(), sys.platform])
    folder = cache / digest[:32]
    if not (folder / MARKER).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / f"{folder.name}.lock"):
            if not (folder / MARKER).is_file():
                _make(folder, lock)
    return folder / "bin" / "python"


def _make(folder: Path, lock: bytes) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], "the environment")
    listed = folder / "requirements.lock"
    listed.write_bytes(lock)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement", str(listed)], "its packages")
    (folder / MARKER).write_bytes(b"")


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise Broken(
            "runtimes.no-environment",
            f"{what} could not be made: {' / '.join(said[-3:]) or f'exit code {done.returncode}'}",
            hint="the lock file names every package with its version and hash, and each must be had as a wheel; "
            "without a network, name an `interpreter` in the model's file",
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process at a time makes an environment; a lock goes with its process."""
    with path.open("wb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
