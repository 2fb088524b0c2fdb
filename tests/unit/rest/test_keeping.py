import asyncio
import json
import threading

import pytest

from relens.enrolment.fields import NAMES
from relens.errors import BadInput, Conflict, Missing
from relens.rest import exports
from relens.rest.bodies import FORM_EXTRA_BYTES
from relens.rest.keeping import CHANGES_BODY, Said

PICTURE = b"\x89picture\r\n--x\r\n\x00"
ENROL = "/v1/galleries/shop/objects"
ITEM = "/v1/galleries/shop/items/"
SHA = "ab" * 32


def error_of(response):
    error = response.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    return error["code"]


def said(**item):
    return {"gallery": "shop", "item": item, "allow_empty": False}


# -- enrol


def test_a_picture_is_enrolled_and_what_came_of_it_is_said(ask, gateway):
    response = ask("POST", ENROL, content=PICTURE)
    assert response.status_code == 201
    assert response.json() == gateway.enrolled.to_json()
    assert gateway.asked == [("enrol", PICTURE, said())]


def test_what_was_so_already_is_no_creation(ask, gateway):
    gateway.enrolled = type(gateway.enrolled)("shop", SHA, (), "sku-1", 2, False, {})
    response = ask("POST", ENROL, content=PICTURE)
    assert (response.status_code, response.json()["changed"]) == (200, False)


WHOLE_ITEM = {
    "id": "a/b ü&=#%",
    "title": "",
    "price": "79.9",
    "shop": "north & south",
    "day": "2026-01-31",
    "uri": "s3://bucket/a b",
    "off_shelf": "true",
    "data": '{"size": "M", "n": [1, null]}',
}
READ = WHOLE_ITEM | {"off_shelf": True, "data": {"size": "M", "n": [1, None]}}


def test_an_item_comes_as_parameters_beside_a_raw_picture(ask, gateway):
    response = ask("POST", ENROL, params=WHOLE_ITEM | {"allow_empty": "1"}, content=PICTURE)
    assert response.status_code == 201
    assert gateway.asked == [("enrol", PICTURE, said(**READ) | {"allow_empty": True})]


def test_an_item_comes_as_fields_of_a_form(ask, gateway):
    response = ask("POST", ENROL, data=WHOLE_ITEM | {"allow_empty": "True"}, files={"file": PICTURE})
    assert response.status_code == 201
    assert gateway.asked == [("enrol", PICTURE, said(**READ) | {"allow_empty": True})]


def test_a_form_and_parameters_go_together_unless_they_say_something_twice(ask, gateway):
    asked = ask("POST", f"{ENROL}?id=a", data={"title": "b"}, files={"file": PICTURE})
    assert (asked.status_code, gateway.asked[0][2]) == (201, said(id="a", title="b"))
    asked = ask("POST", f"{ENROL}?id=a", data={"id": "a"}, files={"file": PICTURE})
    assert (asked.status_code, error_of(asked)) == (400, "rest.bad-request")
    assert len(gateway.asked) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        "titel=x",
        "ID=x",
        "off_shelf=",
        "off_shelf=yes",
        "allow_empty=maybe",
        "data=",
        "data=x",
        "data=[1]",
        "data=null",
        "data=" + "[" * 5000,
        "id=%ff",
        "title=%C3%28",
        "%ff=x",
    ],
)
def test_parameters_that_say_nothing_of_an_item_are_bad_requests(ask, gateway, wrong):
    response = ask("POST", f"{ENROL}?{wrong}", content=PICTURE)
    assert response.status_code == 400
    assert error_of(response) in {"rest.bad-request", "rest.bad-json"}
    assert not gateway.asked


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([("file", PICTURE), ("id", (None, b"a")), ("id", (None, b"b"))], "rest.bad-form"),
        ([("file", PICTURE), ("title", (None, b"\xff"))], "rest.bad-form"),
        ([("file", PICTURE), ("data", (None, b"[1]"))], "rest.bad-json"),
        ([("file", PICTURE), ("data", (None, b"\xff{}"))], "rest.bad-form"),
        ([("file", b"")], "rest.empty"),
        ([("id", (None, b"a"))], "rest.bad-form"),
        ([("file", PICTURE), ("file", PICTURE)], "rest.bad-form"),
    ],
)
def test_forms_that_cannot_be_used_are_bad_requests(ask, gateway, files, code):
    response = ask("POST", ENROL, files=files)
    assert (response.status_code, error_of(response)) == (400, code)
    assert not gateway.asked


