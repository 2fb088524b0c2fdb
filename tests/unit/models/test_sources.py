"""Models from addresses, against a server that breaks off, redirects, refuses and lies."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from relens.errors import BadInput, Broken, Missing
from relens.models.sources import fetch_source, is_address, read_source

DATA = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves DATA; `breaks` answers end after `breaks_after` bytes, `requests` says what was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.breaks_after, self.busy, self.data, self.ranges = 0, 100_000, 0, DATA, True
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        given = self.headers.get("Range")
        server.requests.append((self.path, given))
        if self.path.startswith("/moved"):
            return self._answer(302, b"", Location="/files/model.onnx")
        if not self.path.startswith(("/files", "/org")):
            return self._answer(404, b"no such file")
        if server.busy:
            server.busy -= 1
            return self._answer(503, b"busy")
        start = int(re.fullmatch(r"bytes=(\d+)-", given)[1]) if given and server.ranges else 0
        if start >= len(server.data):
            return self._answer(416, b"")
        body = server.data[start:]
        cut = len(body)
        if server.breaks:
            server.breaks -= 1
            cut = server.breaks_after
        return self._answer(206 if start else 200, body, cut)

    def _answer(self, status, body, cut=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def source_of(server, path="/files/model.onnx", sha256=SHA256):
    return read_source(f"{server.url}{path}#sha256={sha256}")


def test_a_file_is_fetched_once_and_named_by_its_digest(server, tmp_path):
    first = fetch_source(source_of(server), tmp_path / "cache")
    assert first.read_bytes() == DATA
    assert first.name == SHA256
    assert fetch_source(source_of(server), tmp_path / "cache") == first
    assert len(server.requests) == 1


def test_what_breaks_off_is_gone_on_with(server, tmp_path):
    server.breaks = 2
    assert fetch_source(source_of(server), tmp_path).read_bytes() == DATA
    assert [given for _path, given in server.requests] == [None, "bytes=100000-", "bytes=200000-"]


def test_what_broke_off_too_often_is_kept_for_the_next_call(server, tmp_path):
    server.breaks = 4
    with pytest.raises(Broken) as caught:
        fetch_source(source_of(server), tmp_path)
    assert caught.value.code == "models.not-fetched"
    assert "400,000 bytes are kept" in caught.value.hint
    assert fetch_source(source_of(server), tmp_path).read_bytes() == DATA
    assert server.requests[-1][1] == "bytes=400000-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.breaks, server.ranges = 1, False
    assert fetch_source(source_of(server), tmp_path).read_bytes() == DATA


def test_a_kept_part_that_is_wrong_is_thrown_away_and_fetched_again(server, tmp_path):
    for kept in (b"\xff" * 1000, DATA + b"more"):
        (tmp_path / f"{SHA256}.part").write_bytes(kept)
        assert fetch_source(source_of(server), tmp_path).read_bytes() == DATA
        (tmp_path / SHA256).unlink()


def test_a_cached_file_that_was_changed_is_fetched_again(server, tmp_path):
    (tmp_path / SHA256).write_bytes(b"other")
    assert fetch_source(source_of(server), tmp_path).read_bytes() == DATA


def test_a_busy_server_is_asked_again_and_redirects_are_followed(server, tmp_path):
    server.busy = 2
    assert fetch_source(source_of(server, "/moved/x"), tmp_path).read_bytes() == DATA


def test_bytes_of_another_digest_are_thrown_away(server, tmp_path):
    server.data = DATA[:-1] + b"!"
    with pytest.raises(BadInput) as caught:
        fetch_source(source_of(server), tmp_path)
    assert caught.value.code == "models.wrong-digest"
    assert SHA256 in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_missing_and_not_asked_for_again(server, tmp_path):
    with pytest.raises(Missing) as caught:
        fetch_source(source_of(server, "/nothing"), tmp_path)
    assert "404" in caught.value.message
    assert len(server.requests) == 1


def test_what_is_too_large_is_refused_before_it_is_fetched(server, tmp_path):
    with pytest.raises(BadInput) as caught:
        fetch_source(source_of(server), tmp_path, max_bytes=1000)
    assert caught.value.code == "models.too-large"
    assert not any(path.stat().st_size for path in tmp_path.iterdir())


def test_a_server_that_is_not_there_is_broken_with_the_way_out(tmp_path):
    with pytest.raises(Broken) as caught:
        fetch_source(read_source(f"http://127.0.0.1:9/m#sha256={SHA256}"), tmp_path)
    assert "name its path" in caught.value.hint


def test_hf_addresses_are_public_files_of_the_endpoint(server, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    named = f"hf://org/repo/onnx/model v2.onnx@refs/pr/1#sha256={SHA256}".replace(" ", "_")
    assert read_source(named).url == "https://huggingface.co/org/repo/resolve/refs%2Fpr%2F1/onnx/model_v2.onnx"
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    source = read_source(f"hf://org/repo/onnx/model.onnx#sha256={SHA256.upper()}")
    assert source.url == f"{server.url}/org/repo/resolve/main/onnx/model.onnx"
    assert source.name == "model.onnx"
    assert fetch_source(source, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("https://example.org/model.onnx", "models.no-digest"),
        ("https://example.org/model.onnx#sha256=123", "models.no-digest"),
        ("https://example.org/model.onnx#md5=123", "models.no-digest"),
        (f"http://example.org/model.onnx#sha256={SHA256}", "models.bad-source"),
        (f"ftp://example.org/model.onnx#sha256={SHA256}", "models.bad-source"),
        (f"file:///etc/passwd#sha256={SHA256}", "models.bad-source"),
        (f"https:///model.onnx#sha256={SHA256}", "models.bad-source"),
        (f"hf://owner/model.onnx#sha256={SHA256}", "models.bad-source"),
    ],
)
def test_an_address_that_cannot_be_relied_on_is_refused(given, code):
    assert is_address(given)
    with pytest.raises(BadInput) as caught:
        read_source(given)
    assert caught.value.code == code


def test_a_path_is_no_address():
    assert not is_address("/models/yolo.onnx")
    assert not is_address("models/yolo.onnx")
