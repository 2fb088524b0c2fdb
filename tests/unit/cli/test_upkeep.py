"""`segment …`, `gallery compact` and `gallery purge`, typed in this process; the work is done by real workers."""

from __future__ import annotations

import json
import sys

import pytest
import structlog

from relens.cli.app import main
from relens.testing.homes import DummyHome
from relens.testing.pictures import draw

DAY = "2025-06-01"


@pytest.fixture
def home(sqlite_files, tmp_path):
    made = DummyHome(tmp_path / "home", sqlite_files.ready())
    local = made.local()
    local.create_gallery("shop", recipe="photos")
    for seed in (1, 2):
        local.enrol(draw(seed), gallery="shop", item={"id": str(seed), "day": DAY})
    yield made
    made.close()
    structlog.reset_defaults()


@pytest.fixture
def run(home, monkeypatch, capfdbinary):
    """Runs a command: its exit code, and what it wrote on stdout and stderr."""

    def run(*words):
        monkeypatch.setenv("RELENS_HOME", str(home.path))
        monkeypatch.setattr(sys, "argv", ["relens", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = (part.decode() for part in capfdbinary.readouterr())
        return caught.value.code, out, err

    return run


def test_a_gallery_is_compacted_and_its_day_dropped_and_built_anew(run, home):
    assert "not in a segment yet: 2" in run("segment", "ls", "-g", "shop")[1]
    code, out, err = run("gallery", "compact", "shop")
    assert (code, "plan 1" in err) == (0, True)
    assert out.startswith("plan 1: compact of shop, done\n")
    code, out, _ = run("segment", "drop", "-g", "shop", "--day", DAY, "--json")
    assert (code, json.loads(out)["day"]) == (0, DAY)
    assert home.found("shop") == []
    (segment,) = json.loads(run("segment", "ls", "-g", "shop", "--json")[1])["segments"]
    assert (segment["day"], segment["count"], segment["shelved"]) == (DAY, 2, True)
    assert run("segment", "rebuild", "-g", "shop", "--day", DAY)[1].startswith(
        f"plan 3: rebuild of shop, {DAY}, done\n"
    )
    assert len(home.found("shop")) == 2
    assert DAY in run("segment", "ls", "-g", "shop")[1]


def test_what_was_deleted_is_purged_and_the_exit_code_says_whether_in_time(run, home):
    local = home.local()
    crop = local.crop(home.found("shop")[0])
    local.delete("shop", objects=home.found("shop")[:1])
    late = run("gallery", "purge", "shop", "--deadline", "0s")
    assert (late[0], "not done by the deadline" in late[2]) == (1, True)
    code, out, err = run("gallery", "purge", "shop", "--deadline", "1h", "--json")
    assert (code, "goes on" in err) == (0, True)
    assert [task["out"] for task in json.loads(out)["tasks"]] == [1, 1]
    blobs = [path.read_bytes() for path in home.path.joinpath("blobs").rglob("*") if path.is_file()]
    assert not [data for data in blobs if crop in data]


@pytest.mark.parametrize("span", ["soon", "24", "1.5h", "-1h", ""])
def test_a_deadline_that_is_none_is_wrong_use_and_nothing_begins(run, home, span):
    code, _, err = run("gallery", "purge", "shop", "--deadline", span)
    assert (code, "no span of time" in err) == (2, True)
    assert home.local().plans()["plans"] == []
