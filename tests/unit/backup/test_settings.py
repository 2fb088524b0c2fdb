"""Settings in a backup: as they are, without what is secret."""

from __future__ import annotations

import pytest
import yaml

from relens import config
from relens.backup.making import without_secrets


@pytest.mark.parametrize(
    "text",
    [
        config.template(),
        "server:\n  port: 9000  # mine\ncatalog: postgresql://user@host/db\nblob_store:\n  secret: ''\n",
        "",
        "# nothing\n",
    ],
)
def test_what_holds_no_secret_stays_byte_for_byte(text):
    assert without_secrets(text.encode()) == (text.encode(), [])


def test_secrets_and_passwords_are_left_out_and_named():
    given = {
        "catalog": "postgresql://user:s3cret@host/db",
        "blobs": "s3://bucket/prefix",
        "blob_store": {"endpoint": "host:9000", "key": "s3cret", "secret": "s3cret", "region": "r"},
        "server": {"port": 9000},
        "hooks": ["https://me:s3cret@host/path"],
    }
    kept, left_out = without_secrets(yaml.safe_dump(given).encode())
    assert b"s3cret" not in kept
    assert sorted(left_out) == [
        "blob_store.key",
        "blob_store.secret",
        "password of catalog",
        "password of hooks",
    ]
    assert yaml.safe_load(kept) == {
        "catalog": "postgresql://user@host/db",
        "blobs": "s3://bucket/prefix",
        "blob_store": {"endpoint": "host:9000", "region": "r"},
        "server": {"port": 9000},
        "hooks": ["https://me@host/path"],
    }
    assert b"blob_store.secret" in kept.splitlines()[0]
