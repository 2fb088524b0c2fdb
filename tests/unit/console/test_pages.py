"""Pages hold what was found, escape what is hostile, and need nothing but themselves."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from relens.console import Asked, demo_page, search_page
from relens.errors import BadInput, Missing
from relens.values import WHOLE, Box, FoundObject, Label, Match, MatchedObject, PictureInfo, SearchAnswer, digest_of
from relens.vision import decode, encode_jpeg

HOSTILE = "<script>alert('1')</script>\"><img src=http://evil.example/x onerror=alert(2)>\n&amp; {{ 7 * 7 }}"
CAT = Label("Egyptian cat", 285, 0.62)


def jpeg(width=60, height=40, value=90):
    return encode_jpeg(np.full((height, width, 3), value, np.uint8), quality=90)


class Crops:
    """A gateway that knows the crops of some objects."""

    def __init__(self, *known):
        self.known = known

    def crop(self, object_id):
        if object_id not in self.known:
            raise Missing("gallery.no-object", f"object {object_id} was deleted", gone=True)
        return jpeg(value=object_id)


def match(object_id=1, score=0.9, labels=(CAT,), sha256="ab" * 32, **item):
    picture = PictureInfo(sha256, 60, 40, "file:///pictures/cat.jpg")
    items = ({"id": "cat", "uri": "file:///pictures/cat.jpg", "day": "2026-01-31"} | item,)
    return Match(object_id, score, WHOLE, labels, picture, items)


def answer(*matches, query=None, gallery="pets", labels=(CAT,)):
    picture = PictureInfo(digest_of(query or jpeg()), 60, 40)
    timings = {"decode": 1.25, "search": 0.5}
    return SearchAnswer("pets-3", 17, gallery, picture, (MatchedObject(WHOLE, matches, labels),), timings)


def explained(**attributes):
    return FoundObject(WHOLE, 1.0, "all", (CAT,), attributes)


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag, **wanted):
        found = [attrs for name, attrs in self.elements if name == tag]
        return [attrs for attrs in found if all(attrs.get(key.rstrip("_")) == value for key, value in wanted.items())]


def assert_self_contained(text):
    page = Page(text)
    for tag, attrs in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form", "a"}
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(name, "data:").startswith("data:"), f"{tag} {name} leaves the page"
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert style
    assert "url(" not in style
    assert "@import" not in style
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in policy["content"]


def test_a_page_shows_the_names_of_the_query_and_each_match_with_its_score_item_and_uri():
    found = match(score=0.934, title="Chelsea the cat", price=12.5, shop="The Shop")
    text = search_page(Crops(1), jpeg(), answer(found), None)
    page = Page(text)
    for said in ("Egyptian cat", "62\u00a0%", "0.934", "Chelsea the cat", "cat.jpg", "12.5", "The Shop"):
        assert said in page.text
    for said in ("pets-3", "17", "pets", "decode", "1.2 ms", "search", "0.5 ms"):
        assert said in page.text
    assert len(page.all("li", class_="match")) == 1
    assert_self_contained(text)


def test_matches_come_in_the_order_of_the_answer():
    found = [match(n, 0.9 - n / 10, id=f"item-{n}") for n in (1, 2, 3)]
    text = Page(search_page(Crops(1, 2, 3), jpeg(), answer(*found), None)).text
    assert text.index("item-1") < text.index("item-2") < text.index("item-3")


@pytest.mark.parametrize("field", ["id", "uri", "title", "shop"])
def test_hostile_text_of_an_item_stays_text(field):
    text = search_page(Crops(1), jpeg(), answer(match(**{field: HOSTILE})), None)
    assert_self_contained(text)
    assert "<script" not in text
    assert "49" not in Page(text).text
    assert "<script>alert" in Page(text).text


def test_hostile_names_of_labels_galleries_and_pictures_stay_text():
    bad = Label(HOSTILE, 1, 0.5)
    found = Match(1, 0.5, WHOLE, (bad,), PictureInfo("ab" * 32, 1, 1, HOSTILE), ())
    shown = explained(heatmap={"box": [0, 0, 1, 1], "values": [[0.0, 1.0]]})
    shown = FoundObject(WHOLE, 1.0, "all", (bad,), shown.attributes)
    text = search_page(Crops(1), jpeg(), answer(found, gallery=HOSTILE, labels=(bad,)), shown)
    assert_self_contained(text)
    assert "<script" not in text


def test_text_that_utf_8_or_html_cannot_hold_is_replaced():
    text = search_page(Crops(1), jpeg(), answer(match(title="a\ud800b\x00c\x1bd", uri="file:///\udcff/x\x07")), None)
    assert "a\ufffdb\ufffdc\ufffdd" in text
    text.encode()
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text)


def test_long_text_does_not_swell_the_page():
    text = search_page(Crops(1), jpeg(), answer(match(title="x" * 10_000, shop="y" * 10_000)), None)
    assert "x" * 200 not in text
    assert "y" * 200 not in text


def test_an_item_may_have_any_value_in_any_column():
    odd = match(title=17, shop=["a", 2], price="cheap", tags={"a": 1})
    assert_self_contained(search_page(Crops(1), jpeg(), answer(odd), None))


def test_a_gallery_without_matches_says_so():
    text = search_page(Crops(), jpeg(), answer(), None)
    assert "Nothing in this gallery yet" in text
    assert not Page(text).all("li", class_="match")
    assert_self_contained(text)


def test_a_picture_without_objects_says_the_same():
    nothing = SearchAnswer("pets-3", 17, "pets", PictureInfo("ab" * 32, 60, 40), (), {})
    assert "Nothing in this gallery yet" in search_page(Crops(), jpeg(), nothing, None)


def test_without_a_heat_map_there_is_one_picture_and_no_frame():
    page = Page(search_page(Crops(), jpeg(), answer(), None))
    assert len(page.all("img")) == 1
    assert not page.all("i", class_="box")


def test_a_heat_map_is_laid_over_the_query():
    heat = {"box": [0.0, 0.0, 0.5, 1.0], "values": [[1.0, 1.0], [1.0, 1.0]]}
    page = Page(search_page(Crops(), jpeg(), answer(), explained(heatmap=heat)))
    plain, heated = (decode(base64.b64decode(img["src"].partition(",")[2])).pixels for img in page.all("img"))
    changed = np.abs(plain.astype(int) - heated.astype(int)).max(axis=2)
    assert changed[:, :24].min() > 50
    assert changed[:, 36:].max() < 10


def test_the_subject_is_framed_where_it_is():
    page = Page(search_page(Crops(), jpeg(), answer(), explained(subject=[0.25, 0.5, 0.5, 0.25])))
    [frame] = page.all("i", class_="box")
    assert frame["style"] == "left:25.00%;top:50.00%;width:50.00%;height:25.00%"


def test_objects_that_are_not_the_whole_picture_are_framed_and_numbered():
    objects = tuple(MatchedObject(Box(x, 0.0, 0.4, 1.0), (match(1),)) for x in (0.0, 0.5))
    two = SearchAnswer("pets-3", 17, "pets", PictureInfo("ab" * 32, 60, 40), objects, {})
    page = Page(search_page(Crops(1), jpeg(), two, None))
    assert len(page.all("i", class_="box")) == 2
    assert "Object 2" in page.text


def test_a_match_that_was_deleted_since_is_shown_without_its_crop():
    page = Page(search_page(Crops(2), jpeg(), answer(match(1), match(2)), None))
    assert "deleted" in page.text
    assert len(page.all("li", class_="match")) == 2


def test_the_same_file_is_marked():
    query = jpeg()
    text = search_page(Crops(1, 2), query, answer(match(1, sha256=digest_of(query)), match(2), query=query), None)
    assert text.count("same file") == 1


def test_a_large_query_makes_a_small_page():
    noise = np.random.default_rng(5).integers(0, 255, (1500, 2000, 3)).astype(np.uint8)
    query = encode_jpeg(noise, quality=95)
    found = SearchAnswer("pets-3", 17, "pets", PictureInfo(digest_of(query), 2000, 1500), (), {})
    text = search_page(Crops(), query, found, None)
    [img] = Page(text).all("img")
    assert decode(base64.b64decode(img["src"].partition(",")[2])).pixels.shape == (480, 640, 3)
    assert len(text) < len(query) / 4


def test_a_query_that_is_no_picture_is_refused():
    with pytest.raises(BadInput):
        search_page(Crops(), b"no picture", answer(), None)


def plan(**changes):
    task = {"name": "read", "stage": "import", "unit": "entry", "in": 9, "out": 5, "dropped": {}, "failed": 1}
    tasks = [task | {"dropped": {"already-in-gallery": 2, "duplicate-id": 1}}]
    return {"id": 4, "gallery": "pets", "state": "done", "tasks": tasks} | changes


def demo(*asked, plans=(), sources=None, commands=()):
    return demo_page(Crops(1), asked, plans=plans, origin="from a drawer", sources=sources or {}, commands=commands)


def test_the_demo_page_has_a_section_for_each_query():
    asked = [Asked(jpeg(), answer(match()), None, title, "why") for title in ("morning", "evening")]
    text = demo(*asked)
    page = Page(text)
    assert [page.text.count(said) for said in ("morning", "evening", "from a drawer")] == [1, 1, 1]
    assert len(page.all("li", class_="match")) == 2
    assert_self_contained(text)


def test_the_demo_page_shows_the_funnel_and_what_was_dropped_and_why():
    page = Page(demo(plans=[plan()]))
    assert "Plan 4" in page.text
    cells = re.sub(r"\s+", " ", page.text)
    assert "already-in-gallery" in cells
    assert "duplicate-id" in cells
    assert len(page.all("tr")) == 2


def test_the_demo_page_lists_what_could_not_be_used():
    quarantine = [{"uri": f"file:///{HOSTILE}", "message": HOSTILE}]
    text = demo(plans=[plan(quarantine=quarantine)])
    assert "1 pictures could not be used" not in text
    assert "1 picture could not be used" in text
    assert_self_contained(text)


def test_hostile_titles_sources_and_commands_of_a_demo_stay_text():
    asked = Asked(jpeg(), answer(), None, HOSTILE, HOSTILE)
    text = demo(asked, plans=[plan(gallery=HOSTILE)], sources={HOSTILE: HOSTILE}, commands=[HOSTILE])
    assert_self_contained(text)
    assert "<script" not in text
