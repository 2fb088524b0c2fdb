"""SavedModels without TensorFlow: what is compared, what the child's end means, and what is written or not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from relens.cli.app import app
from relens.errors import BadInput, Broken, Conflict, Missing
from relens.models import savedmodel
from relens.models.drafts import Wish, draft_model
from relens.models.savedmodel import convert, rounded_up, told_difference, version_of, versions_in
from relens.models.savedmodel_child import Failed, Side, compare, runs
from relens.testing import networks

FAKE = """
import json, pathlib, sys, time
model, signature, folder = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
(folder / "model.onnx").write_bytes((model / "becomes.onnx").read_bytes())
print("a warning", "of the library", file=sys.stderr)
if signature == "refused":
    error = {"family": "BadInput", "code": "models.no-signature", "message": "it has: a, b", "hint": "--signature"}
    (folder / "error.json").write_text(json.dumps(error))
    sys.exit(1)
if signature == "dies":
    sys.exit(7)
if signature == "waits":
    (model / "waiting").touch()
    sys.stdin.read()
    (model / "ended").touch()
    sys.exit(1)
images = {"name": "images", "datatype": "FP32", "shape": [None, 3, 64, 64]}
vector = {"name": "vector", "datatype": "FP32", "shape": [None, 32]}
apart = {"far": 0.5, "near": 0.01}.get(signature, 1.3e-7)
compared = {"runs": 11, "left_out": 0, "why": "", "outputs": {"vector": apart}, "difference": apart}
if signature == "text":
    compared = {"runs": 0, "left_out": 11, "why": "no JPEG", "outputs": {}, "difference": None}
report = {"signature": signature, "inputs": [images], "outputs": [vector], "compared": compared,
          "opset": 18, "tensorflow": "2.0", "tf2onnx": "1.0"}
