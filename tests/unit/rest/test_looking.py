"""`:recognize`: what a request says reaches the model server as it is, and what is wrong with it is named."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from relens.rest.border import Border
from relens.rest.models import model_routes
from relens.serving.served import Looked, Named
from relens.testing.served import MadeUpModels

PICTURE = b"bytes of a picture"


@pytest.fixture
def models():
    return MadeUpModels()


@pytest.fixture
def ask(models):
    async def go(path, method, options):
        transport = httpx.ASGITransport(app=Starlette(routes=model_routes(models, max_bytes=1000)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, f"/v1/models/{path}", **options)

    return lambda path, method="POST", **options: asyncio.run(go(path, method, options))


@pytest.mark.parametrize(
    ("path", "named", "version"),
    [
        ("scale", Named("scale"), 2),
        ("scale/versions/1", Named("scale", version=1), 1),
        ("scale/labels/stable", Named("scale", label="stable"), 2),
    ],
)
def test_the_newest_a_version_and_a_label_are_asked(ask, models, path, named, version):
    answer = ask(f"{path}:recognize", content=PICTURE)
    assert answer.status_code == 200
    assert models.looked == [(named, PICTURE, Looked(), None)]
    assert answer.json() == {
        "model": "scale",
        "version": version,
        "picture": answer.json()["picture"],
        "objects": [],
        "timings_ms": {"run": 0.1},
    }


def test_parameters_say_how_it_is_looked_at(ask, models):
    query = {"names": "3", "min_score": "0.25", "include": "vector", "timeout_s": "1.5", "priority": "2"}
    assert ask("scale:recognize", content=PICTURE, params=query).status_code == 200
    assert models.looked == [(Named("scale", priority=2), PICTURE, Looked(names=3, min_score=0.25, vector=True), 1.5)]


def test_a_form_is_taken(ask, models):
    answer = ask("scale:recognize", files={"file": ("a.jpg", PICTURE)})
    assert answer.status_code == 200
    assert models.looked[0][1] == PICTURE


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("names=0", "names"),
        ("names=x", "names"),
        ("min_score=2", "min_score"),
        ("min_score=nan", "min_score"),
        ("include=heatmap", "include"),
        ("timeout_s=-1", "timeout_s"),
        ("priority=-1", "priority"),
        ("priority=1.5", "priority"),
        ("nmaes=1", "nmaes"),
    ],
)
def test_a_wrong_parameter_is_named(ask, models, query, said):
    answer = ask(f"scale:recognize?{query}", content=PICTURE)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
    assert models.looked == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("nobody", PICTURE, 404, "serving.no-model"),
        ("slow", PICTURE, 503, "serving.loading"),
        ("scale/versions/3", PICTURE, 404, "serving.no-version"),
        ("scale/versions/x", PICTURE, 400, "rest.bad-version"),
        ("scale", b"", 400, "rest.empty"),
        ("scale", b"x" * 1001, 413, "rest.too-large"),
    ],
    ids=["model", "loading", "ended", "no-number", "empty", "large"],
)
def test_errors_have_the_form_of_relens(ask, path, body, status, code):
    answer = ask(f"{path}:recognize", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code


def test_another_method_is_told_which_one_is_taken(ask):
    answer = ask("scale:recognize", "GET")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "rest.method"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/scale:recognize", PICTURE),
        ("/v1/models/scale:predict", b'{"instances": [[1, 2, 3, 4]]}'),
        ("/v1/models/scale:classify", b'{"examples": [{"x": [1, 2, 3, 4]}]}'),
        (
            "/v2/models/scale/infer",
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}',
        ),
    ],
)
def test_what_a_client_asked_for_is_given_up_when_it_leaves(path, body):
    """The connection ends while the model works."""
    given_up = []

    class Slow(MadeUpModels):
        async def infer(self, *_asked, **_more):
            return await self.recognize()

        async def recognize(self, *_asked, **_more):
            working.set()
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                given_up.append(path)
                raise

    async def go():
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            if parts:
                return parts.pop()
            await working.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            raise AssertionError(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        routes = model_routes(Slow(), max_bytes=1000)
        await Starlette(routes=routes, middleware=[Middleware(Border)])(scope, receive, send)

    working = asyncio.Event()
    asyncio.run(go())
    assert given_up == [path]
