"""Remote blobs when the store, the way to it, or this process fails."""

import json
import shutil
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import settings as moto_settings
from pydantic import SecretStr

from relens.config import BlobStore
from relens.errors import Broken, Missing
from relens.store import LocalBlobs, endpoints, remote
from relens.store.remote import open_remote
from relens.testing.blobs import EVERYTHING, NOWHERE
from relens.values import digest_of

LARGE = bytes(range(256)) * 40_000  # 10 MB: more than one part
END_OF_UPLOAD = {"s3": (b"POST ", b"uploadId="), "webdav": (b"MOVE ",)}

DYING = """
import io, os, pathlib, signal, sys
from pydantic import SecretStr
from relens.config import BlobStore
from relens.store.endpoints import PART_BYTES
from relens.store.remote import open_endpoint

class Deadly(io.BytesIO):
    def read(self, size=-1):
        if self.tell() > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(size)

url, options = sys.argv[1], BlobStore.model_validate_json(sys.argv[2])
size = 2 * PART_BYTES
open_endpoint(url, options).store("ab/" + "ab" * 32, Deadly(bytes(size)), size)
"""


def write(blobs, data):
    with blobs.writer() as writer:
        writer.write(data)
        return writer.finish()


def refusal(use, *args):
    with pytest.raises(Broken) as caught:
        use(*args)
    return caught.value


# -- the way --------------------------------------------------------------------------------------------------------


def test_a_store_that_is_down_is_broken_for_every_use_and_serves_when_it_is_up_again(store):
    kept = store.blobs.put(b"kept")
    store.wire.down()
    uses = (store.blobs.read, store.blobs.path, store.blobs.size, store.blobs.modified, store.blobs.verify)
    for use in uses:
        error = refusal(use, kept.digest)
        assert error.code == "store.remote"
        assert store.url in error.message
        assert "go on by themselves" in error.hint
    for use in (store.blobs.put, lambda data: write(store.blobs, data)):
        assert refusal(use, b"new").code == "store.remote"
    assert refusal(list, store.blobs.digests()).code == "store.remote"
    assert refusal(store.blobs.remove, kept.digest).code == "store.remote"
    store.wire.up()
    assert store.blobs.path(kept.digest).read_bytes() == b"kept"
    assert list(store.blobs.digests()) == [kept.digest]
    assert store.blobs.sweep(EVERYTHING) == 0


def test_a_request_is_made_a_few_times_and_after_it_was_given_up_once_until_one_succeeds():
    patience = endpoints.Patience("somewhere", 60.0)
    made = []

    def fails(until=99):
        made.append(None)
        if len(made) < until:
            raise ConnectionError("reset by peer")
        return "answer"

    for expected in (4, 1, 1):
        made.clear()
        error = refusal(patience, lambda _: fails())
        assert (error.code, len(made)) == ("store.remote", expected)
        assert "somewhere does not serve: reset by peer" in error.message
    made.clear()
    assert patience(lambda _: fails(until=1)) == "answer"
    made.clear()
    assert patience(lambda _: fails(until=4)) == "answer"


def test_no_pause_goes_beyond_the_time_there_is():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoints, "PAUSES_S", (3600.0,))
        error = refusal(endpoints.Patience("somewhere", 60.0), lambda _: 1 / 0)
    assert "division by zero" in error.message


def test_what_is_in_the_cache_is_there_when_the_store_is_down(store):
    mapped, small, large = (store.blobs.put(data) for data in (b"mapped", b"small", bytes(100_000)))
    store.blobs.path(mapped.digest)
    for blob in (small, large):
        store.blobs.read(blob.digest)
    store.wire.down()
    assert store.blobs.path(mapped.digest, verify=True).read_bytes() == store.blobs.read(mapped.digest) == b"mapped"
    assert store.blobs.read(small.digest) == b"small"
    assert refusal(store.blobs.read, large.digest).code == "store.remote"


