"""A kill at any moment costs nothing: the same command again ends as if it had never been killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import sqlalchemy as sa

import relens
from relens.store.schema import items, objects, pictures, tombstones, vectors
from relens.testing.pictures import write_pictures
from relens.vectors import read_vectors

KILLS = 10
PICTURES = 1000


def contents(home: Path) -> list[tuple]:
    """Every living object as (sha256, box, items, vector), in an order of its own."""
    parts = relens.open(home).parts
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
    return sorted(found)


def funnel(plan: dict) -> list[dict]:
    """The books of a plan, without the packs, whose number is nobody's business."""
    return [{key: task[key] for key in ("name", "in", "out", "dropped", "failed", "made")} for task in plan["tasks"]]


def workers(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "worker" in words and str(home) in words:
            found.append(process)
    return found


def wait_for_workers(home: Path) -> None:
    deadline = time.monotonic() + 20
    while not workers(home) and time.monotonic() < deadline:
        time.sleep(0.02)


def kill_all(process: subprocess.Popen, home: Path) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    for child in workers(home):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_pictures(tmp_path / "pictures", PICTURES, width=800, height=600)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (folder / "twice.jpg").write_bytes((folder / "0" / "picture-0000.jpg").read_bytes())
    return folder


@pytest.fixture
def whole(new_home, source: Path):
    """The same import, never killed: its contents and books."""
    home = new_home("whole")
    plan = home.json("import", source, "--gallery", "album", code=4)
    assert plan["state"] == "done"
    return contents(home.path), funnel(plan)


@pytest.mark.slow
def test_an_import_whose_command_or_worker_is_killed_ten_times_ends_like_one_that_was_not(home, source, whole):
    rng = random.Random(7)
    for number in range(KILLS):
        process = home.start("import", source, "--gallery", "album")
        wait_for_workers(home.path)
        time.sleep(rng.uniform(0.0, 1.2))
        assert process.poll() is None, "the import ended before it could be killed ten times"
        if number % 2:
            kill_all(process, home.path)
        else:  # one worker alone: the command starts another, and goes on
            for victim in rng.sample(running, 1) if (running := workers(home.path)) else []:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
            time.sleep(rng.uniform(0.1, 0.5))
            kill_all(process, home.path)
    plan = home.json("import", source, "--gallery", "album", code=4)
    plan = home.json("plan", "show", "1")
    assert plan["state"] == "done"
    assert funnel(plan) == whole[1]
    assert contents(home.path) == whole[0]
    assert [entry["entry"] for entry in plan["quarantine"]] == ["broken.jpg"]


@pytest.mark.slow
def test_an_import_beside_a_server_that_is_killed_ten_times_ends_like_one_that_was_not(home, source, whole):
    rng = random.Random(8)
    for number in range(KILLS):
        process, _ = home.up()
        if number == 0:
            home.json("import", source, "--gallery", "album", "--detach")
        wait_for_workers(home.path)
        time.sleep(rng.uniform(0.0, 1.2))
        kill_all(process, home.path)
    assert home.json("plan", "show", "1")["state"] == "running", "the import ended before ten kills"
    plan = home.json("plan", "resume", "1", code=4)
    assert funnel(plan) == whole[1]
    assert contents(home.path) == whole[0]
    assert [entry["entry"] for entry in plan["quarantine"]] == ["broken.jpg"]
