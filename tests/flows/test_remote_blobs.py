"""A home whose blobs are on S3: the same imports, answers and checks, and other machines that share them."""

import pytest
import sqlalchemy as sa

from relens.errors import Broken
from relens.store.remote import RemoteBlobs
from relens.store.schema import crops
from relens.testing.homes import DummyHome, books
from relens.testing.moments import once, put_aside, raising, work
from relens.testing.pictures import draw, write_pictures
from relens.wiring.checkup import examine


@pytest.fixture
def on_s3(s3):
    """Settings of homes that share an empty place."""
    return {"blobs": s3.url(), "blob_store": s3.settings}


def wrong(home):
    return [found for found in examine(home.local().parts, deep=True, say=lambda _: None) if not found["ok"]]


def shard_of(home):
    """Digest of a shard of crops."""
    with home.local().parts.catalog.read() as tx:
        return tx.execute(sa.select(crops.c.shard)).scalars().first()


def test_a_gallery_on_s3_is_imported_searched_and_checked(new_home, folder, s3, on_s3):
    home = new_home(pack_size=8, **on_s3)
    write_pictures(folder, 20)
    plan = home.run(folder)
    assert plan["state"] == "done"
    assert books(plan)["embed"] == (20, 20, {}, 0, 20)
    local = home.local()
    for found in home.contents():
        answer = local.search(found["crop"], gallery="album", k=1)
        assert answer.objects[0].matches[0].id == found["id"]
    assert not list((home.path / "blobs").iterdir())
    assert wrong(home) == []
    damaged = shard_of(home)
    s3.write(on_s3["blobs"], f"{damaged[:2]}/{damaged}", b"something else")
    assert ["shard" in found["detail"] for found in wrong(home)] == [True]


def test_machines_that_share_catalog_and_store_answer_the_same(new_home, folder, on_s3, tmp_path):
    home = new_home(**on_s3)
    write_pictures(folder, 10)
    home.run(folder)
    other = DummyHome(tmp_path / "other", home.local().parts.catalog.url.render_as_string(hide_password=False), **on_s3)
    assert other.found() == home.found()
    other.close()


def test_a_store_that_is_away_puts_the_pack_aside_until_it_is_back(new_home, folder, on_s3, monkeypatch):
    home = new_home(pack_size=40, **on_s3)
    write_pictures(folder, 6)
    local = home.local()
    plan = local.start_import(folder, gallery="album").plan
    once(monkeypatch, RemoteBlobs, "store", raising(Broken("store.remote", "s3://bucket does not serve")))
    work(local, plan, until=put_aside(local, plan))
    assert "does not serve" in local.plan(plan)["error"]
    local.resume(plan)
    local.work(plan)
    assert local.plan(plan)["state"] == "done"
    assert len(home.found()) == 6
    assert home.search(draw(0), k=1)
