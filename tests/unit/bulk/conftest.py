"""A website on this machine, and a fetcher that may go there."""

import io
import socket

import pytest

from relens.bulk import fetching
from relens.bulk.fetching import Fetcher
from relens.config import Fetch
from relens.testing.sites import Site


@pytest.fixture
def site():
    with Site() as site:
        yield site


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(fetching, "BACKOFF_S", 0.01)


@pytest.fixture
def fetch():
    """Fetches a URL, with settings: its bytes. `names` are hosts that exist, with their addresses."""
    made = []

    def fetch(url, *, names=None, max_bytes=100_000, only_pictures=True, run=None, **settings):
        given = {"allow_private": True, "timeout_s": 20, "connect_timeout_s": 10, "retries": 1} | settings
        made.append(Fetcher(Fetch(**given), resolve=resolver(names)))
        into = io.BytesIO()
        run = run or made[-1].start([url])
        made[-1].fetch(url, into, run, max_bytes=max_bytes, only_pictures=only_pictures)
        return into.getvalue()

    yield fetch
    for fetcher in made:
        fetcher.close()


def resolver(names):
    """A name server that knows these; addresses stand for themselves. An error is raised."""

    def resolve(host, _port):
        if host[0].isdigit() or ":" in host:
            return [host]
        known = (names or {}).get(host, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(known, Exception):
            raise known
        return known.pop(0) if known and isinstance(known[0], list) else known

    return resolve


@pytest.fixture
def name_server():
    return resolver
