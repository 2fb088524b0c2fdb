"""Pictures with many objects: detected, sorted into categories, filtered, described by the models of their branch."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from relens.errors import BadInput, Missing
from relens.testing.homes import books, fill

CELL = 40
RED, GREEN, BLUE, DARK = (255, 60, 60), (60, 255, 60), (60, 60, 255), (0, 0, 0)

RECIPE = """\
recipe: street
detect:
  model: dummy-detector/1
  min_score: 0.4
  max_objects: 16
  categories: {red: warm, green: cold}
crop: {short_side_px: 64, quality: 95, margin: 0.2}
embed: dummy/1
labels: 2
"""


def cells(*colours, seed=0):
    """A PNG of 4 x 4 cells in these colours, the rest dark, each with its own grain."""
    grain = np.random.default_rng(seed).integers(0, 25, (4 * CELL, 4 * CELL, 3), dtype=np.uint8)
    for number, colour in enumerate(colours):
        down, across = divmod(number, 4)
        part = np.s_[down * CELL : (down + 1) * CELL, across * CELL : (across + 1) * CELL]
        grain[part] = np.maximum(np.array(colour, np.uint8), 25) - grain[part]
    out = io.BytesIO()
    Image.fromarray(grain).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def street(home):
    """A home with the recipe `street`, and a way to change it."""

    def write(text=RECIPE):
        (home.path / "recipes" / "street.yaml").write_text(text)
        return home

    write()
    home.write_street = write
    return home


def test_every_object_of_a_picture_is_found_where_it_is(street):
    answer = street.local().recognize(cells(RED, DARK, GREEN, seed=1), recipe="street")
    assert [(found.category, found.box.to_json()) for found in answer.objects] == [
        ("warm", [0.0, 0.0, 0.25, 0.25]),
        ("cold", [0.5, 0.0, 0.25, 0.25]),
    ]
    assert [found.attributes["label"] for found in answer.objects] == ["red", "green"]
    assert all(found.labels for found in answer.objects)


def test_what_has_no_category_is_dropped_with_its_reason(street):
    answer = street.local().recognize(cells(RED, BLUE, BLUE), recipe="street")
    assert len(answer.objects) == 1
    assert dict(answer.dropped) == {"unwanted-label": 2}


def test_a_picture_without_anything_has_no_objects_and_is_no_error(street):
    answer = street.local().recognize(cells(), recipe="street")
    assert answer.objects == ()


def test_an_import_keeps_every_object_and_its_books_balance(street, folder):
    fill(folder, {"a.png": cells(RED, GREEN, BLUE, seed=1), "b.png": cells(GREEN, seed=2), "c.png": cells(seed=3)})
    plan = street.run(folder, recipe="street")
    assert plan["state"] == "done"
    assert books(plan) == {
        "read": (3, 3, {}, 0, 0),
        "decode": (3, 3, {}, 0, 0),
        "crop": (3, 3, {}, 0, 4),
        "filter": (4, 3, {"unwanted-label": 1}, 0, 0),
        "embed": (3, 3, {}, 0, 3),
        "seal": (3, 3, {}, 0, 2),
    }
    assert street.local().gallery("album")["counts"] == {"pictures": 3, "items": 3, "objects": 3}
    assert street.local().gallery("album")["segments"] == 2


def test_an_object_finds_itself_among_those_of_its_category(street, folder):
    fill(folder, {f"{seed}.png": cells(RED, GREEN, seed=seed) for seed in range(6)})
    street.run(folder, recipe="street")
    answer = street.local().search(cells(RED, GREEN, seed=4), gallery="album", k=20)
    assert [matched.category for matched in answer.objects] == ["warm", "cold"]
    for matched in answer.objects:
        assert len(matched.matches) == 6
        assert matched.matches[0].score > 0.9999
        assert [item["id"] for item in matched.matches[0].items] == ["4.png"]
        assert {match.box for match in matched.matches} == {matched.box}


def test_a_stored_crop_shows_the_object_with_its_margin(street, folder):
    fill(folder, {"a.png": cells(DARK, DARK, DARK, DARK, DARK, RED)})
    street.run(folder, recipe="street")
    [found] = street.contents()
    crop = Image.open(io.BytesIO(found["crop"]))
    assert crop.size == (56, 56)  # a cell of 40 with a fifth of it on each side
    pixels = np.asarray(crop.convert("RGB")).astype(int)
    assert pixels[28, 28, 0] > 200
    assert pixels[3, 28].max() < 60


def test_a_branch_takes_steps_away_or_names_its_own(street, folder):
    street.write_street(RECIPE + "branches:\n  cold: {embed: none, classify: none, score: {look: dummy/1}}\n")
    local = street.local()
    answer = local.recognize(cells(RED, GREEN), recipe="street", include=("vector",))
    warm, cold = answer.objects
    assert len(warm.attributes["vector"]) == 64
    assert "vector" not in cold.attributes
    assert cold.labels == ()
    assert set(cold.attributes["look"]) == {"name", "score"}
    street.run(fill(folder, {"a.png": cells(RED, GREEN)}), recipe="street")
    search = local.search(cells(RED, GREEN), gallery="album")
    assert [len(matched.matches) for matched in search.objects] == [1, 0]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("short-side: {min_px: 41}", "short-side"),
        ("score: {min: 0.99}", "score"),
        ("own: {file: mine.py, function: never}", "own"),
    ],
)
def test_a_filter_drops_with_its_name_and_touches_no_other_step(street, folder, rule, reason):
    (street.path / "recipes" / "mine.py").write_text("def never(pixels, about):\n    return about['score'] > 2\n")
    street.write_street(RECIPE + f"filters:\n  - {rule}\n")
    plan = street.run(fill(folder, {"a.png": cells(RED, GREEN, BLUE)}), recipe="street")
    assert books(plan)["filter"] == (3, 0, {reason: 2, "unwanted-label": 1}, 0, 0)
    assert plan["state"] == "done"


def test_a_filter_of_ones_own_is_part_of_the_lens_and_may_not_change_under_it(street, folder):
    mine = street.path / "recipes" / "mine.py"
    mine.write_text("def keep(pixels, about):\n    return pixels.shape[2] == 3\n")
    street.write_street(RECIPE + "filters:\n  - own: {file: mine.py, function: keep}\n")
    first = street.local().recognize(cells(RED), recipe="street")
    assert len(first.objects) == 1
    mine.write_text("def keep(pixels, about):\n    return False\n")
    second = street.local().recognize(cells(RED), recipe="street")
    assert second.objects == ()
    assert second.release != first.release


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("filters:\n  - own: {file: none.py, function: keep}\n", Missing, "none.py"),
        ("filters:\n  - own: {file: ../relens.yaml, function: keep}\n", BadInput, "no file beside"),
        ("filters:\n  - blurr: {min: 1}\n", BadInput, "did you mean blur"),
        ("filters:\n  - score: {}\n", BadInput, "score needs min"),
        ("filters:\n  - score\n", BadInput, "no rule"),
        ("branches:\n  hot: {embed: none}\n", BadInput, "no object has category hot"),
        ("classify: dummy-detector/1\n", BadInput, "cannot classify"),
        ("score: {age: dummy-detector/1}\n", BadInput, "cannot score"),
        ("score: {Age!: dummy/1}\n", BadInput, "Age!"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_name(street, text, error, words):
    street.write_street(RECIPE + text)
    with pytest.raises(error) as caught:
        street.local().recognize(cells(RED), recipe="street")
    assert words in str(caught.value)
