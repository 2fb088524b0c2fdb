import asyncio

import pytest
import structlog

from relens.errors import BadInput, Broken, Busy, Conflict, Denied, Missing, RelensError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInput("recipes.bad-name", "no", hint="other"), 400),
        (BadInput("vision.broken-picture", "no"), 400),
        (BadInput("vision.too-large", "no"), 413),
        (BadInput("vision.not-a-picture", "no"), 415),
        (Denied("keys.no-scope", "no"), 403),
        (Missing("gallery.missing", "no"), 404),
        (Missing("gallery.object-deleted", "no", gone=True), 410),
        (Conflict("jobs.plan-over", "no"), 409),
        (Busy("serving.expired", "no"), 503),
        (Broken("serving.engine-died", "no"), 500),
        (RelensError("some.thing", "no"), 500),
    ],
)
@pytest.mark.parametrize("request_line", ["POST /v1/recognize", "GET /v1/plans"])
def test_a_family_becomes_a_status_and_the_json_is_the_errors_own(ask, gateway, error, status, request_line):
    gateway.error = error
    response = ask(*request_line.split(), content=b"picture" if request_line.startswith("POST") else None)
    assert response.status_code == status
    assert response.json() == error.to_json()
    assert ("retry-after" in response.headers) == (status == 503)


@pytest.mark.parametrize(
    ("retry_after_s", "header", "ms"),
    [(0.0, "1", "1"), (0.2, "1", "200"), (1.0, "1", "1000"), (2.1, "3", "2100"), (60, "60", "60000")],
)
def test_busy_says_when_to_ask_again_in_whole_seconds_and_in_milliseconds(ask, gateway, retry_after_s, header, ms):
    gateway.error = Busy("serving.full", "no", retry_after_s=retry_after_s)
    headers = ask("GET", "/v1/plans").headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == (header, ms)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/plans/", "/v2/plans", "/v1/objects/1/crop/x"])
def test_an_unknown_path_is_an_error_in_the_one_form(ask, path):
    response = ask("GET", path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "rest.not-found"
    assert path in response.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", "/v1/search", "POST"), ("DELETE", "/v1/plans", "GET")])
def test_a_wrong_method_is_an_error_in_the_one_form(ask, method, path, allowed):
    response = ask(method, path)
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "rest.method"
    assert response.headers["allow"] == allowed
    assert allowed in response.json()["error"]["hint"]


def test_what_nobody_foresaw_is_told_by_id_and_its_cause_only_to_the_log(ask, gateway, logged):
    gateway.error = RuntimeError("the password is 1234")
    response = ask("GET", "/v1/plans", headers={"X-Request-Id": "my-id"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "rest.failed"
    assert "my-id" in response.json()["error"]["message"]
    assert "1234" not in response.text
    failed = next(line for line in logged if line["event"] == "request failed")
    assert failed["exc_info"] is True
    assert failed["request"] == "my-id"


# -- ids and logs ---------------------------------------------------------------------------------------------------


def test_a_sane_request_id_is_kept(ask):
    assert ask("GET", "/health/live", headers={"X-Request-Id": "Trace-1.2_3"}).headers["x-request-id"] == "Trace-1.2_3"


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a\tb", 'a"b', "ä".encode()])
def test_any_other_is_replaced_by_a_new_one(ask, given):
    headers = {} if given is None else {"X-Request-Id": given}
    made = [ask("GET", "/health/live", headers=headers).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert all(len(one) == 16 and one.isalnum() for one in made)


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("PUT", "/v1/plans"), ("GET", "/docs")])
def test_every_response_has_an_id(ask, method, path):
    assert ask(method, path).headers["x-request-id"]


def test_a_request_is_one_line_in_the_log_that_names_the_template_of_its_path(ask, logged):
    ask("GET", "/v1/plans/7", headers={"X-Request-Id": "abc"})
    assert len(logged) == 1
    line = logged[0]
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "path": "/v1/plans/{id}",
        "status": 200,
        "request": "abc",
    }


def test_the_line_of_a_question_names_the_release(ask, logged):
    ask("POST", "/v1/search?gallery=shop", content=b"picture")
    assert logged[0]["release"] == "shop-3"


def test_the_line_of_an_error_has_its_code_and_only_of_what_is_broken_its_text(ask, gateway, logged):
    gateway.error = Missing("gallery.missing", "there is no gallery 'private'")
    ask("GET", "/v1/galleries/private")
    gateway.error = Broken("store.full", "the disk is full")
    ask("GET", "/v1/plans")
    ask("GET", "/private")
    assert [line["code"] for line in logged] == ["gallery.missing", "store.full", "rest.not-found"]
    assert [line.get("error") for line in logged] == [None, "the disk is full", None]
    assert "private" not in str(logged)


def test_what_is_logged_inside_carries_the_id_too(make_over, gateway, logged):
    gateway.missing = lambda: structlog.get_logger().warning("inside") or []
    make_over(gateway)("GET", "/health/ready", headers={"X-Request-Id": "abc"})
    assert [(line["event"], line["request"]) for line in logged] == [("inside", "abc"), ("request", "abc")]


def test_a_client_that_leaves_while_it_sends_is_no_failure(ask, gateway, logged):
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/recognize", "query_string": b"", "headers": []}
    asyncio.run(ask.app(scope, receive, send))
    assert [(line["event"], line["status"]) for line in logged] == [("request", 499)]
    assert not sent
    assert not gateway.asked


# -- who may ask ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8080"])
def test_names_of_this_machine_are_answered(make, host):
    assert make(allowed_hosts=LOOPBACK)("GET", "/v1/plans", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost@evil.example", "::1", "[::1", "", "x:y"],
)
@pytest.mark.parametrize("path", ["/v1/plans", "/docs", "/health/live", "/nowhere"])
def test_other_names_are_refused_before_anything_is_done(make, gateway, host, path):
    response = make(allowed_hosts=LOOPBACK)("GET", path, headers={"Host": host})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "rest.bad-host"
    assert "localhost" in response.json()["error"]["hint"]
    assert not gateway.asked


def test_a_host_may_be_allowed_in_brackets(make):
    assert make(allowed_hosts=["[::1]"])("GET", "/v1/plans", headers={"Host": "[::1]:80"}).status_code == 200


def test_all_names_are_answered_if_none_are_given(ask):
    assert ask("GET", "/v1/plans", headers={"Host": "photos.example"}).status_code == 200


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-origin", 200), ("same-site", 403), ("none", 200)]
)
def test_a_page_of_another_site_cannot_make_a_browser_change_something(ask, gateway, site, status):
    response = ask("POST", "/v1/plans/7/cancel", headers={"Sec-Fetch-Site": site})
    assert response.status_code == status
    assert bool(gateway.asked) == (status == 200)


def test_a_link_from_another_site_may_be_followed(ask):
    assert ask("GET", "/v1/plans", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
