"""Every door asks the version that was chosen for a request, and tells what is split and whose vectors differ."""

import asyncio
import random
from dataclasses import replace

import httpx
import pytest

from relens.rest.models import create_models_app
from relens.serving.splits import Split
from relens.serving.traffic import Traffic
from relens.testing.served import MadeUpModels

ROW = [1.0, 2.0, 3.0, 4.0]
TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW}


@pytest.fixture
def ask():
    """Asks an application over made-up models, of which `scale` is split between versions 1 and 2."""
    server = Traffic(MadeUpModels(), {"scale": Split({"1": 3, "2": 1})}, wait_s=30.0, source=random.Random(3))
    transport = httpx.ASGITransport(create_models_app(server, max_bytes=1000))

    def ask(method, path, **more):
        async def send():
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as session:
                return await session.request(method, path, **more)

        response = asyncio.run(send())
        assert response.status_code == 200, response.text
        return response

    return ask


class Vectors(MadeUpModels):
    def describe(self, named):
        return replace(super().describe(named), space="ab12")


def test_metadata_tell_the_space_of_vectors():
    transport = httpx.ASGITransport(create_models_app(Vectors(), max_bytes=1000))

    async def ask():
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as session:
            return (await session.get("/v2/models/scale")).json()

    assert asyncio.run(ask())["properties"] == {"space": "ab12"}


def answers(ask, **more):
    """Which version answered at each door. Numbers are multiplied by the version."""
    predicted = ask("POST", "/v1/models/scale:predict", json={"instances": [ROW]}, **more).json()
    regressed = ask("POST", "/v1/models/scale:regress", json={"examples": [{"x": ROW}]}, **more).json()
    classified = ask("POST", "/v1/models/scale:classify", json={"examples": [{"x": ROW}]}, **more).json()
    inferred = ask("POST", "/v2/models/scale/infer", json={"inputs": [TENSOR]}, **more).json()
    seen = ask("POST", "/v1/models/scale:recognize", content=b"\xff\xd8\xff", **more).json()
    assert inferred["outputs"][1]["data"] == [10 * int(inferred["model_version"])]
    return [
        predicted["predictions"][0]["sum"] / 10,
        regressed["results"][0] / 10,
        classified["results"][0][0][1],
        int(inferred["model_version"]),
        seen["version"],
    ]


def test_requests_are_split_at_every_door(ask):
    given = zip(*(answers(ask) for _ in range(40)), strict=True)
    assert [set(versions) for versions in given] == [{1, 2}] * 5


def test_a_caller_who_says_who_he_is_is_answered_by_the_same_version_at_every_door(ask):
    callers = [f"caller {number}" for number in range(20)]
    given = [set(answers(ask, headers={"X-Relens-Sticky": caller})) for caller in callers]
    assert {len(versions) for versions in given} == {1}
    assert set.union(*given) == {1, 2}
    for caller, versions in zip(callers, given, strict=True):
        told = ask("GET", "/v1/models/scale/metadata", headers={"X-Relens-Sticky": caller}).json()
        assert {int(told["model_spec"]["version"])} == versions


def test_who_names_a_version_is_answered_by_it(ask):
    headers = {"X-Relens-Sticky": "me"}
    for version in (1, 2):
        path = f"/v2/models/scale/versions/{version}/infer"
        assert ask("POST", path, json={"inputs": [TENSOR]}, headers=headers).json()["model_version"] == str(version)


def test_the_status_and_the_metrics_tell_shares(ask):
    [model] = [one for one in ask("GET", "/v1/status").json()["served"] if one["model"] == "scale"]
    assert [one.get("traffic", {}).get("share") for one in model["versions"]] == [None, 0.25, 0.75]
    lines = ask("GET", "/metrics").text.splitlines()
    assert 'relens_model_share{model="scale",version="1"} 0.75' in lines
