import pytest

from relens.errors import Broken


def test_alive_asks_nobody(ask, gateway):
    gateway.error = Broken("store.down", "the catalog is away")
    assert ask("GET", "/health/live").json() == {"live": True}
    assert not gateway.asked


def test_ready_when_nothing_is_missing(ask):
    response = ask("GET", "/health/ready")
    assert (response.status_code, response.json()) == (200, {"ready": True})


@pytest.mark.parametrize(
    ("lacking", "extra", "missing"),
    [(["no model"], [], ["no model"]), ([], ["no engine"], ["no engine"]), (["a"], ["b"], ["a", "b"])],
)
def test_not_ready_says_what_is_missing(make, gateway, lacking, extra, missing):
    gateway.lacking = lacking
    response = make(ready_extra=lambda: extra)("GET", "/health/ready")
    assert (response.status_code, response.json()) == (503, {"ready": False, "missing": missing})


def test_metrics_are_in_the_format_of_prometheus(ask):
    response = ask("GET", "/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert "relens_requests_total" in response.text
