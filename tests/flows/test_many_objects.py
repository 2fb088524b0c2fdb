"""Pictures with many objects: detected, sorted into categories, filtered, described by the models of their branch."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from relens.bulk import packs
from relens.errors import BadInput, Broken, Missing
from relens.testing.homes import books, fill, quarantined
from relens.testing.street import BLUE, DARK, GREEN, RECIPE, RED, cells


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


def test_a_gallery_goes_on_with_the_filter_that_it_was_made_with(street, folder):
    mine = street.path / "recipes" / "mine.py"
    mine.write_text("def keep(pixels, about):\n    return about['label'] == 'red'\n")
    street.write_street(RECIPE + "filters:\n  - own: {file: mine.py, function: keep}\n")
    street.run(fill(folder, {"a.png": cells(RED, GREEN)}), recipe="street")
    mine.write_text("def keep(pixels, about):\n    return False\n")
    assert len(street.local().search(cells(RED, GREEN), gallery="album").objects) == 1
    mine.unlink()
    assert len(street.local().search(cells(RED, GREEN), gallery="album").objects) == 1
    [copy] = (street.path / "recipes" / "frozen").iterdir()
    copy.write_text("def keep(pixels, about):\n    return True\n")
    with pytest.raises(Broken) as caught:
        street.local().search(cells(RED, GREEN), gallery="album")
    assert caught.value.code == "recipes.code-changed"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("filters:\n  - own: {file: none.py, function: keep}\n", Missing, "none.py"),
        ("filters:\n  - own: {file: ../relens.yaml, function: keep}\n", BadInput, "filters.own.file"),
        ("filters:\n  - own: {file: street.yaml, function: keep}\n", BadInput, "no Python"),
        ("filters:\n  - blurr: {min: 1}\n", BadInput, "did you mean blur"),
        ("filters:\n  - score: {}\n", BadInput, "score needs min"),
        ("filters:\n  - score\n", BadInput, "no rule"),
        ("branches:\n  hot: {embed: none}\n", BadInput, "no object has category hot"),
        ("classify: dummy-detector/1\n", BadInput, "cannot classify"),
        ("score: {age: dummy-detector/1}\n", BadInput, "cannot score"),
        ("score: {Age!: dummy/1}\n", BadInput, "Age!"),
        ("measure: face\n", BadInput, "needs the landmarks of a face"),
        ("search: {rerank: [{textt: {field: title, weight: 1}}]}\n", BadInput, "did you mean text"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_name(street, text, error, words):
    street.write_street(RECIPE + text)
    with pytest.raises(error) as caught:
        street.local().recognize(cells(RED), recipe="street")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ("{rad: warm}", "did you mean red"),
        ("{red: warm, yellow: warm}", "finds no 'yellow'"),
        ("{'': warm}", "finds no"),
    ],
)
def test_a_category_of_what_the_detector_never_says_is_refused(street, categories, words):
    street.write_street(RECIPE.replace("{red: warm, green: cold}", categories))
    with pytest.raises(BadInput) as caught:
        street.local().recognize(cells(RED), recipe="street")
    assert caught.value.code == "recipes.unknown-label"
    assert words in str(caught.value)


BRANCHES = """\
score: {look: dummy/1}
branches:
  cold: {embed: none, score: {look: none, second: dummy/1}}
