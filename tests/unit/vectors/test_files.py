"""Files of vectors: what is written is read back, in its space only, or refused."""

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens.errors import BadInput, Broken, Conflict, Missing
from relens.vectors import read_vectors, write_vectors


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(count=st.integers(0, 30), dim=st.integers(1, 70), seed=st.integers(0, 99))
def test_vectors_come_back_as_unit_rows_within_half_precision(blobs, unit_rows, count, dim, seed):
    rows = unit_rows(count, dim, seed=seed)
    read = read_vectors(blobs, write_vectors(blobs, rows, space="s1").digest, None, space="s1")
    assert read.dtype == np.float32
    assert read.shape == rows.shape
    assert np.allclose(read, rows, atol=1e-3)
    assert np.allclose(np.linalg.norm(read, axis=1), 1, atol=1e-6)


def test_the_same_vectors_are_the_same_blob_and_another_space_is_another(blobs, unit_rows):
    rows = unit_rows(5, 8)
    one = write_vectors(blobs, rows, space="s1")
    assert write_vectors(blobs, np.asfortranarray(rows), space="s1") == one
    assert write_vectors(blobs, rows, space="s2") != one


def test_files_written_by_earlier_versions_are_what_this_one_writes(blobs):
    assert write_vectors(blobs, np.eye(3, dtype=np.float32), space="s1").digest[:12] == "8586fea03b8a"


def test_rows_are_read_in_the_order_asked_with_repeats(blobs, unit_rows):
    digest = write_vectors(blobs, unit_rows(9, 4), space="s1").digest
    whole = read_vectors(blobs, digest, None, space="s1")
    rows = np.array([8, 0, 3, 3])
    assert np.array_equal(read_vectors(blobs, digest, rows, space="s1"), whole[rows])
    assert read_vectors(blobs, digest, np.empty(0, np.int64), space="s1").shape == (0, 4)


def test_any_reader_of_safetensors_reads_them(blobs, unit_rows):
    blob = write_vectors(blobs, unit_rows(6, 5), space="müller/1")
    path = blobs.path(blob.digest)
    assert safetensors.numpy.load_file(path)["vectors"].shape == (6, 5)
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "relens-vectors-1", "space": "müller/1"}


def test_another_space_is_refused_and_both_are_named(blobs, unit_rows):
    digest = write_vectors(blobs, unit_rows(2, 4), space="held-space").digest
    with pytest.raises(Conflict) as caught:
        read_vectors(blobs, digest, None, space="asked-space")
    assert caught.value.code == "vectors.space-mismatch"
    assert "held-space" in caught.value.message
    assert "asked-space" in caught.value.message


@pytest.mark.parametrize("row", [-1, 3, 2**40])
def test_a_row_that_is_not_there_is_refused(blobs, unit_rows, row):
    digest = write_vectors(blobs, unit_rows(3, 4), space="s1").digest
    with pytest.raises(BadInput) as caught:
        read_vectors(blobs, digest, np.array([0, row]), space="s1")
    assert caught.value.code == "vectors.no-such-row"


@pytest.mark.parametrize("bad", [0, np.nan, np.inf, 2])
def test_a_row_that_is_no_unit_vector_is_refused_with_its_number(blobs, unit_rows, bad):
    rows = unit_rows(5, 4)
    rows[3] = bad
    with pytest.raises(BadInput) as caught:
        write_vectors(blobs, rows, space="s1")
    assert caught.value.code == "vectors.not-unit"
    assert "row 3" in caught.value.message
    assert not list(blobs.digests())


@pytest.mark.parametrize("bad", [np.ones(1, np.float32), np.ones((1, 1)), np.ones((1, 1), np.float16)])
def test_what_is_no_float32_table_is_refused(blobs, bad):
    with pytest.raises(BadInput) as caught:
        write_vectors(blobs, bad, space="s1")
    assert caught.value.code == "vectors.wrong-shape"


def test_every_flipped_byte_and_every_lost_one_is_found(blobs, unit_rows):
    digest = write_vectors(blobs, unit_rows(3, 4), space="s1").digest
    path = blobs.path(digest)
    data = path.read_bytes()
    for at in range(len(data)):
        for damaged in (data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :], data[:at]):
            path.write_bytes(damaged)
            with pytest.raises(Broken) as caught:
                read_vectors(blobs, digest, None, space="s1")
            assert caught.value.code == "vectors.corrupt-file"
            assert digest in caught.value.message


def head(text):
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff\xe0 a picture",
        b"\xff" * 64,
        head(b"[]"),
        head(b"{}"),
        head(b'{"vectors": 1}'),
        head(b'{"vectors": {"shape": [1, 2]}, "__metadata__": {"space": "s1"}}') + bytes(4),
        head(b'{"vectors": {"shape": ["a", 2]}, "__metadata__": {"space": "s1"}}'),
        head(b'{"vectors": {"shape": [-1, 2]}, "__metadata__": {"space": "s1"}}'),
        safetensors.numpy.save({"vectors": np.ones((2, 2), np.float16)}, {"space": "s1"}),
    ],
)
def test_a_blob_that_is_something_else_is_refused(blobs, data):
    digest = blobs.put(data).digest
    with pytest.raises(Broken) as caught:
        read_vectors(blobs, digest, None, space="s1")
    assert caught.value.code == "vectors.corrupt-file"


def test_a_file_that_is_not_there_is_missing(blobs):
    with pytest.raises(Missing):
        read_vectors(blobs, "0" * 64, None, space="s1")
