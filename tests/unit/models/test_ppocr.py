"""PP-OCR out of a wheel that is made here: networks of one layer with the names and shapes of the real ones."""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from relens.errors import BadInput, Broken, Missing
from relens.models import ppocr, read_card
from relens.models.ppocr import build, characters_of, reference_pixels, without_subnormals
from relens.runtimes import ModelSpec, OnnxRuntime
from relens.values import digest_of

# Some characters are ends of lines to str.splitlines().
CHARACTERS = ["!", "A", "\u2028", "\x85", "\u3000", "東"]
TINY = 1e-39


def network(output, *, kernel, channels=3, height="h", width="w", facts=None):
    """One convolution with a sigmoid."""
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["conv"]), helper.make_node("Sigmoid", ["conv"], [output])]
    shape = ["n", kernel.shape[0], "h", "w"]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, height, width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in (facts or {}).items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def a_kernel(outputs=1, *, tiny=0):
    kernel = np.random.default_rng(1).normal(size=(outputs, 3, 1, 1)).astype(np.float32)
    kernel.flat[:tiny] = TINY
    return kernel


DETECTOR = network("fetch_name_0", kernel=a_kernel(16, tiny=11))
READER = network("fetch_name_0", kernel=a_kernel(2), height=48, facts={"character": "\n".join(CHARACTERS)})
TURN = network("save_infer_model/scale_0.tmp_1", kernel=a_kernel(2))


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    files = {ppocr.DETECTOR: DETECTOR, ppocr.READER: READER, ppocr.TURN: TURN}
    with zipfile.ZipFile(tmp_path / "rapidocr-3.10.0-py3-none-any.whl", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    pinned = {name: digest_of(data) for name, data in files.items()}
    monkeypatch.setattr(ppocr, "WHEEL", replace(ppocr.WHEEL, files=pinned))
    return tmp_path


def run(card, model, inputs):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        spec = ModelSpec(card.format, path, card.input, card.input_shape, dict(card.outputs), card.precision)
        return OnnxRuntime().load(spec).run(inputs)


def weights_of(model):
    return numpy_helper.to_array(onnx.load_from_string(model).graph.initializer[0])


def test_a_wheel_gives_a_detector_a_reader_and_a_classifier(wheel):
    built = {card.name: (card, files) for card, files in build(wheel, run)}
    assert tuple((card.name, card.version) for card, _ in built.values()) == ppocr.VERSIONS
    assert {name: (card.task, card.kind) for name, (card, _) in built.items()} == {
        "ppocr-det": ("detect", "db"),
        "ppocr-rec": ("read", "ctc"),
        "ppocr-turn": ("classify", "none"),
    }
    for card, files in built.values():
        assert set(card.files) == set(files)
        assert card.licence == "Apache-2.0"
        assert card.source == "rapidocr 3.10.0"
        assert card.space("weights") is None


def test_cards_survive_being_written(wheel):
    for card, _ in build(wheel, run):
        assert read_card(card.to_yaml()) == card


def test_labels_are_a_string_for_each_class(wheel):
    labels = {card.name: json.loads(files["labels.json"]) for card, files in build(wheel, run) if card.labels}
    assert labels == {"ppocr-rec": ["", *CHARACTERS, " "], "ppocr-turn": ["0", "180"]}


def test_every_model_takes_what_its_card_says(wheel):
    for card, files in build(wheel, run):
        sides = [64 if side is None else side for side in card.input_shape]
        outputs = run(card, files[card.file], np.zeros((2, *sides), np.float32))
        assert outputs.keys() == card.outputs.keys()


def test_subnormal_weights_become_zero_and_nothing_else_changes():
    ours = without_subnormals(DETECTOR)
    before, after = weights_of(DETECTOR), weights_of(ours)
    assert (before == np.float32(TINY)).sum() == 11
    assert np.array_equal(after, np.where(before == np.float32(TINY), 0, before))
    assert len(ours) == len(DETECTOR)
    assert sum(a != b for a, b in zip(ours, DETECTOR, strict=True)) <= 4 * 11
    sessions = [onnxruntime.InferenceSession(model) for model in (DETECTOR, ours)]
    said, wanted = (session.run(None, {"x": reference_pixels()})[0] for session in sessions)
    assert np.array_equal(said, wanted)


def test_a_file_without_subnormal_weights_stays_as_it_is():
    assert without_subnormals(READER) == READER


def test_constants_among_the_nodes_are_weights_too():
    tensor = numpy_helper.from_array(np.array([1, TINY, -TINY, 0], np.float32), "constant")
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=tensor)],
        "constant",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    )
    ours = onnx.load_from_string(without_subnormals(helper.make_model(graph).SerializeToString()))
    assert numpy_helper.to_array(ours.graph.node[0].attribute[0].t).tolist() == [1, 0, 0, 0]


def test_a_reader_that_names_no_characters_is_told():
    with pytest.raises(Broken, match="names no characters"):
        characters_of(DETECTOR)


def test_a_runtime_that_says_something_else_is_told(wheel):
    said = iter([0.5, 0.6])
    with pytest.raises(Broken) as caught:
        list(build(wheel, lambda *_: {"map": np.full((1, 1, 8, 8), next(said), np.float32)}))
    assert caught.value.code == "models.bad-conversion"


def test_a_runtime_that_says_nothing_is_told(wheel):
    with pytest.raises(Broken):
        list(build(wheel, lambda *_: {"map": np.full((1, 1, 8, 8), np.nan, np.float32)}))


def test_a_changed_wheel_is_refused(wheel, monkeypatch):
    pinned = dict(ppocr.WHEEL.files) | {ppocr.TURN: digest_of(b"another")}
    monkeypatch.setattr(ppocr, "WHEEL", replace(ppocr.WHEEL, files=pinned))
    with pytest.raises(BadInput) as caught:
        list(build(wheel, run))
    assert caught.value.code == "models.wrong-digest"


def test_a_folder_without_the_wheel_says_how_to_get_it(tmp_path):
    with pytest.raises(Missing, match=r"rapidocr-3\.10\.0") as caught:
        list(build(tmp_path, run))
    assert "pip download" in caught.value.hint


def test_the_pictures_to_compare_with_are_the_same_everywhere():
    pixels = reference_pixels()
    assert pixels.shape == (3, 3, 96, 160)
    assert np.abs(pixels).max() <= 1
    assert pixels.std() > 0.3
