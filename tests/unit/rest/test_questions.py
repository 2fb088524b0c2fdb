import asyncio
import threading

import httpx
import pytest

from relens.narrowing import read_hints, read_where
from relens.rest.bodies import FORM_EXTRA_BYTES

MAX_BYTES = 1000
PICTURE = b"\x89picture\r\n--x\r\n\x00"


def error_of(response):
    error = response.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    return error["code"]


def test_recognize_passes_the_bytes_and_answers_the_values_json(ask, gateway):
    response = ask("POST", "/v1/recognize", content=PICTURE)
    assert response.status_code == 200
    assert gateway.asked == [("recognize", PICTURE, {"recipe": "photos", "include": []})]
    assert response.json()["objects"][0]["box"] == [0.1, 0.2, 0.3, 0.4]
    assert response.json()["release"] == "photos-abc"


def test_recognize_takes_a_recipe_and_what_to_include(ask, gateway):
    ask("POST", "/v1/recognize?recipe=shoes&include=subject,%20heatmap,,vector", content=PICTURE)
    assert gateway.asked[0][2] == {"recipe": "shoes", "include": ["subject", "heatmap", "vector"]}


def test_search_passes_gallery_and_k(ask, gateway):
    response = ask("POST", "/v1/search?gallery=shop&k=3", content=PICTURE)
    assert gateway.asked == [("search", PICTURE, {"gallery": "shop", "k": 3})]
    assert response.json()["objects"][0]["matches"][0]["items"][0]["size"] == "42"


def test_search_is_narrowed_by_what_its_parameters_say(ask, gateway):
    ask(
        "POST",
        "/v1/search?gallery=shop&category=shoes&label=boot&days=2026-01-01..&item=shop%3Dnorth&item=price%3D5..10"
        "&off_shelf=true&hint=price%3D20&threshold=0.5",
        content=PICTURE,
    )
    asked = gateway.asked[0][2]
    assert asked["where"] == read_where(
        category="shoes", label="boot", days="2026-01-01..", items=["shop=north", "price=5..10"], off_shelf=True
    )
    assert asked["hints"] == read_hints(["price=20"])
    assert asked["threshold"] == 0.5


def test_a_condition_that_is_none_is_a_bad_request(ask, gateway):
    response = ask("POST", "/v1/search?gallery=shop&item=north", content=PICTURE)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "narrowing.bad-condition"
    assert gateway.asked == []


def test_words_are_searched_without_a_picture(ask, gateway):
    response = ask("GET", "/v1/search/text?gallery=signs&text=no%20parking&k=3")
    assert gateway.asked == [("search_text", "no parking", {"gallery": "signs", "k": 3})]
    assert response.json()["matches"][0]["text"] == "No parking here"


def test_a_search_for_words_is_narrowed_like_any_other(ask, gateway):
    path = "/v1/search/text?gallery=signs&text=no&category=cars&label=boot&days=2026-01-01..&item=shop%3Dnorth"
    ask("GET", f"{path}&off_shelf=true")
    where = read_where(category="cars", label="boot", days="2026-01-01..", items=["shop=north"], off_shelf=True)
    assert gateway.asked == [("search_text", "no", {"gallery": "signs", "k": 10, "where": where})]
    assert ask("GET", f"{path}&item=north").status_code == 400


def test_two_pictures_are_compared(ask, gateway):
    response = ask("POST", "/v1/verify?threshold=0.7", files={"file": PICTURE, "other": b"another"})
    assert gateway.asked == [("verify", PICTURE, b"another", {"recipe": "faces", "threshold": 0.7})]
    assert response.json()["same"] is True


@pytest.mark.parametrize("files", [{"file": b"x"}, {"file": b"x", "other": b""}, {"one": b"x", "other": b"y"}])
def test_two_pictures_are_needed_to_compare(ask, gateway, files):
    response = ask("POST", "/v1/verify", files=files)
    assert response.status_code == 400
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/jpeg", "image/jpeg"),
        ("image/*, */*", "image/jpeg"),
        ("image/jpeg, application/json", "image/jpeg"),
        ("Image/JPEG;Q=0.9, application/json;q=0.8", "image/jpeg"),
        ("image/jpeg;q=0.9, application/json", "application/json"),
        ("image/jpeg;q=0", "application/json"),
        ("image/jpeg;q=much", "image/jpeg"),
        ("application/json, image/jpeg", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
    ],
)
def test_who_accepts_a_jpeg_gets_what_was_recognised_drawn(ask, gateway, accept, kind):
    response = ask("POST", "/v1/recognize", content=PICTURE, headers={"Accept": accept})
    assert response.headers["content-type"] == kind
    assert (response.content == b"\xff\xd8drawn") == (kind == "image/jpeg")
    assert [asked[0] for asked in gateway.asked] == ["recognize"] + ["draw"] * (kind == "image/jpeg")


