"""The commands as users type them: what they print, how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import relens
from relens.errors import Missing
from relens.testing.pictures import draw, write_pictures

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures", 60)


def test_a_new_user_imports_searches_and_recognizes(home, source, tmp_path):
    plan = home.json("import", source, "--gallery", "album", "--recipe", "photos")
    assert plan["state"] == "done"
    assert [task["name"] for task in plan["tasks"]] == ["read", "decode", "crop", "embed", "seal"]
    for task in plan["tasks"]:
        assert task["in"] == task["out"] + sum(task["dropped"].values()) + task["failed"] == 60
    query = source / "3" / "picture-0003.jpg"
    page = tmp_path / "out.html"
    answer = home.json("search", query, "--gallery", "album", "-k", "3", "--html", page)
    assert answer["gallery"] == "album"
    assert answer["sequence"] == 1
    best = answer["objects"][0]["matches"][0]
    assert best["items"][0]["id"] == "3/picture-0003.jpg"
    assert best["score"] == pytest.approx(1.0, abs=1e-5)
    assert best["picture"]["sha256"] == answer["picture"]["sha256"]
    assert "<html" in page.read_text()
    named = home.json("recognize", query, "--include", "subject", "--include", "vector")
    assert named["picture"]["width"] == 96
    assert len(named["objects"][0]["labels"]) == 5
    assert len(named["objects"][0]["attributes"]["vector"]) == 64
    assert [p["id"] for p in home.json("plan", "ls")["plans"]] == [1]
    assert home.json("gallery", "show", "album")["counts"] == {"pictures": 60, "items": 60, "objects": 60}
    release = home.json("release", "show", answer["release"])
    assert release["aliases"] == ["live"]
    assert all(check["ok"] for check in release["checks"])
    assert home.json("doctor", "--deep")["ok"]
    assert home.json("status")["up"] is False


def test_text_output_is_for_people(home, source):
    home.run("import", source, "-g", "album")
    assert "picture-0001" in home.run("search", source / "1" / "picture-0001.jpg", "-g", "album").stdout
    assert "album" in home.run("gallery", "ls").stdout
    assert "album-2" in home.run("release", "ls").stdout
    assert "dummy/1" in home.run("model", "ls").stdout
    assert "seal" in home.run("plan", "show", "1").stdout
    assert "127.0.0.1" in home.run("config", "show").stdout
    assert "dummy" in home.run("model", "show", "dummy").stdout
    assert "ok" in home.run("model", "verify").stdout


def test_a_second_import_adds_only_what_is_new(home, source):
    home.run("import", source, "-g", "album")
    write_pictures(source, 5, first=60)
    plan = home.json("import", source, "-g", "album")
    assert plan["tasks"][0]["dropped"] == {"already-in-gallery": 60}
    assert plan["tasks"][-1]["out"] == 5
    assert home.json("search", source / "0" / "picture-0063.jpg", "-g", "album")["sequence"] == 2


def test_wrong_use_ends_with_2_and_says_how_it_is_right(home, source, tmp_path):
    assert "No such command" in home.run("serch", code=2).stderr
    assert home.json("recognize", code=2)["error"]["code"] == "cli.usage"
    assert home.json("search", source, code=2)["error"]["code"] == "cli.what-to-search"
    assert "relens up" in home.run("import", source, "-g", "album", "--detach", code=2).stderr
    assert home.json("import", tmp_path / "nowhere", "-g", "album", code=2)["error"]["code"] == "bulk.no-source"
    assert home.json("import", source, "-g", "Not A Name", code=2)["error"]["code"] == "gallery.bad-name"
    assert home.json("import", source, "-g", "a", "-r", "none", code=2)["error"]["code"] == "recipes.missing"
    (tmp_path / "empty").mkdir()
    assert home.json("import", tmp_path / "empty", "-g", "a", code=2)["error"]["code"] == "bulk.nothing-to-import"
    assert home.json("gallery", "ls")["galleries"] == []
    elsewhere = subprocess.run(
        [sys.executable, "-m", "relens.cli", "status", "--home", str(tmp_path / "x")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert elsewhere.returncode == 2
    assert "relens init" in elsewhere.stderr


def test_what_fails_ends_with_1_and_what_is_missing_is_named(home, source, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    assert home.json("recognize", broken, code=1)["error"]["code"] == "vision.not-a-picture"
    error = home.json("search", source / "1" / "picture-0001.jpg", "-g", "nothing", code=1)["error"]
    assert error["code"] == "gallery.missing"
    assert error["hint"]
    assert home.json("plan", "show", "77", code=1)["error"]["code"] == "jobs.no-plan"
    assert home.json("release", "show", "x", code=1)["error"]["code"] == "releases.missing"


def test_an_unknown_setting_names_the_nearest_known_one(home):
    (home.path / "relens.yaml").write_text("server:\n  prot: 9\n")
    error = home.json("status", code=2)["error"]
    assert error["code"] == "config.unknown-key"
    assert "server.port" in error["hint"]


def test_a_partly_broken_folder_ends_with_4_and_names_what_failed(home, source):
    (source / "broken.jpg").write_text("no picture")
    plan = home.json("import", source, "-g", "album", code=4)
    assert plan["state"] == "done"
    assert [q["entry"] for q in plan["quarantine"]] == ["broken.jpg"]
    assert plan["quarantine"][0]["code"] == "vision.not-a-picture"


def test_a_recipe_that_resolves_to_another_lens_is_refused_with_3(home, source):
    home.run("import", source, "-g", "album")
    recipe = home.path / "recipes" / "photos.yaml"
    recipe.write_text(recipe.read_text().replace("labels: 5", "labels: 3"))
    error = home.json("import", source, "-g", "album", code=3)["error"]
    assert error["code"] == "releases.other-lens"
    assert home.json("search", source / "1" / "picture-0001.jpg", "-g", "album")["objects"][0]["matches"]
    assert len(home.json("recognize", source / "1" / "picture-0001.jpg")["objects"][0]["labels"]) == 3


def test_an_interrupted_import_ends_with_75_and_goes_on(home, tmp_path):
    source = write_pictures(tmp_path / "many", 800, width=800, height=600)
    process = home.start("import", source, "-g", "album")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        plans = home.json("plan", "ls")["plans"]
        if plans and plans[0]["progress"]["done"]:
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    assert "goes on" in out
    plan = home.json("import", source, "-g", "album")
    assert plan["id"] == 1
    assert plan["tasks"][-1]["out"] == 800


def test_one_server_a_home_and_an_import_beside_it_is_searchable_when_it_ends(home, source, tmp_path):
    process, url = home.up()
    try:
        second = home.run("up", "--port", "0", code=3)
        assert str(process.pid) in second.stderr
        plan = home.json("import", source, "--gallery", "album")
        assert plan["state"] == "done"
        with relens.Client(url) as client:
            assert client.ready() == []
            answer = client.search(source / "2" / "picture-0002.jpg", gallery="album", k=2)
            assert answer.sequence == 1
            first = answer.objects[0].matches[0]
            assert first.items[0]["id"] == "2/picture-0002.jpg"
            assert client.crop(first.id)[:2] == b"\xff\xd8"
            write_pictures(source, 1, first=60)
            home.run("import", source, "--gallery", "album")
            again = client.search(draw(60), gallery="album", k=1)
            assert (again.sequence, again.objects[0].matches[0].items[0]["id"]) == (2, "4/picture-0060.jpg")
            assert client.recognize(draw(60), recipe="photos").release.startswith("photos-")
            engines = client.status()["engines"]
            assert len(engines) == 1
            os.kill(engines[0]["pid"], signal.SIGKILL)
            assert client.search(draw(60), gallery="album", k=1).sequence == 2
            detached = home.json("import", write_pictures(tmp_path / "more", 40, first=100), "-g", "album", "--detach")
            assert detached["state"] in {"running", "done"}
            deadline = time.monotonic() + 60
            while client.plan(detached["id"])["state"] == "running" and time.monotonic() < deadline:
                time.sleep(0.1)
            assert client.search(draw(120), gallery="album", k=1).objects[0].matches[0].score > 0.999
        assert home.json("status")["server"]["url"] == url
        home.run("down")
        assert process.wait(30) == 0
        assert home.json("status")["up"] is False
    finally:
        process.kill()


def test_a_server_that_was_killed_leaves_nothing_that_hinders_the_next(home):
    first, _ = home.up()
    first.kill()
    first.wait()
    second, url = home.up()
    assert urllib.request.urlopen(url + "/docs", timeout=5).status == 200
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0


def test_two_imports_at_once_into_one_gallery_both_count(home, tmp_path):
    first = write_pictures(tmp_path / "a", 80)
    second = write_pictures(tmp_path / "b", 80, first=60)  # 20 of them are in both
    running = [home.start("import", folder, "-g", "album", "--json") for folder in (first, second)]
    for process in running:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
    assert home.json("gallery", "show", "album")["counts"] == {"pictures": 140, "items": 160 - 20, "objects": 140}
    for number in (0, 70, 139):
        match = home.json(
            "search",
            (first if number < 60 else second) / f"{number % 7}" / f"picture-{number:04}.jpg",
            "-g",
            "album",
            "-k",
            "1",
        )
        assert match["objects"][0]["matches"][0]["score"] > 0.999
        assert match["sequence"] == 2


def test_a_cancelled_import_books_the_rest_and_seals_what_is_there(home, tmp_path):
    source = write_pictures(tmp_path / "many", 800, width=800, height=600)
    process = home.start("import", source, "-g", "album", "--workers", "1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        plans = home.json("plan", "ls")["plans"]
        if plans and plans[0]["tasks"][0]["packs"]["done"] >= 2:
            break
    cancelled = home.json("plan", "cancel", "1")
    process.communicate(timeout=60)
    assert process.returncode == 4
    read, *_, seal = cancelled["tasks"]
    assert cancelled["state"] == "cancelled"
    assert read["in"] == 800
    assert read["out"] + read["dropped"]["cancelled"] == 800
    assert seal["out"] == read["out"] > 0
    assert home.json("gallery", "show", "album")["counts"]["objects"] == seal["out"]
    assert home.json("plan", "resume", "1", code=3)["error"]["code"] == "jobs.plan-over"
    assert home.json("import", source, "-g", "album")["tasks"][-1]["out"] == 800 - seal["out"]


def test_a_removed_gallery_is_gone_and_its_name_is_free(home, source):
    home.run("import", source, "-g", "album")
    home.run("gallery", "rm", "album", code=2)
    home.run("gallery", "rm", "album", "--yes")
    assert home.json("gallery", "ls")["galleries"] == []
    assert (
        home.json("search", source / "1" / "picture-0001.jpg", "-g", "album", code=1)["error"]["code"]
        == "gallery.missing"
    )
    plan = home.json("import", source, "-g", "album")
    assert plan["tasks"][-1]["out"] == 60


def test_a_changed_model_file_is_never_served(home, source):
    home.run("import", source, "-g", "album")
    weights = home.path / "models" / "dummy" / "1" / "model.json"
    text = weights.read_text()
    weights.write_text(text.replace("1", "2", 1))
    error = home.json("search", source / "1" / "picture-0001.jpg", "-g", "album", code=1)["error"]
    assert error["code"] == "models.corrupt"
    assert json.loads(home.run("model", "verify", "--json", code=1).stdout)["models"][0]["ok"] is False
    assert home.json("doctor", "--deep", code=1)["ok"] is False


def test_a_damaged_segment_is_never_searched(home, source):
    home.run("import", source, "-g", "album")
    parts = relens.open(home.path).parts
    with parts.catalog.read() as tx:
        data = tx.exec_driver_sql("SELECT digest FROM blobs WHERE kind = 'segment-data'").scalar_one()
    path = parts.blobs.path(data)
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)
    error = home.json("search", source / "1" / "picture-0001.jpg", "-g", "album", code=1)["error"]
    assert error["code"] == "vectors.corrupt-segment"
    assert home.json("doctor", code=0)["ok"]
    assert home.json("doctor", "--deep", code=1)["ok"] is False


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(draw(99))
    return path


def test_a_gallery_lives_from_the_command_line(home, photo, tmp_path):
    made = home.json("gallery", "create", "shop", "--recipe", "photos", "--retention", "originals")
    assert (made["retention"], made["counts"]["objects"]) == ("originals", 0)
    said = ("--id", "a/1", "--title", "Tür", "--price", "3.5", "--shop", "north", "--day", "2026-01-31")
    done = home.json("enrol", photo, "-g", "shop", *said, "--data", "size=M", "--data", "note=a=b")
    assert (done["item"], done["sequence"], done["changed"]) == ("a/1", 1, True)
    item = home.json("search", photo, "-g", "shop")["objects"][0]["matches"][0]["items"][0]
    assert item.pop("uri") == photo.as_uri()
    known = {"id": "a/1", "day": "2026-01-31", "title": "Tür", "price": 3.5, "shop": "north"}
    assert item == known | {"size": "M", "note": "a=b"}
    out = tmp_path / "shop.parquet"
    written = home.json("gallery", "export", "shop", "--format", "parquet", "--vectors", "-o", out)
    assert (written["rows"], out.read_bytes()[:4]) == (1, b"PAR1")
    assert "purged" in home.run("gallery", "set", "shop", "--retention", "none").stderr
    assert home.json("gallery", "delete", "shop", "--item", "a/1")["deleted"] == 1
    assert home.json("gallery", "show", "shop")["counts"] == {"pictures": 0, "items": 0, "objects": 0}


def test_a_server_that_is_up_shows_at_once_what_commands_change_and_they_what_it_changes(home, source, photo):
    home.run("import", source, "-g", "album")
    process, url = home.up()
    try:
        with relens.Client(url) as client:
            assert client.search(photo, gallery="album", k=1).sequence == 1
            done = home.json("enrol", photo, "-g", "album", "--id", "new")
            best = client.search(photo, gallery="album", k=1).objects[0].matches[0]
            assert (best.id, best.items[0]["id"]) == (done["objects"][0], "new")
            also = client.enrol(draw(98), gallery="album", item={"id": "also", "data": {"size": "M"}})
            assert home.json("gallery", "item", "album", "also")["size"] == "M"
            assert client.change_item("album", "also", {"price": 2.5})["price"] == 2.5
            home.run("gallery", "delete", "album", "--item", "new")
            answer = client.search(photo, gallery="album", k=1000)
            assert done["objects"][0] not in {match.id for match in answer.objects[0].matches}
            head, *rows = client.export("album", vectors=True)
            assert head["sequence"] == answer.sequence == 5
            assert len(rows) == 61
            assert all(len(row["vector"]) == 64 for row in rows)
            assert client.delete_object(also["objects"][0])["deleted"] == 1
            with pytest.raises(Missing) as caught:
                client.delete_object(also["objects"][0])
            assert caught.value.gone
    finally:
        process.kill()