def test_a_form_may_not_say_more_of_an_item_than_it_may_be_long(make, gateway):
    ask = make(max_bytes=10 * FORM_EXTRA_BYTES)
    response = ask("POST", ENROL, data={"title": "x" * (FORM_EXTRA_BYTES + 1)}, files={"file": PICTURE})
    assert (response.status_code, error_of(response)) == (413, "rest.too-large")
    assert not gateway.asked


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInput("enrolment.bad-field", "no"), 400),
        (BadInput("enrolment.nothing-found", "no"), 400),
        (BadInput("vision.not-a-picture", "no"), 415),
        (Missing("gallery.missing", "no"), 404),
        (Missing("gallery.removed", "no", gone=True), 410),
        (Conflict("enrolment.changed", "no"), 409),
    ],
)
def test_errors_of_enrolments_keep_their_families(ask, gateway, error, status):
    gateway.error = error
    response = ask("POST", ENROL, content=PICTURE)
    assert (response.status_code, response.json()) == (status, error.to_json())


def test_enrolments_are_questions_and_too_many_are_busy(make, gateway):
    ask = make(questions=1)
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_, **__):
        begun.set()
        go_on.wait(10)
        return gateway.enrolled

    gateway.enrol = slow

    async def two():
        async with ask.session() as session:
            first = asyncio.create_task(session.post(ENROL, content=PICTURE))
            await asyncio.to_thread(begun.wait, 10)
            second = await session.post(ENROL, content=PICTURE)
            go_on.set()
            return await first, second

    first, second = asyncio.run(two())
    assert (first.status_code, second.status_code) == (201, 503)
    assert second.headers["retry-after"]


def test_what_is_documented_of_an_item_is_what_can_be_said_of_it():
    assert set(Said.model_fields) == {*NAMES, "allow_empty"}
    schema = CHANGES_BODY["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == set(NAMES) - {"id"}


# -- items


KEYS = ["sku-1", "a/b", "/a//b/", "a b", "ü", "a?b#c", "%2F", "..", "a\0b", "a\nb", "a\n", "x" * 3000]


@pytest.mark.parametrize("key", KEYS)
def test_any_text_is_a_key(ask, gateway, key):
    path = ITEM + "".join(f"%{byte:02X}" for byte in key.encode())
    assert ask("GET", path).json()["picture"]["sha256"] == SHA
    assert ask("PATCH", path, json={"price": 5}).status_code == 200
    assert ask("DELETE", path).json() == {"gallery": "shop", "deleted": 1, "sequence": 4}
    assert gateway.asked == [
        ("item", "shop", key),
        ("change_item", "shop", key, {"price": 5}),
        ("delete", "shop", {"items": [key]}),
    ]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_key_that_is_no_utf8_is_refused_before_it_is_taken_for_another(ask, gateway, method):
    response = ask(method, f"{ITEM}a%FF", content=b"{}")
    assert (response.status_code, error_of(response)) == (400, "rest.bad-request")
    assert not gateway.asked


def test_slashes_of_a_key_need_not_be_encoded(ask, gateway):
    ask("GET", f"{ITEM}3/picture-0003.jpg")
    assert gateway.asked == [("item", "shop", "3/picture-0003.jpg")]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"price": 1} x', b'{"n": ' + b"1" * 5000 + b"}"],
)
def test_changes_are_a_json_object(ask, gateway, body):
    response = ask("PATCH", f"{ITEM}a", content=body)
    assert (response.status_code, error_of(response)) == (400, "rest.bad-json")
    assert not gateway.asked


def test_changes_are_passed_on_as_they_are_and_their_errors_come_back(ask, gateway):
    changes = {"title": None, "price": "dear", "colour": 5, "data": {"a": [1]}}
    ask("PATCH", f"{ITEM}a", json=changes)
    assert gateway.asked[0][3] == changes
    gateway.error = BadInput("enrolment.unknown-field", "an item has no colour")
    response = ask("PATCH", f"{ITEM}a", json=changes)
    assert (response.status_code, error_of(response)) == (400, "enrolment.unknown-field")