@pytest.mark.parametrize("threshold", ["nan", "inf", "1.5", "", "high"])
@pytest.mark.parametrize("path", ["/v1/search?gallery=shop&threshold=", "/v1/verify?threshold="])
def test_a_threshold_is_a_cosine(ask, gateway, path, threshold):
    response = ask("POST", path + threshold, files={"file": PICTURE, "other": b"another"})
    assert response.status_code == 400
    assert "threshold" in response.json()["error"]["message"]
    assert gateway.asked == []


def test_parameters_without_a_value_are_as_if_they_were_not_there_or_bad_requests(ask, gateway):
    assert ask("POST", "/v1/search?gallery=shop&category=&label=&days=", content=PICTURE).status_code == 200
    assert gateway.asked == [("search", PICTURE, {"gallery": "shop", "k": 10})]
    for wrong in ("item=", "hint=", "k=", "off_shelf=", "item=shop%3Dnorth&item=", "hint=price%3D1&hint=price%3D2"):
        assert ask("POST", f"/v1/search?gallery=shop&{wrong}", content=PICTURE).status_code == 400, wrong
    assert len(gateway.asked) == 1


def test_a_form_of_very_many_fields_is_refused_before_it_is_read_to_its_end(ask, gateway):
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nv\r\n'
    response = ask(
        "POST",
        "/v1/recognize",
        content=part * 500 + b"--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert response.status_code == 400
    assert "100 fields" in response.json()["error"]["message"]
    assert gateway.asked == []


@pytest.mark.parametrize("kind", ["image/jpeg", "application/x-www-form-urlencoded", "text/plain", None])
def test_a_raw_body_is_taken_whatever_its_type(ask, gateway, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    assert ask("POST", "/v1/recognize", content=PICTURE, headers=headers).status_code == 200
    assert gateway.asked[0][1] == PICTURE


@pytest.mark.parametrize("part", [("photo.jpg", PICTURE, "image/jpeg"), (None, PICTURE)])
def test_a_form_holds_the_picture_in_its_field_file(ask, gateway, part):
    response = ask("POST", "/v1/recognize", files={"note": (None, b"x"), "file": part})
    assert response.status_code == 200
    assert gateway.asked[0][1] == PICTURE


@pytest.mark.parametrize(
    ("files", "named"),
    [({"image": PICTURE}, "image"), ([("file", PICTURE), ("file", PICTURE)], "file, file")],
)
def test_a_form_without_exactly_one_field_file_is_refused_and_says_what_it_holds(ask, gateway, files, named):
    response = ask("POST", "/v1/recognize", files=files)
    assert (response.status_code, error_of(response)) == (400, "rest.bad-form")
    assert named in response.json()["error"]["message"]
    assert not gateway.asked


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_broken_form_is_refused(ask, gateway, kind):
    response = ask("POST", "/v1/recognize", content=b"no form at all", headers={"Content-Type": kind})
    assert (response.status_code, error_of(response)) == (400, "rest.bad-form")
    assert not gateway.asked


def test_a_form_that_was_cut_off_is_refused(ask, gateway):
    request = httpx.Request("POST", "http://x", files={"file": PICTURE * 10})
    cut = request.read()[:-60]
    response = ask("POST", "/v1/recognize", content=cut, headers={"Content-Type": request.headers["content-type"]})
    assert (response.status_code, error_of(response)) == (400, "rest.bad-form")
    assert not gateway.asked


@pytest.mark.parametrize("more", [{}, {"content": b""}, {"files": {"file": b""}}])
def test_an_empty_picture_is_refused(ask, gateway, more):
    response = ask("POST", "/v1/recognize", **more)
    assert (response.status_code, error_of(response)) == (400, "rest.empty")
    assert not gateway.asked


# -- sizes ----------------------------------------------------------------------------------------------------------


def in_chunks(size, count, drawn):
    async def chunks():
        for number in range(count):
            drawn.append(number)
            yield b"x" * size

    return chunks()


def test_a_picture_of_exactly_the_limit_is_taken(ask, gateway):
    assert ask("POST", "/v1/recognize", content=b"x" * MAX_BYTES).status_code == 200
    assert ask("POST", "/v1/recognize", files={"file": b"x" * MAX_BYTES}).status_code == 200
    assert ask("POST", "/v1/recognize", content=in_chunks(100, 10, [])).status_code == 200
    assert [len(asked[1]) for asked in gateway.asked] == [MAX_BYTES] * 3


@pytest.mark.parametrize("more", [{"content": b"x" * (MAX_BYTES + 1)}, {"files": {"file": b"x" * (MAX_BYTES + 1)}}])
def test_a_larger_one_is_refused(ask, gateway, more):
    response = ask("POST", "/v1/recognize", **more)
    assert (response.status_code, error_of(response)) == (413, "rest.too-large")
    assert "1,000 bytes" in response.json()["error"]["message"]
    assert not gateway.asked


def test_a_body_that_does_not_say_how_long_it_is_is_refused_as_soon_as_it_is_too_long(ask, gateway):
    drawn = []
    response = ask("POST", "/v1/recognize", content=in_chunks(100, 10_000, drawn))
    assert (response.status_code, error_of(response)) == (413, "rest.too-large")
    assert len(drawn) == MAX_BYTES // 100 + 1
    assert not gateway.asked


def test_a_form_is_not_read_on_and_on_either(ask, gateway):
    drawn = []
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = ask("POST", "/v1/recognize", content=in_chunks(1000, 10_000, drawn), headers=headers)
    assert (response.status_code, error_of(response)) == (413, "rest.too-large")
    assert len(drawn) <= (MAX_BYTES + FORM_EXTRA_BYTES) // 1000 + 1


def test_a_body_that_announces_too_much_is_refused_unread(ask):
    sent = []

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/recognize",
        "query_string": b"",
        "headers": [(b"host", b"x"), (b"content-length", b"1001")],
    }
    asyncio.run(ask.app(scope, receive, send))
    assert sent[0]["status"] == 413


# -- parameters -----------------------------------------------------------------------------------------------------


def test_a_parameter_that_is_missing_or_no_number_is_named(ask, gateway):
    response = ask("POST", "/v1/search?k=many", content=PICTURE)
    assert (response.status_code, error_of(response)) == (400, "rest.bad-request")
    message = response.json()["error"]["message"]
    assert "gallery: " in message
    assert "k: " in message
    assert not gateway.asked


@pytest.mark.parametrize("recipe", ["/etc/secret.yaml", "secret.yml", "../photos", "a%00b", "%0a"])
def test_a_recipe_is_never_a_path(ask, gateway, recipe):
    response = ask("POST", f"/v1/recognize?recipe={recipe}", content=PICTURE)
    assert (response.status_code, error_of(response)) == (400, "rest.bad-request")
    assert not gateway.asked


# -- many at a time -------------------------------------------------------------------------------------------------


class Held:
    """A gateway whose questions wait until they are let go."""

    def __init__(self, gateway):
        self._gateway = gateway
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)

    def recognize(self, data, **more):
        self.begun.release()
        assert self.go.wait(10)
        return self._gateway.recognize(data, **more)

    def __getattr__(self, use):
        return getattr(self._gateway, use)


