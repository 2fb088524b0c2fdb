"""Segments: built from a stream, named by what is in them, and refused when they are not as they were built."""

import json
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens.errors import BadInput, Broken, Missing
from relens.vectors import Manifest, open_segment

ODD_SHAPES = [(0, 1), (0, 64), (1, 1), (3, 3), (7, 5), (16, 16), (100, 128)]


@pytest.mark.parametrize(("count", "dim"), ODD_SHAPES)
def test_what_is_built_is_what_is_opened(blobs, build, unit_rows, count, dim):
    ids, vectors = np.arange(count) * 5 - 3, unit_rows(count, dim)
    manifest = build(ids, vectors)
    for verify in (True, False):
        segment = open_segment(blobs, manifest.digest, verify=verify)
        assert segment.manifest == manifest
        assert segment.digest == manifest.digest
        assert np.array_equal(segment.ids, ids)
        assert np.array_equal(segment.vectors, vectors)
        assert segment.vectors.ctypes.data % 64 == 0
        assert segment.ids.flags.aligned


def test_an_open_segment_cannot_be_written_to(blobs, build, unit_rows):
    segment = open_segment(blobs, build(np.arange(4), unit_rows(4, 4)).digest, verify=False)
    with pytest.raises(ValueError):
        segment.vectors[0, 0] = 1
    with pytest.raises(ValueError):
        segment.ids[0] = 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(0, 20), max_size=6))
def test_the_same_rows_are_the_same_segment_however_they_are_cut(blobs, build, unit_rows, cuts):
    ids, vectors = np.arange(20), unit_rows(20, 6)
    edges = [0, *sorted(cuts), 20]
    parts = [(ids[a:b], np.asfortranarray(vectors[a:b])) for a, b in pairwise(edges)]
    assert build(ids, vectors, parts=iter(parts)) == build(ids, vectors)


def test_a_manifest_round_trips_and_is_named_by_its_canonical_json(blobs, build, unit_rows):
    manifest = build(np.arange(3), unit_rows(3, 4), category="süß", as_of=2**40)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    stored = blobs.read(manifest.digest)
    assert stored == manifest.to_bytes()
    assert json.loads(stored)["category"] == "süß"
    assert replace(manifest, as_of=1).digest != manifest.digest


def test_segments_built_by_earlier_versions_are_what_this_one_builds(build):
    manifest = build(np.arange(3), np.eye(3, dtype=np.float32))
    assert manifest.data[:12] == "168cdf97bfd7"
    assert manifest.digest[:12] == "0fb38a9d12fb"


def test_any_reader_of_safetensors_reads_the_data(blobs, build, unit_rows):
    ids, vectors = np.arange(3) + 2**40, unit_rows(3, 5)
    loaded = safetensors.numpy.load_file(blobs.path(build(ids, vectors).data))
    assert np.array_equal(loaded["ids"], ids)
    assert np.array_equal(loaded["vectors"], vectors)


def test_parts_may_reuse_their_memory(blobs, build, unit_rows):
    vectors = unit_rows(6, 4)

    def parts():
        ids, rows = np.empty(2, np.int64), np.empty((2, 4), np.float32)
        for start in range(0, 6, 2):
            ids[:], rows[:] = (start, start + 1), vectors[start : start + 2]
            yield ids, rows

    segment = open_segment(blobs, build(np.arange(6), vectors, parts=parts()).digest, verify=True)
    assert np.array_equal(segment.ids, np.arange(6))
    assert np.array_equal(segment.vectors, vectors)


def test_building_holds_one_part_at_a_time(build):
    def parts():
        for number in range(40):
            rows = np.zeros((1000, 256), np.float32)
            rows[:, number] = 1
            yield np.arange(1000) + number * 1000, rows

    tracemalloc.start()
    build(np.arange(40_000), np.empty((0, 256)), parts=parts())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000  # all parts together are 41 MB


