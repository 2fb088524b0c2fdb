"""Recipes as data: read, refused when wrong, frozen into lenses."""

from __future__ import annotations

import pytest

from relens.errors import BadInput
from relens.recipes import Lens, built_in, read_recipe


def read(text: str):
    return read_recipe(text.encode(), source="mine.yaml")


def test_the_built_in_recipe_is_valid():
    recipe = read_recipe(built_in("photos"), source="photos")
    assert recipe.name == "photos"
    assert recipe.models == {"embed": "effnet-lite0/1", "classify": "effnet-lite0/1"}


def test_a_short_recipe_has_the_usual_rest():
    recipe = read("recipe: mine\nembed: a/1\n")
    assert recipe.models == {"embed": "a/1"}
    assert (recipe.short_side_px, recipe.labels, recipe.detect) == (320, 5, "whole")


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("recipe: mine\n", "recipes.bad-recipe", "embed"),
        ("embed: a/1\n", "recipes.bad-recipe", "recipe"),
        ("recipe: m\nembed: a/1\nlables: 3\n", "recipes.unknown-key", "lables"),
        ("recipe: m\nembed: a/1\ncrop:\n  size: 3\n", "recipes.unknown-key", "crop.size"),
        ("recipe: m\nembed: a/1\nlabels: 0\n", "recipes.bad-value", "labels"),
        ("recipe: m\nembed: a/1\nlabels: many\n", "recipes.bad-recipe", "many"),
        ("recipe: m\nembed: a/1\ndetect: faces\n", "recipes.bad-value", "whole"),
        ("recipe: m\nembed: a/1\ncrop: 3\n", "recipes.bad-recipe", "mine.yaml"),
        ("- 1\n", "recipes.bad-recipe", "mine.yaml"),
        ("a: [\n", "recipes.bad-recipe", "mine.yaml"),
    ],
)
def test_a_wrong_recipe_names_what_is_wrong(text, code, named):
    with pytest.raises(BadInput) as caught:
        read(text)
    assert caught.value.code == code
    assert named in str(caught.value)


def test_a_lens_survives_its_document_and_changes_with_all_that_it_holds():
    recipe = read("recipe: mine\nembed: a/1\nclassify: a/1\n")
    lens = Lens(recipe, {"embed": "d1", "classify": "d1"}, "space", 8, {})
    assert Lens.from_document(lens.document) == lens
    others = [
        Lens(recipe, {"embed": "d2", "classify": "d1"}, "space", 8, {}),
        Lens(read("recipe: mine\nembed: a/1\nclassify: a/1\nlabels: 6\n"), lens.digests, "space", 8, {}),
        Lens(recipe, lens.digests, "other", 8, {}),
        Lens(recipe, lens.digests, "space", 8, {"match": 0.5}),
    ]
    assert len({lens.digest, *(other.digest for other in others)}) == 5
