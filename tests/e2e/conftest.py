"""Real processes on a real home: the command as users type it, with the dummy model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

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