def test_changes_may_not_be_long(ask, gateway):
    response = ask("PATCH", f"{ITEM}a", content=json.dumps({"title": "x" * FORM_EXTRA_BYTES}).encode())
    assert (response.status_code, error_of(response)) == (413, "rest.too-large")
    assert not gateway.asked


# -- deletions


def test_objects_and_pictures_are_deleted_by_what_names_them(ask, gateway):
    assert ask("DELETE", "/v1/objects/4711").json()["deleted"] == 1
    assert ask("DELETE", f"/v1/galleries/shop/pictures/{SHA}").json()["sequence"] == 4
    assert gateway.asked == [("delete_object", 4711), ("delete", "shop", {"pictures": [SHA]})]


@pytest.mark.parametrize("wrong", ["x", "-1", str(2**63), SHA.upper(), SHA + "00", "a%00b"])
def test_what_names_nothing_is_refused_here(ask, gateway, wrong):
    for path in (f"/v1/objects/{wrong}", f"/v1/galleries/shop/pictures/{wrong}"):
        response = ask("DELETE", path)
        assert (response.status_code, error_of(response)) == (400, "rest.bad-request")
    assert not gateway.asked


def test_what_was_deleted_before_is_gone(ask, gateway):
    gateway.error = Missing("gallery.object-deleted", "object 4711 was deleted", gone=True)
    assert ask("DELETE", "/v1/objects/4711").status_code == 410


# -- exports


def test_an_export_is_json_lines(ask, gateway):
    gateway.exported.append({"id": 3, "items": [{"title": "Tür\u2028\n"}]})
    response = ask("GET", "/v1/galleries/shop/export?vectors=true")
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in response.content.split(b"\n")[:-1]] == gateway.exported
    assert gateway.asked == [("export", "shop", {"vectors": True})]
    assert gateway.exports_open == 0


def test_an_export_of_what_is_not_there_is_missing_and_nothing_is_sent_of_it(ask, gateway):
    gateway.error = Missing("gallery.missing", "no")
    for _ in range(exports.AT_A_TIME + 1):
        response = ask("GET", "/v1/galleries/nowhere/export")
        assert (response.status_code, error_of(response)) == (404, "gallery.missing")
    assert ask("GET", "/v1/galleries/nowhere/export?vectors=some").status_code == 400


def test_only_a_few_exports_are_on_their_way_at_once(ask, gateway):
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(gallery, *, vectors=False):
        yield {"gallery": gallery}
        begun.release()
        go_on.wait(10)

    gateway.export = slow

    async def many():
        async with ask.session() as session:
            path = "/v1/galleries/shop/export"
            running = [asyncio.create_task(session.get(path)) for _ in range(exports.AT_A_TIME)]
            for _ in running:
                await asyncio.to_thread(begun.acquire, timeout=10)
            refused = await session.get(path)
            go_on.set()
            return [*[one.status_code for one in await asyncio.gather(*running)], refused.status_code]

    assert asyncio.run(many()) == [200] * exports.AT_A_TIME + [503]
    assert ask("GET", "/v1/galleries/shop/export").status_code == 200


@pytest.mark.parametrize("sent", [0, 1])
def test_an_export_whose_client_leaves_is_closed_and_makes_room(ask, gateway, sent):
    def endless():
        number = 0
        while True:
            yield {"id": (number := number + 1)}

    gateway.exported = endless()
    bodies = []

    async def receive():
        if len(bodies) < sent:
            await asyncio.sleep(10)
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body":
            bodies.append(message["body"])
            if len(bodies) > sent:
                raise OSError

    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.4"},
        "method": "GET",
        "path": "/v1/galleries/shop/export",
        "query_string": b"",
        "headers": [],
    }
    for _ in range(exports.AT_A_TIME + 1):
        bodies.clear()
        asyncio.run(ask.app(scope, receive, send))
        assert bodies
        assert gateway.exports_open == 0


def test_an_export_that_fails_on_its_way_is_broken_off_and_does_not_look_complete(ask, gateway, logged):
    def failing():
        yield {"id": 1}
        raise Conflict("gateway.export-overtaken", "no")

    gateway.exported = failing()
    with pytest.raises(RuntimeError) as caught:  # what a server breaks the connection off for
        ask("GET", "/v1/galleries/shop/export")
    assert isinstance(caught.value.__cause__, Conflict)
    assert logged[0]["event"] == "request failed"
    assert gateway.exports_open == 0