(folder / "report.json").write_text(json.dumps(report))
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A program in place of the one that converts."""
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(savedmodel, "CHILD", program)
    return program


@pytest.fixture
def model(tmp_path, child):
    return saved(tmp_path / "boots" / "3")


def saved(folder):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "becomes.onnx").write_bytes(networks.embedder())
    return folder


def run(*words):
    return CliRunner().invoke(app, ["model", "convert", *map(str, words)])


def test_versions_are_folders_named_by_a_number(tmp_path):
    for name in ("1", "00012", "0", "x", "3.bak"):
        saved(tmp_path / "boots" / name)
    (tmp_path / "boots" / "7").mkdir()
    assert [version_of(folder) for folder in versions_in(tmp_path / "boots")] == [12, 1]
    assert versions_in(tmp_path / "boots" / "x") == [tmp_path / "boots" / "x"]
    for none in (tmp_path, tmp_path / "boots" / "7", tmp_path / "nowhere"):
        with pytest.raises(Missing, match="no SavedModel"):
            versions_in(none)


def test_a_report_has_the_digest_of_the_model(model):
    report = convert(model).report
    assert convert(model).report == report
    (model / "saved_model.pb").write_bytes(b"other")
    assert convert(model).report["digest"] != report["digest"]


@pytest.mark.parametrize(
    ("signature", "family", "code", "said"),
    [
        ("refused", BadInput, "models.no-signature", "it has: a, b"),
        ("dies", Broken, "models.conversion-died", "exit code 7, after: a warning of the library"),
        ("far", Conflict, "models.not-the-same", "vector 5.0e-01"),
    ],
)
def test_what_the_child_says_is_raised(model, signature, family, code, said):
    with pytest.raises(family) as caught:
        convert(model, signature=signature)
    assert caught.value.code == code
    assert said in caught.value.message
    assert caught.value.hint


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch, model):
    (tmp_path / "bare" / "tensorflow").mkdir(parents=True)
    (tmp_path / "bare" / "tensorflow" / "__init__.py").write_text("raise ModuleNotFoundError('No tensorflow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "bare"))
    with pytest.raises(Broken) as caught:
        convert(model, child=savedmodel.Path(savedmodel.savedmodel_child.__file__))
    assert caught.value.code == "models.no-tensorflow"
    assert "pip install 'relens[tensorflow]'" in caught.value.hint


def test_versions_become_folders_of_the_same_number_once(tmp_path, model):
    saved(tmp_path / "boots" / "4")
    done = run(tmp_path / "boots", "-o", tmp_path / "served" / "boots", "--json")
    assert done.exit_code == 0, done.output
    [four, three] = json.loads(done.stdout)["models"]
    assert (four["made"], three["made"], three["compared"]["difference"]) == (True, True, 1.3e-7)
    for version in ("3", "4"):
        assert [path.name for path in (tmp_path / "served/boots" / version).iterdir()] == ["model.onnx"]
    assert sorted(path.name for path in (tmp_path / "served/boots").iterdir()) == ["3", "4"]
    again = json.loads(run(tmp_path / "boots", "-o", tmp_path / "served" / "boots", "--json").stdout)
    assert [one["made"] for one in again["models"]] == [False, False]


def test_a_model_becomes_a_file(tmp_path, model):
    done = run(model, "-o", tmp_path / "out" / "boots.onnx")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "boots.onnx").read_bytes() == networks.embedder()
    assert "differs by at most 2e-07 of the largest output, in 11 runs" in done.stdout
    assert "a warning" not in done.output
    assert isinstance(run(model, "-o", tmp_path / "out" / "boots.onnx").exception, Conflict)


def test_what_is_refused_leaves_nothing(tmp_path, model):
    assert (
        run(model, "-o", tmp_path / "served" / "boots", "--signature", "near").exception.code == "models.not-the-same"
    )
    assert not (tmp_path / "served").exists()
    taken = run(model, "-o", tmp_path / "served" / "boots", "--signature", "near", "--max-difference", "0.1")
    assert taken.exit_code == 0, taken.output


def test_what_cannot_be_compared_is_told(tmp_path, model):
    done = run(model, "-o", tmp_path / "x.onnx", "--signature", "text")
    assert done.exit_code == 0, done.output
    assert "not compared: the original refuses random inputs (no JPEG)" in done.stdout


def test_wrong_use_is_said_before_anything_is_converted(tmp_path, model):
    saved(tmp_path / "named")
    assert run(tmp_path / "named", "-o", tmp_path / "served").exception.code == "cli.no-version"
    assert run(tmp_path / "boots", "-o", tmp_path / "x.onnx").exception.code == "cli.many-versions"


def test_ctrl_c_ends_the_child_and_leaves_nothing(tmp_path, model):
    code = (
        "import sys; from relens.models import savedmodel; from relens.cli import main;"
        "savedmodel.CHILD = savedmodel.Path(sys.argv.pop(1)); main()"
    )
    words = ["model", "convert", str(model), "-o", str(tmp_path / "out" / "x.onnx"), "--signature", "waits"]
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "fake.py"), *words],
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )
    deadline = time.monotonic() + 60
    while not (model / "waiting").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 75
    process.stderr.close()
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "tmp").glob("relens*")) == []
    assert not (model / "ended").exists()


def test_a_draft_of_a_saved_model_tells_of_the_conversion_once(model):
    draft = draft_model(model, Wish(infer=True, changes=["source=https://example.org"]))
    told = "converted from a TensorFlow SavedModel"
    assert (draft.card.name, draft.card.task, draft.card.input) == ("boots", "embed", "images")
    assert re.fullmatch(rf"https://example.org; {told} .* differs by at most 2e-07 .*", draft.card.source)
    assert told in draft.notes[-1]
    model.with_name("3.card.yaml").write_bytes(draft.card.to_yaml())
    again = draft_model(model, Wish())
    assert again.card == draft.card
    assert again.files[again.card.file] == networks.embedder()


def test_a_folder_whose_card_names_another_file_of_it_is_taken_as_it_is(model):
    card = draft_model(model, Wish(infer=True)).card.to_yaml()
    (model / "card.yaml").write_bytes(card.replace(b"file: model.onnx", b"file: becomes.onnx"))
    assert set(draft_model(model, Wish()).files) == {"becomes.onnx", "saved_model.pb"}


def test_shares_are_rounded_up():
    assert [rounded_up(share) for share in (0, 1.01e-7, 9.9e-7, 0.5)] == ["0", "2e-07", "1e-06", "0.5"]


X = Side("x", "FP32", [None, 4])


def test_runs_are_the_same_again_and_of_the_shapes_of_the_signature():
    sides = [Side("x", "FP32", [None, None, None, 3]), Side("n", "INT32", [None]), Side("fixed", "UINT8", [2, 2])]
    sides += [Side("word", "BYTES", [None]), Side("yes", "BOOL", []), Side("half", "FP16", [1]), Side("i", "INT8", [3])]
    first, second = list(runs(sides)), list(runs(sides))
    for one, other in zip(first, second, strict=True):
        assert all((one[name] == other[name]).all() for name in one)
    assert {one["x"].shape for one in first} == {(1, 96, 96, 3), (2, 128, 128, 3), (5, 96, 96, 3), (2, 96, 96, 3)}
    kinds = {name: str(array.dtype) for name, array in first[0].items()}
    assert kinds == {
        "x": "float32",
        "n": "int32",
        "fixed": "uint8",
        "word": "object",
        "yes": "bool",
        "half": "float16",
        "i": "int8",
    }
    assert {float(one["x"].min()) for one in first[-2:]} == {0.0, 1.0}


def test_the_same_model_is_not_apart():
    found = compare([X], lambda given: {"y": given["x"] * 2}, lambda given: {"y": given["x"] * 2})
    assert (found["runs"], found["left_out"], found["difference"]) == (11, 0, 0.0)


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (lambda x: x * 1.01, 0.01),
        (lambda x: np.where(x == x.max(), np.nan, x), np.inf),
        (lambda x: x[:1], np.inf),
        (lambda x: x.astype(np.float64), np.inf),
        (lambda x: np.where(x == 0, x + 2.55, x), 1.0),
    ],
    ids=["a hundredth", "no number", "rows", "type", "zeros only"],
)
def test_what_differs_is_found(other, share):
    found = compare([X], lambda given: {"y": given["x"]}, lambda given: {"y": other(given["x"])})
    assert found["difference"] == pytest.approx(share, rel=0.02)


def test_of_whole_numbers_the_share_that_differs_counts():
    numbers = np.arange(10)
    found = compare([X], lambda _: {"y": numbers}, lambda _: {"y": np.where(numbers == 3, 4, numbers)})
    assert found["outputs"] == {"y": 0.1}


def test_numbers_that_are_missing_in_both_are_the_same():
    found = compare([X], lambda given: {"y": given["x"] * np.nan}, lambda given: {"y": given["x"] * np.nan})
    assert found["difference"] == 0


def test_what_the_original_refuses_is_left_out():
    def original(given):
        if len(given["x"]) > 1:
            raise ValueError("Graph execution error:\n\nonly one\n\t [[{{node x}}]]")
        return {"y": given["x"]}

    found = compare([X], original, lambda given: {"y": given["x"]})
    assert (found["runs"], found["left_out"], found["why"]) == (3, 8, "ValueError: only one")
    same = {"runs": 11, "difference": 0.0}
    assert told_difference(same) == "gives the same to the last bit"
    none = compare([X], lambda _: 1 / 0, lambda given: {"y": given["x"]})
    assert told_difference(none) == (
        "not compared: the original refuses random inputs (ZeroDivisionError: division by zero)"
    )


def test_what_only_the_converted_one_refuses_is_refused():
    with pytest.raises(Failed, match="does not answer what the original answers"):
        compare([X], lambda given: {"y": given["x"]}, lambda _: 1 / 0)
