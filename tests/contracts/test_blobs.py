"""Every store of blobs against the contract; and the local one against a real death."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relens.config import BlobStore
from relens.store import LocalBlobs, endpoints
from relens.store.remote import open_remote
from relens.testing.blobs import EVERYTHING, BlobsContract

DYING = """
import os, pathlib, signal, sys
from relens.store import LocalBlobs

with LocalBlobs(pathlib.Path(sys.argv[1])).writer() as writer:
    writer.write(b"x" * 5_000_000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


class TestLocalBlobs(BlobsContract):
    def make(self, tmp_path):
        return LocalBlobs(tmp_path / "blobs")

    def test_a_process_killed_before_finish_leaves_one_temporary_file_and_no_blob(self, tmp_path):
        blobs = self.make(tmp_path)
        child = subprocess.run([sys.executable, "-c", DYING, str(tmp_path / "blobs")], check=False)
        assert child.returncode == -signal.SIGKILL
        assert not list(blobs.digests())
        assert blobs.sweep(EVERYTHING) == 1

    def test_listing_ignores_temporary_files_and_folders_of_others(self, tmp_path):
        blobs = self.make(tmp_path)
        digest = blobs.put(b"x").digest
        (tmp_path / "blobs" / "lost+found").mkdir()
        with blobs.writer() as writer:
            writer.write(b"y")
            assert list(blobs.digests()) == [digest]


def name_of(digest):
    return f"{digest[:2]}/{digest}"


class TestS3Blobs(BlobsContract):
    many = 40

    @pytest.fixture(autouse=True)
    def _empty_folder(self, s3):
        self.server, self.url = s3, s3.url()

    def make(self, tmp_path):
        return open_remote(self.url, self.server.options, tmp_path / "cache")

    def damage(self, _blobs, digest, data):
        self.server.write(self.url, name_of(digest), data)

    def age(self, _blobs, digest, by_s):
        self.server.age(self.url, name_of(digest), by_s)


class FilesContract(BlobsContract):
    """Remote blobs whose files we can reach."""

    folder: Path

    def damage(self, _blobs, digest, data):
        (self.folder / name_of(digest)).write_bytes(data)

    def age(self, _blobs, digest, by_s):
        path = self.folder / name_of(digest)
        os.utime(path, times=(path.stat().st_atime, path.stat().st_mtime - by_s))


class TestWebdavBlobs(FilesContract):
    many = 40

    @pytest.fixture(autouse=True)
    def _empty_folder(self, webdav, monkeypatch):
        monkeypatch.setattr(endpoints, "LOOK_AGAIN_S", 0.01)
        self.server, self.url = webdav, webdav.url()
        self.folder = webdav.folder(self.url)

    def make(self, tmp_path):
        return open_remote(self.url, self.server.options, tmp_path / "cache")


class TestAnyFileSystem(FilesContract):
    """What fsspec knows and we do not: here a folder, as one that it reaches."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path / "there"

    def make(self, tmp_path):
        return open_remote(f"file://{self.folder}", BlobStore(), tmp_path / "cache")
