"""The order of lines on pages that are laid out here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relens.values import Box, Detection
from relens.vision.order import reading_order

WIDE, HIGH = 0.4, 0.02


def line(x, y, w=WIDE, h=HIGH):
    return Detection(Box(x, y, w, h), 1.0, polygon=((x, y), (x + w, y), (x + w, y + h), (x, y + h)))


def askew(lines, degrees):
    """The page turned around its middle, and made small enough to stay within the picture."""
    turn = np.deg2rad(degrees)
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * 0.75
    turned = []
    for one in lines:
        corners = (np.array(one.polygon) - 0.5) @ spin + 0.5
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        polygon = tuple((float(x), float(y)) for x, y in corners)
        turned.append(Detection(Box(left, top, right - left, bottom - top), 1.0, polygon=polygon))
    return turned


def column(x, top=0.2, count=20, step=0.03, **given):
    return [line(x, top + step * n, **given) for n in range(count)]


TWO_COLUMNS = [line(0.1, 0.05, 0.8, 0.05), *column(0.06), *column(0.54), line(0.49, 0.9, 0.03)]
STAGGERED = [line(0.1, 0.05, 0.8, 0.05), *column(0.06), *column(0.54, top=0.215, count=18)]
TABLE = [
    line(0.1 + 0.25 * place, 0.1 + 0.06 * row, 0.05 + 0.02 * ((row + place) % 2))
    for row in range(9)
    for place in range(4)
]
RECEIPT = [part for row in range(12) for part in (line(0.1, 0.1 + 0.04 * row, 0.3), line(0.8, 0.1 + 0.04 * row, 0.06))]
THREE = [*column(0.03, w=0.28), *column(0.36, top=0.4, count=10, w=0.28), *column(0.69, w=0.28)]
SECTIONS = [
    line(0.05, 0.02, 0.9),
    *column(0.05, top=0.06, count=8),
    *column(0.55, top=0.06, count=6),
    line(0.05, 0.4, 0.9),
    *column(0.05, top=0.45, count=5),
    *column(0.55, top=0.45, count=8),
]
PIECES = [line(0.1, 0.1, 0.3), line(0.45, 0.1, 0.4), line(0.1, 0.15, 0.5), line(0.65, 0.15, 0.2), line(0.1, 0.2, 0.75)]
PAGES = {
    "two columns, a title and a page number": TWO_COLUMNS,
    "columns whose lines are not level with each other": STAGGERED,
    "a table": TABLE,
    "a receipt": RECEIPT,
    "three columns, a picture above the one in the middle": THREE,
    "sections of columns": SECTIONS,
    "lines in pieces": PIECES,
    "one column": column(0.1, w=0.8),
    "tight lines, widened over each other": column(0.1, w=0.8, step=0.015),
    "a header left and right": [line(0.05, 0.02, 0.1), line(0.85, 0.02, 0.1), *column(0.05, w=0.9)],
}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("degrees", [0, -6, -2, 1, 4, 6])
def test_a_page_is_read_as_people_do_also_when_it_lies_askew(name, degrees):
    page = askew(PAGES[name], degrees)
    assert reading_order(page) == list(range(len(page)))


@settings(deadline=None, max_examples=30)
@given(name=st.sampled_from(sorted(PAGES)), data=st.data())
def test_the_order_does_not_depend_on_how_lines_were_found(name, data):
    page = PAGES[name]
    shuffled = data.draw(st.permutations(range(len(page))))
    order = reading_order([page[number] for number in shuffled])
    assert [shuffled[number] for number in order] == list(range(len(page)))


def test_a_box_will_do_for_a_polygon():
    page = [Detection(one.box, 1.0) for one in TWO_COLUMNS]
    assert reading_order(page) == list(range(len(page)))


def test_the_shape_of_the_picture_tells_prose_from_cells():
    cells = [part for row in range(6) for part in (line(0.1, 0.1 + 0.1 * row, 0.14), line(0.6, 0.1 + 0.1 * row, 0.14))]
    assert reading_order(cells, aspect=0.3) == list(range(12)), "short: read across"
    assert reading_order(cells, aspect=1.0) == [*range(0, 12, 2), *range(1, 12, 2)], "long: column by column"


def test_no_lines_have_no_order():
    assert reading_order([]) == []
    assert reading_order([line(0.1, 0.1)]) == [0]


BOXES = st.builds(
    lambda x, y, w, h: line(x, y, min(w, 1 - x), min(h, 1 - y)),
    st.floats(0, 0.95),
    st.floats(0, 0.95),
    st.floats(0.01, 1),
    st.floats(0.01, 0.5),
)


@settings(deadline=None)
@given(lines=st.lists(BOXES, max_size=40))
def test_every_line_comes_once_however_they_lie(lines):
    order = reading_order(lines)
    assert sorted(order) == list(range(len(lines)))


def test_boxes_within_boxes_come_to_an_end():
    """Each cut takes one line off, in turn from above, the left, below and the right."""
    nested, left, top, right, bottom = [], 0.0, 0.0, 1.0, 1.0
    thin = 0.0004
    while right - left > 4 * thin:
        nested += [
            line(left, top, right - left, thin),
            line(left, top + 2 * thin, thin, bottom - top - 2 * thin),
            line(left + 2 * thin, bottom - thin, right - left - 2 * thin, thin),
            line(right - thin, top + 2 * thin, thin, bottom - top - 4 * thin),
        ]
        left, top, right, bottom = left + 2 * thin, top + 2 * thin, right - 2 * thin, bottom - 2 * thin
    assert len(nested) > 2000
    assert sorted(reading_order(nested[:2000])) == list(range(2000))