def test_connections_that_end_before_the_answer_are_made_again(store):
    blob = store.blobs.put(b"kept")
    for use in (lambda digest: store.blobs.read(digest, 1), store.blobs.size, store.blobs.verify, store.blobs.path):
        store.wire.cut = store.wire.requests(2, blob.digest.encode())
        use(blob.digest)
        assert not store.wire.cut(blob.digest.encode())  # it has happened
    store.wire.cut = store.wire.requests(2)
    assert list(store.blobs.digests()) == [blob.digest]


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
def test_uploads_that_are_cut_are_made_again_and_leave_nothing_over(store, data):
    store.wire.cut = store.wire.requests(1, b"PUT ")
    blob = write(store.blobs, data)
    assert not store.wire.cut(b"PUT ")
    assert store.blobs.read(blob.digest) == data
    assert store.left_over() == 0


def test_an_upload_whose_last_answer_is_lost_is_stored(store, kind):
    store.wire.lose = store.wire.requests(1, *END_OF_UPLOAD[kind])
    blob = write(store.blobs, LARGE)
    assert not store.wire.lose(b"".join(END_OF_UPLOAD[kind]))
    store.blobs.verify(blob.digest)
    assert store.left_over() == 0


def test_an_upload_that_fails_for_good_leaves_nothing_over_once_the_store_is_swept(store, kind):
    store.wire.cut = store.wire.requests(100, *END_OF_UPLOAD[kind])
    assert refusal(write, store.blobs, LARGE).code == "store.remote"
    assert not list(store.blobs.digests())
    store.wire.cut = store.wire.requests(0)
    store.blobs.sweep(EVERYTHING)
    assert store.left_over() == 0


def test_a_body_that_is_cut_off_on_the_way_is_asked_for_again(store):
    blob = write(store.blobs, LARGE)
    store.wire.hang_up()
    store.wire.shorten = 5000
    assert store.blobs.path(blob.digest).read_bytes() == LARGE
    assert store.wire.shorten is None


def test_a_store_that_never_answers_is_given_up(new_store, kind):
    store = new_store(kind, operation_timeout_s=0.4)
    store.wire.silent = True
    assert refusal(store.blobs.size, NOWHERE).code == "store.remote"
    assert refusal(store.blobs.put, b"x").code == "store.remote"
    assert refusal(store.blobs.put, LARGE).code == "store.remote"
    assert refusal(store.blobs.path, NOWHERE).code == "store.remote"


# -- the store ------------------------------------------------------------------------------------------------------


def test_a_wrong_secret_is_refused_and_not_told(new_store, kind, monkeypatch):
    monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    store = new_store(kind, secret=SecretStr("battery staple"))
    for use in (lambda: store.blobs.put(b"x"), lambda: store.blobs.size(NOWHERE), lambda: list(store.blobs.digests())):
        error = refusal(use)
        assert error.code == "store.remote-denied"
        assert store.url in error.message
        assert "battery" not in str(error)


def test_without_any_key_s3_says_where_to_put_one(new_store, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    error = refusal(new_store("s3", key="", secret=SecretStr("")).blobs.put, b"x")
    assert error.code == "store.remote-denied"
    assert "blob_store.key" in error.hint


def test_a_bucket_that_is_not_there_is_not_taken_for_missing_blobs(s3, tmp_path):
    blobs = open_remote("s3://no-such-bucket/a", s3.options, tmp_path / "cache")
    uses = (blobs.size, blobs.read, blobs.path, blobs.verify, blobs.modified, blobs.remove)
    for use in (*uses, lambda _: blobs.put(b"x"), lambda _: list(blobs.digests())):
        error = refusal(use, NOWHERE)
        assert (error.code, "no bucket no-such-bucket" in error.message) == ("store.remote", True)


def test_more_objects_than_fit_a_page_are_all_listed(s3, tmp_path):
    url = s3.url()
    digests = {f"{number:064x}" for number in range(1050)}
    for digest in digests:
        s3.write(url, f"{digest[:2]}/{digest}", b"")
    s3.write(url, "00/notes.txt", b"not ours")
    listed = list(open_remote(url, s3.options, tmp_path / "cache").digests())
    assert len(listed) == len(digests)
    assert set(listed) == digests


def test_a_blob_that_was_cut_short_in_the_store_is_never_given_as_a_file(store, tmp_path):
    blob = store.blobs.put(b"all of it")
    name = f"{blob.digest[:2]}/{blob.digest}"
    if store.url.startswith("s3"):
        store.server.write(store.url, name, b"all of")
    else:
        (store.server.folder(store.url) / name).write_bytes(b"all of")
    assert refusal(store.blobs.path, blob.digest).code == "store.corrupt-blob"
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size] == []


