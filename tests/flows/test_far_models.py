"""Models on S3 and WebDAV, served by real engines: what comes, is half there, is wrong, is changed, or is away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time

import numpy as np
import pytest

from relens.errors import Broken, Missing
from relens.models import far
from relens.models.artifacts import MARKER
from relens.models.far import Far, open_models
from relens.models.folder import ModelFolder
from relens.serving.hosting import Options
from relens.serving.served import Named
from relens.store import endpoints
from relens.store.remote import open_endpoint
from relens.testing import networks
from relens.testing.stores import s3_server, webdav_server
from relens.testing.versions import published
from relens.wiring.models import host_models

ROW = np.array([[1, 2, 3, 4]], np.float32)
QUICK = {"poll_s": 0.05, "pause_s": 0.05, "load_s": 30.0}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(far, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(endpoints, "PAUSES_S", (0.01, 0.01))


class Site:
    """A bucket on a server, and the cache of this machine."""

    def __init__(self, server, cache):
        self.server = server
        self.cache = cache
        self.url = server.url()

    def folder(self):
        return open_models(self.url, self.server.options, self.cache)

    def put(self, version, data, name="model.onnx"):
        self.server.write(self.url, f"scale/{version}/{name}", data)

    def publish(self, version, *, without=()):
        """A version with a manifest, perhaps not all of it."""
        for name, data in published("scale", version, {"model.onnx": networks.scaler(version)}).items():
            if name not in without:
                self.put(version, data, name)


@pytest.fixture
def site(tmp_path):
    with s3_server() as server:
        yield Site(server, tmp_path / "cache")


@contextlib.asynccontextmanager
async def hosted(folder, **options):
    server = host_models(folder, Options(**{**QUICK, **options}))
    await server.open()
    try:
        yield server
    finally:
        await server.close()


async def ask(server):
    """Which version answered; its numbers are those of no other."""
    answer = await server.infer(Named("scale"), {"images": ROW})
    factor = float(answer.outputs["factor"][0])
    assert answer.version == factor
    np.testing.assert_array_equal(answer.outputs["scaled"], ROW * factor)
    return answer.version


@contextlib.asynccontextmanager
async def asked_all_the_time(server):
    """Which versions answered while the context lasted; that one did not is an error, and so is a way back."""
    seen, over = [], asyncio.Event()

    async def keep_asking():
        before = 0
        while not over.is_set():
            answered = await ask(server)
            assert answered >= before
            before = answered
            seen.append(answered)

    asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
    try:
        yield seen
    finally:
        over.set()
        await asyncio.gather(*asking)


async def until(told, *, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not told():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.02)


async def looks(server, count=3):
    """Some looks at the folder."""
    for _ in range(count):
        await server.look()


def states(server):
    try:
        return {one.version: one.state for one in server.versions("scale")}
    except Missing:
        return {}


def error_of(server, version):
    return next(one.error for one in server.versions("scale") if one.version == version)


def pid(server, version):
    return server._slots["scale"][version].pid


def test_versions_come_under_load_half_wrong_and_whole_and_each_answer_is_of_one(site):
    async def work():
        site.publish(1)
        async with hosted(site.folder(), tries=2) as server:
            await until(lambda: states(server) == {1: "AVAILABLE"})
            async with asked_all_the_time(server) as seen:
                site.publish(2, without=(MARKER,))
                await looks(server)
                assert states(server) == {1: "AVAILABLE"}
                site.publish(3)
                site.put(3, networks.scaler(4))  # as long, and not what the manifest names
                await until(lambda: states(server) == {3: "END", 1: "AVAILABLE"})
                assert error_of(server, 3).code == "models.corrupt"
                assert set(seen) == {1}
                site.put(5, networks.scaler(5))
                await until(lambda: states(server) == {5: "AVAILABLE", 3: "END"})
                before = len(seen)
                await until(lambda: len(seen) > before + 20)
            assert set(seen) == {1, 5}
            site.publish(3)  # mended, and older than what answers
            site.publish(6)
            await until(lambda: states(server) == {6: "AVAILABLE"})
            assert await ask(server) == 6

    asyncio.run(work())


def test_a_bare_file_that_still_grows_is_not_loaded(site):
    async def work():
        server = host_models(site.folder(), Options(**QUICK))
        try:
            data = networks.scaler(1)
            for end in (50, 100, len(data)):
                site.put(1, data[:end])
                await server.look()
                assert states(server) == {}
            await server.look()
            await until(lambda: states(server) == {1: "AVAILABLE"})
            assert await ask(server) == 1
        finally:
            await server.close()

    asyncio.run(work())


def test_a_version_that_is_overwritten_is_reported_and_what_was_loaded_answers_even_if_its_engine_dies(site):
    async def work():
        site.put(1, networks.scaler(1))
        async with hosted(site.folder()) as server:
            await until(lambda: states(server) == {1: "AVAILABLE"})
            site.put(1, networks.scaler(7))
            await until(lambda: error_of(server, 1) is not None)
            assert error_of(server, 1).code == "serving.overwritten"
            for _ in range(2):
                os.kill(pid(server, 1), signal.SIGKILL)
                assert await ask(server) == 1
            await looks(server)
            assert states(server) == {1: "AVAILABLE"}

    asyncio.run(work())


def test_a_store_that_is_away_leaves_what_is_served_served_and_the_next_version_comes_when_it_is_back(site):
    async def work():
        site.publish(1)
        async with hosted(site.folder()) as server:
            await until(lambda: states(server) == {1: "AVAILABLE"})
            async with asked_all_the_time(server) as seen:
                site.server.down()
                await until(lambda: server._unreadable)
                killed = pid(server, 1)
                os.kill(killed, signal.SIGKILL)
                await until(lambda: pid(server, 1) not in {None, killed})
                before = len(seen)
                await until(lambda: len(seen) > before + 20)
                site.publish(2)
                site.server.up()
                await until(lambda: states(server) == {2: "AVAILABLE"})
            assert set(seen) <= {1, 2}
            assert await ask(server) == 2

    asyncio.run(work())


def test_an_engine_that_dies_with_neither_store_nor_copy_comes_back_with_the_store(site):
    async def work():
        site.put(1, networks.scaler(1))
        async with hosted(site.folder()) as server:
            await until(lambda: states(server) == {1: "AVAILABLE"})
            site.server.down()
            shutil.rmtree(site.cache)
            os.kill(pid(server, 1), signal.SIGKILL)
            await until(lambda: error_of(server, 1) is not None)
            assert error_of(server, 1).code == "models.not-fetched"
            site.server.up()
            assert await ask(server) == 1
            assert error_of(server, 1) is None

    asyncio.run(work())


def test_a_bucket_that_is_emptied_leaves_what_is_served_served(site):
    async def work():
        site.put(1, networks.scaler(1))
        async with hosted(site.folder()) as server:
            await until(lambda: states(server) == {1: "AVAILABLE"})
            site.server.remove(site.url, "scale/1/model.onnx")
            await until(lambda: server._unreadable)
            killed = pid(server, 1)
            os.kill(killed, signal.SIGKILL)
            assert await ask(server) == 1

    asyncio.run(work())


class Refusing:
    """An endpoint whose files cannot be read as long as it refuses."""

    def __init__(self, endpoint):
        self._endpoint = endpoint
        self.where = endpoint.where
        self.entries = endpoint.entries
        self.refuses = True

    def read(self, name, offset, length):
        if self.refuses and name.startswith("scale/2/"):
            raise Broken("store.remote", "the store is away")
        return self._endpoint.read(name, offset, length)


def test_a_version_that_could_not_be_fetched_is_loaded_once_it_can_be(site):
    async def work():
        site.put(1, networks.scaler(1))
        site.put(2, networks.scaler(2))
        endpoint = Refusing(open_endpoint(site.url, site.server.options))
        async with hosted(ModelFolder(Far(site.url, endpoint, site.cache)), tries=2) as server:
            await until(lambda: states(server) == {2: "END", 1: "AVAILABLE"})
            assert error_of(server, 2).code == "models.not-fetched"
            endpoint.refuses = False
            await until(lambda: states(server) == {2: "AVAILABLE"})
            assert await ask(server) == 2

    asyncio.run(work())


class Slow(Refusing):
    """An endpoint whose files come a byte at a time, without end for whoever does not give up."""

    def __init__(self, endpoint):
        super().__init__(endpoint)
        self.reads = 0

    def read(self, _name, _offset, _length):
        self.reads += 1
        time.sleep(0.01)
        return b"x"


def test_the_end_waits_for_no_version_that_is_being_fetched(site):
    async def work():
        site.put(1, bytes(1_000_000))
        endpoint = Slow(open_endpoint(site.url, site.server.options))
        async with hosted(ModelFolder(Far(site.url, endpoint, site.cache))) as server:
            await until(lambda: endpoint.reads > 3)
            assert states(server) == {1: "LOADING"}
        return endpoint

    endpoint = asyncio.run(work())
    assert endpoint.reads < 1_000_000


def test_a_server_that_starts_again_copies_nothing_again(site):
    async def work(folder):
        async with hosted(folder) as server:
            await until(lambda: states(server) == {1: "AVAILABLE"})
            assert await ask(server) == 1

    site.put(1, networks.scaler(1))
    asyncio.run(work(site.folder()))
    endpoint = open_endpoint(site.url, site.server.options)
    endpoint.read = None  # nothing may be read
    asyncio.run(work(ModelFolder(Far(site.url, endpoint, site.cache))))


def test_models_on_webdav_come_and_go_too(tmp_path):
    async def work(server, url):
        root = server.folder(url)
        (root / "scale" / "1").mkdir(parents=True)
        (root / "scale" / "1" / "model.onnx").write_bytes(networks.scaler(1))
        async with hosted(open_models(url, server.options, tmp_path / "cache")) as hosting:
            await until(lambda: states(hosting) == {1: "AVAILABLE"})
            async with asked_all_the_time(hosting) as seen:
                (root / "scale" / ".2").mkdir()
                (root / "scale" / ".2" / "model.onnx").write_bytes(networks.scaler(2))
                (root / "scale" / ".2").rename(root / "scale" / "2")
                await until(lambda: states(hosting) == {2: "AVAILABLE"})
            assert set(seen) <= {1, 2}
            shutil.rmtree(root)
            await until(lambda: hosting._unreadable)
            assert await ask(hosting) == 2

    folder = tmp_path / "dav"
    folder.mkdir()
    with webdav_server(folder) as server:
        asyncio.run(work(server, server.url()))
