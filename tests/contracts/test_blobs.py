"""Every store of blobs against the contract; and the local one against a real death."""

import signal
import subprocess
import sys

from relens.store import LocalBlobs
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
