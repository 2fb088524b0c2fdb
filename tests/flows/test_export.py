"""Exports: everything that a gallery shows as of one sequence, once, with what it takes to build it again."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from relens.errors import BadInput, Broken, Conflict, Missing
from relens.gateway import contents
from relens.testing.homes import fill
from relens.testing.moments import work
from relens.testing.pictures import draw
from relens.values import digest_of

DETECTS = "recipe: street\ndetect: {model: dummy-detector/1, min_score: 0.4}\nembed: dummy/1\n"


@pytest.fixture
def local(home, folder, monkeypatch):
    """A gallery with pictures 1 and 2 imported and 3 enrolled; a page has two objects."""
    for name in ("_OBJECTS", "_BARE"):
        monkeypatch.setattr(contents, name, getattr(contents, name).limit(2))
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    local = home.local()
    local.enrol(draw(3), gallery="album", item={"id": "c", "title": "Tür\u2028\n", "price": 3.5, "data": {"size": "M"}})
    return local


def dark(number):
    """A black picture, in which nothing is found."""
    out = io.BytesIO()
    Image.new("RGB", (40 + number, 40)).save(out, "PNG")
    return out.getvalue()


def export(local, gallery="album", **options):
    head, *rows = local.export(gallery, **options)
    return head, rows


def keys(rows):
    return [item["id"] for row in rows for item in row["items"]]


def test_an_export_names_every_object_once_with_all_that_is_kept_of_it(local):
    head, rows = export(local)
    assert head == {"gallery": "album", "release": local.gallery("album")["release"], "sequence": 2}
    assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})
    assert keys(rows) == ["a.jpg", "b.jpg", "c"]
    last = rows[-1]
    stored = local.object(last["id"]).to_json()
    assert {name: last[name] for name in ("box", "score", "category", "labels", "attributes", "items", "sequence")} == {
        name: stored[name] for name in ("box", "score", "category", "labels", "attributes", "items", "sequence")
    }
    item = local.item("album", "c")
    assert last["picture"] == item["picture"] | {"day": item["day"]}
    assert last["items"][0]["size"] == "M"
    assert not {"vector", "space", "text", "landmarks"} & set(last)


def test_what_is_deleted_or_not_published_yet_is_left_out(local, tmp_path):
    plan = local.start_import(fill(tmp_path / "more", {"d.jpg": 4, "copy.jpg": 1}), gallery="album").plan
    work(local, plan, packs_done=1)
    local.delete("album", items=["b.jpg"])
    head, rows = export(local)
    assert (head["sequence"], keys(rows)) == (3, ["a.jpg", "c"])
    local.work(plan)
    head, rows = export(local)
    assert (head["sequence"], keys(rows)) == (4, ["a.jpg", "copy.jpg", "c", "d.jpg"])


def test_an_export_shows_one_sequence_whatever_happens_while_it_is_read(local, tmp_path):
    records = local.export("album", vectors=True)
    head, first = next(records), next(records)
    other = local.parts.in_process()
    other.delete("album", items=["b.jpg"])
    other.change_item("album", "c", {"title": "changed"})
    other.enrol(draw(4), gallery="album", item={"id": "d"})
    other.run_import(fill(tmp_path / "more", {"e.jpg": 5}), gallery="album")
    rest = list(records)
    assert head["sequence"] == 2
    assert keys([first, *rest]) == ["a.jpg", "b.jpg", "c"]
    assert rest[-1]["items"][0]["title"] == "Tür\u2028\n"
    assert keys(export(local)[1]) == ["a.jpg", "c", "d", "e.jpg"]


def test_vectors_are_those_that_are_searched_wherever_they_are_kept(home, local, tmp_path):
    home.run(fill(tmp_path / "other", {"a.jpg": 3}), gallery="other")
    _, (a, b, c) = export(local, vectors=True)
    _, (same,) = export(local, "other", vectors=True)
    assert c["vector"] == same["vector"]  # of the tail, and of a file
    assert c["space"] == same["space"] == local.gallery("album")["space"]
    matches = {match.id: match.score for match in local.search(draw(3), gallery="album").objects[0].matches}
    for one in (a, b, c):
        assert np.linalg.norm(one["vector"]) == pytest.approx(1, abs=1e-5)
        assert np.dot(one["vector"], c["vector"]) == pytest.approx(matches[one["id"]], abs=1e-3)


def test_each_file_of_vectors_is_read_once_though_it_reaches_over_many_pages(local, tmp_path, monkeypatch):
    local.run_import(fill(tmp_path / "more", {f"{n}.jpg": n for n in range(10, 17)}), gallery="album")
    asked = []
    read = contents.read_vectors

    def counting(blobs, digest, *given, **named):
        asked.append(digest)
        return read(blobs, digest, *given, **named)

    monkeypatch.setattr(contents, "read_vectors", counting)
    assert len(export(local, vectors=True)[1]) == 10
    assert len(asked) == len(set(asked)) == 2


def test_vectors_that_went_meanwhile_end_the_export_with_a_word(local):
    records = local.export("album", vectors=True)
    next(records)
    with local.parts.catalog.read() as tx:
        for file in tx.exec_driver_sql("SELECT DISTINCT file FROM vectors").scalars().all():
            local.parts.blobs.remove(file)
    with pytest.raises(Conflict) as caught:
        list(records)
    assert caught.value.code == "gateway.export-overtaken"
    assert len(export(local)[1]) == 3


def test_items_of_pictures_in_which_nothing_is_found_come_last_and_without_an_id(home, local, tmp_path):
    (home.path / "recipes" / "street.yaml").write_text(DETECTS)
    local.create_gallery("street", recipe="street")
    with pytest.raises(BadInput) as caught:
        local.enrol(dark(1), gallery="street")
    assert caught.value.code == "enrolment.nothing-found"
    for seed in (1, 2, 3):
        local.enrol(dark(seed), gallery="street", item={"id": str(seed)}, allow_empty=True)
    _, rows = export(local, "street", vectors=True)
    assert keys(rows) == ["1", "2", "3"]
    assert all(set(row) == {"picture", "items"} for row in rows)
    assert rows[0]["picture"]["sha256"] == digest_of(dark(1))


def test_the_items_of_an_export_can_be_imported_again(home, local, folder, tmp_path):
    local.enrol(draw(1), gallery="album", item={"id": "also a", "uri": (folder / "a.jpg").as_uri(), "shop": "north"})
    (folder / "c.jpg").write_bytes(draw(3))
    local.change_item("album", "c", {"uri": (folder / "c.jpg").as_uri(), "off_shelf": True})
    _, rows = export(local)
    listing = tmp_path / "listing.jsonl"
    listing.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for row in rows for item in row["items"]))
    plan = local.run_import(listing, gallery="again")
    assert plan["state"] == "done"
    assert "quarantine" not in plan
    _, again = export(local, "again")
    assert [row["items"] for row in again] == [row["items"] for row in rows]
    assert [row["picture"] for row in again] == [row["picture"] for row in rows]


def test_a_gallery_that_is_not_there_or_was_removed_is_missing(local):
    local.remove_gallery("album")
    for name in ("album", "nowhere", "No Name", "a\0b"):
        with pytest.raises(Missing):
            next(local.export(name))
        with pytest.raises(Missing):
            local.export_parquet(name, io.BytesIO())


def test_an_empty_gallery_is_a_head_and_nothing_else(local):
    made = local.create_gallery("empty")
    assert export(local, "empty", vectors=True) == ({"gallery": "empty", "release": made["release"], "sequence": 0}, [])
    assert local.export_parquet("empty", io.BytesIO())["rows"] == 0


# -- Parquet


def test_a_parquet_file_says_the_same_as_the_lines(local):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    head, rows = export(local, vectors=True)
    assert local.export_parquet("album", file, vectors=True) == head | {"rows": 3}
    table = parquet.read_table(io.BytesIO(file.getvalue()))
    said = {
        key.decode(): value.decode()
        for key, value in table.schema.metadata.items()
        if key in b"gallery release sequence"
    }
    assert said == {name: str(value) for name, value in head.items()}
    for line, row in zip(rows, table.to_pylist(), strict=True):
        assert row["id"] == line["id"]
        assert {name: row[name] for name in line["picture"]} == line["picture"]
        assert row["box"] == line["box"]
        assert [label["name"] for label in row["labels"]] == [label["name"] for label in line["labels"]]
        assert json.loads(row["attributes"]) == line["attributes"]
        assert row["vector"] == pytest.approx(line["vector"], abs=1e-6)
        assert [item["id"] for item in row["items"]] == [item["id"] for item in line["items"]]
    assert json.loads(table.to_pylist()[-1]["items"][0]["data"]) == {"size": "M"}
    assert table.to_pylist()[-1]["items"][0]["price"] == 3.5


def test_without_the_library_for_parquet_the_error_says_what_to_install(local, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Broken) as caught:
        local.export_parquet("album", io.BytesIO())
    assert "relens[parquet]" in caught.value.hint


# -- what a gallery is made to keep


def test_a_gallery_is_made_once_and_the_same_again_changes_nothing(home, local):
    made = local.create_gallery("private", retention="none")
    assert (made["retention"], made["sequence"], made["counts"]["objects"]) == ("none", 0, 0)
    assert local.create_gallery("private", retention="none") == made
    assert local.create_gallery("private") == made
    with pytest.raises(Conflict):
        local.create_gallery("private", retention="crops")
    home.recipe.write_text(home.recipe.read_text().replace("labels: 5", "labels: 3"))
    with pytest.raises(Conflict) as caught:
        local.create_gallery("private")
    assert caught.value.code == "releases.other-lens"
    for wrong in ({"name": "No Name"}, {"name": "other", "retention": "some"}, {"name": "other", "recipe": "nobody"}):
        with pytest.raises((BadInput, Missing)):
            local.create_gallery(**wrong)
    assert [gallery["name"] for gallery in local.galleries()["galleries"]] == ["album", "private"]


def test_what_a_gallery_keeps_can_be_changed_and_holds_for_what_comes(local):
    assert local.set_retention("album", "none")["retention"] == "none"
    one = local.enrol(draw(7), gallery="album").objects[0]
    with pytest.raises(Missing) as caught:
        local.crop(one)
    assert caught.value.code == "gallery.no-crop"
    assert local.gallery("album")["retention"] == "none"
    for name, retention, error in (("album", "some", BadInput), ("nowhere", "none", Missing)):
        with pytest.raises(error):
            local.set_retention(name, retention)


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "x" * 3000])
def test_what_no_item_can_be_called_is_bad_input_on_every_database(local, key):
    for use in (
        lambda: local.item("album", key),
        lambda: local.change_item("album", key, {"price": 1}),
        lambda: local.delete("album", items=[key]),
        lambda: local.enrol(draw(9), gallery="album", item={"id": key}),
    ):
        with pytest.raises(BadInput):
            use()
    with pytest.raises(BadInput):
        local.delete("album", pictures=["a\0b"])
    assert local.gallery("album")["sequence"] == 2
