"""Requests that are split among real engines, as settings say it: canaries that die, shadows, vectors of two spaces."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter

import numpy as np
import pytest

from relens.config import Settings
from relens.models.folder import Here, ModelFolder
from relens.serving.hosting import Hosting
from relens.serving.served import Looked, Named, status_of
from relens.serving.traffic import Traffic
from relens.testing import networks
from relens.testing.pictures import draw
from relens.wiring.models import host_models, with_traffic

ROW = np.array([[1, 2, 3, 4]], np.float32)
LABELS = {"stable": 1, "canary": 2}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    return root


def put(root, version, data, model="scale"):
    folder = root / model / f".{version}"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)
    folder.rename(root / model / str(version))


@contextlib.asynccontextmanager
async def hosted(root, traffic, *, model="scale"):
    """The server of both versions, and what stands behind it, when both are available."""
    how = {"latest": "all", "labels": LABELS, "traffic": traffic}
    settings = Settings(models={"poll_s": 0.05, "serve": {model: how}})
    hosting = host_models(ModelFolder(Here(root)), settings=settings)
    server = with_traffic(hosting, settings)
    await server.open()
    try:
        await until(lambda: dict(hosting.labels(model)) == LABELS if model in hosting.models() else False)
        yield server, hosting
    finally:
        await server.close()


async def until(told, *, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not told():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.02)


async def ask(server, **named):
    """Which version answered; its numbers are those of no other."""
    answer = await server.infer(server.choose(Named("scale", **named)), {"images": ROW})
    assert answer.version == float(answer.outputs["factor"][0])
    return answer.version


def told(server, model="scale"):
    """Version to what is said of its traffic."""
    [found] = [one for one in status_of(server) if one["model"] == model]
    return {one["version"]: one["traffic"] for one in found["versions"]}


def compared(traffic):
    """How many of a shadow's answers were the same, and how many were not."""
    return [traffic.get("shadow", {}).get(outcome, 0) for outcome in ("same", "different")]


def test_settings_without_traffic_change_nothing(root):
    hosting = host_models(ModelFolder(Here(root)))
    assert with_traffic(hosting, Settings(models={"serve": {"scale": {"latest": 2}}})) is hosting
    split = with_traffic(hosting, Settings(models={"serve": {"scale": {"traffic": {"split": {1: 1}}}}}))
    assert isinstance(hosting, Hosting)
    assert isinstance(split, Traffic)


def test_both_versions_answer_and_a_caller_stays_with_one(root):
    async def work():
        put(root, 1, networks.scaler(1))
        put(root, 2, networks.scaler(2))
        async with hosted(root, {"split": {"stable": 60, "canary": 40}}) as (server, _):
            counts = Counter(await asyncio.gather(*(ask(server) for _ in range(100))))
            assert counts.keys() == {1, 2}
            for caller in map(str, range(10)):
                assert len({await ask(server, sticky=caller) for _ in range(5)}) == 1
            assert await ask(server, version=2) == await ask(server, label="canary") == 2
            assert told(server)[2]["share"] == 0.4

    asyncio.run(work())


def test_a_canary_that_dies_and_dies_is_rolled_back_and_no_request_fails(root):
    async def work():
        put(root, 1, networks.scaler(1))
        put(root, 2, networks.scaler(2))
        rollback = {"errors": 0.1, "requests": 20}
        async with hosted(root, {"split": {"stable": 1, "canary": 1}, "rollback": rollback}) as (server, hosting):
            answered, over = Counter(), asyncio.Event()

            async def keep_asking():
                while not over.is_set():
                    answered[await ask(server)] += 1

            asking = [asyncio.create_task(keep_asking()) for _ in range(6)]
            await until(lambda: answered[2] > 5)
            while not told(server)[2].get("why"):
                if (pid := hosting._slots["scale"][2].pid) is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)
            await until(lambda: hosting._slots["scale"][2].pid is not None)
            before = answered.copy()
            await until(lambda: answered[1] > before[1] + 100)
            over.set()
            await asyncio.gather(*asking)
            assert told(server)[2]["why"].endswith("requests failed; the limit is 0.1 of 20")
            assert told(server)[2]["share"] == 0
            assert answered[2] <= before[2] + 6  # what had begun
            assert await ask(server, label="canary") == 2

    asyncio.run(work())


def test_a_shadow_is_compared_and_gives_no_answer(root):
    async def work():
        put(root, 1, networks.classifier(seed=1), "looks")
        put(root, 2, networks.classifier(seed=2), "looks")
        async with hosted(root, {"split": {"stable": 1}, "shadow": "canary"}, model="looks") as (server, _):
            seen = [await server.recognize(Named("looks"), draw(number), Looked()) for number in range(3)]
            assert {one.version for one in seen} == {1}
            await until(lambda: sum(compared(told(server, "looks")[2])) == 3)
            assert server.describe(Named("looks")).space is None

    asyncio.run(work())


def test_versions_with_vectors_of_two_spaces_are_not_split(root):
    async def work():
        put(root, 1, networks.embedder(seed=1), "same")
        put(root, 2, networks.embedder(seed=2), "same")
        async with hosted(root, {"split": {"stable": 1, "canary": 9}}, model="same") as (server, _):
            spaces = {server.describe(Named("same", version)).space for version in (1, 2)}
            assert len(spaces) == 2
            assert None not in spaces
            pictures = {"images": np.array([draw(1)], object)}
            assert {(await server.infer(Named("same"), pictures)).version for _ in range(20)} == {1}
            assert "different spaces" in told(server, "same")[2]["why"]

    asyncio.run(work())
