"""Sources by their names, and what a relative URI means beside each."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.bulk.listings import entry_of, join_uri
from relens.bulk.sources import find_source
from relens.errors import BadInput, Missing

FAR = [
    "s3://bucket/in",
    "s3://bucket",
    "s3://bucket/list.csv",
    "https://shop.test/list.jsonl?a=b",
    "http://a.test/l.CSV",
]


@pytest.mark.parametrize("uri", FAR)
def test_a_source_that_lies_elsewhere_keeps_its_name_also_as_a_path(uri):
    assert find_source(uri).path == find_source(Path(uri)).path == uri
    assert os.fsencode(find_source(uri).root)


def test_a_folder_is_the_same_with_a_slash_at_its_end():
    assert find_source("s3://bucket/in/").path == find_source("s3://bucket/in").path


def test_the_scheme_of_a_source_may_be_written_in_capitals():
    assert find_source("S3://Bucket/In").path == "s3://Bucket/In"


@pytest.mark.parametrize("uri", ["https://shop.test/", "https://shop.test/a.jpg", "http://a.test/shop.tar"])
def test_a_url_that_is_no_listing_is_refused(uri):
    with pytest.raises(BadInput) as caught:
        find_source(uri)
    assert caught.value.code == "bulk.bad-source"


@pytest.mark.parametrize("name", ["a.txt", "a", "a.tar.gz", "a.tgz"])
def test_a_file_that_is_no_source_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadInput) as caught:
        find_source(tmp_path / name)
    assert caught.value.code == "bulk.bad-source"


def test_a_source_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(Missing):
        find_source(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("base", "relative", "expected"),
    [
        ("s3://b/in/list.csv", "a.jpg", "s3://b/in/a.jpg"),
        ("s3://b/in/list.csv", "../a b#1?.jpg", "s3://b/a b#1?.jpg"),
        ("s3://b/in/list.csv", "/a.jpg", "s3://b/a.jpg"),
        ("s3://b/list.csv", "../../a.jpg", "s3://b/a.jpg"),
        ("https://a.test/in/list.csv?x=1", "a.jpg", "https://a.test/in/a.jpg"),
        ("https://a.test/in/list.csv", "/a.jpg?y=2", "https://a.test/a.jpg?y=2"),
        ("https://a.test/in/list.csv", "//b.test/a.jpg", "https://b.test/a.jpg"),
    ],
)
def test_a_relative_uri_starts_from_its_listing(base, relative, expected):
    assert join_uri(base, relative) == expected
    assert entry_of(1, {"uri": relative}, base).uri == expected


@given(st.text(min_size=1).filter(lambda text: "://" not in text))
def test_a_relative_key_never_leaves_its_bucket(relative):
    assert join_uri("s3://bucket/in/list.csv", relative).startswith("s3://bucket/")


@pytest.mark.parametrize("uri", ["file:///etc/hostname", "FILE:///etc/hostname", "tar:///a.tar#offset=512&length=1"])
def test_a_listing_that_lies_elsewhere_names_no_file_here(uri):
    assert "this machine" in entry_of(1, {"uri": uri}, "https://a.test/list.csv").problem
    assert entry_of(1, {"uri": uri}, Path("/data")).problem is None


@given(st.text(), st.sampled_from(["https://a.test/list.csv", "s3://bucket/list.csv"]))
def test_any_uri_in_a_listing_is_an_entry(uri, base):
    entry_of(1, {"uri": uri}, base).to_line().decode()
