"""A pipeline asks each model once for a batch of objects, and takes nothing from it that is no number."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from relens.errors import BadInput
from relens.models import Card
from relens.recipes import Cropped, Lens, LoadedModel, Pipeline, read_recipe
from relens.recipes.pipeline import BATCH
from relens.values import WHOLE, Box, Preprocessing
from relens.vision import Limits, encode_jpeg

PREP = Preprocessing(8, 8, "bilinear", "rgb", "nchw", (127.5,) * 3, (127.5,) * 3, fit="stretch")
NAMES = ("red", "green", "blue")


class Session:
    """Gives what it is told to, for each row; notes how many it was asked about at a time."""

    backend, device = "fake", "cpu"

    def __init__(self, **rows):
        self.rows = rows
        self.asked = []

    def run(self, inputs):
        self.asked.append(len(inputs))
        return {role: np.array([row] * len(inputs), np.float32) for role, row in self.rows.items()}

    def close(self):
        pass


class Colours(Session):
    """Scores and a vector that follow from the mean colour of each row."""

    def run(self, inputs):
        self.asked.append(len(inputs))
        means = inputs.mean(axis=(2, 3)) + 1.1
        return {"scores": means / means.sum(axis=1, keepdims=True), "vector": means}


def model(name, task, session, **given):
    card = Card(name, 1, task, "onnx", "m", "x", PREP, dict.fromkeys(session.rows, "t"), "free", "a test", **given)
    artifact = SimpleNamespace(card=card, digest=name, reference=f"{name}/1")
    return LoadedModel(artifact, session, NAMES if given.get("labels") else (), None)


def pipeline(text, **models):
    recipe = read_recipe(f"recipe: mine\n{text}".encode(), source="mine")
    lens = Lens(recipe, {role: one.artifact.digest for role, one in models.items()}, "space", 3, {})
    return Pipeline(lens, models, Limits())


def crop(colour=(200, 90, 10), category="all"):
    return Cropped(WHOLE, 1.0, category, encode_jpeg(np.full((9, 9, 3), colour, np.uint8), quality=95))


def both():
    return model("both", "classify+embed", Colours(scores=[], vector=[]), dim=3, labels="labels")


def test_a_crowd_is_described_in_bounded_batches_with_one_forward_for_all_steps():
    one = both()
    made = pipeline(
        "embed: both/1\nclassify: both/1\nscore: {look: both/1}\n",
        **{
            "embed": one,
            "classify": one,
            "score.look": one,
        },
    )
    said = made.describe_all([crop() for _ in range(3 * BATCH + 5)])
    assert one.session.asked == [BATCH] * 3 + [5]
    assert len(said) == 3 * BATCH + 5
    assert {one.labels[0].name for one in said} == {"red"}
    assert said[0].attributes["look"]["name"] == "red"
    assert made.describe_all([]) == []


def test_objects_of_other_categories_are_other_batches_and_come_back_in_order():
    one = both()
    street = "detect: {model: d/1, categories: {a: warm, b: cold}}\n"
    detector = model("d", "detect", Session(detections=[]), decode={"kind": "yolo"})
    made = pipeline(f"{street}embed: both/1\nclassify: both/1\n", embed=one, classify=one, detect=detector)
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    crops = [crop(colours[number % 3], ("warm", "cold")[number % 2]) for number in range(2 * BATCH)]
    said = made.describe_all(crops)
    assert one.session.asked == [BATCH, BATCH]
    assert [one.labels[0].name for one in said] == [NAMES[number % 3] for number in range(2 * BATCH)]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_said_of_no_object(wrong):
    scores = model("names", "classify", Session(scores=[0.5, wrong, 0.1]), labels="labels")
    value = model("age", "regress", Session(value=[wrong]))
    for made in (
        pipeline("classify: names/1\n", classify=scores),
        pipeline("score: {look: names/1}\n", **{"score.look": scores}),
        pipeline("score: {age: age/1}\n", **{"score.age": value}),
    ):
        with pytest.raises(BadInput) as caught:
            made.describe(crop())
        assert caught.value.code == "recipes.not-finite"
        assert "/1" in caught.value.message


@pytest.mark.parametrize("vector", [[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 1]])
def test_a_vector_that_has_no_direction_is_refused(vector):
    made = pipeline("embed: vectors/1\n", embed=model("vectors", "embed", Session(vector=vector), dim=3))
    with np.errstate(invalid="ignore"), pytest.raises(BadInput) as caught:
        made.describe(crop())
    assert caught.value.code == "values.bad-vector"


def test_the_best_names_come_first_and_equal_ones_in_the_order_of_the_model():
    scores = model("names", "classify", Session(scores=[0.2, 0.4, 0.4]), labels="labels")
    made = pipeline("classify: names/1\nlabels: 2\n", classify=scores)
    assert [label.name for label in made.describe(crop()).labels] == ["green", "blue"]
    assert len(pipeline("classify: names/1\nlabels: 100\n", classify=scores).describe(crop()).labels) == 3


def test_what_a_picture_shows_of_a_thousand_findings_is_bounded_by_the_recipe():
    found = np.concatenate(
        [
            np.random.default_rng(0).uniform(0, 0.9, (10_000, 2)),
            np.zeros((10_000, 2)),
            np.linspace(0.5, 1, 10_000)[:, None],
            np.zeros((10_000, 1)),
        ],
        axis=1,
    )
    found[:, 2:4] = found[:, :2] + 0.01
    decode = {"kind": "yolo", "variant": "end-to-end", "units": "share"}
    detector = model("d", "detect", Session(detections=found), decode=decode)
    made = pipeline("detect: {model: d/1, max_objects: 50}\n", detect=detector)
    picture = made.decode(encode_jpeg(np.zeros((60, 80, 3), np.uint8), quality=90))
    crops = made.crop(picture)
    assert len(crops) == 50
    assert min(one.score for one in crops) >= 0.99
    assert all(isinstance(one.box, Box) for one in crops)
