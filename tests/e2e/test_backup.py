"""Backups as people take them: commands beside a server, killed, verified, restored; and garbage collected."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request

import pytest

from relens.testing.pictures import draw, write_pictures

PICTURES = 120


def answer(url, gallery="album"):
    request = urllib.request.Request(f"{url}/v1/search?gallery={gallery}", data=draw(5))
    request.add_header("Content-Type", "image/jpeg")
    found = json.loads(urllib.request.urlopen(request, timeout=60).read())
    return [(match["id"], match["score"]) for match in found["objects"][0]["matches"]]


@pytest.mark.slow
def test_a_home_that_serves_is_backed_up_killed_verified_restored_and_collected(home, tmp_path):
    source, shelf = write_pictures(tmp_path / "pictures", PICTURES), tmp_path / "shelf"
    server, url = home.up()
    try:
        home.json("import", source, "--gallery", "album", "--detach")
        running = home.json("backup", shelf)
        assert running["backup"] in (shelf / "backups" / f"{running['backup']}.json").name
        home.json("plan", "resume", "1", code=None) if home.json("plan", "show", "1")["state"] == "failed" else None
        while home.json("plan", "show", "1")["state"] == "running":
            time.sleep(0.2)
        expected = answer(url)
        for pause in (0.5, 1.0, 1.3):
            process = home.start("backup", shelf)
            time.sleep(pause)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert home.json("backup", "verify", shelf)["ok"]
        made = home.json("backup", shelf)
        assert answer(url) == expected
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    assert home.json("gc", "--dry-run")["blobs"] == 0
    assert home.json("gc", "--older-than", "0")["dry_run"] is False
    assert home.json("doctor", "--deep")["ok"]
    home.run("restore", shelf, code=3)
    new = type(home)(tmp_path / "new")
    restored = new.json("restore", shelf)
    assert restored["backup"] == made["backup"]
    assert new.json("doctor", "--deep")["ok"]
    server, url = new.up()
    try:
        assert answer(url) == expected
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    first = type(home)(tmp_path / "first")
    first.json("restore", shelf, "--backup", running["backup"])
    first.json("import", source, "--gallery", "album")
    assert len(first.contents()) == PICTURES


def test_commands_say_what_is_wrong_with_a_backup(home, tmp_path):
    home.run("backup", "verify", tmp_path / "nothing", code=1)
    home.run("restore", tmp_path / "nothing", code=1)
    home.run("backup", home.path, code=2)
    home.run("backup", tmp_path / "shelf")
    blob = next(path for path in (tmp_path / "shelf" / "blobs").glob("*/*") if path.stat().st_size > 1000)
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert "WRONG" in home.run("backup", "verify", tmp_path / "shelf", code=1).stdout
    assert home.run("backup", "make", tmp_path / "verify").returncode == 0
