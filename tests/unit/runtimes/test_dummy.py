"""The dummy's promises beyond the contract: what its numbers are, for ever, and that likeness means something."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.errors import BadInput, Broken
from relens.runtimes import Dummy, ModelSpec, dummy_head, write_dummy
from relens.testing.runtimes import some_inputs

ROLES = {"scores": "scores", "vector": "vector", "features": "features"}


def load(folder, *, seed=1, vector_dim=64, classes=10, cells=4, shape=(3, 64, 64)):
    path = folder / f"{seed}-{vector_dim}-{cells}.json"
    write_dummy(path, seed=seed, vector_dim=vector_dim, classes=classes, cells=cells)
    spec = ModelSpec("dummy", path, "pixels", shape, ROLES, "fp32")
    return spec, Dummy().load(spec)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dummies")


def scenes(count):
    """Blurred noise: pictures of large coloured areas, (count, 3, 64, 64)."""
    coarse = np.random.default_rng(0).uniform(-1, 1, (count, 3, 8, 8)).astype(np.float32)
    return coarse.repeat(8, axis=2).repeat(8, axis=3)


def test_the_numbers_never_change(folder):
    """What was golden once stays golden: these were computed with numpy 2.4."""
    _, session = load(folder)
    ramp = np.linspace(-1, 1, 3 * 64 * 64, dtype=np.float32).reshape(1, 3, 64, 64)
    outputs = session.run(ramp)
    assert np.allclose(outputs["vector"][0, 5:10], [0.01, 0.3789674, 0.3453433, 0.3679548, 0.01], atol=1e-6)
    assert np.allclose(outputs["scores"][0, :4], [0.2514999, 0.0135007, 0.0932002, 0.1426226], atol=1e-6)


def test_unrelated_pictures_are_far_apart_and_similar_ones_near(folder):
    _, session = load(folder)
    pictures = scenes(60)
    noise = np.random.default_rng(1).normal(0, 0.05, pictures.shape).astype(np.float32)
    vectors, like = (unit(session.run(inputs)["vector"]) for inputs in (pictures, pictures + noise))
    cosines = like @ vectors.T
    own = np.diag(cosines).copy()
    np.fill_diagonal(cosines, -1)
    assert own.min() > 0.995
    assert cosines.max() < 0.95


@given(value=st.floats(-300, 300, width=32), cells=st.integers(1, 5), dim=st.integers(1, 40))
def test_no_picture_has_a_zero_vector(folder, value, cells, dim):
    _, session = load(folder, vector_dim=dim, cells=cells)
    vector = session.run(np.full((1, 3, 64, 64), value, np.float32))["vector"]
    assert np.linalg.norm(vector) > 1e-4


@given(cells=st.integers(1, 9), dim=st.integers(1, 40), height=st.integers(9, 40), width=st.integers(9, 40))
def test_every_cell_is_seen(folder, cells, dim, height, width):
    _, session = load(folder, vector_dim=dim, cells=cells, shape=(3, height, width))
    features = session.run(np.zeros((1, 3, height, width), np.float32))["features"]
    assert features.shape == (1, dim, cells, cells)
    assert (features[0].max(axis=0) > 0).all()


def test_scores_follow_from_the_vector_and_the_head(folder):
    spec, session = load(folder)
    weight, bias = dummy_head(spec.path)
    assert weight.shape == (10, 64)
    assert bias.shape == (10,)
    outputs = session.run(some_inputs(spec, 3))
    raised = np.exp(outputs["vector"] @ weight.T + bias)
    assert np.allclose(outputs["scores"], raised / raised.sum(axis=1, keepdims=True), atol=1e-5)


def test_another_seed_is_another_model(folder):
    spec, session = load(folder)
    _, other = load(folder, seed=2)
    inputs = some_inputs(spec, 1)
    assert not np.allclose(session.run(inputs)["vector"], other.run(inputs)["vector"], atol=1e-2)


def test_sides_that_do_not_divide_into_cells_are_averaged_whole(folder):
    _, session = load(folder, cells=3, vector_dim=9, shape=(3, 10, 11))
    picture = np.zeros((1, 3, 10, 11), np.float32)
    picture[0, :, 6:, 7:] = 1  # the last cell: rows 6-9, columns 7-10
    seen = session.run(picture)["features"][0].reshape(9, 9)
    flat = session.run(np.ones((1, 3, 10, 11), np.float32))["features"][0].reshape(9, 9)
    assert np.array_equal(seen[:, 8], flat[:, 8])


@pytest.mark.parametrize("change", [{"cells": 0}, {"classes": -1}, {"vector_dim": 0}])
def test_numbers_below_one_are_refused(tmp_path, change):
    numbers = {"seed": 1, "vector_dim": 8, "classes": 2, "cells": 2}
    with pytest.raises(BadInput):
        write_dummy(tmp_path / "x", **numbers | change)
    (tmp_path / "y").write_text(json.dumps(numbers | change))
    with pytest.raises(Broken):
        Dummy().load(ModelSpec("dummy", tmp_path / "y", "x", (3, 8, 8), ROLES, "fp32"))


@pytest.mark.parametrize("shape", [(8, 8, 3), (3, 8), (3, 3, 8), (1, 8, 8)])
def test_an_input_that_is_no_picture_is_refused(folder, shape):
    with pytest.raises(Broken) as caught:
        load(folder, shape=shape)
    assert caught.value.code == "runtimes.load-failed"


@pytest.mark.parametrize(
    ("shape", "outputs"), [((), ROLES), ((3, 0, 8), ROLES), ((3, 8, 8), {}), ((3, 8, 8), {"A box": "b"})]
)
def test_a_spec_that_makes_no_sense_is_refused(tmp_path, shape, outputs):
    with pytest.raises(BadInput) as caught:
        ModelSpec("dummy", tmp_path, "x", shape, outputs, "fp32")
    assert caught.value.code == "runtimes.bad-spec"
