"""Recipes: what happens to a picture, as data, and the one code path that does it, online and in bulk.

A recipe names model versions; frozen with their digests it is a lens. A pipeline runs a lens: decode, crop, describe.
The crop is stored, and what is described is always the decoded crop, so that embedding it again changes nothing.
"""

from relens.recipes.book import BUILT_IN, RecipeBook, built_in
from relens.recipes.crops import Cropped
from relens.recipes.lens import Lens, LoadedModel, Space, freeze
from relens.recipes.pipeline import INCLUDES, Described, Pipeline, attributes_of
from relens.recipes.recipe import Finding, Recipe, Rule
from relens.recipes.written import read_recipe

__all__ = [
    "BUILT_IN",
    "INCLUDES",
    "Cropped",
    "Described",
    "Finding",
    "Lens",
    "LoadedModel",
    "Pipeline",
    "Recipe",
    "RecipeBook",
    "Rule",
    "Space",
    "attributes_of",
    "built_in",
    "freeze",
    "read_recipe",
]
