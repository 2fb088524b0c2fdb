"""Recipes as data: read, refused when wrong, frozen into lenses."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from relens.errors import BadInput
from relens.recipes import Lens, Recipe, built_in, read_recipe
from relens.recipes.recipe import FILTERS, RANKS
from relens.values import canonical_json

PLAIN = "recipe: m\nembed: a/1\n"
STREET = "recipe: m\ndetect: {model: d/1, categories: {person: people, '*': rest}}\nembed: a/1\n"


def read(text: str):
    return read_recipe(text.encode(), source="mine.yaml")


def refused(text: str | bytes) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read_recipe(text if isinstance(text, bytes) else text.encode(), source="mine.yaml")
    assert caught.value.message.startswith("mine.yaml")
    return caught.value


@pytest.mark.parametrize("name", ["photos", "faces", "text"])
def test_the_built_in_recipes_are_valid(name):
    assert read_recipe(built_in(name), source=name).name == name


def test_the_recipe_of_the_docs_is_one():
    page = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text()
    [written] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    recipe = read(written)
    assert recipe.categories == ("cars", "people")
    assert recipe.role("classify", "cars") is None


def test_a_short_recipe_has_the_usual_rest():
    recipe = read("recipe: mine\nembed: a/1\n")
    assert recipe.models == {"embed": "a/1"}
    assert (recipe.short_side_px, recipe.labels, recipe.detect) == (320, 5, "whole")


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("recipe: mine\n", "recipes.bad-recipe", "embed"),
        ("embed: a/1\n", "recipes.bad-recipe", "recipe is missing"),
        (PLAIN + "lables: 3\n", "recipes.unknown-key", "lables (did you mean labels?"),
        (PLAIN + "crop:\n  size: 3\n", "recipes.unknown-key", "crop.size"),
        (PLAIN + "detect: faces\n", "recipes.bad-value", "whole"),
        (PLAIN + "crop: 3\n", "recipes.bad-recipe", "crop"),
        ("- 1\n", "recipes.bad-recipe", "mine.yaml"),
        ("a: [\n", "recipes.bad-recipe", "mine.yaml"),
        (PLAIN + "recipe: n\n", "recipes.bad-recipe", "line 3: 'recipe' is there twice"),
        (PLAIN + "crop: {quality: 90, quality: 80}\n", "recipes.bad-recipe", "'quality' is there twice"),
        ("{1: 2, a: b, ~: c}\n", "recipes.unknown-key", "unknown 1, a, None"),
        ("", "recipes.bad-recipe", "keys and values"),
        (b"\xff\xfe", "recipes.bad-recipe", "mine.yaml"),
        (b"\x00", "recipes.bad-recipe", "cannot be read"),
        ("---\na: 1\n---\nb: 2\n", "recipes.bad-recipe", "cannot be read"),
        ("[" * 3000, "recipes.bad-recipe", "cannot be read"),
        ("? [a]\n: b\n", "recipes.bad-recipe", "cannot be read"),
        ("recipe: 2026-99-99\n", "recipes.bad-recipe", "cannot be read"),
        ("recipe: !!int ''\n", "recipes.bad-recipe", "cannot be read"),
        ("recipe: !!bool maybe\n", "recipes.bad-recipe", "cannot be read"),
        ("!!python/object/apply:os.system [id]\n", "recipes.bad-recipe", "cannot be read"),
        (f"{PLAIN}labels: {'9' * 5000}\n", "recipes.bad-recipe", "cannot be read"),
    ],
)
def test_a_wrong_recipe_names_what_is_wrong(text, code, named):
    error = refused(text)
    assert error.code == code
    assert named in str(error)


WRONG = {
    "recipe": ["5", "[a]", "фото", "../x", "!!binary aGk=", "a b", "&a [*a]"],
    "labels": ["0", "101", ".inf", ".nan", "yes", "'5'", "3.7", "many", "[1]", "{a: 1}", "2026-01-01", "1e400"],
    "embed": ["5", "[a]", "{a: b}", "a/1/2", "a/", "/1", "dummy/²", "'a\\0'", "yes"],
    "crop.short_side_px": ["31", "4097", ".inf", "320.5", "'320'", "yes"],
    "crop.quality": ["high", "0", "101", "[90]"],
    "crop.margin": [".nan", ".inf", "-0.1", "2.1", "wide"],
    "crop": ["[1]", "x", "3"],
    "search": ["[a]", "high"],
    "search.threshold": ["high", ".nan", "3", "-1.1", "[1]", "yes"],
    "search.rerank": ["x", "{text: {field: a, weight: 1}}", "[3]", "[text]", "[{text: {}, near: {}}]"],
    "search.rerank.textt": ["-"],
    "measure": ["[face]", "3", "faces"],
    "filters": ["x", "3", "{blur: {min: 1}}", "[blur]", "[[blur]]", "[{}]"],
    "score": ["[a]", "x", "3", "{1: a/1}", "{A: a/1}", "{label: a/1}", "{quality: a/1}"],
    "score.age": ["[1]", "3", "a/b/c"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_wrong_value_is_refused_with_its_key(key, value):
    if key == "search.rerank.textt":
        text = PLAIN + "search: {rerank: [{textt: {field: a, weight: 1}}]}\n"
    elif "." in key:
        section, _, name = key.partition(".")
        text = (
            PLAIN + f"{section}: {{{name}: {value}}}\n" if section != "score" else PLAIN + f"score: {{age: {value}}}\n"
        )
    else:
        text = "".join(line for line in PLAIN.splitlines(True) if not line.startswith(f"{key}:")) + f"{key}: {value}\n"
    error = refused(text)
    assert key in error.message
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("detect", "key"),
    [
        ("{min_score: 0.5}", "detect.model"),
        ("{model: none}", "detect.model"),
        ("{model: [a]}", "detect.model"),
        ("[a]", "detect"),
        ("model", "detect"),
        ("{model: d/1, modle: 3}", "detect.modle"),
        ("{model: d/1, min_score: high}", "detect.min_score"),
        ("{model: d/1, overlap: .nan}", "detect.overlap"),
        ("{model: d/1, max_objects: 3.5}", "detect.max_objects"),
        ("{model: d/1, max_objects: 10001}", "detect.max_objects"),
        ("{model: d/1, max_objects: yes}", "detect.max_objects"),
        ("{model: d/1, min_side_px: 0}", "detect.min_side_px"),
        ("{model: d/1, categories: [a]}", "detect.categories"),
        ("{model: d/1, categories: x}", "detect.categories"),
        ("{model: d/1, categories: {}}", "detect.categories"),
        ("{model: d/1, categories: {no: a}}", "detect.categories"),
        ("{model: d/1, categories: {a: 1}}", "detect.categories.a"),
        ("{model: d/1, categories: {a: Ünic}}", "detect.categories.a"),
        ("{model: d/1, categories: {a: b/c}}", "detect.categories.a"),
    ],
)
def test_a_wrong_detector_is_refused_with_its_key(detect, key):
    assert key in refused(f"recipe: m\nembed: a/1\ndetect: {detect}\n").message


@pytest.mark.parametrize(
    ("branches", "words"),
    [
        ("[people]", "branches"),
        ("x", "branches"),
        ("{hot: {embed: none}}", "no object has category hot"),
        ("{people/x: {embed: none}}", "no object has category people/x"),
        ("{'*': {embed: none}}", "no object has category *"),
        ("{1: {embed: none}}", "no object has category 1"),
        ("{people: [embed]}", "branches.people"),
        ("{people: {detect: d/1}}", "branches.people.detect"),
        ("{people: {embed: 3}}", "branches.people.embed"),
        ("{people: {score: {Age: a/1}}}", "branches.people.score"),
        ("{people: {score: {age: 3}}}", "branches.people.score.age"),
    ],
)
def test_a_branch_is_for_a_category_that_there_is(branches, words):
    assert words in refused(STREET + f"branches: {branches}\n").message


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("blur: 3", "filters.blur"),
        ("blur: {min: many}", "filters.blur.min"),
        ("blur: {min: .nan}", "filters.blur.min"),
        ("blur: {min: 1.5}", "filters.blur.min"),
        ("blur: {}", "blur needs min"),
        ("blur: {min: 0.1, max: 1}", "filters.blur.max"),
        ("blurr: {min: 0.1}", "filters.blurr"),
        ("short-side: {min_px: .inf}", "filters.short-side.min_px"),
        ("short-side: {min_px: 10.5}", "filters.short-side.min_px"),
        ("duplicate: {min_cosine: 3}", "filters.duplicate.min_cosine"),
        ("own: {file: a.py}", "own needs function"),
        ("own: {file: ../a.py, function: keep}", "filters.own.file"),
        ("own: {file: a.py, function: 'a b'}", "filters.own.function"),
        ("own: {file: [a], function: keep}", "filters.own.file"),
        ("quality: {min: 0.3}", "measure: face"),
    ],
)
def test_a_wrong_filter_is_refused_by_its_name(rule, words):
    assert words in str(refused(PLAIN + f"filters:\n  - {rule}\n"))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("text: {field: a}", "text needs weight"),
        ("text: {field: [a], weight: 1}", "search.rerank.text.field"),
        ("text: {field: a, weight: .nan}", "search.rerank.text.weight"),
        ("text: {field: a, weight: 2}", "search.rerank.text.weight"),
        ("text: {field: a, weight: yes}", "search.rerank.text.weight"),
        ("text: {field: a, weight: 1, wight: 2}", "search.rerank.text.wight"),
        ("near: {field: a, weight: 1}", "near needs within"),
        ("near: {field: a, within: x, weight: 1}", "search.rerank.near.within"),
        ("near: {field: a, within: -1, weight: 1}", "search.rerank.near.within"),
        ("prefer: {field: a, value: [1], weight: 1}", "search.rerank.prefer.value"),
        ("prefer: {field: a, value: .inf, weight: 1}", "search.rerank.prefer.value"),
        ("perfer: {field: a, value: 1, weight: 1}", "did you mean prefer"),
    ],
)
def test_a_wrong_rule_of_ranking_is_refused_when_the_recipe_is_read(rule, words):
    assert words in str(refused(PLAIN + f"search:\n  rerank:\n    - {rule}\n"))


def test_a_day_that_yaml_reads_as_a_date_is_text_again():
    recipe = read(PLAIN + "search: {rerank: [{prefer: {field: day, value: 2026-01-01, weight: 0.1}}]}\n")
    assert recipe.rerank[0].options["value"] == "2026-01-01"


def test_what_has_no_value_is_as_if_it_were_not_there():
    everything = "labels:\ncrop:\nmeasure:\nfilters:\nbranches:\nsearch:\nscore:\nclassify:\n"
    assert read(PLAIN + everything) == read(PLAIN)
    assert read(PLAIN + "search: {threshold: ~, rerank: ~}\ncrop: {margin: ~}\n") == read(PLAIN)


def test_anchors_and_merged_keys_are_read_as_yaml_means_them():
    text = """\
