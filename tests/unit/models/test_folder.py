"""A folder of models: what is whole is there, what is still written to is not, and what cannot be says why.

It is so on this machine, on S3 and on WebDAV.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil

import pytest

from relens.config import BlobStore
from relens.errors import Broken, Missing
from relens.models import Shelf
from relens.models.artifacts import MARKER
from relens.models.drafts import Wish, draft_model
from relens.models.far import open_models
from relens.store import endpoints
from relens.testing import networks
from relens.testing.versions import with_manifest


class Files:
    """Models in a folder of this machine, which `location` names."""

    def __init__(self, root, cache, location=None, options=None):
        self.root = root
        self.root.mkdir(parents=True)
        self._opened = location or root, options or BlobStore(), cache

    def folder(self):
        return open_models(*self._opened)

    def put(self, name, data=b"bytes"):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def make(self, name):
        (self.root / name).mkdir(parents=True)

    def remove(self, name):
        (self.root / name).unlink()

    def end(self):
        shutil.rmtree(self.root)


class Objects:
    """Models on S3."""

    def __init__(self, server, cache):
        self._server = server
        self._url = server.url()
        self._opened = self._url, server.options, cache

    def folder(self):
        return open_models(*self._opened)

    def put(self, name, data=b"bytes"):
        self._server.write(self._url, name, data)

    def make(self, name):
        self.put(f"{name}/", b"")  # as consoles do

    def remove(self, name):
        self._server.remove(self._url, name)

    def end(self):
        self._server.drop(self._url)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(endpoints, "PAUSES_S", ())
    monkeypatch.setattr(endpoints, "LOOK_AGAIN_S", 0.01)


@pytest.fixture(params=["here", "s3", "webdav"])
def store(request, tmp_path):
    """A place for models that is empty."""
    if request.param == "here":
        return Files(tmp_path / "models", tmp_path / "cache")
    server = request.getfixturevalue(request.param)
    if request.param == "s3":
        return Objects(server, tmp_path / "cache")
    url = server.url()
    return Files(server.folder(url), tmp_path / "cache", url, server.options)


def never():
    return False


def test_a_bare_file_is_there_when_it_has_rested_from_one_look_to_the_next(store):
    folder = store.folder()
    store.put("m/1/model.onnx")
    assert folder.look() == ({}, {("m", 1)})
    store.put("m/1/model.onnx", b"more bytes")
    assert folder.look() == ({}, {("m", 1)})
    whole, unfinished = folder.look()
    assert (whole["m", 1].problem, unfinished) == (None, set())
    folder.fetch(whole["m", 1], never)
    assert whole["m", 1].file.read_bytes() == b"more bytes"
    assert whole["m", 1].file.name == "model.onnx"


def test_a_file_beside_it_that_grows_is_waited_for(store):
    folder = store.folder()
    store.put("m/1/model.onnx")
    folder.look()
    store.put("m/1/model.onnx.data")
    assert folder.look() == ({}, {("m", 1)})
    version = folder.look()[0]["m", 1]
    folder.fetch(version, never)
    assert version.file.with_name("model.onnx.data").read_bytes() == b"bytes"


def test_files_may_be_called_what_they_like(store):
    odd = ("a#b", "c%20d", "what?.bin", "größe 1", "a+b&c;d", "in # here/x?")
    store.put("m/1/model.onnx")
    for name in odd:
        store.put(f"m/1/{name}", name.encode())
    folder = store.folder()
    folder.look()
    version = folder.look()[0]["m", 1]
    folder.fetch(version, never)
    for name in odd:
        assert (version.folder / name).read_bytes() == name.encode()


def test_what_is_no_version_is_passed_over(store):
    for name in ("m/1.tmp/model.onnx", "m/.2/model.onnx", "m/latest/model.onnx", ".git/3/model.onnx", "notes.txt"):
        store.put(name)
    store.put("m/7")
    store.make("m/8")
    folder = store.folder()
    folder.look()
    assert folder.look() == ({}, {("m", 8)})


@pytest.mark.parametrize(("names", "said"), [(["a.onnx", "b.onnx"], "2 files"), (["model.pb"], "no file")])
def test_without_one_model_file_it_says_what_is_there(store, names, said):
    for name in names:
        store.put(f"m/1/{name}")
    folder = store.folder()
    folder.look()
    assert said in folder.look()[0]["m", 1].problem


def test_hidden_files_of_copying_programs_do_not_count(store):
    store.put("m/1/model.onnx")
    store.put("m/1/.model.onnx.part")
    folder = store.folder()
    folder.look()
    store.put("m/1/.model.onnx.part", b"longer")
    version = folder.look()[0]["m", 1]
    assert [name for name, *_ in version.stamp] == ["model.onnx"]


@pytest.fixture
def published(tmp_path):
    """Files of a version with card, manifest and marker, as a home keeps them, the marker last."""
    file = tmp_path / "looks.onnx"
    file.write_bytes(networks.classifier())
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\ne\n")
    draft = draft_model(file, Wish(infer=True, labels=names))
    folder = Shelf(tmp_path / "shelf").publish(draft.card, draft.files).folder
    paths = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name == MARKER)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def put_all(store, files, *left_out, version=4):
    for name, data in files.items():
        if name not in left_out:
            store.put(f"looks/{version}/{name}", data)


def test_a_version_with_a_marker_is_there_at_once_with_digest_and_labels(store, published):
    put_all(store, published)
    folder = store.folder()
    version = folder.look()[0]["looks", 4]
    assert version.whole
    assert version.digest is not None
    folder.fetch(version, never)
    for name, data in published.items():
        assert (version.folder / name).read_bytes() == data


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda store, files: store.put("looks/4/model.onnx", files["model.onnx"][:100]), "model.onnx"),
        (lambda store, _: store.remove("looks/4/labels.json"), "labels.json"),
        (lambda store, _: store.put(f"looks/4/{MARKER}", b"0" * 64), "marker"),
        (lambda store, _: store.put("looks/4/manifest.json", b"{}"), "marker"),
    ],
    ids=["cut", "lacking", "marker", "manifest"],
)
def test_one_that_differs_from_its_manifest_says_where(store, published, spoil, said):
    put_all(store, published)
    spoil(store, published)
    assert said in store.folder().look()[0]["looks", 4].problem


def test_one_with_a_bad_card_says_so_and_the_others_are_there(store, published):
    put_all(store, published)
    card = published["card.yaml"].replace(b"task: classify", b"task: something")
    put_all(store, with_manifest({**published, "card.yaml": card}), version=5)
    whole, _ = store.folder().look()
    assert whole["looks", 4].problem is None
    assert "something" in whole["looks", 5].problem


def test_one_whose_marker_has_not_come_yet_is_not_there_while_it_grows(store, published):
    put_all(store, published, MARKER, "model.onnx")
    folder = store.folder()
    assert folder.look() == ({}, {("looks", 4)})
    store.put("looks/4/model.onnx", published["model.onnx"])
    for _ in range(3):
        assert folder.look() == ({}, {("looks", 4)})
    store.put(f"looks/4/{MARKER}", published[MARKER])
    assert ("looks", 4) in folder.look()[0]


def test_a_version_that_is_written_anew_has_another_stamp_and_one_that_goes_is_gone(store, published):
    put_all(store, published)
    folder = store.folder()
    before = folder.look()[0]["looks", 4]
    assert folder.look()[0]["looks", 4] is before
    put_all(store, with_manifest({**published, "labels.json": b'["v", "w", "x", "y", "zz"]'}))
    after = folder.look()[0]["looks", 4]
    assert (after.problem, after.stamp == before.stamp) == (None, False)
    for name in published:
        store.remove(f"looks/4/{name}")
    assert folder.look()[0] == {}


def test_a_folder_that_is_gone_is_said(store):
    folder = store.folder()
    store.put("m/1/model.onnx")
    folder.look()
    store.end()
    with pytest.raises(Broken):
        folder.look()
    with pytest.raises((Broken, Missing)):
        folder.check()


@pytest.fixture
def unread(tmp_path, monkeypatch):
    """Two versions, of which one has a folder that cannot be listed for a reason, as long as the context lasts."""
    files = Files(tmp_path / "models", tmp_path / "cache")
    files.put("scale/1/model.onnx")
    files.put("scale/1/more/labels.txt")
    files.put("other/1/model.onnx")
    folder, scandir = files.folder(), os.scandir
    folder.look()

    @contextlib.contextmanager
    def unread(number):
        def broken(path):
            if os.fspath(path).endswith("more"):
                raise OSError(number, os.strerror(number))
            return scandir(path)

        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", broken)
            yield folder

    return unread


def test_a_look_that_the_disk_cuts_short_says_nothing_of_a_version(unread):
    with unread(errno.EIO) as folder, pytest.raises(Broken, match="cannot be read"):
        folder.look()
    assert set(folder.look()[0]) == {("scale", 1), ("other", 1)}


def test_a_version_that_may_not_be_read_is_not_whole_and_keeps_no_other_out(unread):
    with unread(errno.EACCES) as folder:
        whole, unfinished = folder.look()
    assert (set(whole), unfinished) == ({("other", 1)}, {("scale", 1)})
