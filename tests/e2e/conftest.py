"""Real processes on a real home: the command as users type it, with the dummy model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
import sqlalchemy as sa

import relens
from relens.store.schema import items, objects, pictures, tombstones, vectors
from relens.vectors import read_vectors

RELENS = [sys.executable, "-m", "relens.cli"]


class Home:
    """A home in a temporary folder, and the command `relens` on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {**os.environ, "RELENS_HOME": str(path), "RELENS__IMPORTS__PACK_SIZE": "24"}

    def run(self, *args: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*RELENS, *map(str, args)], env=self.env, capture_output=True, text=True, timeout=120, check=False
        )
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *args: str | Path, code: int = 0):
        return json.loads(self.run(*args, "--json", code=code).stdout)

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        """A command in a session of its own, so that a test can kill it with all its children."""
        return subprocess.Popen(
            [*RELENS, *map(str, args)],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def workers(self) -> list[psutil.Process]:
        """The worker processes of this home."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "worker" in words and str(self.path) in words:
                found.append(process)
        return found

    def wait_for_workers(self) -> None:
        deadline = time.monotonic() + 20
        while not self.workers() and time.monotonic() < deadline:
            time.sleep(0.02)

    def kill(self, process: subprocess.Popen) -> None:
        """`kill -9` of a process and of all workers of the home."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        for child in self.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()

    def contents(self) -> list[tuple]:
        """Every living object as (sha256, box, items, vector), in an order of its own."""
        parts = relens.open(self.path).parts
        with parts.catalog.read() as tx:
            query = (
                sa.select(pictures.c.id, pictures.c.sha256, objects.c.x, objects.c.y, objects.c.w, objects.c.h, vectors)
                .join(objects, objects.c.picture == pictures.c.id)
                .join(vectors, vectors.c.object == objects.c.id)
                .where(~sa.exists().where(tombstones.c.object == objects.c.id))
            )
            rows = tx.execute(query).all()
            shown: dict[int, list[str]] = {}
            for item in tx.execute(sa.select(items)):
                shown.setdefault(item.picture, []).append(item.key)
        found = []
        for row in rows:
            vector = read_vectors(parts.blobs, row.file, np.array([row.row]), space=row.space)[0]
            box = (row.x, row.y, row.w, row.h)
            found.append((row.sha256, box, tuple(sorted(shown[row.id])), tuple(vector.tolist())))
        parts.catalog.close()
        return sorted(found)

    def up(self) -> tuple[subprocess.Popen[bytes], str]:
        """A server on a free port: its process and its URL, once it is ready."""
        log = (self.path / "up.log").open("ab")
        process = subprocess.Popen([*RELENS, "up", "--port", "0"], env=self.env, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None, (self.path / "up.log").read_text()
            note = self.path / "run" / "up.json"
            try:
                given = json.loads(note.read_text())
                if given["pid"] == process.pid:
                    urllib.request.urlopen(given["url"] + "/health/live", timeout=5).read()
                    return process, given["url"]
            except (OSError, ValueError):
                time.sleep(0.05)
        raise AssertionError((self.path / "up.log").read_text())


def make_home(path: Path) -> Home:
    home = Home(path)
    home.run("init")
    home.run("model", "fetch", "dummy")
    recipe = path / "recipes" / "photos.yaml"
    recipe.write_text(recipe.read_text().replace("effnet-lite0/1", "dummy/1"))
    return home


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh home to copy."""
    return make_home(tmp_path_factory.mktemp("template") / "home").path


@pytest.fixture
def new_home(template: Path, tmp_path: Path):
    """Makes homes, by name."""

    def make(name: str) -> Home:
        shutil.copytree(template, tmp_path / name)
        return Home(tmp_path / name)

    return make


@pytest.fixture
def home(new_home) -> Home:
    return new_home("home")
