"""What every store of blobs must do: complete or absent, named by content, found to be damaged when it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relens.errors import Broken, Missing
from relens.store import Blob, Blobs

EVERYTHING = -1.0  # older than no time at all, whatever the clock's resolution
NOWHERE = hashlib.sha256(b"never stored").hexdigest()


class BlobsContract:
    """Subclass it as `TestX` and give `make`; `damage` and `age` too, if files under `path` are copies.

    `many` blobs are enough to need more than one page or folder of a list.
    """

    many = 300

    def make(self, tmp_path: Path) -> Blobs:
        """An empty store."""
        raise NotImplementedError

    def damage(self, blobs: Blobs, digest: str, data: bytes) -> None:
        """Put other bytes where the store keeps a blob."""
        blobs.path(digest).write_bytes(data)

    def age(self, blobs: Blobs, digest: str, by_s: float) -> None:
        """Let a blob have been stored so much earlier, by the store's clock."""
        path = blobs.path(digest)
        os.utime(path, times=(path.stat().st_atime, path.stat().st_mtime - by_s))

    def test_what_is_put_is_read_back_under_its_sha256(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        for data in (b"", b"x", b"relens" * 1000):
            blob = blobs.put(data)
            assert blob == Blob(hashlib.sha256(data).hexdigest(), len(data))
            assert blobs.read(blob.digest) == data
            assert blobs.path(blob.digest).read_bytes() == data
            assert blobs.size(blob.digest) == len(data)
            blobs.verify(blob.digest)

    def test_putting_twice_changes_nothing(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        assert blobs.put(b"same") == blobs.put(b"same")
        assert list(blobs.digests()) == [blobs.put(b"same").digest]

    def test_an_open_file_outlives_the_same_bytes_put_again(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        blob = blobs.put(b"mapped")
        with blobs.path(blob.digest).open("rb") as file:
            blobs.put(b"mapped")
            assert file.read() == b"mapped"

    def test_a_writer_gives_the_digest_of_all_that_was_written(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        with blobs.writer() as writer:
            assert writer.tell() == 0
            writer.write(b"one")
            writer.write(memoryview(b"two"))
            assert writer.tell() == len(b"onetwo")
            blob = writer.finish()
        assert blob == blobs.put(b"onetwo")

    def test_a_range_is_read_and_one_beyond_the_end_is_broken(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        digest = blobs.put(b"0123456789").digest
        assert blobs.read(digest, 3, 4) == b"3456"
        assert blobs.read(digest, 8) == b"89"
        assert blobs.read(digest, 10, 0) == b""
        with pytest.raises(Broken) as caught:
            blobs.read(digest, 8, 3)
        assert caught.value.code == "store.short-blob"

    def test_what_is_not_there_is_missing(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        for use in (blobs.read, blobs.path, blobs.size, blobs.modified, blobs.verify):
            with pytest.raises(Missing) as caught:
                use(NOWHERE)
            assert caught.value.code == "store.missing-blob"
            assert NOWHERE in caught.value.message

    def test_leaving_without_finish_stores_nothing(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        with blobs.writer() as writer:
            writer.write(b"given up")
        assert not list(blobs.digests())
        with contextlib.suppress(ZeroDivisionError), blobs.writer() as writer:
            writer.write(bytes(1 // 0))
        assert not list(blobs.digests())
        assert blobs.sweep(EVERYTHING) == 0

    def test_what_a_dead_writer_left_is_invisible_and_swept_when_old(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        kept = blobs.put(b"kept")
        abandoned = blobs.writer()
        abandoned.__enter__().write(b"never finished")
        assert list(blobs.digests()) == [kept.digest]
        assert blobs.sweep(older_than_s=3600) == 0
        blobs.sweep(EVERYTHING)
        assert blobs.sweep(EVERYTHING) == 0
        assert blobs.read(kept.digest) == b"kept"

    def test_every_digest_is_listed_once(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        put = {blobs.put(str(number).encode()).digest for number in range(self.many)}
        listed = list(blobs.digests())
        assert len(listed) == len(put)
        assert set(listed) == put

    def test_a_flipped_bit_and_a_lost_byte_are_found(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        data = bytes(range(256)) * 8
        for damaged in (data[:1000] + bytes([data[1000] ^ 1]) + data[1001:], data[:-1], data + b"\0"):
            digest = blobs.put(data).digest
            self.damage(blobs, digest, damaged)
            with pytest.raises(Broken) as caught:
                blobs.verify(digest)
            assert caught.value.code == "store.corrupt-blob"
            assert digest in caught.value.message

    def test_a_local_file_is_compared_with_its_digest_when_that_is_asked_for(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        digest = blobs.put(b"as it was written").digest
        assert blobs.path(digest, verify=True).read_bytes() == b"as it was written"
        self.damage(blobs, digest, b"as it was changed")
        blobs.path(digest).write_bytes(b"and so was a copy")
        with pytest.raises(Broken) as caught:
            blobs.path(digest, verify=True)
        assert caught.value.code == "store.corrupt-blob"

    def test_storing_the_same_bytes_again_makes_them_new(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        digest = blobs.put(b"same").digest
        first = blobs.modified(digest)
        for again in (blobs.put, lambda data: _write(blobs, data)):
            self.age(blobs, digest, 7200.0)
            assert round(first - blobs.modified(digest), -2) == 7200.0  # noqa: PLR2004
            assert again(b"same").digest == digest
            assert blobs.modified(digest) >= first

    def test_what_is_removed_is_missing_until_it_is_stored_again(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        kept, removed = blobs.put(b"kept"), blobs.put(b"removed")
        with blobs.path(removed.digest).open("rb") as file:
            blobs.remove(removed.digest)
            blobs.remove(removed.digest)
            blobs.remove(NOWHERE)
            assert file.read() == b"removed"
        for use in (blobs.read, blobs.path, blobs.size, blobs.modified, blobs.verify):
            with pytest.raises(Missing):
                use(removed.digest)
        assert list(blobs.digests()) == [kept.digest]
        assert blobs.put(b"removed") == removed
        assert blobs.read(removed.digest) == b"removed"

    def test_threads_that_put_the_same_bytes_store_them_once(self, tmp_path: Path) -> None:
        blobs = self.make(tmp_path)
        contents = [bytes([number]) * 10_000 for number in range(20)] * 8
        with ThreadPoolExecutor(8) as pool:
            put = list(pool.map(blobs.put, contents))
        assert len(set(put)) == len(list(blobs.digests())) == len(set(contents))
        for blob in set(put):
            blobs.verify(blob.digest)
        assert blobs.sweep(EVERYTHING) == 0


def _write(blobs: Blobs, data: bytes) -> Blob:
    with blobs.writer() as writer:
        writer.write(data)
        return writer.finish()