"""


def test_objects_are_described_together_as_one_by_one(street):
    """In batches, of mixed categories and in any order, each object is said to be what it is by itself."""
    street.write_street(RECIPE + BRANCHES)
    parts = street.local().parts
    pipeline = parts.pipeline(parts.book.lens("street"))
    crops = [crop for seed in range(9) for crop in pipeline.crop(pipeline.decode(cells(*[RED, GREEN] * 5, seed=seed)))]
    assert len(crops) == 90
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 33, 90):
        some = [crops[number] for number in rng.permutation(90)[:count]]
        include = ("vector", "subject", "heatmap")
        for said, alone in zip(
            pipeline.describe_all(some, include=include),
            (pipeline.describe(crop, include=include) for crop in some),
            strict=True,
        ):
            assert (said.vector is None) == (alone.vector is None)
            if said.vector is not None:
                assert said.vector.space == alone.vector.space
                assert np.allclose(said.vector.values, alone.vector.values, atol=1e-5)
            assert [label.name for label in said.labels] == [label.name for label in alone.labels]
            assert [label.score for label in said.labels] == pytest.approx(
                [label.score for label in alone.labels], abs=1e-5
            )
            assert set(said.attributes) == set(alone.attributes)
            assert ("look" in said.attributes) == ("second" not in said.attributes) == (said.vector is not None)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_filters_leave_out_the_books_balance(street, folder, seed):
    """Of pictures good and bad, with objects wanted and not, every one is accounted for and the rest is found."""
    rng = np.random.default_rng(seed)
    (street.path / "recipes" / "mine.py").write_text(
        "def keep(pixels, about):\n"
        "  if pixels[20, 20, 2] > 228: raise ValueError('too blue')\n"
        "  return bool(pixels[20, 20].sum() % 3)\n"
    )
    rules = [
        "score: {min: 0.47}",
        "own: {file: mine.py, function: keep}",
        "short-side: {min_px: 40}",
        "blur: {min: 0.1}",
    ]
    chosen = [rules[number] for number in rng.permutation(4)[: seed + 1]]
    street.write_street(RECIPE + "filters:\n" + "".join(f"  - {rule}\n" for rule in chosen))
    colours = [RED, GREEN, BLUE, DARK]
    pictures = {
        f"{number}.png": cells(*(colours[one] for one in rng.integers(0, 4, rng.integers(0, 9))), seed=number)
        for number in range(20)
    }
    plan = street.run(fill(folder, pictures | {"none.png": b"none"}), recipe="street")
    told = books(plan)
    for task, (entered, out, dropped, failed, _) in told.items():
        assert entered == out + sum(dropped.values()) + failed, task
    assert told["read"][0] == 21
    assert told["filter"][0] == told["crop"][4]
    assert told["embed"][0] == told["filter"][1]
    assert told["seal"][0] == told["embed"][4]
    assert set(told["filter"][2]) <= {"score", "own", "short-side", "blur", "unwanted-label"}
    assert street.local().gallery("album")["counts"]["objects"] == told["seal"][1]
    assert len(quarantined(plan)) == told["decode"][3] + told["crop"][3]


def test_a_filter_that_fails_of_one_picture_holds_up_no_other(street, folder):
    (street.path / "recipes" / "mine.py").write_text(
        "def keep(pixels, about):\n  return bool(1 / (about['box'][1] < 0.2))\n"
    )
    street.write_street(RECIPE + "filters:\n  - own: {file: mine.py, function: keep}\n")
    low = cells(DARK, DARK, DARK, DARK, RED)
    plan = street.run(fill(folder, {"high.png": cells(RED), "low.png": low}), recipe="street")
    assert plan["state"] == "done"
    assert quarantined(plan) == [("low.png", "crop", "recipes.filter-failed")]
    assert "ZeroDivisionError" in plan["quarantine"][0]["message"]
    assert books(plan)["filter"] == (1, 1, {}, 0, 0)


def test_a_crowd_waits_for_its_commit_without_its_bytes(street, folder, monkeypatch):
    """What is told of objects until the pack is committed holds none of their crops, which lie in the shard."""
    waiting = []
    commit = packs._Commit.write

    def write(self, entries, outcomes, files):
        waiting.extend(crop.jpeg for one in outcomes.values() for crop, _, _ in one.objects)
        commit(self, entries, outcomes, files)

    monkeypatch.setattr(packs._Commit, "write", write)
    street.run(fill(folder, {"a.png": cells(*[RED] * 16)}), recipe="street")
    assert waiting == [b""] * 16
    assert {len(found["crop"]) > 200 for found in street.contents()} == {True}


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 2000), (2000, 3)])
def test_a_picture_of_a_few_pixels_is_a_picture(street, folder, size):
    street.write_street(RECIPE.replace("margin: 0.2", "margin: 2").replace("{red: warm, green: cold}", '{"*": all}'))
    out = io.BytesIO()
    Image.new("RGB", size, RED).save(out, "PNG")
    local = street.local()
    answer = local.recognize(out.getvalue(), recipe="street", include=("vector", "subject", "heatmap"))
    assert len(answer.objects) == 16
    drawn = Image.open(io.BytesIO(local.draw(out.getvalue(), answer)))
    assert drawn.size == size
    street.run(fill(folder, {"a.png": out.getvalue()}), recipe="street")
    found = local.search(out.getvalue(), gallery="album", k=3)
    assert all(one.matches[0].score > 0.999 for one in found.objects)


def test_many_questions_at_a_time_are_answered_as_one_by_one(street, folder):
    street.run(fill(folder, {f"{seed}.png": cells(RED, GREEN, seed=seed) for seed in range(6)}), recipe="street")
    local = street.local()
    pictures = [cells(RED, GREEN, seed=seed % 6) for seed in range(24)]

    def ask(data):
        return [one.to_json() for one in local.search(data, gallery="album", k=3).objects]

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(ask, pictures))
    assert together == [ask(data) for data in pictures]


RANKED = RECIPE + "search:\n  threshold: 0.9\n  rerank:\n    - prefer: {field: id, value: 3.png, weight: 1}\n"


def test_rules_put_what_was_found_in_another_order_before_the_best_are_taken(street, folder):
    street.write_street(RANKED)
    street.run(fill(folder, {f"{seed}.png": cells(RED, seed=seed) for seed in range(6)}), recipe="street")
    for k in (1, 2, 100):
        [found] = street.local().search(cells(RED, seed=5), gallery="album", k=k).objects
        first = found.matches[0]
        assert first.items[0]["id"] == "3.png"
        assert first.rank == pytest.approx(first.score + 1)
        assert len(found.matches) == min(k, 6)
        assert [match.rank for match in found.matches] == sorted((match.rank for match in found.matches), reverse=True)
        assert found.matched is True


def test_a_threshold_of_the_gallery_goes_before_the_recipes_for_all_categories_of_its_space(street, folder):
    street.write_street(RANKED.replace("threshold: 0.9", "threshold: -1"))
    street.run(fill(folder, {"a.png": cells(RED, GREEN, seed=1)}), recipe="street")
    local = street.local()

    def matched():
        return [found.matched for found in local.search(cells(RED, GREEN, seed=2), gallery="album").objects]

    shown = local.gallery("album")["thresholds"]
    assert set(shown.values()) == {-1}
    assert matched() == [True, True]
    assert local.set_threshold("album", 1.0, category=next(iter(shown)))["thresholds"] == dict.fromkeys(shown, 1.0)
    assert matched() == [False, False]
    local.set_threshold("album", None, category=next(iter(shown)))
    assert matched() == [True, True]
    with pytest.raises(BadInput):
        local.set_threshold("album", 0.5)


def test_nothing_matches_when_the_best_is_under_the_threshold(street, folder):
    street.write_street(RANKED)
    street.run(fill(folder, {"a.png": cells(RED, seed=1)}), recipe="street")
    local = street.local()
    [found] = local.search(cells(RED, seed=2), gallery="album", threshold=1.0).objects
    assert found.matched is False
    assert found.matches
    [found] = local.search(cells(RED, seed=2), gallery="album", threshold=-1.0).objects
    assert found.matched is True
    for wrong in (1.1, float("nan")):
        with pytest.raises(BadInput):
            local.search(cells(RED), gallery="album", threshold=wrong)


def test_the_lens_of_a_short_recipe_is_that_of_the_long_one(home):
    """Names come with the embedding model, as they always did."""
    book = home.local().parts.book
    (home.path / "recipes" / "mine.yaml").write_text("recipe: mine\nembed: dummy/1\n")
    short = book.lens("mine")
    (home.path / "recipes" / "mine.yaml").write_text("recipe: mine\nembed: dummy/1\nclassify: dummy/1\nlabels: 5\n")
    assert book.lens("mine").digest == short.digest
    assert set(short.document) == {"recipe", "models", "space", "thresholds"}


def test_a_recipe_of_scores_alone_is_imported_and_told(street, folder):
    (street.path / "recipes" / "looks.yaml").write_text("recipe: looks\nscore: {look: dummy/1}\n")
    plan = street.run(fill(folder, {"a.png": cells(RED)}), recipe="looks", gallery="looks")
    assert plan["state"] == "done"
    local = street.local()
    assert local.gallery("looks")["counts"]["objects"] == 1
    [found] = local.search(cells(RED), gallery="looks").objects
    assert found.matches == ()


def test_what_was_enrolled_just_now_is_a_duplicate_until_it_is_deleted(street, folder):
    street.write_street(RECIPE.replace("margin: 0.2", "margin: 0") + "filters:\n  - duplicate: {min_cosine: 0.9999}\n")
    local = street.local()
    local.create_gallery("album", recipe="street")
    enrolled = local.enrol(cells(RED, GREEN, seed=1), gallery="album")
    first = street.run(fill(folder, {"a.png": cells(RED, BLUE, seed=1), "b.png": cells(RED, seed=2)}), recipe="street")
    assert books(first)["seal"] == (2, 1, {"duplicate": 1}, 0, 1)
    local.delete("album", pictures=[enrolled.picture])
    second = street.run(fill(folder, {"c.png": cells(RED, DARK, BLUE, seed=1)}), recipe="street")
    assert books(second)["seal"] == (1, 1, {}, 0, 1)


def test_what_the_gallery_or_the_import_has_already_is_a_duplicate(street, folder):
    street.write_street(RECIPE.replace("margin: 0.2", "margin: 0") + "filters:\n  - duplicate: {min_cosine: 0.9999}\n")
    first = street.run(fill(folder, {"a.png": cells(RED, GREEN, seed=1)}), recipe="street")
    assert books(first)["seal"] == (2, 2, {}, 0, 2)
    again = {"b.png": cells(RED, GREEN, BLUE, seed=1), "c.png": cells(RED, seed=2), "d.png": cells(RED, BLUE, seed=2)}
    second = street.run(fill(folder, again), recipe="street")
    assert second["state"] == "done"
    assert books(second)["seal"] == (4, 1, {"duplicate": 3}, 0, 1)
    found = street.local().search(cells(RED, seed=2), gallery="album", k=10).objects[0].matches
    assert [item["id"] for item in found[0].items] == ["c.png"]
    assert len(found) == 2
    assert street.local().gallery("album")["counts"]["pictures"] == 4
