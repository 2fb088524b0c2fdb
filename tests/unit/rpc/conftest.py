"""Servers of gRPC over made-up models, each on an event loop in a thread of its own, for clients that block."""

import asyncio
import contextlib
import logging
import threading

import grpc
import numpy as np
import pytest
import structlog

from relens.rpc import create_rpc_server
from relens.rpc.messages import methods
from relens.serving.served import Inferred, Served, VersionStatus
from relens.tensors import TensorInfo
from relens.testing.served import MadeUpModels

MAX_BYTES = 1_000_000


class Models(MadeUpModels):
    """The made-up models without `slow`, and two more.

    mirror  version 4 gives back its input `x` as `y`, whatever it is
    looks   version 1 takes `images` (any, 3, 2, 2) FP32, or pictures, and gives `seen` (any) INT64: which of the two
            it was given, 1 or 2, for each row

    `infer` raises `error` if that is set, and waits for `gate` if that is set, having set `asking`.
    """

    def __init__(self):
        super().__init__()
        self.error = None
        self.gate = None
        self.asking = threading.Event()
        self.cancelled = threading.Event()

    def models(self):
        return ["letters", "looks", "mirror", "pair", "scale"]

    def versions(self, model):
        if model in {"mirror", "looks"}:
            return [VersionStatus(4 if model == "mirror" else 1, "AVAILABLE")]
        return super().versions(model)

    def describe(self, named):
        if named.model == "mirror":
            infos = [TensorInfo(name, "FP32", (None, None)) for name in "xy"]
            return Served("mirror", 4, (infos[0],), (infos[1],), "made-up")
        if named.model == "looks":
            images, seen = TensorInfo("images", "FP32", (None, 3, 2, 2)), TensorInfo("seen", "INT64", (None,))
            return Served("looks", 1, (images,), (seen,), "made-up", pictures="images")
        return super().describe(named)

    async def infer(self, named, inputs, *, outputs=(), timeout_s=None):
        self.asking.set()
        if self.error is not None:
            raise self.error
        if self.gate is not None:
            try:
                await asyncio.to_thread(self.gate.wait, 30)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if named.model == "mirror":
            return Inferred("mirror", 4, {"y": inputs["x"]}, {"run": 0.1})
        if named.model == "looks":
            images = inputs["images"]
            seen = np.full(len(images), 2 if images.dtype == object else 1, np.int64)
            return Inferred("looks", 1, {"seen": seen}, {"run": 0.1})
        return await super().infer(named, inputs, outputs=outputs, timeout_s=timeout_s)


class Caller:
    """Calls methods with messages of our own, as a program without a client library does."""

    def __init__(self, channel):
        self._channel = channel

    def __call__(self, service, method, request, **options):
        return self.start(service, method, request, **options).result()

    def start(self, service, method, request, *, timeout=30, metadata=None):
        kind = methods(service)[method][1]
        stub = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=kind.FromString,
        )
        return stub.future(request, timeout=timeout, metadata=metadata)


@contextlib.contextmanager
def serving(models, *, max_bytes=MAX_BYTES, port=0):
    """A server of these models: its address, and what ends it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin():
        server = create_rpc_server(models, max_bytes=max_bytes, grace_s=20)
        found = server.listen("127.0.0.1", port)
        await server.open()
        return server, found

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    try:
        server, found = run(begin())
        yield f"127.0.0.1:{found}", lambda: asyncio.run_coroutine_threadsafe(server.close(), loop)
        run(server.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def serve():
    return serving


@pytest.fixture
def make():
    """Makes the address of a server of models."""
    with contextlib.ExitStack() as stack:
        yield lambda models, **options: stack.enter_context(serving(models, **options))[0]


@pytest.fixture
def models():
    return Models()


@pytest.fixture
def address(make, models):
    return make(models)


@pytest.fixture
def channel(address):
    with grpc.insecure_channel(address) as channel:
        yield channel


@pytest.fixture
def call(channel):
    return Caller(channel)


@pytest.fixture
def logged():
    """The lines that are logged during a test."""
    capture = structlog.testing.LogCapture()
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, capture],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    yield capture.entries
    structlog.configure(**before)
