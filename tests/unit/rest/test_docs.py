"""What is written about the API: the OpenAPI document, the page, and that both say what answers say."""

import json
import re

import pytest

from relens.models.card import Card
from relens.rest import schemas
from relens.rest.pages import example_of
from relens.values import Preprocessing

ENDPOINTS = {
    ("post", "/v1/recognize"),
    ("post", "/v1/search"),
    ("get", "/v1/search/text"),
    ("post", "/v1/verify"),
    ("post", "/v1/galleries/{name}/objects"),
    ("delete", "/v1/objects/{id}"),
    ("delete", "/v1/galleries/{name}/pictures/{sha256}"),
    ("get", "/v1/galleries/{name}/items/{key}"),
    ("patch", "/v1/galleries/{name}/items/{key}"),
    ("delete", "/v1/galleries/{name}/items/{key}"),
    ("get", "/v1/galleries/{name}/export"),
    ("get", "/v1/objects/{id}"),
    ("get", "/v1/objects/{id}/crop"),
    ("get", "/v1/objects/{id}/picture"),
    ("get", "/v1/galleries"),
    ("get", "/v1/galleries/{name}"),
    ("get", "/v1/plans"),
    ("get", "/v1/plans/{id}"),
    ("post", "/v1/plans/{id}/cancel"),
    ("post", "/v1/plans/{id}/resume"),
    ("get", "/v1/releases"),
    ("get", "/v1/releases/{name}"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{name}"),
    ("get", "/v1/models/{name}/{version_or_label}"),
    ("get", "/v1/status"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/metrics"),
}
NOT_JSON = {
    "/v1/objects/{id}/crop": "image/jpeg",
    "/v1/objects/{id}/picture": "image/*",
    "/v1/galleries/{name}/export": "application/x-ndjson",
    "/metrics": "text/plain",
}


@pytest.fixture
def document(ask):
    return ask("GET", "/openapi.json").json()


@pytest.fixture
def page(ask):
    return ask("GET", "/docs")


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_document_lists_every_endpoint_and_no_other(document):
    assert {(method, path) for path, method, _ in operations(document)} == ENDPOINTS


def test_every_answer_and_every_error_is_described(document):
    for path, _, operation in operations(document):
        responses = dict(operation["responses"])
        content = responses.pop("200")["content"]
        also = ["image/jpeg"] if path == "/v1/recognize" else []
        assert list(content) == [NOT_JSON.get(path, "application/json"), *also]
        if path not in NOT_JSON:
            assert "$ref" in content["application/json"]["schema"], path
        assert "422" not in responses
        if created := responses.pop("201", None):
            assert created["content"] == content
        for status, response in responses.items():
            wanted = "NotReady" if path == "/health/ready" else "ErrorAnswer"
            assert response["content"]["application/json"]["schema"]["$ref"].endswith(f"/{wanted}"), (path, status)


def test_every_field_and_every_parameter_has_a_meaning(document):
    for name, schema in document["components"]["schemas"].items():
        for field, said in schema.get("properties", {}).items():
            assert said.get("description") or "$ref" in said, f"{name}.{field}"
    for path, _, operation in operations(document):
        assert operation["summary"], path
        assert all(parameter["description"] for parameter in operation.get("parameters", ())), path


def test_a_picture_may_be_sent_as_it_is_or_in_a_form(document):
    for path in ("/v1/recognize", "/v1/search", "/v1/galleries/{name}/objects"):
        assert set(document["paths"][path]["post"]["requestBody"]["content"]) == {"image/*", "multipart/form-data"}


# -- descriptions and answers agree ---------------------------------------------------------------------------------


def assert_described(model, answer):
    """Nothing that is required is missing, and nothing is there that is not described."""
    described = model.model_validate(answer).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert described == json.loads(json.dumps(answer))


def test_answers_have_the_fields_that_are_described(ask):
    def answer(method, path):
        return ask(method, path, content=b"x" if method == "POST" else None).json()

    assert_described(schemas.Recognition, answer("POST", "/v1/recognize"))
    assert_described(schemas.SearchAnswer, answer("POST", "/v1/search?gallery=shop"))
    assert_described(schemas.TextAnswer, answer("GET", "/v1/search/text?gallery=signs&text=parking"))
    two = ask("POST", "/v1/verify", files={"file": b"x", "other": b"y"}).json()
    assert_described(schemas.Verification, two)
    assert_described(schemas.StoredObject, answer("GET", "/v1/objects/4711"))
    assert_described(schemas.Enrolled, answer("POST", "/v1/galleries/shop/objects"))
    assert_described(schemas.ShownItem, answer("GET", "/v1/galleries/shop/items/sku-1"))
    assert_described(schemas.Deleted, answer("DELETE", "/v1/objects/4711"))
    assert_described(schemas.ErrorAnswer, answer("GET", "/nowhere"))
    assert_described(schemas.Live, answer("GET", "/health/live"))
    assert_described(schemas.Ready, answer("GET", "/health/ready"))


def test_cards_have_the_fields_that_are_described():
    steps = Preprocessing(224, 256, "bicubic", "rgb", "nchw", (0.0,) * 3, (1.0,) * 3)
    words = dict.fromkeys(("name", "task", "format", "file", "input", "labels", "licence", "source"), "x")
    card = Card(**words, version=1, preprocessing=steps, outputs={"vector": "v"}, dim=4)
    assert_described(schemas.Card, card.to_json())


def test_examples_are_what_they_are_examples_of(document):
    parts = document["components"]["schemas"]
    for name, schema in parts.items():
        model = getattr(schemas, name)
        assert_described(model, example_of(schema, parts))


# -- the page -------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(page):
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(", page.text)
    linked = re.findall(r'(?:href|src|action)="([^"]*)"', page.text)
    assert all(link.startswith("#") or link == "openapi.json" for link in linked)
    assert set(re.findall(r"https?://[^/\s'\"]+", page.text)) == {"http://127.0.0.1:8080"}


def test_the_page_shows_every_endpoint_with_a_line_to_call_it(page):
    for _, path in sorted(ENDPOINTS):
        assert f"</span> {path}</h3>" in page.text
    assert page.text.count("<h4>Call</h4>") == len(ENDPOINTS)
    assert "curl -X POST http://127.0.0.1:8080/v1/plans/7/cancel" in page.text
    assert "curl -o gallery.jsonl http://127.0.0.1:8080/v1/galleries/shop/export" in page.text
    assert "curl -X DELETE http://127.0.0.1:8080/v1/galleries/shop/items/sku-1042" in page.text
    assert "curl -X PATCH --json &#39;{&#34;price&#34;: 59.9}&#39; http://127.0.0.1:8080/v1/galleries" in page.text
    assert "curl -F file=@photo.jpg &#39;http://127.0.0.1:8080/v1/galleries/shop/objects?id=sku-1042" in page.text
    assert "curl -o crop.jpg http://127.0.0.1:8080/v1/objects/4711/crop" in page.text
    assert "curl --data-binary @photo.jpg &#39;http://127.0.0.1:8080/v1/search?gallery=shop&#39;" in page.text


def test_the_page_shows_an_example_of_every_json_answer(page):
    assert page.text.count("<summary>Answer</summary>") == len(ENDPOINTS) - len(NOT_JSON)


def test_every_link_of_the_page_leads_somewhere(page):
    targets = set(re.findall(r'id="([^"]+)"', page.text))
    assert {link[1:] for link in re.findall(r'href="(#[^"]+)"', page.text)} <= targets


def test_a_host_with_markup_stays_text(make):
    page = make()("GET", "/docs", headers={"Host": "<b>x</b>"})
    assert "<b>" not in page.text
