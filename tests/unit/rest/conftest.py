"""A gateway that answers from what it was given and notes what it was asked, and an application over it."""

import asyncio
import functools

import httpx
import numpy as np
import pytest
import structlog

from relens.enrolment import Enrolled
from relens.gallery import Item, StoredObject
from relens.narrowing import EVERYTHING, NO_HINTS
from relens.rest import create_app
from relens.values import (
    WHOLE,
    Box,
    FoundObject,
    Label,
    Match,
    MatchedObject,
    PictureInfo,
    Recognition,
    SearchAnswer,
    TextAnswer,
    TextMatch,
    Verification,
)

MAX_BYTES = 1000
SHA = "ab" * 32
LABELS = (Label("running shoe", 770, 0.9),)
ITEM = Item("sku-1", "shoes/red.jpg", "2026-01-01", "Red shoe", 79.9, "north", {"size": "42"})
PICTURE = PictureInfo(SHA, 640, 480, "shoes/red.jpg")
ATTRIBUTES = {
    "subject": [0.1, 0.1, 0.5, 0.5],
    "heatmap": {"box": WHOLE.to_json(), "values": [[0.0, 1.0]]},
    "vector": [float(value) for value in np.eye(1, 4)[0]],
}
RECOGNITION = Recognition(
    "photos-abc",
    "photos",
    PictureInfo(SHA, 640, 480),
    (FoundObject(Box(0.1, 0.2, 0.3, 0.4), 0.8, "all", LABELS, ATTRIBUTES),),
    {"decode": 1.5},
)
SEARCH = SearchAnswer(
    "shop-3",
    2,
    "shop",
    PictureInfo(SHA, 640, 480),
    (MatchedObject(WHOLE, (Match(4711, 0.87, WHOLE, LABELS, PICTURE, (ITEM.to_json(),)),), LABELS),),
    {"search": 0.4},
)
TEXTS = TextAnswer(
    "signs-3", 2, "signs", "no parking", (TextMatch(4712, 0.5, "No parking here", WHOLE, PICTURE, (ITEM.to_json(),)),)
)
VERIFICATION = Verification("faces-abc", 0.93, 0.9, (WHOLE, Box(0.1, 0.2, 0.3, 0.4)), (1, 2))
ENROLLED = Enrolled("shop", SHA, (4711,), "sku-1", 3, True, {"commit": 2.4})
DELETED = {"gallery": "shop", "deleted": 1, "sequence": 4}
SHOWN = ITEM.to_json() | {"gallery": "shop", "picture": PICTURE.to_json(), "objects": [4711]}
STORED = StoredObject(4711, "shop", WHOLE, 1.0, "all", LABELS, {"sharp": True}, PICTURE, (ITEM,), 2)


class FakeGateway:
    """`asked` holds (method, arguments) of every use; `error`, if set, is raised by every use."""

    def __init__(self):
        self.asked = []
        self.error = None
        self.lacking = []
        self.enrolled = ENROLLED
        self.exported = [{"gallery": "shop", "release": "shop-3", "sequence": 2}, {"id": 1}, {"id": 2}]
        self.exports_open = 0

    def _note(self, use, *args, **named):
        self.asked.append((use, *args, *([named] if named else [])))
        if self.error is not None:
            raise self.error

    def recognize(self, data, *, recipe, include=()):
        self._note("recognize", data, recipe=recipe, include=list(include))
        return RECOGNITION

    def search(self, data, *, gallery, k=10, where=EVERYTHING, hints=NO_HINTS, threshold=None):
        told = {"where": where, "hints": hints, "threshold": threshold}
        usual = {"where": EVERYTHING, "hints": NO_HINTS, "threshold": None}
        asked = {name: value for name, value in told.items() if value != usual[name]}
        self._note("search", data, gallery=gallery, k=k, **asked)
        return SEARCH

    def search_text(self, text, *, gallery, k=10, where=EVERYTHING):
        asked = {} if where == EVERYTHING else {"where": where}
        self._note("search_text", text, gallery=gallery, k=k, **asked)
        return TEXTS

    def verify(self, one, other, *, recipe, threshold=None):
        self._note("verify", one, other, recipe=recipe, threshold=threshold)
        return VERIFICATION

    def draw(self, data, answer):
        self._note("draw", data, answer)
        return b"\xff\xd8drawn"

    def object(self, object_id):
        self._note("object", object_id)
        return STORED

    def crop(self, object_id):
        self._note("crop", object_id)
        return b"\xff\xd8crop"

    def enrol(self, data, *, gallery, item, allow_empty=False):
        self._note("enrol", data, gallery=gallery, item=item, allow_empty=allow_empty)
        return self.enrolled

    def item(self, gallery, key):
        self._note("item", gallery, key)
        return SHOWN

    def change_item(self, gallery, key, changes):
        self._note("change_item", gallery, key, changes)
        return SHOWN

    def delete(self, gallery, **named):
        self._note("delete", gallery, **named)
        return DELETED

    def delete_object(self, object_id):
        self._note("delete_object", object_id)
        return DELETED

    def export(self, gallery, *, vectors=False):
        self.exports_open += 1
        try:
            self._note("export", gallery, vectors=vectors)
            yield from self.exported
        finally:
            self.exports_open -= 1

    def missing(self):
        self._note("missing")
        return self.lacking

    def __getattr__(self, use):
        if use not in {
            *("plans", "plan", "cancel", "resume", "releases", "release"),
            *("models", "model", "galleries", "gallery", "status"),
        }:
            raise AttributeError(use)

        def answer(*args):
            self._note(use, *args)
            return {"use": use, "args": list(args)}

        return answer


class Asker:
    """Asks an application in process; each call is a request of its own."""

    def __init__(self, app, base_url="http://127.0.0.1:8080"):
        self.app = app
        self.base_url = base_url

    def session(self):
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url=self.base_url)

    def __call__(self, method, path, **more):
        async def send():
            async with self.session() as session:
                return await session.request(method, path, **more)

        return asyncio.run(send())


@pytest.fixture
def gateway():
    return FakeGateway()


@pytest.fixture
def make_over():
    """Makes an asker of an application over a gateway, with other settings."""

    def made(gateway, **settings):
        return Asker(create_app(gateway, **{"max_bytes": MAX_BYTES, **settings}))

    return made


@pytest.fixture
def make(make_over, gateway):
    return functools.partial(make_over, gateway)


@pytest.fixture
def ask(make):
    return make()


@pytest.fixture
def logged():
    """The lines that are logged during a test."""
    capture = structlog.testing.LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(**before)
