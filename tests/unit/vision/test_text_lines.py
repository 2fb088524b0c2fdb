"""The detector's input, and lines out of maps that are drawn here."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from relens.errors import Broken
from relens.values import Preprocessing
from relens.vision.lines import find_lines, text_input
from relens.vision.regions import turns

PREP = Preprocessing(320, 320, "bilinear", "bgr", "nchw", (127.5,) * 3, (127.5,) * 3, fit="stretch")
AS_IT_IS = replace(PREP, mean=(0.0,) * 3, std=(1.0,) * 3, colour="rgb")
MAPS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    elements=st.sampled_from([0.0, 0.2, 0.4, 0.7, 1.0]),
)


def a_map(width, height, *cores, chance=0.9):
    """Cores as (x of the centre, y, length, breadth, angle in degrees)."""
    fine = Image.new("L", (width * 4, height * 4))
    for core in cores:
        ImageDraw.Draw(fine).polygon([(4 * x, 4 * y) for x, y in rectangle(*core)], fill=255)
    return np.asarray(fine.reduce(4), np.float32) / 255 * np.float32(chance)


def rectangle(x, y, length, breadth, angle):
    """Corners, clockwise from the top left of what reads along the angle."""
    turn = math.radians(angle)
    right = np.array([math.cos(turn), math.sin(turn)]) * length / 2
    down = np.array([-math.sin(turn), math.cos(turn)]) * breadth / 2
    centre = np.array([x, y])
    return [tuple(centre + a * right + b * down) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def in_pixels(detection, width, height):
    return np.array(detection.polygon) * (width, height)


@given(width=st.integers(1, 100_000), height=st.integers(1, 100_000), long_px=st.sampled_from([320, 960, 1600]))
@settings(deadline=None, max_examples=25)
def test_an_input_is_made_of_steps_and_never_larger_than_is_said(width, height, long_px):
    pixels = np.broadcast_to(np.uint8(90), (height, width, 3))
    if width * height > 4_000_000:
        pixels = pixels[:: math.ceil(height / 2000), :: math.ceil(width / 2000)]
    _, channels, rows, columns = text_input(pixels, PREP, {"long_side_px": long_px}).shape
    assert channels == 3
    assert rows % 32 == columns % 32 == 0
    assert 32 <= min(rows, columns) <= max(rows, columns) <= long_px


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1240, 1754, (1120, 1600)),
        (992, 736, (992, 736)),
        (400, 300, (992, 736)),
        (100, 50, (384, 192)),  # four times, not fifteen
        (10_000, 10, (1600, 32)),
        (10, 10_000, (32, 1600)),
        (1, 1, (32, 32)),
    ],
)
def test_small_pictures_are_enlarged_and_large_ones_made_smaller(width, height, expected):
    batch = text_input(np.zeros((height, width, 3), np.uint8), PREP, {})
    assert batch.shape == (1, 3, expected[1], expected[0])
    assert batch.dtype == np.float32


def test_colours_and_layout_are_those_of_the_card():
    pixels = np.full((64, 64, 3), (10, 100, 200), np.uint8)
    decode = {"short_side_px": 64}
    assert text_input(pixels, AS_IT_IS, decode)[0, :, 5, 5].tolist() == [10, 100, 200]
    assert text_input(pixels, replace(AS_IT_IS, colour="bgr"), decode)[0, :, 5, 5].tolist() == [200, 100, 10]
    assert text_input(pixels, replace(AS_IT_IS, layout="nhwc"), decode).shape == (1, 64, 64, 3)
    assert text_input(pixels, PREP, decode)[0, 0, 5, 5] == pytest.approx((200 - 127.5) / 127.5)


@pytest.mark.parametrize("angle", [-74, -60, -44, -30, -15, -5, 0, 3, 10, 25, 44, 46, 60, 74])
def test_a_line_at_any_angle_is_found_with_its_corners_from_the_top_left_of_the_text(angle):
    core = (150, 140, 160, 18, angle)
    (found,) = find_lines(a_map(300, 280, core), {"unclip": 1.6})
    more = 160 * 18 * 1.6 / (160 + 18)
    expected = rectangle(150, 140, 160 + more, 18 + more, angle)
    assert in_pixels(found, 300, 280) == pytest.approx(np.array(expected), abs=4)
    assert found.score == pytest.approx(0.85, abs=0.06)


@pytest.mark.parametrize("angle", [90, 80, 100])
def test_an_upright_line_is_read_downwards(angle):
    (found,) = find_lines(a_map(200, 300, (100, 150, 180, 20, angle)), {})
    assert in_pixels(found, 200, 300) == pytest.approx(
        np.array(rectangle(100, 150, 180 + 28.8, 20 + 28.8, angle)), abs=4
    )


def test_a_short_line_stands_as_it_is_written():
    (found,) = find_lines(a_map(100, 100, (50, 50, 20, 24, 0)), {})
    (left, top), (right, _), (_, bottom), _ = in_pixels(found, 100, 100)
    assert left < 40
    assert right > 60
    assert top < 38
    assert bottom > 62


def test_neighbouring_lines_stay_apart_and_specks_are_nothing():
    chances = a_map(200, 100, (100, 20, 150, 9, 0), (100, 45, 150, 9, 0), (100, 70, 150, 9, 0))
    chances[90:92, 20:22] = 1.0
    found = find_lines(chances, {})
    assert [round(line.box.y * 100) for line in found] == pytest.approx([9, 34, 59], abs=2)


def test_a_line_of_which_the_map_is_not_sure_is_dropped():
    core = (100, 50, 120, 14, 4)
    assert find_lines(a_map(200, 100, core, chance=0.45), {}) == []
    assert len(find_lines(a_map(200, 100, core, chance=0.45), {"box_threshold": 0.35})) == 1
    assert find_lines(a_map(200, 100, core), {"threshold": 0.95}) == []


def test_unclip_widens_by_area_and_perimeter():
    areas = [
        line.box.w * line.box.h
        for unclip in (0.0, 1.0, 2.0)
        for line in find_lines(a_map(200, 100, (100, 50, 100, 20, 0)), {"unclip": unclip})
    ]
    sides = [(100 + more) * (20 + more) / 20_000 for more in (0, 100 * 20 / 120, 2 * 100 * 20 / 120)]
    assert areas == pytest.approx(sides, rel=0.05)


def test_of_too_many_lines_the_largest_are_kept():
    cores = [(100, 10 + 20 * n, 20 + 20 * n, 6, 0) for n in range(8)]
    found = find_lines(a_map(200, 170, *cores), {}, max_lines=3)
    assert [round(line.box.y * 170 / 20) for line in found] == [5, 6, 7]


def test_a_line_at_the_border_ends_there():
    (found,) = find_lines(a_map(200, 100, (20, 8, 80, 16, 0)), {})
    assert found.polygon[0] == (0.0, 0.0)
    assert (found.box.x, found.box.y) == (0.0, 0.0)


def test_a_line_around_the_corner_of_the_picture_keeps_an_area():
    (found,) = find_lines(a_map(100, 100, (3, 3, 24, 10, 45)), {"box_threshold": 0.1})
    assert (turns(np.array(found.polygon)) > 0).all()


@settings(deadline=None, max_examples=300)
@given(chances=MAPS, unclip=st.floats(0, 4), box_threshold=st.floats(0, 1))
def test_any_map_gives_lines_within_the_picture(chances, unclip, box_threshold):
    for line in find_lines(chances, {"unclip": unclip, "box_threshold": box_threshold}):
        corners = np.array(line.polygon)
        assert corners.shape == (4, 2)
        assert (turns(corners) > 0).all()
        assert corners.min() >= 0
        assert corners.max() <= 1
        assert (line.box.x, line.box.y) == tuple(corners.min(axis=0))
        assert box_threshold <= line.score <= 1


def test_a_map_may_come_with_a_batch_and_a_channel_of_one():
    chances = a_map(64, 32, (30, 16, 40, 8, 0))
    assert find_lines(chances[np.newaxis, np.newaxis], {}) == find_lines(chances, {})


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 3, 8, 8), (8,)])
def test_what_is_no_map_is_refused(shape):
    with pytest.raises(Broken) as caught:
        find_lines(np.zeros(shape, np.float32), {})
    assert caught.value.code == "vision.wrong-head"
