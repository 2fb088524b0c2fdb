"""`relens model quantize` as users type it: what it prints, what is there afterwards, how it ends when it refuses."""

from __future__ import annotations

import json

import pytest

from relens.testing import networks
from relens.testing.pictures import write_pictures

pytestmark = pytest.mark.slow


def test_an_int8_version_is_made_and_shown_and_refusals_have_their_exit_codes(home, tmp_path):
    photos = write_pictures(tmp_path / "photos", 16)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "looks.onnx").write_bytes(networks.embedder())
    home.run("model", "add", tmp_path / "looks.onnx", "--infer", "--yes")

    quantize = ["model", "quantize", "looks", "--calibrate", photos]
    refused = home.json(*quantize, "--min-cosine", "1", code=3)["error"]
    assert refused["code"] == "models.low-fidelity"
    assert "--min-cosine" in refused["hint"]
    assert not (home.path / "models" / "looks" / "2").exists()

    made = home.run(*quantize)
    assert made.stdout.startswith("looks/2 is made\ncompared with looks/1 (")
    assert "calibrated with 12 pictures of folder photos (0 left out), compared on 4 others" in made.stdout
    assert "only 4 pictures were compared" in made.stdout
    assert "name looks/2 in a recipe" in made.stdout
    assert "calibrating looks" in made.stderr
    again = home.json(*quantize)
    assert (again["version"], again["made"], again["precision"]) == (2, False, "int8")
    assert set(again["fidelity"]) == {"of", "pictures", "cosine", "cpu_ms", "speedup", "bytes", "backend"}
    written = json.loads((home.path / "models" / "looks" / "2" / "golden" / "fidelity.json").read_text())
    assert again["fidelity"] == written
    shown = home.run("model", "show", "looks/2").stdout
    assert "cosine of vector" in shown
    assert "precision: int8" in shown
    empty = home.json("model", "quantize", "looks", "--calibrate", tmp_path / "nothing", code=2)["error"]
    assert empty["code"] == "gateway.no-pictures"
