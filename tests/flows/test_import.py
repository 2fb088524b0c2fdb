"""Import of folders: every file is accounted for, again and again, whatever happened to the pictures meanwhile."""

import os
from pathlib import Path

import numpy as np
import pytest

from relens.errors import BadInput, Conflict, Missing
from relens.recipes import Cropped
from relens.testing.homes import as_png, books, fill, quarantined
from relens.testing.pictures import draw, write_pictures
from relens.values import WHOLE, digest_of

MIXED = {
    "a.jpg": 1,
    "b.png": as_png(draw(2)),
    "broken.jpg": draw(3)[:400],
    "copy of a.jpeg": 1,
    "empty.jpg": b"",
    "sub/deep/c.JPG": 4,
    "text.jpg": b"this is no picture",
    ".hidden.jpg": 5,
    ".hidden/d.jpg": 6,
    "notes.txt": b"notes",
    "picture without ending": 7,
    "movie.mp4": b"movie",
}
GOOD = {"a.jpg": draw(1), "b.png": MIXED["b.png"], "copy of a.jpeg": draw(1), "sub/deep/c.JPG": draw(4)}
BROKEN = [("broken.jpg", "decode"), ("empty.jpg", "decode"), ("text.jpg", "decode")]


@pytest.mark.parametrize("pack_size", [2, 512])
def test_every_file_of_a_folder_is_accounted_for(new_home, folder, pack_size):
    home = new_home(pack_size=pack_size)
    plan = home.run(fill(folder, MIXED))
    assert plan["state"] == "done"
    assert books(plan) == {
        "read": (7, 6, {"already-in-gallery": 1}, 0, 0),
        "decode": (6, 3, {}, 3, 0),
        "crop": (3, 3, {}, 0, 3),
        "embed": (3, 3, {}, 0, 3),
        "seal": (3, 3, {}, 0, 1),
    }
    assert [one[:2] for one in quarantined(plan)] == BROKEN
    assert all(one["message"] and one["uri"].startswith("file:///") for one in plan["quarantine"])
    assert all(check["ok"] for check in plan["checks"])
    assert home.items() == {key: digest_of(data) for key, data in GOOD.items()}
    assert home.local().gallery("album")["counts"] == {"pictures": 3, "items": 4, "objects": 3}
    assert plan["sequence"] == home.local().gallery("album")["sequence"] == 1


def test_every_picture_finds_itself_first_with_all_its_items(home, folder):
    home.run(fill(folder, MIXED))
    local = home.local()
    for key, data in GOOD.items():
        answer = local.search(data, gallery="album", k=3)
        best = answer.objects[0].matches[0]
        assert best.score > 0.999
        assert best.picture.sha256 == digest_of(data)
        assert key in [item["id"] for item in best.items]
        assert (answer.sequence, answer.gallery) == (1, "album")
        assert local.object(best.id).to_json()["sequence"] == 1
    assert [item["id"] for item in home.search(draw(1))[0].items] == ["a.jpg", "copy of a.jpeg"]


def test_the_crop_of_an_object_gives_its_vector_again(home, folder):
    """So that embedding it again with the same model changes nothing."""
    home.run(write_pictures(folder, 5))
    local = home.local()
    lens = local.parts.book.lens("photos")
    pipeline = local.parts.pipeline(lens)
    for found in home.contents():
        again = pipeline.describe(Cropped(WHOLE, 1.0, "all", found["crop"]))
        assert np.array_equal(again.vector.values.astype(np.float16), np.float16(found["vector"]))
        assert local.crop(found["id"]) == found["crop"]


def test_importing_again_drops_what_is_there_and_changes_nothing(home, folder):
    fill(folder, MIXED)
    home.run(folder)
    before = home.contents()
    plan = home.run(folder)
    assert plan["state"] == "done"
    assert books(plan) == {
        "read": (7, 3, {"already-in-gallery": 4}, 0, 0),
        "decode": (3, 0, {}, 3, 0),
        "crop": (0, 0, {}, 0, 0),
        "embed": (0, 0, {}, 0, 0),
        "seal": (0, 0, {}, 0, 0),
    }
    assert [one[:2] for one in quarantined(plan)] == BROKEN
    assert home.contents() == before
    assert plan["sequence"] == 2
    assert home.found() == sorted(one["id"] for one in before)


