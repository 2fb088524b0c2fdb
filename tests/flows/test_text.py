"""The recipe `text`: lines are found, cut out upright, read in the order of reading, and found by their words.

With made-up models. A line is a dark bar, its letters are blocks of colour in its upper half: red says "a", green says
"b", blue is a space.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from relens.errors import BadInput
from relens.models import Card
from relens.narrowing import read_where
from relens.recipes import built_in
from relens.testing.homes import books, fill
from relens.values import Preprocessing, canonical_json

LINE_PX, STEP_PX = 48, 8
INK = {"a": (255, 0, 0), "b": (0, 255, 0), " ": (0, 0, 255)}
LETTER_PX = 24


def network(nodes, weights, shape, outputs):
    """An ONNX file of nodes in a row: kind, what else goes in, and attributes."""
    made, last = [], "x"
    for number, (kind, more, attributes) in enumerate(nodes):
        made.append(helper.make_node(kind, [last, *more], [name := f"t{number}"], **attributes))
        last = name
    made.append(helper.make_node("Identity", [last], ["y"]))
    graph = helper.make_graph(
        made,
        "made-up",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def line_finder():
    """(n, 3, h, w) to a map (n, 1, h, w): 1 where it is not white."""
    weights = {"kernel": np.full((1, 3, 1, 1), -20, np.float32), "bias": np.full(1, 50, np.float32)}
    nodes = [("Conv", ["kernel", "bias"], {}), ("Sigmoid", [], {})]
    return network(nodes, weights, ["n", 3, "h", "w"], ["n", 1, "h", "w"])


def letter_reader():
    """(n, 3, 48, w) to chances (n, w / 8, 4): nothing, or the strongest colour of the upper half of each 8 px."""
    kernel = np.zeros((4, 3, 1, 1), np.float32)
    for row, channel in ((1, 0), (2, 1), (3, 2)):
        kernel[row, channel] = 20
    weights = {"kernel": kernel, "bias": np.array([5, 0, 0, 0], np.float32), "flat": np.array([0, 4, -1], np.int64)}
    nodes = [
        ("AveragePool", [], {"kernel_shape": [LINE_PX // 2, STEP_PX], "strides": [LINE_PX, STEP_PX]}),
        ("Conv", ["kernel", "bias"], {}),
        ("Reshape", ["flat"], {}),
        ("Transpose", [], {"perm": [0, 2, 1]}),
        ("Softmax", [], {"axis": -1}),
    ]
    return network(nodes, weights, ["n", 3, LINE_PX, "w"], ["n", "t", 4])


def turn_teller():
    """(n, 3, 48, 192) to (n, 2): upright, or upside down if it begins with blue."""
    weights = {
        "starts": np.array([0, 0, 0, 0], np.int64),
        "ends": np.array([1 << 30, 3, LINE_PX, LETTER_PX], np.int64),
        "kernel": np.array([[9, 0, -9], [-9, 0, 9]], np.float32).reshape(2, 3, 1, 1),
        "flat": np.array([0, 2], np.int64),
    }
    nodes = [
        ("Slice", ["starts", "ends"], {}),
        ("GlobalAveragePool", [], {}),
        ("Conv", ["kernel"], {}),
        ("Reshape", ["flat"], {}),
        ("Softmax", [], {"axis": -1}),
    ]
    return network(nodes, weights, ["n", 3, LINE_PX, 192], ["n", 2])


def card(name, task, role, width, height, **given):
    prep = Preprocessing(
        width, width, "bilinear", "rgb", "nchw", (127.5,) * 3, (127.5,) * 3, fit="stretch", height_px=height
    )
    return Card(name, 1, task, "onnx", "model.onnx", "x", prep, {role: "y"}, "Apache-2.0", "a test", **given)


@pytest.fixture
def reading(home):
    """A home in which the recipe `text` reads with the made-up models."""
    add = home.local().parts.onboarding.add
    decode = {"kind": "db", "threshold": 0.3, "box_threshold": 0.5, "unclip": 0.1}
    add(
        card("ppocr-det", "detect", "map", 320, 320, decode=decode, shape=(3, None, None)),
        {"model.onnx": line_finder()},
    )
    add(
        card("ppocr-rec", "read", "scores", 320, LINE_PX, labels="labels.json", shape=(3, LINE_PX, None)),
        {"model.onnx": letter_reader(), "labels.json": canonical_json(["", *INK])},
    )
    add(
        card("ppocr-turn", "classify", "scores", 192, LINE_PX, labels="labels.json"),
        {"model.onnx": turn_teller(), "labels.json": canonical_json(["upright", "turned"])},
    )
    (home.path / "recipes" / "text.yaml").write_bytes(built_in("text"))
    return home


def line(text):
    """A dark bar with a block of colour for each letter, which an upside-down one has not where it is looked for."""
    bar = np.zeros((LINE_PX, LETTER_PX * (len(text) + 1), 3), np.uint8)
    for number, letter in enumerate(text):
        left = LETTER_PX * number + LETTER_PX // 2
        bar[4 : LINE_PX // 2, left : left + LETTER_PX - 8] = INK[letter]
    return bar


def page(*lines, width=760, height=800, turned=False):
    """A white page with lines, each with the place of its left upper corner."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    for left, top, text in lines:
        bar = line(text)
        pixels[top : top + bar.shape[0], left : left + bar.shape[1]] = bar
    out = io.BytesIO()
    Image.fromarray(pixels[::-1, ::-1] if turned else pixels).save(out, "PNG")
    return out.getvalue()


