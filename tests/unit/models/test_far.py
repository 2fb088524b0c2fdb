"""Models at a URL: what is fetched is what was found, once, and stays as long as it is served; trouble passes."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from relens.config import BlobStore
from relens.errors import BadInput, Broken, Busy, Conflict, Missing
from relens.models import copies, far
from relens.models.artifacts import MARKER
from relens.models.far import Far, open_models
from relens.models.folder import NOT_FETCHED, ModelFolder
from relens.store import endpoints
from relens.store.remote import open_endpoint
from relens.testing.versions import published


class Watched:
    """An endpoint that writes down what is asked, and can fail at it: `trouble` is told each name that is read."""

    def __init__(self, url, options):
        self._endpoint = open_endpoint(url, options)
        self.where = self._endpoint.where
        self.read_names = []
        self.looks = 0
        self.trouble = lambda _name: None

    def entries(self, folder, wanted):
        self.looks += 1
        return self._endpoint.entries(folder, wanted)

    def read(self, name, offset, length):
        self.trouble(name)
        self.read_names.append(name)
        return self._endpoint.read(name, offset, length)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


class Site:
    """A place on S3, and what a server on one machine sees of it."""

    def __init__(self, server, cache):
        self.server = server
        self.cache = cache
        self.url = server.url()
        self.endpoint = Watched(self.url, server.options)
        self.folder = self.other()

    def other(self):
        """What another process on this machine has."""
        return ModelFolder(Far(self.url, self.endpoint, self.cache))

    def put(self, name, data=b"bytes"):
        self.server.write(self.url, name, data)

    def remove(self, name):
        self.server.remove(self.url, name)

    def publish(self, version=1, model=b"one", **files):
        """A version with a manifest."""
        for name, data in published("m", version, {**files, "model.onnx": model}).items():
            self.put(f"m/{version}/{name}", data)

    def found(self, version=1, folder=None):
        folder = folder or self.folder
        folder.look()
        return folder.look()[0]["m", version]

    def fetched(self, version=1, folder=None):
        folder = folder or self.folder
        found = self.found(version, folder)
        folder.fetch(found, never)
        return found

    def kept(self):
        """Names of complete copies."""
        return sorted(path.parent.name.rpartition("-")[0] for path in self.cache.glob(f"*/*/{copies.FACTS}"))


def never():
    return False


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(far, "time", clock)
    monkeypatch.setattr(endpoints, "PAUSES_S", ())
    monkeypatch.setattr(endpoints, "LOOK_AGAIN_S", 0.01)
    return clock


@pytest.fixture
def site(s3, tmp_path):
    site = Site(s3, tmp_path / "cache")
    yield site
    s3.up()


# -- what is asked --------------------------------------------------------------------------------------------------


def test_a_look_lists_once_and_reads_what_is_new(site):
    site.publish(1, model=b"one")
    for _ in range(3):
        site.folder.look()
    assert site.endpoint.looks == 3
    assert sorted(site.endpoint.read_names) == ["m/1/COMPLETE", "m/1/card.yaml", "m/1/manifest.json"]
    site.publish(2, model=b"two")
    site.folder.look()
    assert len(site.endpoint.read_names) == 6


def test_what_is_fetched_is_not_fetched_again_also_by_others(site):
    site.publish(1, model=b"one", data=b"more")
    version = site.fetched()
    assert (version.file.read_bytes(), version.file.with_name("data").read_bytes()) == (b"one", b"more")
    other = site.other()
    again = site.found(folder=other)
    before = len(site.endpoint.read_names)
    for folder in (site.folder, other):
        folder.fetch(again, never)
    assert len(site.endpoint.read_names) == before


def test_servers_that_want_the_same_at_once_fetch_it_once(site):
    site.put("m/1/model.onnx", b"one")
    found = site.found()
    together = threading.Barrier(4)

    def fetch(folder):
        together.wait()
        folder.fetch(found, never)
        return found.file.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fetch, [site.other() for _ in range(4)])) == [b"one"] * 4
    assert site.endpoint.read_names == ["m/1/model.onnx"]


def test_only_files_that_the_manifest_names_are_copied(site):
    site.publish(1, model=b"one")
    site.put("m/1/checkpoint.pt", bytes(1000))
    version = site.fetched()
    names = {path.name for path in version.folder.iterdir()}
    assert names == {"model.onnx", "card.yaml", "manifest.json", MARKER, copies.FACTS}


def test_a_listing_of_many_pages_is_read_to_its_end(site):
    for number in range(1005):
        site.put(f"m/1/part/{number}", b"")
    site.put("m/2/model.onnx")
    assert len(site.found(1).stamp) == 1005
    assert ("m", 2) in site.folder.look()[0]


def test_a_file_of_several_parts_comes_whole(site, monkeypatch):
    monkeypatch.setattr(far, "PART_BYTES", 1000)
    data = os.urandom(3500)
    site.put("m/1/model.onnx", data)
    site.put("m/1/empty.data", b"")
    version = site.fetched()
    assert version.file.read_bytes() == data
    assert version.file.with_name("empty.data").read_bytes() == b""


@pytest.mark.parametrize("name", ["../../evil", "..", "./evil", "a//evil", "/evil", ".evil", "a/../../evil"])
def test_names_that_lead_elsewhere_are_passed_over(site, tmp_path, name):
    site.put("m/1/model.onnx")
    site.put(f"m/1/{name}", b"evil")
    site.fetched()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"evil"]


# -- what is wrong with a version ------------------------------------------------------------------------------------


def test_a_wrong_digest_is_said_and_nothing_is_there_until_it_is_mended(site):
    site.publish(1, model=b"one")
    site.put("m/1/model.onnx", b"eno")
    found = site.found()
    for _ in range(2):
        with pytest.raises(Broken, match="is not what the manifest names") as caught:
            site.folder.fetch(found, never)
        assert caught.value.code == "models.corrupt"
    assert site.kept() == []
    site.put("m/1/model.onnx", b"one")
    assert site.fetched().file.read_bytes() == b"one"


def test_one_that_changes_while_it_is_fetched_is_refused(site, monkeypatch):
    monkeypatch.setattr(far, "PART_BYTES", 4)
    site.put("m/1/model.onnx", b"old-old-")
    found = site.found()
    site.endpoint.trouble = lambda _name: site.put("m/1/model.onnx", b"new-new-")
    with pytest.raises(Conflict) as caught:
        site.folder.fetch(found, never)
    assert caught.value.code == "models.changed"
    assert site.kept() == []
    site.endpoint.trouble = lambda _name: None
    assert site.fetched().file.read_bytes() == b"new-new-"


@pytest.mark.parametrize("change", ["shorter", "gone"])
def test_one_that_is_cut_or_taken_away_while_it_is_fetched_is_refused(site, change):
    site.put("m/1/model.onnx", b"long")
    found = site.found()

    def spoil(_name):
        site.put("m/1/model.onnx", b"") if change == "shorter" else site.remove("m/1/model.onnx")

    site.endpoint.trouble = spoil
    with pytest.raises(Conflict):
        site.folder.fetch(found, never)


def test_one_that_was_changed_since_it_was_found_is_refused_before_it_is_read(site):
    site.put("m/1/model.onnx", b"old")
    found = site.found()
    site.put("m/1/model.onnx", b"new")
    with pytest.raises(Conflict):
        site.folder.fetch(found, never)
    assert site.endpoint.read_names == []


# -- trouble that passes ---------------------------------------------------------------------------------------------


def test_a_store_that_is_down_is_asked_less_and_less_often_and_found_again(site, clock, s3):
    site.put("m/1/model.onnx")
    version = site.fetched()
    s3.down()
    asked = []
    for second in range(100):
        clock.now = float(second)
        before = site.endpoint.looks
        with pytest.raises(Broken) as caught:
            site.folder.look()
        assert caught.value.code == "store.remote"
        asked += [second] if site.endpoint.looks > before else []
    assert asked == [0, 1, 3, 7, 15, 31, 61, 91]
    site.folder.fetch(version, never)  # it is here
    assert version.file.read_bytes() == b"bytes"
    s3.up()
    clock.now += 30.0
    assert ("m", 1) in site.folder.look()[0]
    assert ("m", 1) in site.folder.look()[0]


def test_a_version_that_could_not_be_fetched_is_put_off_and_offered_again(site, clock):
    site.publish(1, model=b"one")
    found = site.found()

    def away(_name):
        raise Broken("store.remote", "the store is away")

    site.endpoint.trouble = away
    with pytest.raises(Broken) as caught:
        site.folder.fetch(found, never)
    assert caught.value.code == NOT_FETCHED
    assert "the store is away" in caught.value.message
    site.endpoint.trouble = lambda _name: None
    assert site.folder.look() == ({}, {("m", 1)})
    clock.now += 2.0
    assert site.fetched().file.read_bytes() == b"one"


def test_a_file_that_cannot_be_read_puts_off_its_version_and_no_other(site, clock):
    site.publish(1, model=b"one")
    site.publish(2, model=b"two")

    def denied(name):
        if name.startswith("m/1/"):
            raise Broken("store.remote-denied", "no")

    site.endpoint.trouble = denied
    whole, unfinished = site.folder.look()
    assert (set(whole), unfinished) == ({("m", 2)}, {("m", 1)})
    before = len(site.endpoint.read_names)
    site.folder.look()
    assert len(site.endpoint.read_names) == before
    site.endpoint.trouble = lambda _name: None
    clock.now += 2.0
    assert set(site.folder.look()[0]) == {("m", 1), ("m", 2)}


def test_files_that_came_whole_are_not_fetched_again_after_trouble(site):
    site.publish(1, data=b"large", model=b"one")
    found = site.found()

    def away(name):
        if name.endswith("/model.onnx"):
            raise Broken("store.remote", "the store is away")

    site.endpoint.trouble = away
    with pytest.raises(Broken):
        site.folder.fetch(found, never)
    site.endpoint.trouble = lambda _name: None
    site.endpoint.read_names.clear()
    site.other().fetch(found, never)
    assert "m/1/model.onnx" in site.endpoint.read_names
    assert "m/1/data" not in site.endpoint.read_names


def test_what_is_given_up_ends_before_its_next_part_and_holds_nothing(site, monkeypatch):
    monkeypatch.setattr(far, "PART_BYTES", 1)
    site.put("m/1/model.onnx", b"many bytes")
    found = site.found()
    with pytest.raises(Busy):
        site.folder.fetch(found, lambda: len(site.endpoint.read_names) == 3)
    assert len(site.endpoint.read_names) == 3
    site.other().fetch(found, never)
    assert found.file.read_bytes() == b"many bytes"


def test_a_disk_that_takes_no_copies_is_said(site):
    site.put("m/1/model.onnx")
    found = site.found()
    site.cache.parent.joinpath("cache").write_text("a file")
    with pytest.raises(Broken, match="no copy") as caught:
        site.folder.fetch(found, never)
    assert caught.value.code == NOT_FETCHED
    with pytest.raises(Broken, match="no copy"):
        site.folder.check()


# -- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["another byte", "cut", "gone", "facts"])
def test_a_damaged_copy_is_made_again(site, damage):
    site.put("m/1/model.onnx", b"right")
    version = site.fetched()
    site.folder.release(version)
    if damage == "another byte":
        version.file.write_bytes(b"wrong")
    elif damage == "cut":
        version.file.write_bytes(b"r")
    elif damage == "gone":
        shutil.rmtree(version.folder)
    else:
        (version.folder / copies.FACTS).write_text("{")
    again = site.fetched(folder=site.other())
    assert again.file.read_bytes() == b"right"
    assert again.folder == version.folder


def test_a_copy_that_somebody_removes_while_it_is_served_is_made_again(site):
    site.put("m/1/model.onnx")
    version = site.fetched()
    shutil.rmtree(site.cache)
    site.folder.fetch(version, never)
    assert version.file.read_bytes() == b"bytes"


def test_copies_go_when_they_are_neither_in_the_store_nor_served_by_anybody(site):
    for number in (1, 2, 3, 4):
        site.put(f"m/{number}/model.onnx")
    other = site.other()
    one, two, _, _ = (site.fetched(number) for number in (1, 2, 3, 4))
    other.fetch(two, never)
    for number in (1, 2, 3):
        site.remove(f"m/{number}/model.onnx")
    site.folder.release(two)
    site.folder.release(one)
    site.folder.look()
    assert site.kept() == ["m-2", "m-3", "m-4"]  # the other serves 2, we serve 3, and 4 is in the store
    other.release(two)
    other.look()
    assert site.kept() == ["m-3", "m-4"]


def test_a_store_that_seems_empty_takes_no_copies_away(site):
    site.put("m/1/model.onnx")
    site.folder.release(site.fetched())
    site.remove("m/1/model.onnx")
    assert site.folder.look() == ({}, set())
    assert site.kept() == ["m-1"]


def test_copies_from_elsewhere_go_when_nobody_has_served_them_for_long(site, s3):
    site.put("m/1/model.onnx")
    site.folder.release(site.fetched())
    elsewhere = Site(s3, site.cache)
    elsewhere.folder.check()
    assert site.kept() == ["m-1"]
    for lock in site.cache.glob("*/*.lock"):
        os.utime(lock, (0, 0))
    elsewhere.folder.check()
    assert site.kept() == []


# -- the start -------------------------------------------------------------------------------------------------------


def refusal(use, *args):
    with pytest.raises((BadInput, Broken, Missing)) as caught:
        use(*args)
    return caught.value


def test_a_bucket_or_folder_that_is_not_there_is_said_at_the_start(s3, webdav, tmp_path):
    error = refusal(open_models("s3://no-such-bucket/models", s3.options, tmp_path).check)
    assert (error.code, "no bucket no-such-bucket" in error.message) == ("store.remote", True)
    error = refusal(open_models(webdav.url(), webdav.options, tmp_path).check)
    assert error.code == "models.no-folder"
    assert refusal(open_models(tmp_path / "nowhere", BlobStore(), tmp_path).check).code == "models.no-folder"


def test_who_is_not_let_in_is_told_so_at_the_start(webdav, tmp_path):
    wrong = BlobStore(key="relens", secret=SecretStr("wrong"))
    error = refusal(open_models(webdav.url(), wrong, tmp_path).check)
    assert error.code == "store.remote-denied"
    assert "list and read" in error.hint


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://", "names no bucket"),
        ("webdav://", "names no host"),
        ("https://host/models", "webdavs://"),
        ("nonsense://host", "nonsense"),
        ("webdavs://me:secret@host/models", "password"),
    ],
)
def test_a_url_that_names_no_store_is_bad_input(tmp_path, url, said):
    error = refusal(open_models, url, BlobStore(), tmp_path)
    assert error.code == "config.bad-value"
    assert said in str(error)
    assert "blobs:" not in str(error)
    assert "secret@" not in str(error)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("s3://b", "s3fs", "relens[s3]"), ("webdavs://h/p", "webdav4.fsspec", "relens[webdav]")],
)
def test_a_driver_that_is_missing_is_named_with_what_to_install(tmp_path, monkeypatch, url, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    error = refusal(open_models, url, BlobStore(), tmp_path)
    assert error.code == "store.no-driver"
    assert extra in error.hint