def test_a_process_killed_in_the_middle_of_an_upload_leaves_nothing_visible(store, kind):
    options = store.server.options if kind == "webdav" else store.server.through(store.wire.port)
    given = options.model_dump() | {"secret": options.secret.get_secret_value()}
    argv = [sys.executable, "-c", DYING, store.url, json.dumps(given)]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    assert not list(store.blobs.digests())
    with pytest.raises(Missing):
        store.blobs.size("ab" * 32)
    assert kind == "webdav" or store.left_over() == 1  # what else a server keeps of it is its own to say
    store.blobs.sweep(EVERYTHING)
    assert store.left_over() == 0


def test_sweeping_a_store_that_is_down_removes_what_is_here_and_goes_on(store, tmp_path):
    abandoned = store.blobs.writer()
    abandoned.__enter__().write(b"never finished")
    store.wire.down()
    assert store.blobs.sweep(EVERYTHING) == 1


def test_two_machines_see_each_other_s_blobs_and_forget_those_that_the_other_removed(s3, tmp_path):
    url = s3.url()
    one, other = (open_remote(url, s3.options, tmp_path / name) for name in ("one", "other"))
    blob = one.put(b"shared")
    other.path(blob.digest)
    one.remove(blob.digest)
    assert other.sweep(older_than_s=3600) == 0  # just used
    assert other.sweep(EVERYTHING) == 1
    with pytest.raises(Missing):
        other.path(blob.digest)


def test_a_folder_of_blobs_that_is_copied_to_a_store_is_that_store(webdav, tmp_path):
    local = LocalBlobs(tmp_path / "blobs")
    put = {local.put(bytes([number])).digest for number in range(5)}
    url = webdav.url()
    shutil.copytree(tmp_path / "blobs", webdav.folder(url))
    blobs = open_remote(url, webdav.options, tmp_path / "cache")
    assert set(blobs.digests()) == put
    for digest in put:
        blobs.verify(digest)


class _WholeFiles(BaseHTTPRequestHandler):
    """A server that knows no ranges."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *_):
        pass


def test_a_webdav_server_that_sends_the_whole_file_for_a_range_is_understood(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _WholeFiles)
    Thread(target=server.serve_forever, daemon=True).start()
    blobs = open_remote(f"webdav://127.0.0.1:{server.server_port}", BlobStore(), tmp_path)
    digest = digest_of(b"0123456789")
    assert blobs.read(digest, 3, 4) == b"3456"
    assert blobs.read(digest, 8) == b"89"
    assert blobs.read(digest) == b"0123456789"
    assert refusal(blobs.read, digest, 8, 3).code == "store.short-blob"
    server.shutdown()


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory):
    return open_remote("memory://blobs", BlobStore(), tmp_path_factory.mktemp("cache"))


@given(data=st.binary(max_size=40), offset=st.integers(0, 45), length=st.none() | st.integers(0, 45))
def test_a_range_is_that_of_the_bytes_however_many_requests_it_takes(in_memory, data, offset, length):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "PART_BYTES", 7)
        patch.setattr(endpoints, "PART_BYTES", 7)
        digest = in_memory.put(data).digest
        if length is None or offset + length <= len(data):
            assert in_memory.read(digest, offset, length) == data[offset:][:length]
        elif length:
            assert refusal(in_memory.read, digest, offset, length).code == "store.short-blob"
        in_memory.verify(digest)