ABBA = page((40, 300, "bab"), (40, 100, "ab ba"), (400, 100, "aaa b"))


def test_a_page_is_read_line_by_line_in_the_order_of_reading(reading):
    answer = reading.local().recognize(ABBA, recipe="text")
    assert [found.attributes["text"] for found in answer.objects] == ["ab ba", "aaa b", "bab"]
    assert {found.category for found in answer.objects} == {"line"}
    first = answer.objects[0]
    assert first.box.x * 760 == pytest.approx(40, abs=6)
    assert first.box.y * 800 == pytest.approx(100, abs=6)
    assert len(first.attributes["polygon"]) == 4
    assert first.attributes["text_score"] > 0.5


def test_a_page_that_stands_on_its_head_is_read_all_the_same(reading):
    answer = reading.local().recognize(page((40, 100, "ab "), turned=True), recipe="text")
    assert [found.attributes["text"].strip() for found in answer.objects] == ["ab"]


@pytest.mark.parametrize("place", [(0, 0), (760 - 72, 0), (0, 800 - 48), (760 - 72, 800 - 48)])
def test_a_line_at_the_border_lies_within_the_picture(reading, place):
    shown = page((*place, "ab"))
    local = reading.local()
    answer = local.recognize(shown, recipe="text")
    [found] = answer.objects
    assert found.attributes["text"] == "ab"
    assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in found.attributes["polygon"])
    assert Image.open(io.BytesIO(local.draw(shown, answer))).size == (760, 800)


def test_what_was_read_is_found_by_its_words(reading, folder):
    pictures = {"one.png": ABBA, "two.png": page((40, 100, "ba")), "none.png": page()}
    plan = reading.run(fill(folder, pictures), recipe="text")
    assert books(plan)["crop"][4] == books(plan)["embed"][4] == 4
    local = reading.local()
    found = local.search_text("BA", gallery="album")
    assert [match.text for match in found.matches] == ["ba", "ab ba"]
    assert [match.items[0]["id"] for match in found.matches] == ["two.png", "one.png"]
    assert [match.text for match in local.search_text('"ab ba"', gallery="album").matches] == ["ab ba"]
    assert local.search_text("abba", gallery="album").matches == ()
    with pytest.raises(BadInput):
        local.search_text("?!", gallery="album")
    two = read_where(items=["id=two.png"])
    assert [match.text for match in local.search_text("BA", gallery="album", where=two).matches] == ["ba"]
    local.change_item("album", "two.png", {"off_shelf": True})
    assert [match.text for match in local.search_text("BA", gallery="album").matches] == ["ab ba"]
    assert len(local.search_text("BA", gallery="album", where=read_where(off_shelf=True)).matches) == 2
    assert local.search_text("BA", gallery="album", where=read_where(days="..2020-01-01")).matches == ()
    assert local.search_text("BA", gallery="album", where=read_where(category="other")).matches == ()
    with pytest.raises(BadInput):
        local.search_text("?!", gallery="album")
    [nothing] = local.search(page((40, 100, "ba")), gallery="album").objects
    assert nothing.matches == ()


def test_lines_are_drawn_with_their_numbers(reading):
    local = reading.local()
    answer = local.recognize(ABBA, recipe="text")
    before = np.asarray(Image.open(io.BytesIO(ABBA))).astype(int)
    after = np.asarray(Image.open(io.BytesIO(local.draw(ABBA, answer)))).astype(int)
    assert (np.abs(after - before).max(axis=2) > 60).sum() > 500


def test_a_filter_knows_what_was_found_and_text_is_read_of_the_rest(reading):
    (reading.path / "recipes" / "mine.py").write_text("def keep(pixels, about): return about['box'][1] < 0.2\n")
    recipe = built_in("text").decode() + "filters:\n  - own: {file: mine.py, function: keep}\n"
    (reading.path / "recipes" / "text.yaml").write_text(recipe)
    answer = reading.local().recognize(ABBA, recipe="text")
    assert [found.attributes["text"] for found in answer.objects] == ["ab ba", "aaa b"]
    assert dict(answer.dropped) == {"own": 1}
