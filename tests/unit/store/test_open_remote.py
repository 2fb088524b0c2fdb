"""Which store the settings name, and what is said when they do not name one rightly."""

import json
import subprocess
import sys

import pytest
import yaml

from relens import config, wiring
from relens.config import BlobStore
from relens.errors import BadInput, Broken
from relens.store import LocalBlobs
from relens.store.remote import RemoteBlobs, open_remote

NOT_LOADED = """
import sys
import relens.wiring, relens.cli
print([name for name in ("fsspec", "s3fs", "botocore", "webdav4") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("blobs", "kind"),
    [("", LocalBlobs), ("elsewhere", LocalBlobs), ("memory://a", RemoteBlobs), ("s3://bucket", RemoteBlobs)],
)
def test_a_url_names_a_remote_store_and_anything_else_a_folder(tmp_path, blobs, kind):
    assert isinstance(wiring.open_blobs(config.Home(tmp_path), config.Settings(blobs=blobs)), kind)


def test_a_store_that_is_down_does_not_keep_a_home_from_being_opened(tmp_path):
    given = {"blobs": "s3://bucket/a", "blob_store": {"endpoint": "127.0.0.1:1", "operation_timeout_s": 0.5}}
    (tmp_path / "relens.yaml").write_text(yaml.safe_dump(given))
    wiring.open_parts(tmp_path).catalog.close()


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("s3://", {}, "names no bucket"),
        ("webdav://", {}, "names no host"),
        ("https://host/dav", {}, "webdavs://"),
        ("nonsense://host", {}, "nonsense"),
        ("webdavs://me:secret@host/dav", {}, "blob_store.key"),
        ("s3://bucket", {"key": "alone"}, "go together"),
    ],
)
def test_what_names_no_store_is_bad_input_that_says_what_to_write(tmp_path, url, options, said):
    with pytest.raises(BadInput) as caught:
        open_remote(url, BlobStore(**options), tmp_path)
    assert caught.value.code == "config.bad-value"
    assert said in str(caught.value)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("s3://b", "s3fs", "relens[s3]"),
        ("webdavs://h/p", "webdav4.fsspec", "relens[webdav]"),
        ("gs://b", "gcsfs", "gs"),
    ],
)
def test_a_driver_that_is_not_installed_is_named_with_the_command_that_installs_it(
    tmp_path, monkeypatch, url, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Broken) as caught:
        open_remote(url, BlobStore(), tmp_path)
    assert caught.value.code == "store.no-driver"
    assert "pip install" in caught.value.hint
    assert extra in caught.value.hint


def test_drivers_are_not_loaded_by_those_who_keep_blobs_in_a_folder():
    done = subprocess.run([sys.executable, "-c", NOT_LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_secret_is_read_from_the_environment_and_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("RELENS__BLOB_STORE__SECRET", "correct horse")
    (tmp_path / "relens.yaml").write_text("blob_store:\n  key: relens\n")
    settings = config.load(config.Home(tmp_path))
    assert (settings.blob_store.key, settings.blob_store.secret.get_secret_value()) == ("relens", "correct horse")
    shown = settings.model_dump()
    for text in (json.dumps(shown), yaml.safe_dump(shown), repr(settings), str(settings.blob_store)):
        assert "horse" not in text
    assert shown["blob_store"]["secret"] == "**********"
    assert BlobStore().model_dump()["secret"] == ""
