"""A kill at any moment costs nothing: the same command again ends as if it had never been killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from relens.testing.pictures import draw, write_pictures

KILLS = 10
PICTURES = 1000


def funnel(plan: dict) -> list[dict]:
    """The books of a plan, without the packs, whose number is nobody's business."""
    return [{key: task[key] for key in ("name", "in", "out", "dropped", "failed", "made")} for task in plan["tasks"]]


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
    return home.contents(), funnel(plan)


@pytest.mark.slow
def test_an_import_whose_command_or_worker_is_killed_ten_times_ends_like_one_that_was_not(home, source, whole):
    rng = random.Random(7)
    kills = 0
    for number in range(KILLS):
        process = home.start("import", source, "--gallery", "album")
        home.wait_for_workers()
        time.sleep(rng.uniform(0.0, 1.2))
        if process.poll() is not None:  # a quick machine was done before it could be killed so often
            break
        kills += 1
        if number % 2:
            home.kill(process)
        else:  # one worker alone: the command starts another, and goes on
            for victim in rng.sample(running, 1) if (running := home.workers()) else []:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
            time.sleep(rng.uniform(0.1, 0.5))
            home.kill(process)
    home.json("import", source, "--gallery", "album", code=4)
    plan = home.json("plan", "show", "1")
    assert kills
    assert plan["state"] == "done"
    assert funnel(plan) == whole[1]
    assert home.contents() == whole[0]
    assert [entry["entry"] for entry in plan["quarantine"]] == ["broken.jpg"]


@pytest.mark.slow
def test_an_import_beside_a_server_that_is_killed_ten_times_ends_like_one_that_was_not(home, source, whole):
    rng = random.Random(8)
    for number in range(KILLS):
        process, _ = home.up()
        if number == 0:
            home.json("import", source, "--gallery", "album", "--detach")
        home.wait_for_workers()
        time.sleep(rng.uniform(0.0, 1.2))
        home.kill(process)
    plan = home.json("plan", "show", "1")
    if plan["state"] == "running":  # else a quick machine was done before it could be killed so often
        plan = home.json("plan", "resume", "1", code=4)
    assert funnel(plan) == whole[1]
    assert home.contents() == whole[0]
    assert [entry["entry"] for entry in plan["quarantine"]] == ["broken.jpg"]


def test_workers_let_others_go_first(home):
    home.env["RELENS__IMPORTS__NICE"] = "7"
    worker = home.start("worker", "--idle", "60")
    try:
        deadline = time.monotonic() + 60
        while psutil.Process(worker.pid).nice() != 7:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        home.kill(worker)


def test_workers_share_the_session_of_their_server_and_not_its_ctrl_c(home, source):
    process, _ = home.up()
    try:
        home.json("import", source, "--gallery", "album", "--detach")
        home.wait_for_workers()
        [worker, *_] = home.workers()
        assert os.getsid(worker.pid) == os.getsid(process.pid)
        assert os.getpgid(worker.pid) == worker.pid != os.getpgid(process.pid)
    finally:
        home.kill(process)


def test_the_end_that_all_processes_are_told_of_leaves_engines_to_the_server(home, tmp_path):
    home.json("import", write_pictures(tmp_path / "few", 3), "--gallery", "album")
    process, url = home.up()

    def asked(path, data=None):
        with urllib.request.urlopen(urllib.request.Request(url + path, data=data), timeout=60) as answer:
            return json.load(answer)

    try:
        asked("/v1/search?gallery=album", draw(1))
        [engine] = asked("/v1/status")["engines"]
        os.kill(engine["pid"], signal.SIGTERM)
        asked("/v1/search?gallery=album", draw(1))
        assert [one["pid"] for one in asked("/v1/status")["engines"]] == [engine["pid"]]
    finally:
        home.kill(process)