@pytest.fixture
def held(gateway):
    return Held(gateway)


def during_questions(ask, held, count, what):
    """Start `count` questions, then do `what` while all of them wait; its result and their statuses."""

    async def run():
        async with ask.session() as session:
            questions = [asyncio.ensure_future(session.post("/v1/recognize", content=PICTURE)) for _ in range(count)]
            try:
                for _ in range(count):
                    assert await asyncio.to_thread(held.begun.acquire, timeout=10)
                result = await asyncio.wait_for(what(session), 10)
            finally:
                held.go.set()
            return result, [(await question).status_code for question in questions]

    return asyncio.run(run())


def test_questions_that_wait_do_not_keep_lists_and_health_waiting(held, make_over):
    async def look(session):
        return [(await session.get(path)).status_code for path in ("/health/live", "/health/ready", "/v1/plans")]

    looked, answered = during_questions(make_over(held, questions=48), held, 48, look)
    assert looked == [200, 200, 200]
    assert answered == [200] * 48


def test_one_question_more_than_there_are_threads_is_busy_at_once(held, make_over):
    async def one_more(session):
        return await session.post("/v1/recognize", content=PICTURE)

    ask = make_over(held, questions=2)
    refused, answered = during_questions(ask, held, 2, one_more)
    assert (refused.status_code, error_of(refused)) == (503, "rest.too-many-questions")
    assert refused.headers["retry-after"] == "1"
    assert answered == [200, 200]
    assert ask("POST", "/v1/recognize", content=PICTURE).status_code == 200


def test_a_question_that_fails_gives_its_thread_back(make, gateway):
    ask = make(questions=1)
    gateway.error = RuntimeError("broken")
    assert ask("POST", "/v1/recognize", content=PICTURE).status_code == 500
    gateway.error = None
    assert ask("POST", "/v1/recognize", content=PICTURE).status_code == 200
