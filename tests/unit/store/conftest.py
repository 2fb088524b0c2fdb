"""Stores behind a wire that can be cut: an S3 server and a WebDAV server, and blobs on them."""

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from relens.store import endpoints
from relens.store.remote import RemoteBlobs, open_remote

HEAD_BYTES = 65536


class Wire:
    """Connections to a server, which are forwarded, refused, left without an answer, or cut on the way.

    `lose` is told the first bytes of each request and says if its answer is lost; `cut` does so before it is forwarded.
    `shorten` ends the next answer after so many bytes.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self.silent = False
        self.lose = self.cut = lambda _request: False
        self.shorten: int | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._listen()

    def down(self) -> None:
        """Refuse connections and end those that are open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def up(self) -> None:
        """Take connections again."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listen()

    def hang_up(self) -> None:
        """End the connections that are open."""
        while self._open:
            _end(self._open.pop())

    @staticmethod
    def requests(count: int, *words: bytes):
        """A condition: the next so many requests that hold all these words."""
        left = [None] * count

        def condition(request: bytes) -> bool:
            if left and all(word in request for word in words):
                left.pop()
                return True
            return False

        return condition

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._open.append(client)
                if not self.silent:
                    server = socket.create_connection(("127.0.0.1", self._target))
                    self._open.append(server)
                    threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        lost = threading.Event()
        threading.Thread(target=self._answer, args=(server, client, lost), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := client.recv(HEAD_BYTES):
                if self.cut(data):
                    break
                if self.lose(data):
                    lost.set()
                server.sendall(data)
        _end(client)
        _end(server)

    def _answer(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(HEAD_BYTES):
                if lost.is_set():
                    break
                if self.shorten is not None:
                    client.sendall(data[: self.shorten])
                    self.shorten = None
                    break
                client.sendall(data)
        _end(client)
        _end(server)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@dataclass
class Store:
    """Blobs at a URL behind a wire, and the server behind it."""

    server: Any
    wire: Wire
    url: str
    blobs: RemoteBlobs

    def left_over(self) -> int:
        """Uploads that began and did not end."""
        if self.url.startswith("s3"):
            return self.server.uploads(self.url)
        return len(list(self.server.folder(self.url).glob("tmp/*")))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(endpoints, "PAUSES_S", (0.01, 0.01, 0.01))
    monkeypatch.setattr(endpoints, "LOOK_AGAIN_S", 0.01)


@pytest.fixture
def new_store(request, tmp_path):
    """Makes stores of a kind, with changed options."""
    wires = []

    def make(kind: str, **changed: Any) -> Store:
        server = request.getfixturevalue(kind)
        wire = Wire(server.port)
        wires.append(wire)
        if kind == "s3":
            url, options = server.url(), server.through(wire.port)
        else:
            url, options = server.url(wire.port), server.options
        blobs = open_remote(url, options.model_copy(update=changed), tmp_path / "cache")
        return Store(server, wire, url, blobs)

    yield make
    for wire in wires:
        wire.down()


@pytest.fixture(params=["s3", "webdav"])
def kind(request):
    return request.param


@pytest.fixture
def store(new_store, kind):
    return new_store(kind)
