"""Websites on this machine that serve and misbehave as told: what fetches are tested against."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

Page = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """Pages by path. What is not there is 404. Counts what was asked for, and how much of it at once."""

    def __init__(self, pages: Mapping[str, Page | bytes] | None = None) -> None:
        self.pages: dict[str, Page | bytes] = dict(pages or {})
        self.asked: list[str] = []
        self.hosts: list[str] = []
        self.most_at_once = 0
        self.over = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.serve(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """The other side has had enough."""

        self.server = Server(("0.0.0.0", 0), Handler)  # noqa: S104 - every 127.x.y.z is another host
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.port = self.server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        with self._lock:
            self.asked.append(path)
            self.hosts.append(request.headers.get("Host", ""))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            page = self.pages.get(path, answer(b"not here", status=404, kind="text/plain"))
            (answer(page) if isinstance(page, bytes) else page)(request)
        except (BrokenPipeError, ConnectionResetError):  # the other side has had enough
            request.close_connection = True
        finally:
            with self._lock:
                self._at_once -= 1

    # -- pages that misbehave

    def silent(self, _request: BaseHTTPRequestHandler) -> None:
        """Takes the question and never answers."""
        self.over.wait(30.0)

    def drip(self, data: bytes, pause_s: float = 0.05) -> Page:
        """One byte at a time, in headers as in the body."""

        def page(request: BaseHTTPRequestHandler) -> None:
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data:
                request.wfile.write(bytes([byte]))
                if self.over.wait(pause_s):
                    return

        return page

    def endless(self, start: bytes) -> Page:
        """A body that states no length and does not end."""

        def page(request: BaseHTTPRequestHandler) -> None:
            request.close_connection = True
            request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + start)
            while not self.over.is_set():
                request.wfile.write(bytes(65536))

        return page


def answer(
    data: bytes, *, status: int = 200, kind: str = "image/jpeg", headers: Mapping[str, str] | None = None
) -> Page:
    """A plain answer."""

    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)

    return page


def redirect(to: str, status: int = 302) -> Page:
    """Sends elsewhere."""
    return answer(b"", status=status, headers={"Location": to})


def in_turn(*pages: Page) -> Page:
    """Another page each time; the last one stays."""
    waiting = list(pages)

    def page(request: BaseHTTPRequestHandler) -> None:
        (waiting.pop(0) if len(waiting) > 1 else waiting[0])(request)

    return page


def broken_off(data: bytes, stated: int) -> Page:
    """Fewer bytes than stated, and the end."""

    def page(request: BaseHTTPRequestHandler) -> None:
        answer(data, headers={"Content-Length": str(stated)})(request)
        request.close_connection = True

    return page
