"""Live galleries over HTTP, down to the catalog: nothing that a caller can send is a fault of the server."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from relens.rest import create_app
from relens.testing.homes import fill
from relens.testing.pictures import draw
from relens.values import digest_of

OBJECTS = "/v1/galleries/album/objects"
ITEMS = "/v1/galleries/album/items"


@pytest.fixture
def local(home, folder):
    home.run(fill(folder, {"a.jpg": 1}))
    local = home.local()
    local.enrol(draw(3), gallery="album", item={"id": "c"})
    return local


@pytest.fixture
def ask(local):
    app = create_app(local, max_bytes=1_000_000)

    def ask(method, path, **more):
        async def send():
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as session:
                return await session.request(method, path, **more)

        return asyncio.run(send())

    return ask


def test_a_thing_comes_changes_and_goes(ask, local):
    done = ask("POST", f"{OBJECTS}?id=a/b%20c&price=3.5", content=draw(4))
    assert (done.status_code, done.json()["sequence"]) == (201, 3)
    again = ask("POST", OBJECTS, data={"id": "a/b c", "price": "3.5"}, files={"file": draw(4)})
    assert (again.status_code, again.json()["objects"]) == (200, done.json()["objects"])
    changed = ask("PATCH", f"{ITEMS}/a/b%20c", json={"price": None, "data": {"n": 1}})
    assert (changed.json()["n"], "price" in changed.json()) == (1, False)
    found = ask("POST", "/v1/search?gallery=album&k=1", content=draw(4)).json()
    assert (found["sequence"], found["objects"][0]["matches"][0]["items"][0]["n"]) == (4, 1)
    lines = ask("GET", "/v1/galleries/album/export").content.splitlines()
    assert [json.loads(line).get("id") for line in lines[1:]] == [match.id for match in every(local)]
    one = done.json()["objects"][0]
    assert ask("DELETE", f"{ITEMS}/a%2Fb%20c").json() == {"gallery": "album", "deleted": 1, "sequence": 5}
    assert ask("DELETE", f"/v1/objects/{one}").status_code == 410
    assert ask("DELETE", f"/v1/galleries/album/pictures/{digest_of(draw(3))}").json()["deleted"] == 1
    assert len(every(local)) == 1


def every(local):
    matches = local.search(draw(0), gallery="album", k=1000).objects[0].matches
    return sorted(matches, key=lambda match: match.id)


LONG = "x" * 3000
GONE_NAMES = ("nowhere", "No%20Name", "a%00b", "%C3%BC", LONG)
REFUSED = [
    *((400, "POST", f"{OBJECTS}?{wrong}") for wrong in (
        "id=", f"id={LONG}", "id=a%00b", "id=%ED%A0%80", "title=%00", "price=nan", "price=1e999", "price=",
        "price=dear", "day=2026-13-01", "day=2026-1-1", "day=", "uri=", "uri=%00", "off_shelf=2", "data=[]",
        "data=%7B%22a%22:NaN%7D", "data=%7B%22%5Cu0000%22:1%7D", "data=%7B%22a%22:%22%5Cud800%22%7D", "colour=red",
    )),
    *((404, "POST", f"/v1/galleries/{name}/objects") for name in GONE_NAMES),
    *((404, "GET", f"/v1/galleries/{name}/items/c") for name in GONE_NAMES),
    *((404, "GET", f"/v1/galleries/{name}/export") for name in GONE_NAMES),
    *((404, "DELETE", f"/v1/galleries/{name}/pictures/{'ab' * 32}") for name in GONE_NAMES),
    *((400, method, f"{ITEMS}/{key}") for method in ("GET", "PATCH", "DELETE") for key in ("", "a%00b", LONG, "%FF")),
    *((404, method, f"{ITEMS}/{key}") for method in ("GET", "PATCH", "DELETE") for key in ("nobody", "%0A", "C", "c/")),
    (404, "DELETE", f"/v1/galleries/album/pictures/{'ab' * 32}"),
    (404, "DELETE", "/v1/objects/4711"),
    (404, "DELETE", "/v1/objects/0"),
    (404, "DELETE", f"/v1/objects/{2**63 - 1}"),
]  # fmt: skip
CHANGES = [
    {"price": "dear"}, {"price": True}, {"price": 10**400}, {"title": 5}, {"title": "\0"}, {"shop": ["north"]},
    {"day": 5}, {"day": "2026-02-30"}, {"uri": ""}, {"off_shelf": "yes"}, {"off_shelf": 1}, {"data": []},
    {"data": {"a": "\0"}}, {"data": {"a": {"\0": 1}}}, {"id": "d"}, {"colour": "red"}, {"title": "ok", "price": "dear"},
]  # fmt: skip


def test_what_cannot_be_used_is_refused_and_nothing_is_written(ask, local):
    before = local.item("album", "c")
    for status, method, path in REFUSED:
        body = {"content": draw(9)} if method == "POST" else {"json": {"price": 1}} if method == "PATCH" else {}
        response = ask(method, path, **body)
        assert (response.status_code, set(response.json())) == (status, {"error"}), (method, path[:80], response.text)
    for changes in CHANGES:
        response = ask("PATCH", f"{ITEMS}/c", content=json.dumps(changes).encode())
        assert response.status_code == 400, (changes, response.text)
    for status, picture in ((415, b"no picture"), (400, draw(3)[:300]), (413, b"x" * 1_000_001), (400, b"")):
        assert ask("POST", OBJECTS, content=picture).status_code == status
    assert local.item("album", "c") == before
    assert local.gallery("album")["sequence"] == 2


def test_a_gallery_that_was_removed_is_not_there(ask, local):
    local.remove_gallery("album")
    for method, path in (("POST", OBJECTS), ("GET", f"{ITEMS}/c"), ("PATCH", f"{ITEMS}/c"), ("DELETE", f"{ITEMS}/c")):
        assert ask(method, path, content=b"{}").status_code == 404
    assert ask("GET", "/v1/galleries/album/export").status_code == 404
    assert ask("DELETE", "/v1/objects/1").status_code == 410
