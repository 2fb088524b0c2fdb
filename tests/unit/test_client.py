"""The client against the real application behind a real server, on a free port."""

import io
import itertools
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens import Client
from relens.enrolment import Enrolled
from relens.errors import BadInput, Broken, Busy, Conflict, Denied, Missing
from relens.narrowing import EVERYTHING, NO_HINTS, read_hints, read_where
from relens.rest import create_app
from relens.values import (
    WHOLE,
    FoundObject,
    Label,
    PictureInfo,
    Recognition,
    SearchAnswer,
    TextAnswer,
    TextMatch,
    Verification,
)

PICTURE = b"\xff\xd8 a picture"
LABELS = (Label("running shoe", 770, 0.9),)
RECOGNITION = Recognition(
    "photos-abc", "photos", PictureInfo("ab" * 32, 4, 3), (FoundObject(WHOLE, 1.0, "all", LABELS),), {"decode": 1.5}
)
SEARCH = SearchAnswer("shop-3", 2, "shop", PictureInfo("ab" * 32, 4, 3), (), {"search": 0.4})
MAX_BYTES = 1_000_000


class Stored:
    def to_json(self):
        return {"id": 4711, "gallery": "shop"}


PLACE = PictureInfo("ab" * 32, 4, 3)
TEXTS = TextAnswer("r-1", 2, "signs", '"no parking"', (TextMatch(7, 0.5, "No parking", WHOLE, PLACE, ({"id": "a"},)),))
VERIFICATION = Verification("r-2", 0.75, 0.5, (WHOLE, WHOLE), (1, 3))
DRAWN = b"\xff\xd8 a drawing"


class FakeGateway:
    def __init__(self):
        self.asked = []
        self.lacking = []
        self.error = None
        self.exported = []

    def recognize(self, data, **more):
        self._note("recognize", data, more)
        return RECOGNITION

    def search(self, data, **more):
        self._note("search", data, more)
        return SEARCH

    def search_text(self, text, **more):
        self._note("search_text", text, more)
        return TEXTS

    def verify(self, one, other, **more):
        self._note("verify", one, other, more)
        return VERIFICATION

    def draw(self, data, answer):
        self._note("draw", data, answer)
        return DRAWN

    def object(self, object_id):
        self._note("object", object_id)
        return Stored()

    def crop(self, object_id):
        self._note("crop", object_id)
        return b"\xff\xd8crop"

    def enrol(self, data, **more):
        self._note("enrol", data, more)
        return Enrolled("shop", "ab" * 32, (4711,), "sku-1", 3, True, {"commit": 2.4})

    def change_item(self, gallery, key, changes):
        self._note("change_item", gallery, key, changes)
        return {"id": key}

    def delete(self, gallery, **named):
        self._note("delete", gallery, named)
        return {"gallery": gallery, "deleted": 1, "sequence": 4}

    def export(self, gallery, **more):
        self._note("export", gallery, more)
        yield from self.exported

    def missing(self):
        return self.lacking

    def __getattr__(self, use):
        def answer(*args):
            self._note(use, *args)
            return {"use": use, "args": list(args)}

        return answer

    def _note(self, *asked):
        self.asked.append(asked)
        if self.error is not None:
            raise self.error


