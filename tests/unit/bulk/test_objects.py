"""Objects of S3: what a store answers of one object is its fault; what it says of us, or nothing, is not."""

import pytest

from relens.bulk.objects import Objects
from relens.config import Fetch
from relens.errors import BadInput, Broken


class Store:
    """Stands for fsspec's file system: fails with this, or holds these bytes."""

    def __init__(self, held):
        self._held = held

    def cat_file(self, path, start, end):
        if isinstance(self._held, Exception):
            raise self._held
        assert path == "bucket/a key#1?.jpg"
        return self._held[start:end]


def objects(held):
    found = Objects(Fetch())
    found._opened = Store(held)
    return found


def read(held, **options):
    return objects(held).read("s3://bucket/a key#1?.jpg", **{"max_bytes": 100} | options)


def answered(error, code, status):
    """An error as s3fs raises it, with what the store answered."""
    error.__cause__ = Exception()
    error.__cause__.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return error


def foreign(module, name, base=Exception):
    return type(name, (base,), {"__module__": module})("it failed")


def test_an_object_or_a_range_of_it_comes_as_it_is():
    assert read(b"0123456789") == b"0123456789"
    assert read(b"0123456789", offset=2, length=3) == b"234"
    assert read(b"0123456789", offset=8, length=30) == b"89"


def test_an_empty_object_is_empty():
    assert read(answered(OSError(22, "range"), "InvalidRange", 416)) == b""


def test_no_more_than_the_limit_is_read():
    assert read(b"x" * 100) == b"x" * 100
    with pytest.raises(BadInput) as caught:
        read(b"x" * 10_000)
    assert caught.value.code == "vision.too-large"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("no such key"),
        answered(FileNotFoundError("no such bucket"), "NoSuchBucket", 404),
        PermissionError("forbidden"),
        answered(PermissionError("denied"), "AccessDenied", 403),
        answered(OSError("archived"), "InvalidObjectState", 403),
        foreign("botocore.exceptions", "ParamValidationError"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"),
    ],
    ids=repr,
)
def test_what_the_store_says_of_an_object_is_the_object_s_fault(error):
    with pytest.raises(BadInput):
        read(error)


@pytest.mark.parametrize(
    "error",
    [
        answered(PermissionError("who?"), "InvalidAccessKeyId", 403),
        answered(PermissionError("who?"), "SignatureDoesNotMatch", 403),
        answered(PermissionError("who?"), "ExpiredToken", 400),
        answered(OSError("trouble"), "InternalError", 500),
        answered(OSError("slow down"), "SlowDown", 503),
        foreign("botocore.exceptions", "NoCredentialsError"),
        foreign("botocore.exceptions", "EndpointConnectionError"),
        foreign("aiohttp.client_exceptions", "ClientOSError", OSError),
        TimeoutError("no answer"),
        OSError(28, "no space"),
    ],
    ids=repr,
)
def test_what_says_nothing_of_the_object_is_not_its_fault(error):
    with pytest.raises(Broken) as caught:
        read(error)
    assert caught.value.code == "fetch.s3-unavailable"


def test_an_error_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        read(ZeroDivisionError())


@pytest.mark.parametrize("uri", ["s3://", "s3:///key"])
def test_a_uri_without_a_bucket_is_refused(uri):
    with pytest.raises(BadInput) as caught:
        objects(b"").read(uri, max_bytes=1)
    assert caught.value.code == "fetch.bad-url"
