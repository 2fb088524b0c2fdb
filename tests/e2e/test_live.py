"""A gallery that lives behind a real server: what was answered as done is done, whoever is killed."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import relens
from relens.errors import RelensError
from relens.testing.pictures import draw

PATIENCE_S = 60.0


def wait_for(holds):
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_what_is_enrolled_at_a_server_is_found_everywhere_and_folded_by_itself(home, tmp_path):
    home.env["RELENS__GALLERIES__COMPACT_AT"] = "5"
    home.run("gallery", "create", "shop")
    process, url = home.up()
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(draw(3))
    with relens.Client(url) as client:
        done = [client.enrol(draw(seed), gallery="shop", item={"id": str(seed)}) for seed in range(4)]
        by_command = home.json("enrol", photo, "--gallery", "shop", "--id", "again")
        assert by_command["objects"] == done[3]["objects"]
        for seed, one in enumerate(done):
            (match, *_) = client.search(draw(seed), gallery="shop", k=1).objects[0].matches
            assert [match.id] == one["objects"]
        assert home.json("search", photo, "--gallery", "shop")["objects"][0]["matches"][0]["id"] == match.id
        home.run("gallery", "delete", "shop", "--item", "0")
        assert len(client.search(draw(0), gallery="shop", k=9).objects[0].matches) == 3
        client.enrol(draw(9), gallery="shop", item={"id": "9"})
        wait_for(lambda: [plan["state"] for plan in client.plans()["plans"] if plan["kind"] == "compact"] == ["done"])
        assert len(client.search(draw(0), gallery="shop", k=9).objects[0].matches) == 4
        assert home.json("segment", "ls", "--gallery", "shop")["tail"] == 0
    home.kill(process)


@pytest.mark.slow
def test_a_server_that_is_killed_has_lost_nothing_that_it_answered(home):
    home.run("gallery", "create", "shop")
    answered: dict[int, list[int]] = {}
    for life in range(3):
        process, url = home.up()
        strike = threading.Timer(0.2 + life / 3, lambda process=process: os.kill(process.pid, signal.SIGKILL))
        with relens.Client(url, timeout_s=60.0) as client:
            answered[-life] = client.enrol(draw(9000 + life), gallery="shop")["objects"]
            strike.start()
            try:
                for seed in range(1000 * life, 1000 * life + 1000):
                    answered[seed] = client.enrol(draw(seed), gallery="shop", item={"id": str(seed)})["objects"]
            except RelensError:
                process.wait()
    assert len(answered) > 3
    local = relens.open(home.path)
    found = {match.id for match in local.search(draw(0), gallery="shop", k=1000).objects[0].matches}
    assert {one for objects in answered.values() for one in objects} <= found
    assert len(found) <= len(answered) + 3  # one of each life may be done and not answered
    local.close()
