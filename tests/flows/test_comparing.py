"""Two pictures compared, a gallery's likeness, and answers drawn: through the uses, with the dummy model."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from relens.errors import BadInput, Conflict, Missing
from relens.narrowing import read_where
from relens.testing.homes import fill
from relens.testing.pictures import draw

RED, GREEN, BLUE, DARK = (255, 60, 60), (60, 255, 60), (60, 60, 255), (0, 0, 0)
CELL = 40

STREET = """\
recipe: street
detect: {model: dummy-detector/1, min_score: 0.4, categories: {red: warm, green: cold, blue: cold}}
crop: {margin: 0.2}
embed: dummy/1
branches: {cold: {embed: none}}
search: {threshold: 0.9}
"""


def cells(*colours, strength=1.0):
    """A PNG of 4 x 4 cells in these colours, the rest dark; the detector is the surer, the stronger they are."""
    pixels = np.zeros((4 * CELL, 4 * CELL, 3), np.uint8)
    for number, colour in enumerate(colours):
        down, across = divmod(number, 4)
        part = np.s_[down * CELL : (down + 1) * CELL, across * CELL : (across + 1) * CELL]
        pixels[part] = (np.array(colour) * strength).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def local(home):
    (home.path / "recipes" / "street.yaml").write_text(STREET)
    return home.local()


# -- verify -----------------------------------------------------------------------------------------------------------


def test_a_picture_is_the_same_as_itself_and_not_as_another(local):
    same = local.verify(draw(1), draw(1), recipe="photos", threshold=0.999)
    assert same.score == pytest.approx(1, abs=1e-5)
    assert same.same is True
    assert same.found == (1, 1)
    other = local.verify(draw(1), draw(2), recipe="photos", threshold=0.999)
    assert other.score < 0.999
    assert other.same is False


def test_without_a_threshold_nobody_says_what_is_the_same(local):
    told = local.verify(draw(1), draw(1), recipe="photos")
    assert told.same is None
    assert "same" not in told.to_json()


def test_the_strongest_objects_are_compared_by_the_recipes_threshold(local):
    pale = cells(DARK, (250, 90, 90), RED, strength=1.0)
    told = local.verify(pale, cells(RED), recipe="street")
    assert told.found == (2, 1)
    assert told.threshold == 0.9
    assert told.boxes[0].x == 0.25
    assert told.boxes[1].x == 0.0
    assert told.release == local.recognize(cells(RED), recipe="street").release


@pytest.mark.parametrize(
    ("one", "other", "code", "words"),
    [
        (cells(RED), cells(), "gateway.nothing-found", "picture 2"),
        (cells(), cells(RED), "gateway.nothing-found", "picture 1"),
        (cells(RED), cells(GREEN), "gateway.no-vector", "cold"),
        (cells(RED), b"none", "vision.not-a-picture", "picture 2"),
        (b"", cells(RED), "vision.empty", "picture 1"),
    ],
)
def test_what_cannot_be_compared_is_told_with_the_picture(local, one, other, code, words):
    with pytest.raises(BadInput) as caught:
        local.verify(one, other, recipe="street")
    assert caught.value.code == code
    assert words in caught.value.message


def test_objects_of_two_kinds_are_not_compared(home, local):
    (home.path / "recipes" / "street.yaml").write_text(STREET.replace("branches: {cold: {embed: none}}\n", ""))
    with pytest.raises(BadInput) as caught:
        local.verify(cells(RED), cells(GREEN), recipe="street")
    assert caught.value.code == "gateway.not-alike"


@pytest.mark.parametrize("threshold", [float("nan"), 1.5, -2.0])
def test_a_threshold_is_a_cosine(local, threshold):
    with pytest.raises(BadInput) as caught:
        local.verify(draw(1), draw(1), recipe="photos", threshold=threshold)
    assert caught.value.code == "gateway.bad-threshold"


def test_an_error_of_the_recipe_is_not_told_as_one_of_a_picture(home, local):
    (home.path / "recipes" / "street.yaml").write_text("recipe: street\nembed: 3\n")
    with pytest.raises(BadInput) as caught:
        local.verify(draw(1), draw(1), recipe="street")
    assert not caught.value.message.startswith("picture")
    with pytest.raises(Missing):
        local.verify(draw(1), draw(1), recipe="nobody")


# -- draw -------------------------------------------------------------------------------------------------------------


def test_what_was_recognised_is_drawn_where_it_is(local):
    data = cells(DARK, DARK, DARK, DARK, DARK, RED)
    answer = local.recognize(data, recipe="street")
    before = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    after = np.asarray(Image.open(io.BytesIO(local.draw(data, answer)))).astype(int)
    assert after.shape == before.shape
    changed = np.abs(after - before).max(axis=2) > 60
    assert changed[36:84, 36:84].any()  # the frame of the one red cell
    assert not changed[100:].any()


def test_a_heat_map_is_drawn_when_the_answer_has_one(local):
    data = draw(1)
    plain = local.draw(data, local.recognize(data, recipe="photos"))
    warm = local.draw(data, local.recognize(data, recipe="photos", include=("heatmap",)))
    pictures = [np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) for jpeg in (plain, warm)]
    assert (np.abs(pictures[0] - pictures[1]).max(axis=2) > 40).mean() > 0.05


def test_a_subject_is_framed_in_the_object_and_not_in_its_crop(local):
    """What a model saw of a cut-out is told as a place of the picture."""
    data = cells(DARK, DARK, DARK, DARK, DARK, RED)
    [found] = local.recognize(data, recipe="street", include=("subject", "heatmap")).objects
    left, top, width, height = found.attributes["subject"]
    assert 0.2 <= left < left + width <= 0.55
    assert 0.2 <= top < top + height <= 0.55
    assert found.attributes["heatmap"]["box"] == pytest.approx([0.2, 0.2, 0.35, 0.35], abs=0.01)


def test_a_larger_picture_than_the_settings_allow_is_not_drawn_on(new_home):
    home = new_home()
    settings = home.path / "relens.yaml"
    settings.write_text(settings.read_text() + "limits: {max_pixels: 2000}\n")
    small = home.local()
    with pytest.raises(BadInput) as caught:
        small.draw(cells(RED), home.local().recognize(cells_of(20), recipe="photos"))
    assert caught.value.code == "vision.too-large"


def cells_of(side):
    out = io.BytesIO()
    Image.new("RGB", (side, side), RED).save(out, "PNG")
    return out.getvalue()


# -- likeness ---------------------------------------------------------------------------------------------------------


def test_a_gallery_tells_how_alike_its_objects_are(home, local, folder):
    listing = folder.parent / "people.csv"
    fill(folder, {f"{number}.png": number for number in range(30)})
    rows = [f"{folder}/{number}.png,{number},{number % 3}" for number in range(30)]
    listing.write_text("\n".join(["uri,id,person", *rows]) + "\n")
    home.run(listing)
    plain = local.likeness("album")
    assert plain["objects"] == plain["sampled"] == 30
    assert set(plain["pairs"]) == {"different", "nearest"}
    assert -1 <= plain["threshold"] <= 1
    told = local.likeness("album", same="person")
    assert told["pairs"]["same"]["count"] == 3 * 45
    assert told["pairs"]["different"]["count"] == 30 * 29 // 2 - 3 * 45
    nobody = local.likeness("album", same="nothing")
    assert "no two objects" in nobody["why"] or "nothing to tell" in nobody["why"]


def test_the_first_item_that_says_it_says_what_a_picture_shows(home, local, folder):
    fill(folder, {f"{number}.png": number for number in range(12)})
    listing = folder.parent / "people.csv"
    rows = [f"{folder}/{number}.png,a{number}," for number in range(12)]
    rows += [f"{folder}/{number}.png,b{number},{number % 2}" for number in range(12)]
    listing.write_text("\n".join(["uri,id,person", *rows]) + "\n")
    home.run(listing)
    assert local.likeness("album", same="person")["pairs"]["same"]["count"] == 2 * 15


def test_too_few_objects_and_what_is_not_there_say_so(home, local, folder):
    home.run(fill(folder, {f"{number}.png": number for number in range(9)}))
    for category in (None, "all"):
        with pytest.raises(Conflict) as caught:
            local.likeness("album", category=category)
        assert caught.value.code == "gateway.too-few"
    with pytest.raises(BadInput) as caught:
        local.likeness("album", category="no-such")
    assert caught.value.code == "gateway.no-category"
    for name in ("nobody", "album\0", "ALBUM", "album\udcff"):
        for ask in (local.likeness, lambda gallery: local.search(draw(1), gallery=gallery)):
            with pytest.raises(Missing):
                ask(name)


def test_of_many_categories_one_is_looked_at(home, local, folder):
    home.run(fill(folder, {"0.png": cells(*[RED] * 12, GREEN)}), recipe="street")
    assert local.likeness("album", category="warm")["objects"] == 12
    with pytest.raises(BadInput) as caught:
        local.likeness("album")
    assert "cold, warm" in caught.value.hint


# -- narrowed searches ------------------------------------------------------------------------------------------------


def test_a_search_is_narrowed_by_what_was_said_of_the_items(home, local, folder):
    fill(folder, {f"{number}.png": number for number in range(12)})
    listing = folder.parent / "shop.csv"
    rows = [f"{folder}/{number}.png,{number},{number * 10},{'new' if number % 2 else 'old'}" for number in range(12)]
    listing.write_text("\n".join(["uri,id,price,state", *rows]) + "\n")
    home.run(listing)

    def ids(**written):
        found = local.search(draw(3), gallery="album", k=100, where=read_where(**written)).objects[0].matches
        return [match.items[0]["id"] for match in found]

    assert ids()[0] == "3"
    assert sorted(ids(items=["price=20..50"]), key=int) == ["2", "3", "4", "5"]
    assert sorted(ids(items=["state=new", "price=..40"]), key=int) == ["1", "3"]
    assert ids(items=["state=' OR 1=1 --"]) == []
    assert ids(days="1999-01-01..1999-12-31") == []
    assert ids(category="all") == ids()
    with pytest.raises(BadInput) as caught:
        ids(category="no-such")
    assert caught.value.code == "serving.no-category"
    assert caught.value.hint == "its recipe gives all"
    every = ids()
    assert ids(items=["state=new"]) == [one for one in every if int(one) % 2]
