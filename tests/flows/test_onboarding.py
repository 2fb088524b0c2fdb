"""A model comes in and is started again: what differs is refused, whatever it is that differs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from relens import onboarding, wiring
from relens.errors import BadInput, Broken, Conflict, Missing
from relens.golden import golden_pictures
from relens.models import registry
from relens.vision import decode


@pytest.fixture
def parts(tmp_path):
    wiring.make_home(tmp_path / "home")
    opened = wiring.open_parts(tmp_path / "home")
    yield opened
    opened.catalog.close()


def test_what_is_fetched_is_registered_stable_and_starts(parts):
    artifact, _ = parts.onboarding.fetch("dummy")
    loaded = parts.onboarding.start("dummy", 1, digest=artifact.digest)
    assert loaded.labels[0] == "red"
    assert loaded.head.shape == (10, 64)
    with parts.catalog.read() as tx:
        known = registry.resolve(tx, "dummy")
        assert (known.reference, known.labels, known.digest) == ("dummy/1", ("stable",), artifact.digest)
        backend, figures = registry.backend_of(tx, onboarding.host_name(), artifact.digest)
    assert backend == "dummy"
    assert figures["golden_ms"] > 0


def test_fetching_again_changes_nothing(parts):
    assert parts.onboarding.fetch("dummy") == parts.onboarding.fetch("dummy")


def test_an_unknown_source_names_the_known_ones(parts):
    with pytest.raises(BadInput) as caught:
        parts.onboarding.fetch("coco")
    assert "imagenet" in caught.value.hint


def test_other_content_under_the_same_version_is_refused(parts):
    parts.onboarding.fetch("dummy")
    card, files = onboarding._dummy_model()
    with pytest.raises(Conflict, match="other content"):
        parts.onboarding.add(dataclasses.replace(card, source="elsewhere"), files)


def test_a_lens_of_another_digest_is_not_served_by_this_version(parts):
    parts.onboarding.fetch("dummy")
    with pytest.raises(Broken) as caught:
        parts.onboarding.start("dummy", 1, digest="0" * 64)
    assert caught.value.code == "models.replaced"


def test_a_runtime_that_computes_something_else_is_noticed_at_the_start(parts, monkeypatch):
    parts.onboarding.fetch("dummy")
    backend = parts.onboarding.backends[-1]
    load = type(backend).load

    def load_skewed(self, spec, *, threads=1):
        session = load(self, spec, threads=threads)
        run = session.run
        session.run = lambda inputs: {role: out * np.float32(1.01) for role, out in run(inputs).items()}
        return session

    monkeypatch.setattr(type(backend), "load", load_skewed)
    with pytest.raises(Broken) as caught:
        parts.onboarding.start("dummy", 1)
    assert caught.value.code == "models.golden-differs"


def test_a_card_that_contradicts_its_model_does_not_come_in(parts):
    card, files = onboarding._dummy_model()
    with pytest.raises(BadInput) as caught:
        parts.onboarding.add(dataclasses.replace(card, dim=63), files)
    assert caught.value.code == "models.wrong-dim"
    with pytest.raises(BadInput) as caught:
        parts.onboarding.add(dataclasses.replace(card, format="tflite"), files)
    assert caught.value.code == "runtimes.no-backend"
    with pytest.raises(Broken):
        parts.onboarding.add(card, {**files, "model.json": b""})
    assert parts.shelf.versions() == []


def test_a_model_that_is_not_there_says_how_to_get_one(parts):
    with pytest.raises(Missing) as caught, parts.catalog.read() as tx:
        registry.resolve(tx, "effnet-lite0/1")
    assert "relens model fetch" in caught.value.hint
    assert any("model" in problem for problem in parts.in_process().missing())


def test_golden_pictures_are_the_same_bytes_on_every_run_and_decode():
    first, second = golden_pictures(256), golden_pictures(256)
    assert first == second
    assert list(first) == sorted(first)
    for picture in first.values():
        assert decode(picture).pixels.shape == (256, 320, 3)