@contextmanager
def serving(app):
    """The URL at which an application is served until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server():
    gateway = FakeGateway()
    with serving(create_app(gateway, max_bytes=MAX_BYTES, allowed_hosts=["127.0.0.1"])) as url:
        yield url, gateway


@pytest.fixture
def gateway(server):
    server[1].__init__()
    return server[1]


@pytest.fixture
def client(server, gateway):
    with Client(server[0]) as client:
        yield client


def test_recognize_gives_the_value_that_the_gateway_gave(client, gateway):
    answer = client.recognize(PICTURE, recipe="shoes", include=["subject", "vector"])
    assert answer == RECOGNITION
    assert gateway.asked == [("recognize", PICTURE, {"recipe": "shoes", "include": ["subject", "vector"]})]


def test_search_gives_the_value_that_the_gateway_gave(client, gateway):
    assert client.search(PICTURE, gallery="my shop&k=1", k=3) == SEARCH
    usual = {"where": EVERYTHING, "hints": NO_HINTS, "threshold": None}
    assert gateway.asked == [("search", PICTURE, {"gallery": "my shop&k=1", "k": 3, **usual})]


def test_a_search_is_narrowed_by_what_the_client_says(client, gateway):
    client.search(
        PICTURE,
        gallery="shop",
        category="shoes",
        label="boot",
        days="2026-01-01..",
        items=["shop=north & south", "price=5..10"],
        off_shelf=True,
        hints=["text=red shoe"],
        threshold=0.25,
    )
    asked = gateway.asked[0][2]
    assert asked["where"] == read_where(
        category="shoes",
        label="boot",
        days="2026-01-01..",
        items=["shop=north & south", "price=5..10"],
        off_shelf=True,
    )
    assert (asked["hints"], asked["threshold"]) == (read_hints(["text=red shoe"]), 0.25)


def test_words_pairs_and_drawings_come_back_as_values(client, gateway):
    assert client.search_text('"no parking"', gallery="signs", k=2) == TEXTS
    assert client.verify(PICTURE, b"other", threshold=0.5) == VERIFICATION
    assert client.drawn(PICTURE, recipe="shoes") == DRAWN
    assert [asked[0] for asked in gateway.asked] == ["search_text", "verify", "recognize", "draw"]


def test_a_picture_may_be_bytes_a_path_or_an_open_file(client, gateway, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(PICTURE)
    with path.open("rb") as opened:
        given = [PICTURE, path, str(path), opened, io.BytesIO(PICTURE)]
        assert all(client.recognize(one) == RECOGNITION for one in given)
    assert [asked[1] for asked in gateway.asked] == [PICTURE] * len(given)


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (lambda c: c.plans(), ("plans",)),
        (lambda c: c.plan(7), ("plan", 7)),
        (lambda c: c.cancel(7), ("cancel", 7)),
        (lambda c: c.resume(7), ("resume", 7)),
        (lambda c: c.galleries(), ("galleries",)),
        (lambda c: c.gallery("a?b #ä"), ("gallery", "a?b #ä")),
        (lambda c: c.releases(), ("releases",)),
        (lambda c: c.release("shop-3"), ("release", "shop-3")),
        (lambda c: c.models(), ("models",)),
        (lambda c: c.model("effnet-lite0"), ("model", "effnet-lite0")),
        (lambda c: c.model("effnet-lite0/stable"), ("model", "effnet-lite0/stable")),
        (lambda c: c.status(), ("status",)),
    ],
)
def test_every_look_is_one_use_and_gives_its_json(client, gateway, call, asked):
    assert call(client) == {"use": asked[0], "args": list(asked[1:])}
    assert gateway.asked == [asked]


def test_objects_and_crops(client, gateway):
    assert client.object(4711) == {"id": 4711, "gallery": "shop"}
    assert client.crop(4711) == b"\xff\xd8crop"
    assert gateway.asked == [("object", 4711), ("crop", 4711)]


def test_ready_says_what_is_missing(client, gateway):
    assert client.ready() == []
    gateway.lacking = ["no model", "no disk"]
    assert client.ready() == ["no model", "no disk"]


# -- live galleries -------------------------------------------------------------------------------------------------


def test_a_picture_is_enrolled_with_what_is_said_of_its_item(client, gateway):
    item = {
        "id": "a/b ü",
        "title": 'a "b"\r\nc',
        "price": 3.5,
        "day": "2026-01-31",
        "off_shelf": False,
        "data": {"size": "M", "n": [1, None, "ü"]},
    }
    done = client.enrol(PICTURE, gallery="my shop", item=item | {"shop": None}, allow_empty=True)
    assert (done["objects"], done["item"], done["changed"]) == ([4711], "sku-1", True)
    asked = {"gallery": "my shop", "item": item | {"price": "3.5"}, "allow_empty": True}
    assert gateway.asked == [("enrol", PICTURE, asked)]
    client.enrol(io.BytesIO(PICTURE), gallery="shop")
    assert gateway.asked[1] == ("enrol", PICTURE, {"gallery": "shop", "item": {}, "allow_empty": False})


@pytest.mark.parametrize("key", ["sku-1", "a/b", "//a", "..", ".", "../pictures/x", "a?b #ü%2F", "a\0b\n", "x" * 3000])
def test_items_are_reached_by_any_key(client, gateway, key):
    assert client.item("shop", key) == {"use": "item", "args": ["shop", key]}
    assert client.change_item("shop", key, {"price": None, "data": {"a": 1}}) == {"id": key}
    assert client.delete_item("shop", key)["sequence"] == 4
    assert gateway.asked == [
        ("item", "shop", key),
        ("change_item", "shop", key, {"price": None, "data": {"a": 1}}),
        ("delete", "shop", {"items": [key]}),
    ]


TEXT = st.text(st.characters(codec="utf-8"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=TEXT.filter(bool), title=TEXT, data=st.dictionaries(TEXT, TEXT | st.none() | st.booleans() | st.integers()))
def test_any_text_arrives_as_it_was_sent(client, gateway, key, title, data):
    gateway.asked.clear()
    client.enrol(PICTURE, gallery="shop", item={"id": key, "title": title, "data": data})
    assert gateway.asked[0][2]["item"] == {"id": key, "title": title, "data": data}
    assert client.item("shop", key)["args"] == ["shop", key]
    client.change_item("shop", key, {"title": title, "data": data})
    assert gateway.asked[-1] == ("change_item", "shop", key, {"title": title, "data": data})


def test_objects_and_pictures_are_deleted(client, gateway):
    assert client.delete_picture("shop", "ab" * 32)["deleted"] == 1
    assert client.delete_object(4711) == {"use": "delete_object", "args": [4711]}
    assert gateway.asked == [("delete", "shop", {"pictures": ["ab" * 32]}), ("delete_object", 4711)]


@pytest.mark.parametrize(
    "use", [lambda c: c.item("shop", "\ud800"), lambda c: c.enrol(b"x", gallery="a", item={"id": "\ud800"})]
)
def test_half_a_character_is_bad_input_here(client, gateway, use):
    with pytest.raises(BadInput) as caught:
        use(client)
    assert caught.value.code == "client.bad-text"
    assert not gateway.asked


def test_an_export_is_read_as_it_comes(client, gateway):
    gateway.exported = [{"gallery": "shop"}, *({"id": n, "title": "Tür\u2028\n\x85"} for n in range(1000))]
    assert list(client.export("shop", vectors=True)) == gateway.exported
    assert gateway.asked == [("export", "shop", {"vectors": True})]
    records = client.export("shop")
    assert next(records) == {"gallery": "shop"}
    records.close()
    assert client.ready() == []


def test_an_export_that_is_refused_or_broken_off_is_an_error(client, gateway):
    gateway.error = Missing("gallery.missing", "there is none")
    with pytest.raises(Missing) as caught:
        next(client.export("nowhere"))
    assert caught.value.code == "gallery.missing"

    def failing():
        yield {"gallery": "shop"}
        raise Conflict("gateway.export-overtaken", "vectors went")

    gateway.error, gateway.exported = None, failing()
    with pytest.raises(Broken) as broken:
        list(client.export("shop"))
    assert broken.value.code == "client.disconnected"


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        BadInput("vision.broken-picture", "it is broken", hint="send another"),
        BadInput("vision.too-large", "it is too large"),
        BadInput("vision.not-a-picture", "it is none"),
        Denied("keys.no-scope", "not you"),
        Missing("gallery.missing", "there is none"),
        Missing("gallery.object-deleted", "it was deleted", gone=True),
        Conflict("jobs.plan-over", "it is over"),
        Busy("serving.expired", "too much to do", retry_after_s=7.125),
        Broken("serving.engine-died", "it died", hint="look at the log"),
    ],
)
def test_an_error_arrives_as_what_it_was(client, gateway, error):
    gateway.error = error
    with pytest.raises(type(error)) as caught:
        client.recognize(PICTURE)
    assert vars(caught.value) == vars(error)


def test_what_the_door_refuses_is_an_error_of_the_same_kind(client, gateway):
    with pytest.raises(BadInput) as caught:
        client.recognize(b"")
    assert caught.value.code == "rest.empty"
    with pytest.raises(BadInput) as caught:
        client.recognize(b"x" * (MAX_BYTES + 1))
    assert caught.value.code == "rest.too-large"
    gateway.error = RuntimeError("unforeseen")
    with pytest.raises(Broken) as caught:
        client.plans()
    assert caught.value.code == "rest.failed"


def test_a_connection_is_of_use_after_a_body_was_refused_unread(client):
    for _ in range(3):
        with pytest.raises(BadInput):
            client.recognize(b"x" * (20 * MAX_BYTES))
        assert client.recognize(PICTURE) == RECOGNITION


def test_a_server_that_is_not_there_is_broken_and_the_hint_says_how_to_start_it():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Client(url) as client, pytest.raises(Broken) as caught:
        client.ready()
    assert caught.value.code == "client.unreachable"
    assert url in caught.value.message
    assert "relens up" in caught.value.hint


def answering(status, body, kind=b"application/json"):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
            await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"[1]"),
        (200, b"{}"),
        (302, b""),
        (404, b"not found"),
        (502, b"<html>bad gateway"),
        (503, b'{"error": "busy"}'),
    ],
)
@pytest.mark.parametrize("call", [lambda c: c.recognize(PICTURE), lambda c: c.ready()])
def test_a_server_that_is_no_relens_is_told_apart(status, body, call):
    with serving(answering(status, body)) as url, Client(url) as client, pytest.raises(Broken) as caught:
        call(client)
    assert caught.value.code == "client.strange-answer"


def test_an_answer_that_does_not_come_is_busy():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout_s=0.2) as client, pytest.raises(Busy) as caught:
            client.plans()
    assert caught.value.code == "client.timeout"


def test_a_connection_that_ends_without_an_answer_is_broken():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url) as client, pytest.raises(Broken) as caught:
            client.plans()
    assert caught.value.code == "client.disconnected"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://[::1", "localhost"])
def test_what_is_no_url_of_a_server_is_refused_at_once(url):
    with pytest.raises(BadInput) as caught:
        Client(url)
    assert caught.value.code == "client.bad-url"


# -- manners --------------------------------------------------------------------------------------------------------


def test_no_proxy_is_asked_for_this_machine(monkeypatch, server, gateway):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Client(server[0]) as client:
        assert client.ready() == []


def test_a_prefix_in_the_url_is_kept(server, gateway):
    with Client(f"{server[0]}/relens/") as client, pytest.raises(Missing) as caught:
        client.plans()
    assert "/relens/v1/plans" in caught.value.message


def test_many_threads_may_share_a_client(client):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(client.recognize(PICTURE))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == list(itertools.repeat(RECOGNITION, 16))


def test_importing_the_client_imports_nothing_heavy():
    heavy = "fastapi", "pydantic", "sqlalchemy", "onnxruntime", "PIL", "relens.gateway"
    code = f"import sys, relens.client; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
