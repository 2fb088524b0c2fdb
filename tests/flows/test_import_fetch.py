"""Imports of what lies elsewhere: by http, in tar archives, on S3. Books balance, and nothing is fetched twice."""

import csv
import io
import json
import socket
import tarfile

import httpx
import pytest
import sqlalchemy as sa

from relens import wiring
from relens.bulk import fetching, reading
from relens.jobs import Worker, this_host
from relens.recipes import Pipeline
from relens.store.schema import galleries
from relens.testing.homes import books, fill, quarantined
from relens.testing.moments import once, put_aside, raising, work
from relens.testing.pictures import draw
from relens.testing.sites import Site, answer, in_turn, redirect
from relens.values import digest_of

NOBODY = 2**22 + 1  # no process has this pid


class Killed(BaseException):
    """What ends a worker as a kill does: nothing of ours catches it."""


@pytest.fixture
def site(monkeypatch):
    """A website that imports may fetch from."""
    monkeypatch.setattr(fetching, "BACKOFF_S", 0.01)
    for name, value in {"ALLOW_PRIVATE": "true", "CONNECT_TIMEOUT_S": "5"}.items():
        monkeypatch.setenv(f"RELENS__FETCH__{name}", value)
    with Site() as site:
        yield site


def listing(folder, lines, name="listing.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def gallery_of(site, seeds):
    """Pictures on a site, and the lines that name them."""
    site.pages |= {f"/{seed}.jpg": draw(seed) for seed in seeds}
    return [{"uri": site.url(f"/{seed}.jpg"), "id": f"p{seed}"} for seed in seeds]


def left_behind(home):
    return [path for path in (home.path / "fetched").rglob("*") if path.is_file()]


# -- by http --------------------------------------------------------------------------------------------------------


def test_pictures_come_by_url_and_what_servers_do_wrong_is_accounted_for(home, folder, site, monkeypatch):
    monkeypatch.setenv("RELENS__FETCH__TIMEOUT_S", "3")
    fill(folder, {"here.jpg": 9})
    lines = [
        *gallery_of(site, [1, 2, 3]),
        {"uri": "here.jpg", "id": "here"},
        {"uri": site.url("/1.jpg?again"), "id": "the same"},
        {"uri": site.url("/gone.jpg"), "id": "gone"},
        {"uri": site.url("/page.jpg"), "id": "page"},
        {"uri": site.url("/silent.jpg"), "id": "silent"},
        {"uri": site.url("/drip.jpg"), "id": "drip"},
        {"uri": site.url("/loop.jpg"), "id": "loop"},
        {"uri": site.url("/moved.jpg"), "id": "moved"},
        {"uri": site.url("/endless.jpg"), "id": "endless"},
        {"uri": site.url("/cut.jpg"), "id": "cut"},
        {"uri": "http://nowhere.invalid:port/", "id": "none"},
    ]
    site.pages |= {
        "/gone.jpg": answer(b"", status=410),
        "/page.jpg": answer(b"<html>no</html>" * 9, kind="text/html"),
        "/silent.jpg": site.silent,
        "/drip.jpg": site.drip(draw(5)),
        "/loop.jpg": redirect("/loop.jpg"),
        "/moved.jpg": redirect(site.url("/4.jpg", "127.0.0.2")),
        "/4.jpg": draw(4),
        "/endless.jpg": site.endless(draw(6)[:2] + b"\xff\xe0"),
        "/cut.jpg": answer(draw(7)[:300]),
    }
    plan = home.run(listing(folder, lines))
    assert plan["state"] == "done"
    assert books(plan) == {
        "read": (14, 6, {"already-in-gallery": 1}, 7, 0),
        "decode": (6, 5, {}, 1, 0),
        "crop": (5, 5, {}, 0, 5),
        "embed": (5, 5, {}, 0, 5),
        "seal": (5, 5, {}, 0, 1),
    }
    failed = {entry: code for entry, _, code in quarantined(plan)}
    assert failed.pop("endless") in {"fetch.timeout", "vision.too-large"}  # whichever limit it meets first
    assert failed == {
        "gone": "fetch.status",
        "page": "fetch.not-a-picture",
        "silent": "fetch.timeout",
        "drip": "fetch.timeout",
        "loop": "fetch.too-many-redirects",
        "cut": "vision.broken-picture",
        "none": "fetch.bad-url",
    }
    one = digest_of(draw(1))
    expected = {"p1": one, "the same": one, "p2": digest_of(draw(2)), "p3": digest_of(draw(3))}
    assert home.items() == expected | {"here": digest_of(draw(9)), "moved": digest_of(draw(4))}
    assert left_behind(home) == []


def test_private_addresses_are_refused_by_default_and_a_redirect_to_one_too(home, folder, site, monkeypatch):
    """127.0.0.2 is taken for public; 127.0.0.1 is what it is."""
    monkeypatch.setenv("RELENS__FETCH__ALLOW_PRIVATE", "false")
    monkeypatch.setattr("relens.bulk.addresses.is_public", lambda address: address == "127.0.0.2")
    site.pages |= {"/a.jpg": draw(1), "/inside.jpg": redirect(site.url("/secret.jpg")), "/secret.jpg": draw(2)}
    lines = [
        {"uri": site.url("/a.jpg", "127.0.0.2"), "id": "public"},
        {"uri": site.url("/inside.jpg", "127.0.0.2"), "id": "redirected"},
        {"uri": site.url("/secret.jpg"), "id": "private"},
    ]
    plan = home.run(listing(folder, lines))
    assert quarantined(plan) == [(key, "read", "fetch.private-address") for key in ("redirected", "private")]
    assert set(home.items()) == {"public"}
    assert "/secret.jpg" not in site.asked


def test_only_hosts_that_are_listed_are_asked(home, folder, site, monkeypatch):
    monkeypatch.setenv("RELENS__FETCH__ALLOW_HOSTS", '["127.0.0.1"]')
    site.pages |= {"/a.jpg": draw(1), "/b.jpg": draw(2)}
    lines = [{"uri": site.url("/a.jpg"), "id": "a"}, {"uri": site.url("/b.jpg", "127.0.0.2"), "id": "b"}]
    assert quarantined(home.run(listing(folder, lines))) == [("b", "read", "fetch.host-not-allowed")]
    assert site.asked == ["/a.jpg"]


def test_a_host_is_asked_no_more_at_once_than_is_polite(new_home, folder, site, monkeypatch):
    monkeypatch.setenv("RELENS__FETCH__PER_HOST_PARALLEL", "2")
    home = new_home(pack_size=20)
    lines = gallery_of(site, range(20))

    def slowly(data):
        def page(request):
            site.over.wait(0.02)
            answer(data)(request)

        return page

    site.pages |= {path: slowly(data) for path, data in site.pages.items()}
    assert books(home.run(listing(folder, lines)))["read"][:2] == (20, 20)
    assert site.most_at_once <= 2


def test_a_killed_import_fetches_nothing_twice(new_home, folder, site, monkeypatch):
    monkeypatch.setattr(wiring, "this_worker", lambda: Worker(this_host(), NOBODY, "then"))
    home = new_home(pack_size=24)
    path = listing(folder, gallery_of(site, range(24)))

    def die():
        while len(left_behind(home)) < 24:  # what is under way at that moment would be asked for again
            site.over.wait(0.01)
        raise Killed

    for at in (2, 18):  # pictures of the first chunk, and of the second
        with monkeypatch.context() as patched:
            once(patched, Pipeline, "describe_all", die, at=at)
            with pytest.raises(Killed):
                home.run(path)
        home.close()
    plan = home.run(path)
    assert books(plan)["read"] == (24, 24, {}, 0, 0)
    assert quarantined(plan) == []
    assert sorted(site.asked) == sorted(f"/{seed}.jpg" for seed in range(24))
    assert left_behind(home) == []


def test_what_was_kept_and_is_damaged_is_fetched_again(home, folder, site, monkeypatch):
    monkeypatch.setattr(wiring, "this_worker", lambda: Worker(this_host(), NOBODY, "then"))
    path = listing(folder, gallery_of(site, [1, 2]))
    with monkeypatch.context() as patched:
        once(patched, Pipeline, "describe_all", raising(Killed))
        with pytest.raises(Killed):
            home.run(path)
    for kept in left_behind(home):
        kept.write_bytes(kept.read_bytes()[:100])
    home.close()
    home.run(path)
    assert home.items() == {f"p{seed}": digest_of(draw(seed)) for seed in (1, 2)}
    assert sorted(site.asked) == ["/1.jpg", "/1.jpg", "/2.jpg", "/2.jpg"]


def test_of_a_gallery_that_keeps_nothing_no_file_has_a_name(home, folder, site, monkeypatch):
    home.run(fill(folder, {"first.jpg": 9}))
    local = home.local()
    with local.parts.catalog.begin() as tx:
        tx.execute(sa.update(galleries).values(retention="none"))
    seen = []
    once(monkeypatch, Pipeline, "describe_all", lambda: seen.extend(left_behind(home)), at=2)
    plan = home.run(listing(folder, gallery_of(site, [1, 2, 3])))
    assert books(plan)["read"][:2] == (3, 3)
    assert seen == []


def test_what_a_cancelled_import_had_fetched_goes_with_the_next_import(home, folder, site, monkeypatch):
    local = home.local()
    plan = local.start_import(listing(folder, gallery_of(site, [1, 2])), gallery="album").plan
    once(monkeypatch, Pipeline, "describe_all", raising(OSError(28, "No space")))
    work(local, plan, until=put_aside(local, plan))
    assert left_behind(home)
    local.cancel(plan)
    local.work(plan)
    home.run(fill(folder, {"first.jpg": 9}))
    assert left_behind(home) == []


def test_when_the_network_is_down_the_pack_waits_and_goes_on_when_it_is_back(home, folder, site, monkeypatch):
    down = [True]

    def resolve(host, _port):
        if down:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    reader = reading.Reader
    monkeypatch.setattr(wiring, "Reader", lambda *args, **options: reader(*args, **options, resolve=resolve))
    lines = gallery_of(site, range(6))
    for line in lines:
        line["uri"] = line["uri"].replace("127.0.0.1", "shop.test")
    local = home.local()
    plan = local.start_import(listing(folder, lines), gallery="album").plan
    work(local, plan, until=put_aside(local, plan))
    shown = local.plan(plan)
    assert (shown["state"], quarantined(shown), books(shown)["read"][0]) == ("running", [], 0)
    assert "shop.test" in shown["error"]
    down.clear()
    local.resume(plan)
    local.work(plan)
    assert books(local.plan(plan))["read"] == (6, 6, {}, 0, 0)


def test_a_worker_that_is_told_to_stop_does_not_wait_for_a_silent_server(home, folder, site, monkeypatch):
    monkeypatch.setenv("RELENS__FETCH__TIMEOUT_S", "600")
    site.pages["/silent.jpg"] = site.silent
    local = home.local()
    plan = local.start_import(listing(folder, [{"uri": site.url("/silent.jpg")}]), gallery="album").plan
    work(local, plan, until=lambda: bool(site.asked))
    shown = local.plan(plan)
    assert (shown["state"], quarantined(shown), shown.get("error")) == ("running", [], None)


def test_a_picture_that_was_not_there_comes_with_the_next_import(home, folder, site):
    lines = gallery_of(site, [1])
    site.pages["/1.jpg"] = in_turn(answer(b"", status=404), answer(draw(1)))
    assert books(home.run(listing(folder, lines)))["read"] == (1, 0, {}, 1, 0)
    assert books(home.run(listing(folder, lines)))["read"] == (1, 1, {}, 0, 0)


def test_a_listing_may_lie_on_a_site_with_its_pictures_beside_it(home, site):
    site.pages |= {
        "/shop/list.csv": answer(b"uri,id\na.jpg,a\n../b.jpg?x=1,b\nfile:///etc/hostname,c\ntar:///x,d\n"),
        "/shop/a.jpg": draw(1),
        "/b.jpg": draw(2),
    }
    plan = home.run(site.url("/shop/list.csv"))
    assert home.items() == {"a": digest_of(draw(1)), "b": digest_of(draw(2))}
    assert [code for _, _, code in quarantined(plan)] == ["bulk.bad-line"] * 2
    assert plan["source"] == site.url("/shop/list.csv")


# -- archives -------------------------------------------------------------------------------------------------------


def archive(path, members):
    """A tar archive of members by name: bytes, or a picture by its seed."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            data = draw(data) if isinstance(data, int) else data  # noqa: PLW2901
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


MEMBERS = {
    "shoes/001.json": json.dumps({"title": "Shoe", "price": 19.9, "day": "2025-03-01", "colour": "red"}).encode(),
    "shoes/001.jpg": 1,
    "shoes/001.txt": "rot, größe 42\n".encode(),
    "shoes/001.cls": b"7",
    "shoes/002.jpg": 2,
    "shoes/003.left.jpg": 3,
    "shoes/003.right.jpg": 4,
    "notes.txt": b"of no picture",
}


def test_an_archive_is_read_with_its_sidecars(home, folder):
    plan = home.run(archive(folder / "shop.tar", MEMBERS))
    assert books(plan)["read"] == (4, 4, {}, 0, 0)
    assert home.items() == {
        "shoes/001": digest_of(draw(1)),
        "shoes/002": digest_of(draw(2)),
        "shoes/003.left.jpg": digest_of(draw(3)),
        "shoes/003.right.jpg": digest_of(draw(4)),
    }
    item = dict(home.search(draw(1))[0].items[0])
    assert item.pop("uri").startswith(f"tar://{folder}/shop.tar#offset=")
    told = {"title": "Shoe", "price": 19.9, "day": "2025-03-01", "colour": "red", "txt": "rot, größe 42", "cls": 7}
    assert item == {"id": "shoes/001", **told}
    again = home.run(folder / "shop.tar")
    assert books(again)["read"] == (4, 0, {"already-in-gallery": 4}, 0, 0)


def test_an_archive_that_was_cut_gives_what_is_whole_and_accounts_for_its_end(home, folder):
    path = archive(folder / "shop.tar", {f"{seed}.jpg": seed for seed in range(5)})
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + 100])
    plan = home.run(path)
    codes = [code for _, _, code in quarantined(plan)]
    assert books(plan)["read"] == (6, 4, {}, 2, 0)
    assert sorted(codes) == ["bulk.archive-changed", "bulk.bad-line"]


def test_an_archive_that_changes_during_an_import_is_noticed(home, folder):
    path = archive(folder / "shop.tar", {"a.jpg": 1, "b.jpg": 2})
    local = home.local()
    plan = local.start_import(path, gallery="album").plan
    archive(path, {"a.jpg": draw(1) + b"longer", "c.jpg": 3})
    local.work(plan)
    assert [code for _, _, code in quarantined(local.plan(plan))] == ["bulk.archive-changed"] * 2


def test_an_archive_that_goes_away_is_waited_for(home, folder):
    path = archive(folder / "shop.tar", {"a.jpg": 1, "b.jpg": 2})
    fill(folder, {"other.jpg": 3})
    local = home.local()
    plan = local.start_import(path, gallery="album").plan
    path.rename(folder / "away")
    work(local, plan, until=put_aside(local, plan))
    assert quarantined(local.plan(plan)) == []
    (folder / "away").rename(path)
    local.resume(plan)
    local.work(plan)
    assert books(local.plan(plan))["read"] == (2, 2, {}, 0, 0)


# -- S3 -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of an S3 on this machine, as a dictionary that writes."""
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    fsspec = pytest.importorskip("fsspec")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("RELENS__FETCH__S3_ENDPOINT", url)
    monkeypatch.setenv("RELENS__FETCH__RETRIES", "0")
    httpx.post(f"{url}/moto-api/reset")  # its memory is that of this process
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="bucket")

    def write(key, data):
        client.put_object(Bucket="bucket", Key=key, Body=draw(data) if isinstance(data, int) else data)

    yield write
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def test_a_folder_on_s3_is_imported_as_one_here(home, bucket):
    for key, seed in {
        "in/a.jpg": 1,
        "in/deep/b #1%.PNG": 2,
        "in/.hidden.jpg": 3,
        "in/c.txt": 4,
        "out/d.jpg": 5,
    }.items():
        bucket(key, seed)
    plan = home.run("s3://bucket/in/")
    assert home.items() == {"a.jpg": digest_of(draw(1)), "deep/b #1%.PNG": digest_of(draw(2))}
    assert plan["source"] == "s3://bucket/in"
    assert left_behind(home) == []


