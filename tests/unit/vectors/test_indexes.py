"""Indexes: written as faiss reads them, named by what is in them, and refused when they are not as they were."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens.errors import BadInput, Broken, Conflict, Missing
from relens.vectors import IndexManifest, build_index, lists, open_index, train_quantizer
from relens.vectors.lists import imbalance

SHARED = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


def spelled_by_faiss(index):
    writer = faiss.VectorIOWriter()
    faiss.write_InvertedLists(index.invlists, writer)
    return faiss.vector_to_array(writer.data).tobytes()


@settings(max_examples=40, **SHARED)
@given(count=st.integers(0, 300), seed=st.integers(0, 9))
def test_the_data_are_byte_for_byte_what_faiss_would_write(  # noqa: PLR0917
    blobs, opened, clustered, quantizer, count, seed
):
    ids, rows = np.arange(count) * 3, clustered(count, 12, seed=seed)
    manifest = build_index(blobs, quantizer, [opened(ids, rows)])
    theirs = faiss.clone_index(quantizer.empty)
    theirs.add_with_ids(rows, ids)
    data, expected = blobs.read(manifest.data), spelled_by_faiss(theirs)
    if b"full" in expected[:40]:  # with many empty lists faiss writes their table in another way
        assert data == expected
    assert data.endswith(expected[-count * 20 :] if count else b"")
    assert manifest.count == count
    assert manifest.imbalance == pytest.approx(theirs.invlists.imbalance_factor() if count else 1, abs=1e-3)


def test_faiss_alone_can_read_and_search_it(blobs, opened, clustered, quantizer, indexed):
    rows = clustered(500, 12, seed=3)
    index = indexed(opened(np.arange(500), rows))
    read = faiss.read_index(str(blobs.path(quantizer.manifest.data)))
    reader = faiss.FileIOReader(str(blobs.path(index.manifest.data)))
    read.replace_invlists(faiss.read_InvertedLists(reader), True)
    read.nprobe = 16
    assert np.array_equal(read.search(rows[:20], 1)[1][:, 0], np.arange(20))


def test_a_manifest_says_what_the_index_is_and_round_trips(opened, clustered, quantizer, indexed):
    segments = [opened(np.arange(300) + 300 * day, clustered(300, 12, seed=day), day=f"{day}") for day in (1, 2)]
    index = indexed(*segments)
    assert IndexManifest.from_bytes(index.manifest.to_bytes()) == index.manifest
    assert index.manifest.covers == tuple(sorted(segment.digest for segment in segments))
    assert index.manifest.quantizer == quantizer.digest
    assert (index.manifest.gallery, index.manifest.category, index.manifest.space) == (1, "all", "s1")
    assert (index.manifest.dim, index.manifest.count) == (12, 600)


def test_what_a_search_needs_is_measured(opened, clustered, indexed):
    index = indexed(opened(np.arange(3000), clustered(3000, 12, seed=3)))
    assert index.manifest.recall >= 0.95
    assert 1 <= index.manifest.nprobe < 16
    assert list(index.manifest.probes) == sorted(index.manifest.probes)
    assert list(index.manifest.reach) == sorted(index.manifest.reach)


def test_deeper_searches_read_more_lists_but_never_more_than_there_are(opened, clustered, indexed):
    index = indexed(opened(np.arange(3000), clustered(3000, 12, seed=3)))
    read = [index.lists_at_most(depth) for depth in (0.1, 10, 30, 100, 500, 1000, 10**5, 10**9)]
    assert read == sorted(read)
    assert read[0] == read[1] == index.manifest.probes[0]
    assert read[3] == index.manifest.probes[1]
    assert read[5] == index.manifest.probes[2]
    assert read[-1] == 16


@settings(max_examples=40, **SHARED)
@given(cuts=st.lists(st.integers(0, 200), max_size=4), shuffled=st.booleans(), seed=st.integers(0, 9))
def test_the_same_rows_are_the_same_data_however_they_are_cut(  # noqa: PLR0917
    blobs, opened, clustered, quantizer, cuts, shuffled, seed
):
    rows, ids = clustered(200, 12, seed=seed), np.arange(200)
    owner = np.searchsorted(np.sort(cuts), ids, "right")
    if shuffled:
        np.random.default_rng(seed).shuffle(owner)
    segments = [opened(ids[owner == one], rows[owner == one], day=str(one)) for one in np.unique(owner)]
    whole = build_index(blobs, quantizer, [opened(ids, rows)])
    assert build_index(blobs, quantizer, segments).data == whole.data


@pytest.mark.parametrize("buffer_bytes", [1, 100, 4096])
def test_the_data_do_not_depend_on_how_much_is_written_at_a_time(blobs, opened, clustered, quantizer, buffer_bytes):
    segment = opened(np.arange(300), clustered(300, 12))
    whole = build_index(blobs, quantizer, [segment])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "BUFFER_BYTES", buffer_bytes)
        assert build_index(blobs, quantizer, [segment]) == whole


def test_the_dead_are_left_out(blobs, opened, clustered, quantizer, indexed):
    rows = clustered(200, 12)
    segment = opened(np.arange(200), rows)
    index = indexed(segment, dead={segment.digest: np.array([199, 3, 3, 1000])})
    assert sorted(index.lists.ids()) == [one for one in range(200) if one not in (3, 199)]
    lived = np.delete(np.arange(200), [3, 199])
    assert index.manifest.data == build_index(blobs, quantizer, [opened(lived, rows[lived])]).data


def test_an_index_of_nobody_is_one_too(opened, clustered, indexed):
    segment = opened(np.arange(5), clustered(5, 12))
    index = indexed(segment, dead={segment.digest: np.arange(5)})
    assert (index.manifest.count, index.manifest.recall) == (0, 1.0)
    assert len(index.lists.ids()) == 0


def test_an_id_that_lives_twice_is_refused_and_one_that_is_dead_once_is_not(blobs, opened, clustered, quantizer):
    rows = clustered(4, 12)
    old, new = opened(np.array([1, 2]), rows[:2], day="a"), opened(np.array([2, 3]), rows[2:], day="b")
    with pytest.raises(BadInput) as caught:
        build_index(blobs, quantizer, [old, new])
    assert caught.value.code == "vectors.repeated-id"
    assert "id 2 " in caught.value.message
    assert build_index(blobs, quantizer, [old, new], dead={old.digest: np.array([2])}).count == 3


def test_ids_below_zero_are_refused(blobs, opened, clustered, quantizer):
    with pytest.raises(BadInput) as caught:
        build_index(blobs, quantizer, [opened(np.array([-2, 5]), clustered(2, 12))])
    assert caught.value.code == "vectors.negative-id"


def test_nothing_to_cover_is_refused(blobs, quantizer):
    with pytest.raises(BadInput) as caught:
        build_index(blobs, quantizer, [])
    assert caught.value.code == "vectors.no-segments"


@pytest.mark.parametrize("changed", [{"gallery": 2}, {"category": "shoes"}])
def test_segments_of_two_galleries_or_categories_are_refused(blobs, opened, clustered, quantizer, changed):
    rows = clustered(2, 12)
    segments = [opened(np.array([1]), rows[:1]), opened(np.array([2]), rows[1:], **changed)]
    with pytest.raises(BadInput) as caught:
        build_index(blobs, quantizer, segments)
    assert caught.value.code == "vectors.unlike-segments"


def test_a_quantizer_or_segment_of_another_space_is_refused(blobs, opened, clustered, quantizer):
    rows = clustered(100, 12)
    ours, theirs = opened(np.arange(100), rows), opened(np.arange(100) + 100, rows, space="s2")
    other = train_quantizer(blobs, rows, gallery=1, space="s2", nlist=4, seed=1)
    for segments, by in (([ours], other), ([theirs], quantizer), ([ours, theirs], quantizer)):
        with pytest.raises(Conflict) as caught:
            build_index(blobs, by, segments)
        assert caught.value.code == "vectors.space-mismatch"
        assert "s1" in caught.value.message
        assert "s2" in caught.value.message


def refusal(blobs, digest, *, verify):
    with pytest.raises(Broken) as caught:
        open_index(blobs, digest, verify=verify)
    assert caught.value.code == "vectors.corrupt-index"
    assert digest in caught.value.message


@pytest.fixture
def small(blobs, opened, clustered):
    quantizer = train_quantizer(blobs, clustered(20, 3), gallery=1, space="s1", nlist=2, seed=1)
    return quantizer, build_index(blobs, quantizer, [opened(np.arange(6), clustered(6, 3))])


def test_every_flipped_byte_of_the_data_is_found_when_verified(blobs, small):
    path = blobs.path(small[1].data)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        refusal(blobs, small[1].digest, verify=True)


def test_every_flipped_byte_before_the_rows_is_always_found(blobs, small):
    path = blobs.path(small[1].data)
    data = path.read_bytes()
    for at in range(32 + 2 * 8):
        for bit in (1, 0x80):
            path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
            refusal(blobs, small[1].digest, verify=False)


@pytest.mark.parametrize("verify", [True, False])
def test_a_half_written_or_overlong_file_is_always_found(blobs, small, verify):
    path = blobs.path(small[1].data)
    data = path.read_bytes()
    for damaged in (*(data[:size] for size in range(len(data))), data + b"\0", data * 2):
        path.write_bytes(damaged)
        refusal(blobs, small[1].digest, verify=verify)


def test_every_flipped_byte_of_the_manifest_is_always_found(blobs, small):
    path = blobs.path(small[1].digest)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        refusal(blobs, small[1].digest, verify=False)


def test_data_or_a_quantizer_that_the_manifest_does_not_fit_are_found(blobs, small, opened, clustered, quantizer):
    other = build_index(blobs, quantizer, [opened(np.arange(6), clustered(6, 12))])
    for swapped in (
        replace(small[1], data=other.data, data_bytes=other.data_bytes),
        replace(small[1], quantizer=quantizer.digest),
        replace(small[1], space="s2"),
        replace(small[1], count=5),
        replace(small[1], quantizer="0" * 64),
    ):
        blobs.put(swapped.to_bytes())
        refusal(blobs, swapped.digest, verify=True)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"7", b'{"gallery": 1}', b'{"space": "s", "more": 1}'])
def test_a_blob_that_is_no_manifest_is_refused(blobs, data):
    refusal(blobs, blobs.put(data).digest, verify=False)


def test_an_index_without_its_data_is_broken_and_one_without_manifest_missing(blobs, small):
    blobs.path(small[1].data).unlink()
    refusal(blobs, small[1].digest, verify=False)
    with pytest.raises(Missing):
        open_index(blobs, "0" * 64, verify=False)


def test_lists_of_equal_size_are_balanced():
    assert imbalance(np.full(8, 5)) == 1
    assert imbalance(np.array([40, 0, 0, 0])) == 4
    assert imbalance(np.zeros(4, np.int64)) == 1
