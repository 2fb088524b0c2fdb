"""Freezing: a recipe whose models cannot do what it asks is refused before anything is run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from relens.errors import BadInput
from relens.models import Card, Registered
from relens.models.card import Part
from relens.recipes import freeze, read_recipe
from relens.values import Preprocessing

PREP = Preprocessing(32, 32, "bilinear", "rgb", "nchw", (0.0,) * 3, (1.0,) * 3)
ALIGNED = Preprocessing(32, 32, "bilinear", "rgb", "nchw", (0.0,) * 3, (1.0,) * 3, align="dlib-25")
CORNERS = {"scores": "s", "boxes": "b"}
STAGES = {
    "refine": Part("r", "x", CORNERS, (3, 24, 24)),
    "finish": Part("o", "x", {**CORNERS, "landmarks": "l"}, (3, 48, 48)),
}


def card(name, task, outputs, prep=PREP, **given):
    return Card(name, 1, task, "onnx", "model.onnx", "x", prep, outputs, "free", "a test", **given)


CARDS = {
    one.name: one
    for one in (
        card("both", "classify+embed", {"scores": "s", "vector": "v"}, dim=8, labels="labels"),
        card("names", "classify", {"scores": "s"}, labels="labels"),
        card("vectors", "embed", {"vector": "v"}, dim=4),
        card("aligned", "embed", {"vector": "v"}, ALIGNED, dim=4),
        card("reader", "read", {"scores": "s"}, labels="labels"),
        card("age", "regress", {"value": "v"}),
        card("signs", "detect", {"detections": "d"}, decode={"kind": "yolo"}, labels="labels"),
        card("plain", "detect", {"detections": "d"}, decode={"kind": "yolo"}),
        card("points", "detect", {"detections": "d"}, decode={"kind": "yolo", "landmarks": 5}),
        card("body", "detect", {"detections": "d"}, decode={"kind": "yolo", "landmarks": 17}),
        card("faces", "detect", CORNERS, decode={"kind": "mtcnn"}, parts=STAGES),
        card("half-faces", "detect", CORNERS, decode={"kind": "mtcnn"}, parts={"refine": STAGES["refine"]}),
        card("lines", "detect", {"map": "m"}, decode={"kind": "db"}),
        card("no-lines", "detect", {"maps": "m"}, decode={"kind": "db"}),
    )
}


def frozen(text):
    def resolve(reference):
        name = reference.partition("/")[0]
        return Registered(name, 1, f"digest of {name}", CARDS[name], (), 0.0)

    def opened(model):
        space = f"space of {model.name}" if model.card.dim else None
        return SimpleNamespace(
            space=space,
            card=model.card,
            reference=model.reference,
            labels=lambda: ["red", "blue"][: bool(model.card.labels) * 2],
        )

    recipe = read_recipe(f"recipe: mine\n{text}".encode(), source="mine")
    return freeze(recipe, resolve, opened, lambda file, _function: f"sha of {file}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("embed: names/1", "names/1 is for classify: it cannot embed"),
        ("embed: age/1", "cannot embed"),
        ("classify: vectors/1", "cannot classify"),
        ("classify: signs/1", "cannot classify"),
        ("read: both/1", "cannot read"),
        ("read: reader/1\nturn: reader/1", "cannot turn"),
        ("score: {age: vectors/1}", "cannot score"),
        ("detect: {model: both/1}", "cannot detect"),
        ("detect: {model: plain/1}\nbranches: {all: {embed: reader/1}}", "`all/embed` takes a model"),
        ("detect: {model: half-faces/1}", "its part finish gives no scores, boxes, landmarks"),
        ("detect: {model: no-lines/1}", "it gives no map"),
        ("detect: {model: signs/1, categories: {rad: a}}", "did you mean red"),
        ("detect: {model: signs/1, categories: {'*': a, green: b}}", "finds no 'green'"),
        ("detect: {model: plain/1, categories: {red: a}}", "has no names"),
        ("embed: aligned/1", "embed: aligned/1 needs the landmarks"),
        ("detect: {model: plain/1}\nembed: aligned/1", "needs the landmarks"),
        ("detect: {model: body/1}\nembed: aligned/1", "needs the landmarks"),
        ("detect: {model: lines/1}\nmeasure: face", "measure: face needs the landmarks"),
        ("detect: {model: plain/1}\nbranches: {all: {embed: aligned/1}}", "all/embed: aligned/1 needs"),
    ],
)
def test_a_model_that_cannot_play_its_role_is_refused(text, words):
    with pytest.raises(BadInput) as caught:
        frozen(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "detect: {model: faces/1}\nembed: aligned/1\nmeasure: face",
        "detect: {model: points/1}\nembed: aligned/1\nmeasure: face",
        "detect: {model: signs/1, categories: {red: a, blue: b}}\nembed: vectors/1",
        "detect: {model: lines/1}\nread: reader/1\nturn: names/1",
        "score: {age: age/1, look: names/1}",
    ],
)
def test_what_fits_is_frozen(text):
    frozen(text)


def test_names_come_with_the_embedding_model_if_it_gives_some_and_nobody_says_otherwise():
    assert frozen("embed: both/1").recipe.models == {"embed": "both/1", "classify": "both/1"}
    assert frozen("embed: vectors/1").recipe.models == {"embed": "vectors/1"}
    assert frozen("embed: both/1\nclassify: names/1").recipe.models["classify"] == "names/1"
    none = frozen("embed: both/1\nclassify: none")
    assert none.recipe.role("classify") is None
    assert none.labeller_of("all") == ""


def test_each_category_has_the_space_of_its_own_embedding_model():
    street = "detect: {model: signs/1, categories: {red: warm, blue: cold}}\n"
    lens = frozen(street + "embed: both/1\nbranches: {cold: {embed: vectors/1}}")
    assert (lens.space, lens.dim) == ("space of both", 8)
    assert lens.space_of("warm").digest == "space of both"
    assert (lens.space_of("cold").digest, lens.space_of("cold").dim) == ("space of vectors", 4)
    assert frozen(street + "embed: both/1\nbranches: {cold: {embed: none}}").space_of("cold") is None
    alone = frozen(street + "branches: {cold: {embed: vectors/1}}")
    assert alone.space == ""
    assert alone.space_of("warm") is None
    assert alone.space_of("cold").dim == 4


def test_the_files_of_filters_are_frozen_with_the_lens():
    lens = frozen("embed: both/1\nfilters: [{own: {file: a.py, function: keep}}, {own: {file: a.py, function: other}}]")
    assert lens.code == {"a.py": "sha of a.py"}
    assert lens.digest != frozen("embed: both/1").digest
