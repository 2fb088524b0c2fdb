"""Marks on a picture: seen on any background, labels in the picture and apart, in any script."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from relens.values import WHOLE, Box
from relens.vision import draw as drawing
from relens.vision import overlay
from relens.vision.draw import Mark, colour_of, draw
from relens.vision.fonts import Fonts, coverage


def plain(height, width, value=0):
    return np.full((height, width, 3), value, np.uint8)


def layout_of(marks, height=480, width=640):
    """The labels that `draw` would write."""
    boxes = [drawing._rect(mark.box, width, height) for mark in marks]
    layout = drawing._Layout(width, height, 2, boxes, drawing._fonts(()))
    return [layout.place(mark, number, 12) for number, mark in enumerate(marks)]


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@st.composite
def some_marks(draw_from):
    def box():
        x, y = draw_from(st.floats(0, 0.95)), draw_from(st.floats(0, 0.95))
        return Box(x, y, draw_from(st.floats(0.001, 1)) * (1 - x), draw_from(st.floats(0.001, 1)) * (1 - y))

    texts = st.text(max_size=12) | st.sampled_from(["person 0.93", "Кошка 0.50", "猫", "قطة 0.1"])
    return [
        Mark(box(), draw_from(texts), draw_from(st.sampled_from("abc")), short=draw_from(st.sampled_from(["", "0.93"])))
        for _ in range(draw_from(st.integers(0, 8)))
    ]


@settings(max_examples=60, deadline=None)
@given(some_marks(), st.integers(1, 300), st.integers(1, 300))
def test_any_marks_on_any_picture_leave_its_size_and_the_input_as_they_were(marks, height, width):
    pixels = plain(height, width, 77)
    drawn = draw(pixels, marks)
    assert drawn.shape == pixels.shape
    assert drawn.dtype == np.uint8
    assert (pixels == 77).all()


@settings(max_examples=60, deadline=None)
@given(some_marks(), st.integers(1, 300), st.integers(1, 300))
def test_labels_never_leave_the_picture_and_never_cover_each_other(marks, height, width):
    rects = [label.rect for label in layout_of(marks, height, width) if label]
    for number, rect in enumerate(rects):
        assert rect[0] >= 0
        assert rect[1] >= 0
        assert rect[2] <= width
        assert rect[3] <= height
        assert not any(overlap(rect, other) for other in rects[:number])


@pytest.mark.parametrize("background", [0, 128, 255])
@pytest.mark.parametrize("key", ["person", "dog", "face", "car", "3", "kite"])
def test_a_box_is_seen_on_any_background(background, key):
    """Somewhere on its edge is a pixel that is far from the background."""
    drawn = draw(plain(400, 400, background), [Mark(Box(0.2, 0.2, 0.5, 0.5), "", key)]).astype(int)
    changed = np.abs(drawn - background).max(axis=2)
    assert (changed[60:300, 150].max(), changed[150, 60:300].max()) > (80, 80)
    assert changed[150:200, 150:200].max() == 0


def test_a_label_stands_above_its_box_and_inside_where_there_is_no_room_above():
    (above,) = layout_of([Mark(Box(0.2, 0.4, 0.4, 0.4), "cat 0.9", "cat")])
    assert above.rect[3] <= round(0.4 * 480)
    (inside,) = layout_of([Mark(Box(0.2, 0.0, 0.4, 0.4), "cat 0.9", "cat")])
    assert inside.rect[1] == 0


def test_marks_with_the_same_box_have_labels_side_by_side():
    labels = layout_of([Mark(Box(0.3, 0.3, 0.3, 0.3), f"guess {number}", "x") for number in range(4)])
    assert all(labels)
    assert len({label.rect for label in labels}) == 4


def test_in_a_crowd_small_boxes_say_less():
    grid = [(x, y) for y in range(20) for x in range(30)]
    marks = [Mark(Box(x / 30, y / 20, 1 / 31, 1 / 21), "somebody 0.93", "face", short=".93") for x, y in grid]
    said = [label.text for label in layout_of(marks, 600, 800) if label]
    assert len(said) > 400
    assert said.count(".93") > 300


def test_a_long_name_ends_with_an_ellipsis_within_the_picture():
    (label,) = layout_of([Mark(Box(0.1, 0.5, 0.5, 0.4), "a" * 300, "a")])
    assert label.text.endswith("…")
    assert label.rect[2] <= 640


def test_lines_and_letters_grow_with_the_picture():
    mark = Mark(Box(0.25, 0.25, 0.5, 0.5), "", "a")
    small, large = (int((draw(plain(side, side), [mark])[side // 2] != 0).any(axis=1).sum()) for side in (300, 3000))
    assert large > 4 * small


def test_a_key_has_one_colour_and_many_keys_have_many():
    assert colour_of("person") == colour_of("person")
    assert len({colour_of(f"class {number}") for number in range(80)}) == len(drawing.PALETTE)


def test_letters_have_at_least_the_contrast_that_wcag_asks_for():
    def luminance(colour):
        linear = (np.asarray(colour) / 255) ** 2.2
        return float(linear @ (0.2126, 0.7152, 0.0722)) + 0.05

    for colour in drawing.PALETTE:
        pair = sorted((luminance(colour), luminance(drawing._readable_on(colour))))
        assert pair[1] / pair[0] >= 4.5


def test_a_polygon_is_drawn_instead_of_the_box_and_landmarks_as_dots():
    corners = ((0.5, 0.1), (0.9, 0.5), (0.5, 0.9), (0.1, 0.5))
    mark = Mark(Box(0.1, 0.1, 0.8, 0.8), "", "a", polygon=corners, landmarks=((0.5, 0.5),))
    drawn = draw(plain(400, 400), [mark])
    assert (drawn[200, 200] == colour_of("a")).all()
    assert (drawn[120, 120] == colour_of("a")).any() or drawn[115:125, 115:125].any()
    assert not drawn[40:50, 40:50].any()


def test_marks_lie_above_a_heat_map():
    cam = np.full((7, 7), 0.5, np.float32)
    under = overlay(plain(100, 100), cam, WHOLE)
    drawn = draw(under, [Mark(Box(0.2, 0.2, 0.6, 0.6), "", "a")])
    assert (drawn[20, 50] == colour_of("a")).all()
    assert (drawn[50, 50] == under[50, 50]).all()


def test_what_no_font_has_is_shown_as_its_code_point_and_never_as_an_empty_square():
    fonts = Fonts()
    unassigned = "\U000e0fff"
    assert fonts.drawable(f"a{unassigned}b") == "a U+E0FFF b"
    assert fonts.drawable("".join(chr(0xE0F00 + n) for n in range(5))) == "?????"


def test_line_breaks_and_marks_of_direction_do_not_get_into_a_label():
    fonts = Fonts()
    assert fonts.drawable("one\ntwo\t\x00three\u202e four") == "one two three four"
    assert fonts.drawable("\ud800") == "?"


def test_each_run_has_a_font_with_its_glyphs():
    for run in Fonts().runs("cat Кошка é 0.93", 20):
        assert isinstance(run.font, ImageFont.FreeTypeFont)
    assert "".join(run.text for run in Fonts().runs("cat 0.93", 20)) == "cat 0.93"


def test_fonts_that_are_named_go_first_and_damaged_ones_are_passed_over(tmp_path):
    (tmp_path / "empty.ttf").write_bytes(b"")
    (tmp_path / "text.ttf").write_bytes(b"no font at all" * 100)
    fonts = Fonts([tmp_path / "empty.ttf", tmp_path / "text.ttf", tmp_path / "missing.ttf"])
    assert fonts.drawable("cat") == "cat"


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_damaged_font_is_a_value_error_and_nothing_else(data):
    """The font of Pillow with a few bytes changed."""
    original = ImageFont.load_default(10).path
    original.seek(0)
    damaged = bytearray(original.read())
    for place in data.draw(st.lists(st.integers(0, 4000), min_size=1, max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        codes = coverage(io.BytesIO(bytes(damaged)))
    except (ValueError, struct.error):
        return
    assert (np.diff(codes) > 0).all()
