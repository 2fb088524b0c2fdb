"""Likeness in a gallery: what is the same is told from what is not, and too little says so."""

from __future__ import annotations

import numpy as np
import pytest

from relens.errors import Conflict
from relens.gateway.likeness import likeness_of
from relens.vectors import Manifest, Segment

DIM = 32


def segment(vectors, first=1):
    rows = np.asarray(vectors, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = np.arange(first, first + len(rows), dtype=np.int64)
    manifest = Manifest(1, "all", f"day {first}", "s", DIM, len(rows), 1, f"d{first}", 1)
    return Segment(manifest, ids, rows)


def people(count, pictures, noise=0.3, seed=0):
    """Vectors of `pictures` pictures of each of `count` people, and who is in each."""
    random = np.random.default_rng(seed)
    faces = random.normal(size=(count, DIM))
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    who = np.repeat(np.arange(count), pictures)
    return faces[who] + noise * random.normal(size=(len(who), DIM)) / np.sqrt(DIM), who


def test_a_threshold_lies_between_the_same_and_the_different():
    vectors, who = people(40, 5)
    names = {number + 1: f"person {one}" for number, one in enumerate(who)}
    found = likeness_of([segment(vectors)], {}, lambda ids: {one: names[one] for one in ids})
    assert found["sampled"] == found["objects"] == 200
    same, different = found["pairs"]["same"], found["pairs"]["different"]
    assert same["count"] == 40 * 10
    assert different["quantiles"]["p999"] <= found["threshold"] + 1e-3
    assert found["threshold"] <= same["quantiles"]["p1"] + 0.05
    assert sum(one["count"] for one in different["histogram"]) == different["count"]


def test_without_names_strangers_decide():
    vectors, _ = people(300, 1)
    found = likeness_of([segment(vectors)], {}, None)
    assert found["threshold"] == pytest.approx(found["pairs"]["different"]["quantiles"]["p999"], abs=1e-3)
    assert "same" not in found["pairs"]
    assert "--same" in found["why"]


def test_a_large_gallery_is_sampled_over_all_of_it_and_the_dead_are_left_out():
    vectors, _ = people(5000, 1)
    parts = [segment(vectors[:3000]), segment(vectors[3000:], first=3001)]
    dead = {parts[0].digest: np.arange(1, 2001)}
    asked = []
    found = likeness_of(parts, dead, lambda ids: asked.extend(ids) or {})
    assert found["objects"] == 3000
    assert 1400 < found["sampled"] <= 2000
    assert min(asked) > 2000
    assert max(asked) > 4900
    assert found == likeness_of(parts, dead, lambda _: {})


def test_when_all_is_the_same_or_nothing_is_known_it_says_so():
    vectors, _ = people(1, 20)
    everything = likeness_of([segment(vectors)], {}, lambda ids: dict.fromkeys(ids, "one"))
    assert everything["threshold"] == 1.0
    assert "nothing to tell it from" in everything["why"]
    nobody = likeness_of([segment(people(20, 1)[0])], {}, lambda ids: {one: str(one) for one in ids})
    assert "no two objects" in nobody["why"]


@pytest.mark.parametrize("count", [0, 9])
def test_few_objects_say_nothing(count):
    parts = [segment(people(count, 1)[0])] if count else []
    with pytest.raises(Conflict) as caught:
        likeness_of(parts, {}, None)
    assert caught.value.code == "gateway.too-few"
