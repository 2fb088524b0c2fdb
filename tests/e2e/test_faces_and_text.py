"""The recipes `faces` and `text` with their real models, by the commands that people type."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relens.errors import RelensError
from relens.models.wheels import read_wheel

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).parents[2]))
import demo  # noqa: E402 - it lies beside the package, and knows where the photographs are


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with photographs, from the package that the demo takes them from."""
    names = ("astronaut.png", "page.png")
    wheel = demo.Wheel(demo.PACKAGE, demo.VERSION, {f"skimage/data/{name}": demo.SHA256[name] for name in names})
    try:
        found = read_wheel(wheel, None)
    except RelensError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    folder = tmp_path_factory.mktemp("photographs")
    for name in names:
        (folder / name).write_bytes(found[f"skimage/data/{name}"])
    return folder


def with_models(home, source):
    done = home.run("model", "fetch", source, code=None)
    if "could not download" in done.stderr:
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return home


def test_a_face_is_found_told_about_drawn_and_known_again(home, photographs, tmp_path):
    with_models(home, "faces")
    photo = photographs / "astronaut.png"
    drawn = tmp_path / "drawn.jpg"
    answer = home.json("recognize", photo, "--recipe", "faces", "--draw", drawn)
    [face] = answer["objects"]
    x, y, w, h = face["box"]
    assert 0.3 < x + w / 2 < 0.6
    assert 0.1 < y + h / 2 < 0.4
    assert len(face["landmarks"]) == 5
    assert all(x < px < x + w and y < py < y + h for px, py in face["landmarks"])
    assert 18 < face["attributes"]["age"] < 60
    assert set(face["attributes"]["gender"]) == {"name", "score"}
    assert face["attributes"]["quality"] > 0.3
    before, after = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (photo, drawn))
    assert after.shape == before.shape
    assert (np.abs(after - before).max(axis=2) > 60).sum() > 200

    turned = tmp_path / "turned.jpg"
    Image.open(photo).convert("RGB").rotate(8, expand=True).resize((400, 400)).save(turned, quality=70)
    same = home.json("verify", photo, turned)
    assert same["same"] is True
    done = home.run("verify", photo, photographs / "page.png", code=2)
    assert "nothing is found in picture 2" in done.stderr

    plan = home.json("import", photographs, "-g", "people", "-r", "faces")
    assert [(task["name"], task["made"]) for task in plan["tasks"]][2] == ("crop", 1)
    found = home.json("search", turned, "-g", "people")["objects"][0]
    assert found["matched"] is True
    assert found["matches"][0]["items"][0]["id"] == "astronaut.png"
    assert abs(found["matches"][0]["attributes"]["age"] - face["attributes"]["age"]) < 10


def test_a_page_is_read_in_order_and_found_by_its_words(home, photographs):
    with_models(home, "text")
    answer = home.json("recognize", photographs / "page.png", "--recipe", "text")
    lines = [found["attributes"]["text"] for found in answer["objects"]]
    assert lines[0] == "Region-based segmentation"
    assert lines.index("Let us first determine markers of the coins and the") == 1
    assert all(len(found["attributes"]["polygon"]) == 4 for found in answer["objects"])

    home.run("import", photographs, "-g", "pages", "-r", "text")
    said = home.json("search", "--text", '"based SEGMENTATION"', "-g", "pages")["matches"]
    assert [(match["text"], match["items"][0]["id"]) for match in said] == [("Region-based segmentation", "page.png")]
    assert home.json("search", "--text", '"segmentation based"', "-g", "pages")["matches"] == []

    upside_down = io.BytesIO()
    Image.open(photographs / "page.png").rotate(180).save(upside_down, "PNG")
    (photographs.parent / "turned.png").write_bytes(upside_down.getvalue())
    turned = home.json("recognize", photographs.parent / "turned.png", "--recipe", "text")
    assert "Region-based segmentation" in [found["attributes"]["text"] for found in turned["objects"]]