@pytest.mark.parametrize("ids", [[1, 3, 2], [1, 1, 2], [5, 4, 3]])
def test_ids_that_do_not_increase_are_refused_and_nothing_is_stored(blobs, build, unit_rows, ids):
    with pytest.raises(BadInput) as caught:
        build(np.array(ids), unit_rows(3, 4))
    assert caught.value.code == "vectors.unordered-ids"
    assert not list(blobs.digests())


def test_ids_must_increase_across_parts_too(build, unit_rows):
    rows = unit_rows(4, 4)
    with pytest.raises(BadInput) as caught:
        build(np.arange(4), rows, parts=[(np.array([2, 3]), rows[:2]), (np.array([3, 4]), rows[2:])])
    assert caught.value.code == "vectors.unordered-ids"


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_rows_than_announced_is_refused(blobs, build, unit_rows, count):
    with pytest.raises(BadInput) as caught:
        build(np.arange(3), unit_rows(3, 4), count=count)
    assert caught.value.code == "vectors.wrong-count"
    assert not list(blobs.digests())


@pytest.mark.parametrize(
    ("ids", "vectors"),
    [
        (np.arange(2), np.ones((3, 4), np.float32)),
        (np.arange(2), np.ones((2, 5), np.float32)),
        (np.arange(2), np.ones((2, 4))),
        (np.arange(2, dtype=np.int32), np.ones((2, 4), np.float32)),
        (np.zeros((2, 1), np.int64), np.ones((2, 4), np.float32)),
    ],
)
def test_parts_of_another_shape_or_type_are_refused(build, ids, vectors):
    with pytest.raises(BadInput) as caught:
        build(ids, vectors, dim=4)
    assert caught.value.code == "vectors.wrong-shape"


def test_a_stream_that_fails_stores_nothing(blobs, build, unit_rows):
    def parts():
        yield np.arange(2), unit_rows(2, 4)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build(np.arange(4), unit_rows(4, 4), parts=parts())
    assert not list(blobs.digests())


def refusal(blobs, digest, *, verify):
    with pytest.raises(Broken) as caught:
        open_segment(blobs, digest, verify=verify)
    assert caught.value.code == "vectors.corrupt-segment"
    assert digest in caught.value.message
    return caught.value


def test_every_flipped_byte_of_the_data_is_found_when_verified(blobs, build, unit_rows):
    manifest = build(np.arange(3), unit_rows(3, 4))
    path = blobs.path(manifest.data)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        refusal(blobs, manifest.digest, verify=True)


@pytest.mark.parametrize("verify", [True, False])
def test_a_file_that_is_too_short_or_too_long_is_always_found(blobs, build, unit_rows, verify):
    manifest = build(np.arange(3), unit_rows(3, 4))
    path = blobs.path(manifest.data)
    data = path.read_bytes()
    for damaged in (data[:-1], data[:100], b"", data + b"\0", data * 2):
        path.write_bytes(damaged)
        refusal(blobs, manifest.digest, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
def test_every_flipped_byte_of_the_manifest_is_always_found(blobs, build, unit_rows, verify):
    manifest = build(np.arange(3), unit_rows(3, 4))
    path = blobs.path(manifest.digest)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        refusal(blobs, manifest.digest, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
def test_data_of_another_segment_under_this_manifest_are_found(blobs, build, unit_rows, verify):
    one, other = build(np.arange(3), unit_rows(3, 4)), build(np.arange(3), unit_rows(3, 4), space="s2")
    swapped = replace(one, data=other.data, data_bytes=other.data_bytes)
    blobs.put(swapped.to_bytes())
    refusal(blobs, swapped.digest, verify=verify)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"7", b'{"gallery": 1}', b'{"space": "s", "more": 1}'])
def test_a_blob_that_is_no_manifest_is_refused(blobs, data):
    refusal(blobs, blobs.put(data).digest, verify=False)


def test_a_segment_without_its_data_is_broken_and_one_without_manifest_missing(blobs, build, unit_rows):
    manifest = build(np.arange(3), unit_rows(3, 4))
    blobs.path(manifest.data).unlink()
    refusal(blobs, manifest.digest, verify=False)
    with pytest.raises(Missing):
        open_segment(blobs, "0" * 64, verify=False)
