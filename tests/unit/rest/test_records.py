import pytest

from relens.errors import Missing

MAX_ID = 2**63 - 1


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/v1/plans", ("plans",)),
        ("GET", "/v1/plans/7", ("plan", 7)),
        ("POST", "/v1/plans/7/cancel", ("cancel", 7)),
        ("POST", "/v1/plans/7/resume", ("resume", 7)),
        ("GET", "/v1/releases", ("releases",)),
        ("GET", "/v1/releases/shop-3", ("release", "shop-3")),
        ("GET", "/v1/models", ("models",)),
        ("GET", "/v1/models/effnet-lite0", ("model", "effnet-lite0")),
        ("GET", "/v1/models/effnet-lite0/2", ("model", "effnet-lite0/2")),
        ("GET", "/v1/models/effnet-lite0/stable", ("model", "effnet-lite0/stable")),
        ("GET", "/v1/galleries", ("galleries",)),
        ("GET", "/v1/galleries/my%20shop", ("gallery", "my shop")),
        ("GET", "/v1/status", ("status",)),
    ],
)
def test_each_path_is_one_use_and_answers_its_json(ask, gateway, method, path, asked):
    response = ask(method, path)
    assert response.status_code == 200
    assert gateway.asked == [asked]
    assert response.json() == {"use": asked[0], "args": list(asked[1:])}


def test_an_object_is_shown_as_the_value_says(ask, gateway):
    response = ask("GET", "/v1/objects/4711")
    assert gateway.asked == [("object", 4711)]
    assert response.json()["items"][0]["id"] == "sku-1"
    assert response.json()["sequence"] == 2


def test_a_crop_is_a_jpeg_that_only_the_asker_may_keep(ask, gateway):
    response = ask("GET", "/v1/objects/4711/crop")
    assert (response.status_code, response.content) == (200, b"\xff\xd8crop")
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert gateway.asked == [("crop", 4711)]


def test_what_was_deleted_is_gone_and_not_to_be_cached(ask, gateway):
    gateway.error = Missing("gallery.object-deleted", "object 4711 was deleted", gone=True)
    response = ask("GET", "/v1/objects/4711/crop")
    assert response.status_code == 410
    assert "cache-control" not in response.headers


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", str(MAX_ID + 1), "9" * 40])
@pytest.mark.parametrize("path", ["/v1/objects/{}", "/v1/objects/{}/crop", "/v1/plans/{}"])
def test_an_id_that_is_none_is_refused_here(ask, gateway, path, wrong):
    response = ask("GET", path.format(wrong))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "rest.bad-request"
    assert response.json()["error"]["message"].startswith("id: ")
    assert not gateway.asked


def test_ids_are_64_bits_wide(ask, gateway):
    assert ask("GET", f"/v1/objects/{MAX_ID}").status_code == 200
    assert gateway.asked == [("object", MAX_ID)]
