"""Quantizers: learnt from a sample, the same again from the same, and refused when they are not as they were."""

import gc

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.errors import BadInput, Broken, Missing
from relens.vectors import QuantizerManifest, choose_nlist, open_quantizer, quantizers, train_quantizer


def train(blobs, sample, **changed):
    return train_quantizer(blobs, sample, **{"gallery": 1, "space": "s1", "nlist": 16, "seed": 1} | changed)


@given(st.integers(0, 10**10))
def test_the_number_of_lists_is_a_power_of_two_that_the_rows_can_teach(count):
    nlist = choose_nlist(count)
    assert nlist & (nlist - 1) == 0
    assert nlist == 1 or nlist * 39 <= count
    assert nlist <= 6 * max(count, 1) ** 0.5


def test_larger_galleries_have_more_lists():
    assert [choose_nlist(count) for count in (0, 100, 10_000, 100_000, 1_000_000)] == [1, 2, 256, 1024, 4096]


def test_the_same_sample_makes_the_same_quantizer_and_another_seed_another(blobs, clustered):
    sample = clustered(500, 12)
    assert train(blobs, sample).digest == train(blobs, sample.copy()).digest
    assert train(blobs, sample).digest != train(blobs, sample, seed=2).digest
    assert train(blobs, sample).digest != train(blobs, sample, gallery=2).digest


def test_centroids_are_of_unit_length_and_nearer_to_their_rows_than_chance(blobs, clustered):
    sample = clustered(2000, 12)
    trained = train(blobs, sample)
    assert np.allclose(np.linalg.norm(trained.centroids, axis=1), 1, atol=1e-5)
    near = (sample @ trained.centroids.T).max(axis=1).mean()
    assert near > (sample @ sample[:16].T).max(axis=1).mean() + 0.05


def test_it_learns_about_as_well_as_faiss(blobs, clustered):
    sample = clustered(2000, 12, centres=40)
    theirs = faiss.Kmeans(12, 16, niter=10, spherical=True, seed=1)
    theirs.train(sample)
    ours = train(blobs, sample).centroids
    assert (sample @ ours.T).max(axis=1).mean() > (sample @ theirs.centroids.T).max(axis=1).mean() - 0.02


def test_rows_are_assigned_and_encoded_as_faiss_does(quantizer, clustered):
    rows = clustered(300, 12, seed=3)
    numbers = quantizer.assign(rows)
    assert np.array_equal(numbers, quantizer.empty.quantizer.search(rows, 1)[1][:, 0])
    index = faiss.clone_index(quantizer.empty)
    index.add(rows)
    for number in range(16):
        size = index.invlists.list_size(number)
        codes = faiss.rev_swig_ptr(index.invlists.get_codes(number), size * 12).reshape(size, 12)
        assert np.array_equal(quantizer.encode(rows[numbers == number], numbers[numbers == number]), codes)


def test_ranges_are_those_that_faiss_learns_from_every_row(blobs, clustered):
    sample = clustered(500, 12)
    trained = train(blobs, sample)
    rest = sample - trained.centroids[trained.assign(sample)]
    theirs = faiss.ScalarQuantizer(12, faiss.ScalarQuantizer.QT_8bit)
    theirs.train(rest)
    ours = faiss.vector_to_array(trained.empty.sq.trained)
    assert np.allclose(ours, faiss.vector_to_array(theirs.trained), atol=1e-7)


def test_faiss_reads_the_data(blobs, quantizer):
    read = faiss.read_index(str(blobs.path(quantizer.manifest.data)))
    assert (read.d, read.nlist, read.ntotal, read.metric_type) == (12, 16, 0, faiss.METRIC_INNER_PRODUCT)


def test_as_many_lists_as_rows_and_rows_that_are_all_alike_can_be_learnt(blobs, clustered):
    sample = clustered(16, 12)
    assert sorted(train(blobs, sample).assign(sample)) == list(range(16))
    alike = train(blobs, np.repeat(sample[:1], 50, axis=0))
    assert np.isfinite(alike.centroids).all()


def test_opposite_rows_leave_no_centroid_without_direction(blobs):
    sample = np.tile(np.array([[1, 0], [-1, 0]], np.float32), (20, 1))
    assert np.allclose(np.linalg.norm(train(blobs, sample, nlist=1).centroids, axis=1), 1)


@pytest.mark.parametrize(
    "sample",
    [
        np.ones((15, 4), np.float32),
        np.ones((20, 4)),
        np.ones(20, np.float32),
        np.full((20, 4), np.nan, np.float32),
        np.full((20, 4), np.inf, np.float32),
    ],
)
def test_a_sample_that_teaches_nothing_is_refused(blobs, sample):
    with pytest.raises(BadInput) as caught:
        train(blobs, sample)
    assert caught.value.code == "vectors.bad-sample"
    assert not list(blobs.digests())


def test_one_that_is_open_is_shared_and_one_that_nobody_holds_is_read_again(blobs, quantizer):
    assert open_quantizer(blobs, quantizer.digest) is quantizer
    digest = train(blobs, np.eye(16, 12, dtype=np.float32) + 0.1).digest
    gc.collect()
    assert digest not in quantizers._open


def test_centroids_outlive_their_quantizer_and_cannot_be_written_to(blobs, clustered):
    sample = clustered(100, 12)
    kept = train(blobs, sample).centroids
    gc.collect()
    assert np.array_equal(kept, train(blobs, sample).centroids)
    with pytest.raises(ValueError):
        kept[0, 0] = 1


def test_a_manifest_round_trips(quantizer):
    assert QuantizerManifest.from_bytes(quantizer.manifest.to_bytes()) == quantizer.manifest
    assert quantizer.manifest.trained_on == 800


def closed(blobs, clustered):
    manifest = train(blobs, clustered(100, 3)).manifest
    gc.collect()
    assert manifest.digest not in quantizers._open
    return manifest


@pytest.mark.parametrize("which", ["data", "digest"])
def test_every_flipped_or_lost_byte_is_found(blobs, clustered, which):
    manifest = closed(blobs, clustered)
    path = blobs.path(getattr(manifest, which))
    data = path.read_bytes()
    for at in range(len(data)):
        for damaged in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at]):
            path.write_bytes(damaged)
            with pytest.raises(Broken) as caught:
                open_quantizer(blobs, manifest.digest)
            assert caught.value.code == "vectors.corrupt-quantizer"
            assert manifest.digest in caught.value.message


def test_one_without_data_is_broken_and_one_without_manifest_missing(blobs, clustered):
    manifest = closed(blobs, clustered)
    blobs.path(manifest.data).unlink()
    with pytest.raises(Broken):
        open_quantizer(blobs, manifest.digest)
    with pytest.raises(Missing):
        open_quantizer(blobs, "0" * 64)
