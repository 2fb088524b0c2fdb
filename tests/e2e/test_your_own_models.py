"""The page about models of one's own, carried out: its cards, its recipe, its commands, on two small networks."""

from __future__ import annotations

import functools
import hashlib
import io
import re
import shlex
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from relens.testing import networks

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-models.md").read_text()
CARD, RECIPE = re.findall(r"```yaml\n((?:name|recipe):.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```\n(relens.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("relens ")
]

CELL = 32
COLOURS = {"red": (255, 20, 20), "green": (20, 255, 20), "blue": (20, 20, 255)}


def street(*signs: str, seed: int) -> bytes:
    """A PNG of 320 px: dark, with bright signs in a row, each with its own grain."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 30, (320, 320, 3), dtype=np.uint8)
    for number, sign in enumerate(signs):
        left, top = CELL * (1 + 3 * number), CELL * 2
        grain = rng.integers(0, 20, (CELL, CELL, 3), dtype=np.uint8)
        pixels[top : top + CELL, left : left + CELL] = np.array(COLOURS[sign], np.uint8) - grain
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the page begins with."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "signs.onnx").write_bytes(networks.yolo())
    (tmp_path / "looks.onnx").write_bytes(networks.embedder())
    (tmp_path / "signs.txt").write_text("".join(f"{name}\n" for name in networks.SIGNS))
    (tmp_path / "looks.onnx.card.yaml").write_text(CARD)
    for number, (name, signs) in enumerate({"a": ("red", "blue"), "b": ("green",), "c": ("blue", "red")}.items()):
        (tmp_path / "photos" / f"{name}.png").write_bytes(street(*signs, seed=number))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_page_bring_two_models_in_and_search_with_them(home, folder):
    (home.path / "recipes" / "signs.yaml").write_text(RECIPE)
    printed = {line: home.run(*shlex.split(line)[1:]) for line in COMMANDS}
    assert len(printed) == 6
    inferred = printed["relens model add signs.onnx --infer --labels signs.txt"]
    assert yaml.safe_load(inferred.stdout)["decode"] == {"kind": "yolo", "variant": "classes"}
    assert "guessed: colours are" in inferred.stderr
    models = printed["relens model ls"].stdout
    assert re.search(r"signs/1 .* detect .* onnxruntime on cpu, [\d.]+ ms, no fallback +MIT", models)
    assert re.search(r"looks/1 .* embed +32 ", models)
    assert home.json("gallery", "show", "signs")["counts"]["objects"] == 5
    found = home.json("search", "photos/a.png", "--gallery", "signs")["objects"]
    assert len(found) == 2
    for number, matched in enumerate(sorted(found, key=lambda one: one["box"][0])):
        assert matched["box"] == pytest.approx([(1 + 3 * number) / 10, 0.2, 0.1, 0.1], abs=1e-4)
        assert matched["matches"][0]["items"][0]["id"] == "a.png"
        assert matched["matches"][1]["items"][0]["id"] == "c.png"  # the same colour, in another picture


@pytest.fixture
def server(tmp_path):
    """Serves the folder."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_a_model_comes_from_an_address_with_its_digest_and_no_other(home, folder, server):
    digest = hashlib.sha256((folder / "looks.onnx").read_bytes()).hexdigest()
    refused = home.json("model", "add", f"{server}/looks.onnx", "--infer", code=1)
    assert refused["error"]["code"] == "models.no-digest"
    refused = home.json("model", "add", f"{server}/looks.onnx#sha256={'0' * 64}", "--infer", "--yes", code=1)
    assert refused["error"]["code"] == "models.wrong-digest"
    added = home.json("model", "add", f"{server}/looks.onnx#sha256={digest}", "--infer", "--yes", "--name", "far")
    assert (added["name"], added["version"], added["backend"]["device"]) == ("far", 1, "cpu")
    assert list((home.path / "downloads").iterdir()) == []
    wrong = home.json("model", "add", "looks.onnx", "--set", "dim=7", code=1)["error"]
    assert wrong["code"] == "models.contradiction"
    assert "set dim to 32" in wrong["message"]
