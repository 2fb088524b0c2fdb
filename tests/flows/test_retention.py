"""What a gallery keeps of pictures: originals and crops, crops, or nothing, not even for a moment."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import sqlalchemy as sa

from relens import bulk, wiring
from relens.errors import Missing
from relens.recipes import Pipeline
from relens.rest import create_app
from relens.store.schema import blobs, crops
from relens.testing.deaths import Killed, deadly
from relens.testing.homes import fill
from relens.testing.moments import once
from relens.testing.pictures import draw
from relens.values import digest_of

SEEDS = (1, 2, 3)


@pytest.fixture
def make(home):
    """Makes galleries by retention, each filled by an import and an enrolment."""

    def make(retention, folder, name="album"):
        local = home.local()
        local.create_gallery(name, recipe="photos", retention=retention)
        home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2, "copy.jpg": 2}), gallery=name)
        local.enrol(draw(3), gallery=name, item={"id": "c"})
        return local

    return make


def kinds(local):
    with local.parts.catalog.read() as tx:
        return sorted(tx.execute(sa.select(blobs.c.kind).where(blobs.c.kind.in_(["shard", "original"]))).scalars())


def crops_of(local):
    """Every crop that the recipe would cut of the pictures."""
    pipeline = local.parts.pipeline(local.parts.book.lens("photos"))
    return [crop.jpeg for seed in SEEDS for crop in pipeline.crop(pipeline.decode(draw(seed)))]


def files_with(home, needles, *, but):
    """Files of the home, the catalog's included, in which one of these byte strings is found."""
    found = []
    for path in home.path.parent.rglob("*"):
        if path.is_file() and but not in path.parents:
            data = path.read_bytes()
            found += [path for needle in needles if needle in data]
    return found


def test_a_gallery_keeps_crops_unless_it_is_told_otherwise(home, folder):
    home.run(fill(folder, {"a.jpg": 1}))
    assert home.local().gallery("album")["retention"] == "crops"
    assert kinds(home.local()) == ["shard"]


def test_originals_are_kept_byte_for_byte_under_the_name_of_the_picture(make, folder):
    local = make("originals", folder)
    assert kinds(local) == ["original"] * 3 + ["shard"] * 2
    for seed in SEEDS:
        assert local.parts.blobs.read(digest_of(draw(seed))) == draw(seed)


def test_an_original_is_given_over_http_as_it_came_while_its_gallery_keeps_it(make, folder):
    local = make("originals", folder)
    app = create_app(local, max_bytes=1_000_000)

    async def ask(path):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as session:
            return await session.get(path)

    match = local.search(draw(3), gallery="album").objects[0].matches[0]
    answer = asyncio.run(ask(f"/v1/objects/{match.id}/picture"))
    assert (answer.content, answer.headers["content-type"]) == (draw(3), "image/jpeg")
    local.set_retention("album", "crops")
    answer = asyncio.run(ask(f"/v1/objects/{match.id}/picture"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "gallery.no-original")
    local.delete_object(match.id)
    assert asyncio.run(ask(f"/v1/objects/{match.id}/picture")).status_code == 410


def test_crops_are_kept_and_originals_are_not(make, folder):
    local = make("crops", folder)
    assert kinds(local) == ["shard"] * 2
    for seed in SEEDS:
        with pytest.raises(Missing):
            local.parts.blobs.size(digest_of(draw(seed)))


def test_where_nothing_is_kept_everything_is_found_and_no_byte_of_a_picture_is_anywhere(home, make, folder):
    local = make("none", folder)
    assert kinds(local) == []
    with local.parts.catalog.read() as tx:
        assert not tx.execute(sa.select(crops)).all()
    answer = local.search(draw(1), gallery="album").objects[0]
    assert len(answer.matches) == 3
    assert answer.matches[0].score > 0.999
    with pytest.raises(Missing) as caught:
        local.crop(answer.matches[0].id)
    assert caught.value.code == "gallery.no-crop"
    needles = [data[len(data) // 2 :][:64] for data in [*map(draw, SEEDS), *crops_of(local)]]
    assert files_with(home, needles, but=folder) == []


def test_nor_after_a_crash(home, folder):
    """At any moment of an import and of an enrolment."""
    local = home.local()
    local.create_gallery("album", recipe="photos", retention="none")
    fill(folder, {"a.jpg": 1, "b.jpg": 2})
    needles = [data[len(data) // 2 :][:64] for data in [*map(draw, SEEDS), *crops_of(local)]]
    for moment in range(1, 20, 2):
        with deadly([moment]):
            for do in (lambda: home.run(folder), lambda: local.enrol(draw(3), gallery="album")):
                try:
                    do()
                except Killed:
                    break
        assert files_with(home, needles, but=folder) == []
    home.run(folder)
    local.enrol(draw(3), gallery="album")
    assert len(home.found()) == 3


def test_a_retention_that_changes_while_a_pack_runs_holds_for_the_pack(home, folder, monkeypatch):
    local, other = home.local(), home.local()
    local.create_gallery("album", recipe="photos", retention="originals")
    plan = local.start_import(fill(folder, {"a.jpg": 1, "b.jpg": 2}), gallery="album").plan
    once(monkeypatch, bulk.packs, "write_vectors", lambda: other.set_retention("album", "none"))
    local.work(plan)
    assert local.plan(plan)["state"] == "done"
    assert kinds(local) == []
    assert len(home.found()) == 2


def test_and_for_an_enrolment(home, folder, monkeypatch):
    local, other = home.local(), home.local()
    local.create_gallery("album", recipe="photos", retention="crops")
    once(monkeypatch, Pipeline, "describe_all", lambda: other.set_retention("album", "none"))
    local.enrol(draw(1), gallery="album")
    assert kinds(wiring.open_local(home.path)) == []
    assert len(home.found()) == 1
