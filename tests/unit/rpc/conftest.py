"""Servers of gRPC over made-up models, each on an event loop in a thread of its own, for clients that block."""

import asyncio
import contextlib
import logging
import threading

import grpc
import pytest
import structlog

from relens.rpc import create_rpc_server
from relens.testing.served import MadeUpModels

MAX_BYTES = 1_000_000


@contextlib.contextmanager
def serving(models, *, max_bytes=MAX_BYTES, grace_s=10.0):
    """A server of these models: its address, and what ends it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin():
        server = create_rpc_server(models, max_bytes=max_bytes, grace_s=grace_s)
        port = server.listen("127.0.0.1", 0)
        await server.open()
        return server, port

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    server, port = run(begin())
    try:
        yield f"127.0.0.1:{port}", lambda: asyncio.run_coroutine_threadsafe(server.close(), loop)
    finally:
        run(server.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def make():
    """Makes the address of a server of models."""
    with contextlib.ExitStack() as stack:
        yield lambda models, **options: stack.enter_context(serving(models, **options))[0]


@pytest.fixture
def models():
    return MadeUpModels()


@pytest.fixture
def address(make, models):
    return make(models)


@pytest.fixture
def channel(address):
    with grpc.insecure_channel(address) as channel:
        yield channel


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
