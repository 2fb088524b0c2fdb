"""Commands of live galleries, typed in this process."""

from __future__ import annotations

import json
import sys

import pytest
import structlog

from relens.cli.app import main
from relens.testing.homes import DummyHome, fill
from relens.testing.pictures import draw


@pytest.fixture
def home(sqlite_files, tmp_path):
    made = DummyHome(tmp_path / "home", sqlite_files.ready())
    yield made
    made.close()
    structlog.reset_defaults()


@pytest.fixture
def run(home, monkeypatch, capfdbinary):
    """Runs a command: its exit code, and what it wrote on stdout and stderr."""

    def run(*words):
        monkeypatch.setenv("RELENS_HOME", str(home.path))
        monkeypatch.setattr(sys, "argv", ["relens", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = (part.decode() for part in capfdbinary.readouterr())
        return caught.value.code, out, err

    return run


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(draw(99))
    return path


@pytest.fixture
def shop(run):
    assert run("gallery", "create", "shop")[0] == 0
    return "shop"


def said(done):
    code, out, _ = done
    assert code == 0, done
    return json.loads(out)


def test_an_item_is_enrolled_looked_at_and_changed(run, shop, photo):
    enrol = ("enrol", photo, "-g", shop, "--id", "a b", "--title", "Tür", "--price", "3", "--off-shelf")
    assert run(*enrol)[1] == "item a b of shop, sequence 1; objects: 1\n"
    assert run(*enrol)[1].endswith("nothing has changed\n")
    changed = said(run("gallery", "item", shop, "a b", "--set", "price=", "--set", 'data={"n_at": "x"}', "--json"))
    assert (changed["n_at"], changed["title"], "price" in changed) == ("x", "Tür", False)
    assert "off_shelf" not in said(run("gallery", "item", shop, "a b", "--on-shelf", "--json"))
    assert "n_at       x" in run("gallery", "item", shop, "a b")[1]


def test_a_picture_from_stdin_has_no_file_to_be_found_at(run, shop, photo, monkeypatch):
    with photo.open("rb") as opened, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", type("Stdin", (), {"buffer": opened}))
        assert run("enrol", "-", "-g", shop, "--id", "a")[0] == 0
    assert said(run("gallery", "item", shop, "a", "--json"))["uri"].startswith("urn:sha256:")


WRONG = [
    (("enrol", "photo.jpg", "-g", "nowhere"), 1, "gallery.missing"),
    (("enrol", "none.jpg", "-g", "shop"), 1, "vision.not-a-picture"),
    (("enrol", "absent.jpg", "-g", "shop"), 2, "cli.no-file"),
    (("enrol", "photo.jpg", "-g", "shop", "--price", "nan"), 2, "enrolment.bad-field"),
    (("enrol", "photo.jpg", "-g", "shop", "--day", "2026-13-01"), 2, "enrolment.bad-field"),
    (("enrol", "photo.jpg", "-g", "shop", "--id", ""), 2, "enrolment.bad-field"),
    (("enrol", "photo.jpg", "-g", "shop", "--id", "x" * 3000), 2, "enrolment.bad-field"),
    (("enrol", "photo.jpg", "-g", "shop", "--title", "\udcff"), 2, "enrolment.bad-field"),
    (("enrol", "photo.jpg", "-g", "shop", "--data", "size"), 2, "cli.bad-pair"),
    (("enrol", "photo.jpg", "-g", "shop", "--data", "a=1", "--data", "a=2"), 2, "cli.bad-pair"),
    (("gallery", "create", "No Name"), 2, "gallery.bad-name"),
    (("gallery", "create", "other", "--recipe", "nobody"), 2, "recipes.missing"),
    (("gallery", "create", "shop", "--retention", "some"), 2, "gallery.bad-retention"),
    (("gallery", "create", "shop", "--retention", "none"), 3, "gateway.other-retention"),
    (("gallery", "set", "nowhere", "--retention", "none"), 1, "gallery.missing"),
    (("gallery", "set", "shop"), 2, "cli.nothing-to-set"),
    (("gallery", "set", "shop", "--threshold", "0.5", "--no-threshold"), 2, "cli.bad-options"),
    (("gallery", "set", "shop", "--threshold", "1.5"), 2, "cli.usage"),
    (("gallery", "set", "shop", "--threshold", "nan"), 2, "cli.usage"),
    (("gallery", "set", "shop", "--threshold", "0.5", "--category", "cars"), 2, "gateway.no-category"),
    (("gallery", "set", "nowhere", "--threshold", "0.5"), 1, "gallery.missing"),
    (("gallery", "item", "shop", "nobody"), 1, "gallery.no-item"),
    (("gallery", "item", "shop", ""), 2, "enrolment.bad-field"),
    (("gallery", "item", "shop", "nobody", "--set", "colour=red"), 2, "enrolment.unknown-field"),
    (("gallery", "item", "shop", "nobody", "--set", "data=x"), 2, "cli.bad-pair"),
    (("gallery", "item", "shop", "nobody", "--set", "data=[1]"), 2, "enrolment.bad-field"),
    (("gallery", "item", "shop", "nobody", "--set", "off_shelf=true"), 2, "cli.bad-pair"),
    (("gallery", "delete", "shop"), 2, "enrolment.nothing-named"),
    (("gallery", "delete", "shop", "--picture", "x"), 2, "gateway.bad-digest"),
    (("gallery", "delete", "shop", "--picture", "ab" * 32), 1, "gallery.no-picture"),
    (("gallery", "delete", "shop", "--object", "4711"), 1, "gallery.no-object"),
    (("gallery", "delete", "shop", "--object", str(2**63)), 2, "cli.usage"),
    (("gallery", "delete", "shop", "--item", "nobody"), 1, "gallery.no-item"),
    (("gallery", "export", "nowhere"), 1, "gallery.missing"),
    (("gallery", "export", "shop", "--format", "xml"), 2, "cli.usage"),
    (("gallery", "export", "shop", "-o", "no/folder/x.jsonl"), 1, "cli.disk"),
    (("gallery", "scores", "shop"), 3, "gateway.too-few"),
]


def test_what_cannot_be_done_is_said_with_a_code_and_nothing_is_written(run, shop, photo, monkeypatch):
    monkeypatch.chdir(photo.parent)
    (photo.parent / "none.jpg").write_text("no picture")
    for command, code, error in WRONG:
        done = run(*command, "--json")
        assert (done[0], json.loads(done[1])["error"]["code"]) == (code, error), command
    assert said(run("gallery", "show", shop, "--json"))["sequence"] == 0


def test_a_threshold_is_set_and_taken_back(run, shop):
    assert "0.75 for all" in run("gallery", "set", shop, "--threshold", "0.75", "--retention", "none")[1]
    assert said(run("gallery", "show", shop, "--json"))["thresholds"] == {"all": 0.75}
    assert "none" in run("gallery", "set", shop, "--no-threshold")[1]
    assert said(run("gallery", "show", shop, "--json"))["thresholds"] == {}


def test_retention_says_what_it_does_not_change(run, shop):
    assert "stays until it is purged" in run("gallery", "set", shop, "--retention", "none")[2]
    assert run("gallery", "set", shop, "--retention", "none")[2] == ""
    assert "no more is kept than before" in run("gallery", "set", shop, "--retention", "originals")[2]
    assert said(run("gallery", "show", shop, "--json"))["retention"] == "originals"


def test_several_things_are_deleted_at_once_or_none(run, home, shop, tmp_path):
    for seed in range(3):
        (tmp_path / f"{seed}.jpg").write_bytes(draw(seed))
        run("enrol", tmp_path / f"{seed}.jpg", "-g", shop, "--id", seed)
    assert run("gallery", "delete", shop, "--item", "0", "--item", "nobody")[0] == 1
    assert said(run("gallery", "delete", shop, "--item", "0", "--object", "2", "--json")) == {
        "gallery": shop,
        "deleted": 2,
        "sequence": 4,
    }
    assert home.local().gallery(shop)["counts"]["objects"] == 1


def test_an_export_goes_to_stdout_or_into_a_file_that_is_whole(run, home, tmp_path):
    home.run(fill(tmp_path / "pictures", {"a.jpg": 1, "b.jpg": 2}))
    code, out, _ = run("gallery", "export", "album", "--vectors")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, lines[0]["sequence"], [line["id"] for line in lines[1:]]) == (0, 1, [1, 2])
    kept = tmp_path / "kept.jsonl"
    kept.write_text("as it was")
    assert run("gallery", "export", "nowhere", "-o", kept)[0] == 1
    assert kept.read_text() == "as it was"
    link = tmp_path / "link.jsonl"
    link.symlink_to(kept)
    written = said(run("gallery", "export", "album", "--vectors", "-o", link, "--json"))
    assert (written["rows"], written["file"]) == (2, str(link))
    assert kept.read_text() == out
    assert link.is_symlink()
    assert run("gallery", "export", "album", "-o", "/dev/null")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "kept.jsonl", "link.jsonl", "pictures"]


def test_scores_are_shown_beside_each_other_with_the_threshold_and_why(run, home, tmp_path):
    home.run(fill(tmp_path / "pictures", {f"{n}.jpg": n for n in range(12)}))
    lines = run("gallery", "scores", "album")[1].splitlines()
    assert "12 of 12 objects" in lines[0]
    assert lines[1].split() == ["from", "different:", "66", "nearest:", "12"]
    assert [line.endswith("<") for line in lines[2:-2]].count(True) == 1
    assert lines[-2].startswith("threshold 0.")
    assert "--threshold" in lines[-1]
    lines = run("gallery", "scores", "album", "--same", "day")[1].splitlines()
    assert "same: 66" in lines[1]
    assert "nothing to tell it from" in lines[-2]