def test_a_picture_that_changed_takes_the_place_of_the_old_one(home, folder):
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    old, kept = home.object_of("b.jpg"), home.object_of("a.jpg")
    plan = home.run(fill(folder, {"b.jpg": 3}))
    assert books(plan)["read"] == (2, 1, {"already-in-gallery": 1}, 0, 0)
    new = home.object_of("b.jpg")
    assert new > max(old, kept)
    assert home.found() == [kept, new]
    assert home.search(draw(2), k=10)[0].id != old
    for ask in (home.local().object, home.local().crop):
        with pytest.raises(Missing) as caught:
            ask(old)
        assert caught.value.gone
    assert home.local().gallery("album")["counts"] == {"pictures": 2, "items": 2, "objects": 2}


def test_an_answer_that_began_before_a_deletion_ends_on_what_it_began_with(home, folder):
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    local = home.local()
    before = local.search(draw(2), gallery="album")
    old = before.objects[0].matches[0].id
    home.run(fill(folder, {"b.jpg": 3}))
    after = local.search(draw(2), gallery="album")
    assert (before.sequence, after.sequence) == (1, 2)
    assert before.release != after.release
    assert old not in [match.id for match in after.objects[0].matches]
    assert local.release(before.release)["sequence"] == 1


def test_a_picture_that_comes_back_is_found_under_a_new_id(home, folder):
    home.run(fill(folder, {"a.jpg": 1}))
    first = home.object_of("a.jpg")
    home.run(fill(folder, {"a.jpg": 2}))
    second = home.object_of("a.jpg")
    home.run(fill(folder, {"a.jpg": 1}))
    third = home.object_of("a.jpg")
    assert first < second < third
    assert home.found() == [third]
    assert home.search(draw(1))[0].id == third


def test_a_changed_copy_leaves_the_picture_to_the_items_that_still_show_it(home, folder):
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 1}))
    shared = home.object_of("a.jpg")
    home.run(fill(folder, {"b.jpg": 2}))
    assert home.object_of("a.jpg") == shared
    assert home.found() == sorted([shared, home.object_of("b.jpg")])


@pytest.mark.parametrize("pack_size", [1, 8])
def test_pictures_of_two_items_can_change_places(new_home, folder, pack_size):
    home = new_home(pack_size=pack_size)
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    before = home.found()
    plan = home.run(fill(folder, {"a.jpg": 2, "b.jpg": 1}))
    assert books(plan)["read"] == (2, 0, {"already-in-gallery": 2}, 0, 0)
    assert home.items() == {"a.jpg": digest_of(draw(2)), "b.jpg": digest_of(draw(1))}
    assert home.found() == before


@pytest.mark.parametrize("pack_size", [1, 8])
def test_pictures_can_move_along_a_chain_of_items(new_home, folder, pack_size):
    """Each takes the next one's picture; the first one's is released, whatever the order of packs."""
    home = new_home(pack_size=pack_size)
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3}))
    first = home.object_of("a.jpg")
    home.run(fill(folder, {"a.jpg": 2, "b.jpg": 3, "c.jpg": 4}))
    assert home.items() == {"a.jpg": digest_of(draw(2)), "b.jpg": digest_of(draw(3)), "c.jpg": digest_of(draw(4))}
    assert first not in home.found()
    assert len(home.found()) == 3


def test_the_uri_of_a_picture_leads_to_its_bytes_also_after_files_changed_places(home, folder):
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    home.run(fill(folder, {"a.jpg": 2, "b.jpg": 1}))
    for match in home.search(draw(1)):
        data = Path(match.picture.uri.removeprefix("file://")).read_bytes()
        assert digest_of(data) == match.picture.sha256


