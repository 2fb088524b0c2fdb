"""Stores to test against, in this process on the loopback: an S3 server in memory, and a WebDAV server on a folder."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from relens.config import BlobStore

ACCOUNT = "123456789012"
KEY, SECRET = "relens", "correct horse"

_BUCKETS = itertools.count(1)  # all S3 servers of a process have the same buckets


class S3Server:
    """An S3 server that takes any key."""

    def __init__(self) -> None:
        self.port = 0
        self._server: Any = None

    def up(self) -> None:
        """Serve, by the same port as before, what there was before."""
        from moto.server import ThreadedMotoServer  # noqa: PLC0415

        if self._server is None:
            self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
            self._server.start()
            self.port = self._server.get_host_and_port()[1]

    def down(self) -> None:
        """Serve nothing, until it is up again."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @property
    def options(self) -> BlobStore:
        """How to reach it."""
        return self.through(self.port)

    @property
    def settings(self) -> dict[str, str]:
        """The same as `blob_store:` of relens.yaml says it."""
        return {"endpoint": f"http://127.0.0.1:{self.port}", "key": KEY, "secret": SECRET}

    def through(self, port: int) -> BlobStore:
        """How to reach it by another port, which leads to it."""
        return BlobStore(endpoint=f"127.0.0.1:{port}", secure=False, key=KEY, secret=SecretStr(SECRET))

    def url(self) -> str:
        """The URL of an empty folder in a bucket of its own."""
        name = f"bucket-{next(_BUCKETS)}"
        self._backend().create_bucket(name, "us-east-1")
        return f"s3://{name}/some/where"

    def keys(self, url: str) -> list[str]:
        """Names of all objects of a bucket."""
        return list(self._backend().buckets[_bucket(url)].keys)

    def uploads(self, url: str) -> int:
        """Uploads of a bucket that have begun and not ended."""
        return len(self._backend().buckets[_bucket(url)].multiparts)

    def write(self, url: str, name: str, data: bytes) -> None:
        """Put bytes there, whatever is there."""
        self._backend().put_object(_bucket(url), f"some/where/{name}", data)

    def remove(self, url: str, name: str) -> None:
        """Take an object away."""
        self._backend().delete_object(_bucket(url), f"some/where/{name}")

    def drop(self, url: str) -> None:
        """Take a bucket away, with all that is in it."""
        for key in self.keys(url):
            self._backend().delete_object(_bucket(url), key)
        self._backend().delete_bucket(_bucket(url))

    def age(self, url: str, name: str, by_s: float) -> None:
        """Let an object have been stored so much earlier."""
        self._backend().buckets[_bucket(url)].keys[f"some/where/{name}"].last_modified -= timedelta(seconds=by_s)

    def _backend(self) -> Any:
        from moto.backends import get_backend  # noqa: PLC0415

        return get_backend("s3")[ACCOUNT]["aws"]


class WebdavServer:
    """A WebDAV server on a folder, with one user."""

    def __init__(self, port: int, root: Path) -> None:
        self.port = port
        self._root = root
        self._numbers = itertools.count(1)

    @property
    def options(self) -> BlobStore:
        """How to reach it."""
        return BlobStore(key=KEY, secret=SecretStr(SECRET))

    def url(self, port: int | None = None) -> str:
        """The URL of an empty folder that is not made yet, by another port if one is given."""
        return f"webdav://127.0.0.1:{port or self.port}/folder {next(self._numbers)}"

    def folder(self, url: str) -> Path:
        """Where the files at a URL lie."""
        return self._root / url.rpartition("/")[2]


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """An S3 server for as long as the context lasts."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else it tells of every request
    server = S3Server()
    server.up()
    try:
        yield server
    finally:
        server.down()


@contextlib.contextmanager
def webdav_server(root: Path) -> Iterator[WebdavServer]:
    """A WebDAV server for as long as the context lasts."""
    from cheroot.wsgi import Server  # noqa: PLC0415
    from wsgidav.wsgidav_app import WsgiDAVApp  # noqa: PLC0415

    users = {KEY: {"password": SECRET}}
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(root)},
            "simple_dc": {"user_mapping": {"*": users}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    server = Server(("127.0.0.1", 0), app, numthreads=8)
    server.prepare()
    serving = threading.Thread(target=server.serve, name="webdav", daemon=True)
    serving.start()
    try:
        yield WebdavServer(server.bind_addr[1], root)
    finally:
        server.stop()
        serving.join()


def _bucket(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