def test_a_listing_on_s3_names_objects_beside_it_and_anything_else(home, bucket, site):
    site.pages["/3.jpg"] = draw(3)
    rows = [["uri", "id"], ["a.jpg", "a"], ["/b b.jpg", "b"], [site.url("/3.jpg"), "c"], ["nowhere.jpg", "d"]]
    rows += [["s3://Bad Bucket!/x.jpg", "e"], ["s3://bucket/empty.jpg", "f"], ["file:///etc/hostname", "g"]]
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    for key, data in {
        "shop/list.csv": out.getvalue().encode(),
        "shop/a.jpg": 1,
        "b b.jpg": 2,
        "empty.jpg": b"",
    }.items():
        bucket(key, data)
    plan = home.run("s3://bucket/shop/list.csv")
    assert home.items() == {key: digest_of(draw(seed)) for seed, key in enumerate("abc", 1)}
    assert {entry: code for entry, _, code in quarantined(plan)} == {
        "d": "fetch.status",
        "e": "fetch.bad-url",
        "f": "vision.empty",
        "line-7": "bulk.bad-line",
    }


def test_an_archive_on_s3_is_read_member_by_member(home, folder, bucket):
    bucket("shop.tar", archive(folder / "shop.tar", MEMBERS).read_bytes())
    plan = home.run("s3://bucket/shop.tar")
    assert books(plan)["read"] == (4, 4, {}, 0, 0)
    assert home.search(draw(1))[0].items[0]["title"] == "Shoe"


def test_a_store_that_is_gone_is_waited_for(home, bucket, monkeypatch):
    bucket("in/a.jpg", 1)
    local = home.local()
    plan = local.start_import("s3://bucket/in", gallery="album").plan
    with monkeypatch.context() as patched:
        patched.setenv("RELENS__FETCH__S3_ENDPOINT", "http://127.0.0.1:9")
        away = home.local()
        work(away, plan, until=put_aside(away, plan))
    assert (quarantined(local.plan(plan)), local.plan(plan)["state"]) == ([], "running")
    local.resume(plan)
    local.work(plan)
    assert set(home.items()) == {"a.jpg"}