def test_a_folder_without_pictures_is_refused_and_makes_nothing(home, folder):
    with pytest.raises(BadInput) as caught:
        home.run(fill(folder, {"notes.txt": b"notes"}))
    assert caught.value.code == "bulk.nothing-to-import"
    assert home.local().galleries() == {"galleries": []}
    assert home.local().plans() == {"plans": []}


def test_a_folder_within_that_cannot_be_read_is_accounted_for(home, folder, monkeypatch):
    fill(folder, {"a.jpg": 1, "locked/b.jpg": 2})
    scandir = os.scandir

    def refused(path):
        if os.fsencode(path).endswith(b"locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    plan = home.run(folder)
    assert books(plan)["read"] == (2, 1, {}, 1, 0)
    assert "locked" in plan["quarantine"][0]["message"]


def test_a_source_that_is_not_there_or_no_listing_is_refused(home, folder):
    with pytest.raises(Missing) as caught:
        home.run(folder / "nowhere")
    assert caught.value.code == "bulk.no-source"
    with pytest.raises(BadInput) as caught:
        home.run(fill(folder, {"listing.xlsx": b""}) / "listing.xlsx")
    assert caught.value.code == "bulk.bad-source"


def test_only_broken_pictures_make_a_gallery_that_is_empty_and_answers(home, folder):
    plan = home.run(fill(folder, {"a.jpg": b"no", "b.jpg": b""}))
    assert plan["state"] == "done"
    assert books(plan)["decode"] == (2, 0, {}, 2, 0)
    assert home.search(draw(1)) == ()


def test_galleries_do_not_see_each_other(home, folder, tmp_path):
    home.run(fill(folder, {"a.jpg": 1}), gallery="one")
    plan = home.run(fill(tmp_path / "other", {"b.jpg": 1}), gallery="two")
    assert books(plan)["read"][1] == 1  # not known here
    assert home.found("one") != home.found("two")
    assert [item["id"] for item in home.search(draw(1), "one")[0].items] == ["a.jpg"]


def test_a_recipe_that_resolves_to_another_lens_is_refused_and_names_both(home, folder):
    home.run(fill(folder, {"a.jpg": 1}))
    kept = home.local().gallery("album")["lens"]
    home.recipe.write_text(home.recipe.read_text().replace("labels: 5", "labels: 3"))
    with pytest.raises(Conflict) as caught:
        home.run(fill(folder, {"b.jpg": 2}))
    assert caught.value.code == "releases.other-lens"
    assert kept[:12] in caught.value.message
    assert home.local().parts.book.lens("photos").digest[:12] in caught.value.message
    assert home.found() == [home.object_of("a.jpg")]
    plan = home.run(folder, gallery="another")  # a new gallery takes the new lens
    assert plan["state"] == "done"


def test_a_gallery_remembers_its_recipe(home, folder):
    other = home.recipe.with_name("portraits.yaml")
    other.write_text(home.recipe.read_text().replace("recipe: photos", "recipe: portraits"))
    home.run(fill(folder, {"a.jpg": 1}), recipe="portraits")
    assert home.run(fill(folder, {"b.jpg": 2}))["state"] == "done"
    assert home.local().gallery("album")["recipe"] == "portraits"
    with pytest.raises(Conflict):
        home.run(folder, recipe="photos")


def test_the_same_import_typed_again_while_unfinished_continues_its_plan(home, folder):
    fill(folder, {"a.jpg": 1, "b.jpg": 2})
    first = home.local().start_import(folder, gallery="album")
    again = home.local().start_import(Path(f"{folder}/./"), gallery="album")
    elsewhere = home.local().start_import(folder, gallery="other")
    assert (again.plan, first.continued, again.continued) == (first.plan, False, True)
    assert elsewhere.plan != first.plan
    home.local().work(first.plan)
    after = home.local().start_import(folder, gallery="album")
    assert after.plan not in {first.plan, elsewhere.plan}
    assert not after.continued