recipe: m
detect: &usual {model: d/1, min_score: 0.4, categories: {a: one, b: two}}
embed: a/1
branches:
  one: &branch {embed: b/1, classify: none}
  two: {<<: *branch, embed: c/1}
"""
    recipe = read(text)
    assert recipe.models["two/embed"] == "c/1"
    assert recipe.models["two/classify"] == "none"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("recipe: m\nscore: {nsfw: a/1}\n", True),
        ("recipe: m\nread: a/1\n", True),
        ("recipe: m\nclassify: a/1\n", True),
        ("recipe: m\nturn: a/1\n", False),
        ("recipe: m\nembed: none\n", False),
        ("recipe: m\nembed: a/1\nmeasure: face\n", False),
        ("recipe: m\nclassify: a/1\nfilters: [{duplicate: {min_cosine: 0.9}}]\n", False),
        ("recipe: m\ndetect: {model: d/1}\n", True),
        ("recipe: m\ndetect: {model: d/1}\nembed: none\n", True),
    ],
)
def test_a_recipe_says_something_of_what_it_finds(text, fits):
    if fits:
        read(text)
    else:
        assert refused(text).code in {"recipes.bad-recipe", "recipes.bad-value"}


def test_a_branch_comes_before_what_stands_above_and_none_takes_a_step_away():
    recipe = read(STREET + "score: {age: s/1}\nbranches: {people: {embed: b/1, classify: c/1, score: {age: none}}}\n")
    assert recipe.categories == ("people", "rest")
    assert (recipe.role("embed", "people"), recipe.role("embed", "rest")) == ("people/embed", "embed")
    assert (recipe.role("classify", "people"), recipe.role("classify", "rest")) == ("people/classify", None)
    assert (recipe.scores("people"), recipe.scores("rest")) == ({}, {"age": "score.age"})


# -- whatever stands in the file --------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.binary(max_size=5)
    | st.sampled_from(["none", "whole", "face", "a/1", "*", "text", "field", "weight", "0.5", ""])
    | st.text(max_size=5)
)
WORDS = st.sampled_from(
    [
        *(
            "recipe",
            "detect",
            "crop",
            "measure",
            "filters",
            "labels",
            "branches",
            "search",
            "embed",
            "classify",
            "score",
        ),
        *("model", "categories", "min_score", "max_objects", "quality", "margin", "threshold", "rerank", "all", "*"),
        *FILTERS,
        *RANKS,
        *("min", "min_px", "file", "function", "field", "weight", "within", "value"),
    ]
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | SCALARS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, ANYTHING, max_size=6))
@example({"recipe": "m", "embed": "a/1", "detect": {"model": "d/1", "categories": {"a": {}}}})
def test_whatever_it_holds_a_file_is_a_recipe_or_bad_input(given_):
    text = yaml.dump({"recipe": "m", "embed": "a/1", **given_}, allow_unicode=True)
    with contextlib.suppress(BadInput):
        canonical_json(read(text).settings)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_recipe_or_bad_input(data):
    with contextlib.suppress(BadInput):
        read_recipe(data, source="mine.yaml")


# -- settings and lenses ----------------------------------------------------------------------------------------------

SHARES = st.floats(0, 1) | st.integers(0, 1)
LABELS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
CATEGORIES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
OPTIONS = {
    "short-side": st.fixed_dictionaries({"min_px": st.integers(1, 1000)}),
    "score": st.fixed_dictionaries({"min": SHARES}),
    "blur": st.fixed_dictionaries({"min": SHARES}),
    "quality": st.fixed_dictionaries({"min": SHARES}),
    "duplicate": st.fixed_dictionaries({"min_cosine": st.floats(-1, 1)}),
    "own": st.just({"file": "mine.py", "function": "keep"}),
}
RULES = {
    "text": st.fixed_dictionaries({"field": LABELS.filter(str.isprintable), "weight": st.floats(-1, 1)}),
    "near": st.just({"field": "price", "within": 1, "weight": 0.5}),
    "prefer": st.fixed_dictionaries(
        {
            "field": st.just("shop"),
            "value": st.integers() | st.booleans() | st.floats(-9, 9) | st.dates(),
            "weight": SHARES,
        }
    ),
}


def rules(options):
    one = st.sampled_from(sorted(options)).flatmap(lambda name: options[name].map(lambda given: {name: given}))
    return st.lists(one, max_size=4)


@st.composite
def recipes(draw):
    """A recipe as it is written, of any shape that is allowed."""
    categories = draw(st.dictionaries(LABELS | st.just("*"), CATEGORIES, min_size=1, max_size=3))
    written = {
        "recipe": "mine",
        "detect": {
            "model": "d/1",
            "min_score": draw(SHARES),
            "overlap": draw(SHARES),
            "max_objects": draw(st.integers(1, 10_000)),
            "min_side_px": draw(st.integers(1, 4096)),
            "categories": categories,
        },
        "crop": {"quality": draw(st.integers(1, 100)), "margin": draw(st.floats(0, 2))},
        "labels": draw(st.integers(1, 100)),
        "measure": "face",
        "embed": "a/1",
        "score": dict.fromkeys(draw(st.sets(st.sampled_from(["age", "look"]))), "s/1"),
        "filters": draw(rules(OPTIONS)),
        "branches": {
            category: {"embed": draw(st.sampled_from(["none", "b/1"]))}
            for category in draw(st.sets(st.sampled_from(sorted(set(categories.values())))))
        },
        "search": {"threshold": draw(st.floats(-1, 1)), "rerank": draw(rules(RULES))},
    }
    if draw(st.booleans()):  # a plain one
        del written["detect"], written["branches"], written["measure"]
        written["filters"] = [one for one in written["filters"] if "quality" not in one]
    return written


@given(recipes())
def test_a_recipe_survives_its_settings(written):
    recipe = read(yaml.safe_dump(written, allow_unicode=True))
    stored = json.loads(canonical_json(recipe.settings))
    again = Recipe.from_settings(stored, recipe.models)
    assert canonical_json(again.settings) == canonical_json(recipe.settings)
    assert again == recipe
    assert json.loads(canonical_json(again.settings)) == stored


@given(recipes())
def test_how_a_number_is_written_makes_no_other_lens(written):
    def spelled(value):
        if isinstance(value, dict):
            return {name: spelled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [spelled(one) for one in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    for one in written["search"]["rerank"]:
        one.pop("prefer", None)  # its value is as it is written
    written["search"]["rerank"] = [one for one in written["search"]["rerank"] if one]
    first, second = (read(yaml.safe_dump(one)) for one in (written, spelled(written)))
    assert canonical_json(first.settings) == canonical_json(second.settings)


OF_PLAIN = (
    '{"models":{"classify":{"digest":"dc","reference":"b/2"},"embed":{"digest":"de","reference":"a/1"}},'
    '"recipe":{"crop":{"quality":70,"short_side_px":320},"detect":"whole","labels":3,"name":"mine"},'
    '"space":{"digest":"space","dim":8},"thresholds":{}}'
)
OF_PHOTOS = (
    '{"models":{"classify":{"digest":"dc","reference":"effnet-lite0/1"},'
    '"embed":{"digest":"de","reference":"effnet-lite0/1"}},'
    '"recipe":{"crop":{"quality":90,"short_side_px":320},"detect":"whole","labels":5,"name":"photos"},'
    '"space":{"digest":"space","dim":8},"thresholds":{}}'
)


@pytest.mark.parametrize(
    ("text", "document"),
    [
        (built_in("photos").decode(), OF_PHOTOS),
        ("recipe: mine\nembed: a/1\nclassify: b/2\nlabels: 3\ncrop: {quality: 70}\n", OF_PLAIN),
    ],
)
def test_the_lens_of_a_plain_recipe_is_for_ever_the_same(text, document):
    """Galleries keep the digest of their lens: these are what the first version made of these recipes."""
    lens = Lens(read(text), {"embed": "de", "classify": "dc"}, "space", 8, {})
    assert canonical_json(lens.document).decode() == document


def test_a_lens_survives_its_document_and_changes_with_all_that_it_holds():
    recipe = read("recipe: mine\nembed: a/1\nclassify: a/1\n")
    lens = Lens(recipe, {"embed": "d1", "classify": "d1"}, "space", 8, {})
    assert Lens.from_document(lens.document) == lens
    others = [
        Lens(recipe, {"embed": "d2", "classify": "d1"}, "space", 8, {}),
        Lens(read("recipe: mine\nembed: a/1\nclassify: a/1\nlabels: 6\n"), lens.digests, "space", 8, {}),
        Lens(recipe, lens.digests, "other", 8, {}),
        Lens(recipe, lens.digests, "space", 8, {"match": 0.5}),
        Lens(recipe, lens.digests, "space", 8, {}, code={"mine.py": "ab"}),
        Lens(recipe, lens.digests, "space", 8, {}, spaces={"all": None}),
    ]
    assert len({lens.digest, *(other.digest for other in others)}) == 7
    for other in others:
        assert Lens.from_document(json.loads(canonical_json(other.document))) == other
