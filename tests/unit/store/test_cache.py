"""The cache: bounded, never wrong, and shared by whoever wants the same blob at the same time."""

import mmap
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from relens.errors import Broken
from relens.store.cache import SURE_S, Cache
from relens.values import digest_of

FETCHING = """
import pathlib, sys, time
from relens.store.cache import Cache
from relens.values import digest_of

def fetch():
    print("fetched", flush=True)
    time.sleep(0.2)
    yield b"wanted"

assert Cache(pathlib.Path(sys.argv[1]), 100).keep(digest_of(b"wanted"), fetch).read_bytes() == b"wanted"
"""


def keep(cache, data):
    return cache.keep(digest_of(data), lambda: [data[:3], data[3:]])


def age(path, by_s):
    os.utime(path, (time.time() - by_s,) * 2)


def never():
    raise AssertionError("it was there")
    yield


def test_a_copy_is_fetched_once(tmp_path):
    cache = Cache(tmp_path, 100)
    digest = digest_of(b"wanted")
    assert cache.find(digest) is None
    path = keep(cache, b"wanted")
    assert path.read_bytes() == b"wanted"
    assert cache.find(digest) == cache.keep(digest, never) == path


def test_the_copies_used_longest_ago_go_when_there_are_too_many(tmp_path):
    cache = Cache(tmp_path, 25)
    oldest, used, newer = (keep(cache, bytes([number]) * 10) for number in range(3))
    for number, path in enumerate((oldest, used, newer)):
        age(path, SURE_S * (5 - number))
    assert cache.find(used.name) == used
    keep(cache, b"another one")
    assert not oldest.exists()
    assert not newer.exists()
    assert used.exists()


def test_what_was_asked_for_a_moment_ago_stays_whatever_the_limit(tmp_path):
    cache = Cache(tmp_path, 0)
    paths = [keep(cache, bytes([number]) * 10) for number in range(5)]
    assert all(path.exists() for path in paths)
    age(paths[0], SURE_S + 1)
    keep(cache, b"another one")
    assert [path.exists() for path in paths] == [False, True, True, True, True]


def test_a_mapped_copy_outlives_its_removal(tmp_path):
    cache = Cache(tmp_path, 0)
    path = keep(cache, b"mapped")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    age(path, SURE_S + 1)
    keep(cache, b"another one")
    assert not path.exists()
    assert mapped[:] == b"mapped"


def test_what_came_wrong_once_is_fetched_again_and_twice_is_broken(tmp_path):
    cache = Cache(tmp_path, 100)
    digest = digest_of(b"right")
    answers = iter([[b"wro", b"ng"], [b"right"], [b"wrong"], [b""]])
    assert cache.keep(digest, lambda: next(answers)).read_bytes() == b"right"
    cache.drop(digest)
    with pytest.raises(Broken) as caught:
        cache.keep(digest, lambda: next(answers))
    assert caught.value.code == "store.corrupt-blob"
    assert cache.find(digest) is None
    assert cache.sweep(-1.0) == 0


def test_a_copy_that_the_disk_changed_is_found_when_it_is_verified_and_fetched_again(tmp_path):
    cache = Cache(tmp_path, 100)
    path = keep(cache, b"as it was")
    path.write_bytes(b"as it is!")
    assert cache.find(path.name) == path
    assert cache.find(path.name, verify=True) is None
    assert keep(cache, b"as it was").read_bytes() == b"as it was"
    assert cache.find(path.name, verify=True) == path


def test_a_fetch_that_fails_leaves_nothing_and_can_be_made_again(tmp_path):
    cache = Cache(tmp_path, 100)

    def fails():
        yield b"some"
        raise Broken("store.remote", "gone")

    with pytest.raises(Broken, match="gone"):
        cache.keep(digest_of(b"something"), fails)
    assert cache.sweep(-1.0) == 0
    assert keep(cache, b"something").read_bytes() == b"something"


def test_threads_and_processes_that_want_the_same_blob_fetch_it_once(tmp_path):
    cache = Cache(tmp_path / "threads", 100)
    fetched = []

    def fetch():
        fetched.append(None)
        time.sleep(0.05)
        yield b"wanted"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: cache.keep(digest_of(b"wanted"), fetch), range(8)))
    assert len(fetched) == 1
    argv = [sys.executable, "-c", FETCHING, str(tmp_path / "processes")]
    others = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(3)]
    told = [process.communicate()[0] for process in others]
    assert [process.returncode for process in others] == [0, 0, 0]
    assert sorted(told) == [b"", b"", b"fetched\n"]


def test_what_nobody_used_for_long_is_told(tmp_path):
    cache = Cache(tmp_path, 100)
    old, new = keep(cache, b"old"), keep(cache, b"new")
    age(old, 3600)
    assert cache.unused(60) == [old.name]
    assert set(cache.unused(-1)) == {old.name, new.name}


@pytest.mark.parametrize("folder", ["blobs", "tmp", "locks"])
def test_a_disk_that_takes_nothing_is_broken(tmp_path, folder):
    cache = Cache(tmp_path, 100)
    (tmp_path / folder).write_text("where a folder should be")
    with pytest.raises(Broken) as caught:
        keep(cache, b"wanted")
    assert caught.value.code == "store.disk"
