"""Lines cut out upright, and read by a recogniser that is made here: it reads colours."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from relens.errors import BadInput, Broken
from relens.values import Preprocessing
from relens.vision import text
from relens.vision.regions import turns
from relens.vision.text import LONGEST_PX, Reading, read_lines, rectify, upside_down

PREP = Preprocessing(320, 320, "bilinear", "bgr", "nchw", (127.5,) * 3, (127.5,) * 3, fit="stretch", height_px=48)
TURN = replace(PREP, size_px=192)
WORDS = ["", "a", "b", "c", "d"]
STEP = 8
WHOLE = [(0, 0), (1, 0), (1, 1), (0, 1)]


def a_line(width=240, height=24):
    """Something that looks different from every side, with hard and soft edges."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x // 12 % 2) * 200], axis=-1).astype(np.uint8)
    pixels[height // 3 : height // 2, width // 5 : width // 3] = (255, 255, 0)
    return pixels


def placed(line, angle, size=320):
    """A picture with the line in the middle, turned clockwise, and its polygon."""
    canvas = Image.new("RGB", (size, size), (90, 90, 90))
    left, top = (size - line.shape[1]) // 2, (size - line.shape[0]) // 2
    canvas.paste(Image.fromarray(line), (left, top))
    turned = canvas.rotate(-angle, Image.Resampling.BICUBIC)
    corners = np.array([(left, top), (size - left, top), (size - left, size - top), (left, size - top)], float)
    turn = np.deg2rad(angle)
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = (corners - size / 2) @ spin + size / 2
    return np.asarray(turned), (corners / size).tolist()


def difference(a, b):
    return np.abs(a.astype(float) - b.astype(float)).mean()


def test_a_level_line_is_the_resized_part_of_the_picture(photo):
    pixels = photo(200, 100)
    cut = rectify(pixels, [(0.1, 0.2), (0.9, 0.2), (0.9, 0.6), (0.1, 0.6)])
    expected = Image.fromarray(pixels[20:60, 20:180]).resize((192, 48), Image.Resampling.BILINEAR)
    assert cut.shape == (48, 192, 3)
    assert difference(cut, np.asarray(expected)) < 1


@pytest.mark.parametrize("angle", [-89, -60, -45, -20, -3, 1, 10, 45, 70, 90, 135, 180, -135])
def test_a_line_at_any_angle_is_cut_out_as_it_was(angle):
    line = a_line()
    pixels, polygon = placed(line, angle)
    cut = rectify(pixels, polygon, 24)
    assert cut.shape == line.shape
    inner = np.s_[2:-2, 2:-2]
    assert difference(cut[inner], line[inner]) < 9


def test_a_large_line_is_antialiased_before_it_is_turned():
    board = np.where(np.indices((480, 2400)).sum(axis=0) % 2, 255, 0).astype(np.uint8)
    pixels, polygon = placed(np.repeat(board[..., np.newaxis], 3, axis=2), 7, size=2600)
    cut = rectify(pixels, polygon)
    assert cut.shape == (48, 240, 3)
    assert cut[5:-5, 5:-5].std() < 12


def test_the_pieces_of_a_slanting_line_fit_together(monkeypatch):
    pixels, polygon = placed(a_line(300, 10), 41)
    taken = []
    parts = text._slanting

    def spied(*given):
        taken.append(given)
        return parts(*given)

    monkeypatch.setattr(text, "_slanting", spied)
    pieces = rectify(pixels, polygon)
    assert len(taken) > 3
    monkeypatch.setattr(text, "_ROOMY", 1000)
    assert np.abs(rectify(pixels, polygon).astype(int) - pieces).max() <= 2


def test_a_slanting_line_costs_no_more_than_its_area(monkeypatch):
    """Not the area of its bounds: of a thin line across a large picture that is all of it."""
    seen = []
    bounds = text._bounds

    def spied(*given):
        left, top, part = bounds(*given)
        seen.append(part.shape[0] * part.shape[1])
        return left, top, part

    monkeypatch.setattr(text, "_bounds", spied)
    rectify(np.zeros((3000, 3000, 3), np.uint8), [(0.02, 0), (1, 0.98), (0.98, 1), (0, 0.02)])
    area = 3000 * 2**0.5 * 85
    assert sum(seen) < 12 * area


def test_four_corners_in_perspective_become_a_rectangle():
    picture = Image.new("RGB", (300, 200), (20, 20, 20))
    quad = np.array([(40, 60), (260, 20), (250, 150), (50, 110)], float)
    for (x, y), colour in zip(quad, ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)), strict=True):
        ImageDraw.Draw(picture).ellipse((x - 16, y - 16, x + 16, y + 16), fill=colour)
    pixels = np.asarray(picture)
    cut = rectify(pixels, (quad / (300, 200)).tolist())
    assert cut[1, 1].tolist() == pytest.approx([255, 0, 0], abs=20)
    assert cut[1, -2].tolist() == pytest.approx([0, 255, 0], abs=20)
    assert cut[-2, -2].tolist() == pytest.approx([0, 0, 255], abs=20)
    assert cut[-2, 1].tolist() == pytest.approx([255, 255, 0], abs=20)


def test_a_tall_line_is_turned_to_the_left(photo):
    pixels = photo(40, 240)
    assert difference(rectify(pixels, WHOLE, 40), np.rot90(pixels)) < 1
    nearly = photo(100, 149)
    assert difference(rectify(nearly, WHOLE, 149), nearly) < 1


@settings(deadline=None, max_examples=100)
@given(
    corners=st.lists(st.tuples(st.floats(-0.2, 1.2), st.floats(-0.2, 1.2)), min_size=4, max_size=4),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
)
def test_any_four_corners_give_a_line_or_are_refused(corners, width, height, photo):
    pixels = photo(width, height)
    if not (turns(np.array(corners).clip(0, 1)) > 0).all():
        with pytest.raises(BadInput) as caught:
            rectify(pixels, corners)
        assert caught.value.code == "vision.bad-polygon"
        return
    cut = rectify(pixels, corners)
    assert cut.shape[0] == 48
    assert 1 <= cut.shape[1] <= LONGEST_PX
    assert cut.dtype == np.uint8
    assert cut.flags.writeable


@pytest.mark.parametrize(
    "polygon",
    [[], WHOLE[:3], WHOLE[::-1], [(0, 0)] * 4, [(float("nan"), 0), *WHOLE[1:]], [(2, 2), (3, 2), (3, 3), (2, 3)]],
)
def test_what_is_no_line_is_refused(polygon, photo):
    with pytest.raises(BadInput) as caught:
        rectify(photo(20, 20), polygon)
    assert caught.value.code == "vision.bad-polygon"


# -- reading --------------------------------------------------------------------------------------------------------


def written(said):
    """A crop that the recogniser below reads so: a digit for each step, 0 for the blank."""
    levels = np.repeat([60 * int(digit) for digit in said], STEP).astype(np.uint8)
    return np.broadcast_to(levels[np.newaxis, :, np.newaxis], (48, len(levels), 3)).copy()


def recognise(batch):
    """(n, t, 5): sure of the brightness of each step, and a little less so the brighter it is."""
    values = (batch[:, 0, 24] * 127.5 + 127.5).reshape(len(batch), -1, STEP).mean(axis=2)
    level = np.where(np.isclose(values, 127.5), 0, np.rint(values / 60)).astype(int)
    scores = np.full((*level.shape, len(WORDS)), 0.01, np.float32)
    np.put_along_axis(scores, level[..., np.newaxis], 1 - 0.05 * level[..., np.newaxis].astype(np.float32), axis=2)
    return scores


def said_by(digits):
    """What CTC makes of it, plainly: no digit after itself, no blanks."""
    kept = [digit for at, digit in enumerate(digits) if digit != digits[at - 1 : at] and digit != "0"]
    return "".join(WORDS[int(digit)] for digit in kept), kept


@settings(deadline=None)
@given(lines=st.lists(st.text("01234", min_size=1, max_size=30), max_size=12))
def test_lines_of_any_length_are_read_in_their_order(lines):
    found = read_lines([written(line) for line in lines], recognise, WORDS, PREP)
    for line, reading in zip(lines, found, strict=True):
        said, kept = said_by(line)
        assert reading.text == said
        assert reading.score == pytest.approx(np.mean([1 - 0.05 * int(d) for d in kept]) if kept else 0, abs=1e-6)


def test_a_letter_is_doubled_only_across_a_blank():
    crops = [written(line) for line in ("111", "1011", "0000", "1122011")]
    assert [reading.text for reading in read_lines(crops, recognise, WORDS, PREP)] == ["a", "aa", "", "aba"]


def test_memory_is_bounded_and_a_line_does_not_depend_on_those_beside_it():
    rng = np.random.default_rng(3)
    crops = [written("".join(rng.choice(list("01234"), size))) for size in rng.integers(1, 600, 80)]
    alone = {}

    def forward(batch):
        assert batch.shape[1:3] == (3, 48)
        assert len(batch) == 1 or len(batch) * batch.shape[3] <= 1280
        for row in batch:
            width = np.flatnonzero(row.any(axis=(0, 1))).max(initial=0)
            alone.setdefault(batch.shape[3], []).append(width)
        return recognise(batch)

    together = read_lines(crops, forward, WORDS, PREP)
    assert together == [read_lines([crop], recognise, WORDS, PREP)[0] for crop in crops]
    for filled, widths in alone.items():
        assert max(widths) > filled - 64 - STEP, "no line is filled up by more than a step"


def test_no_lines_are_no_work():
    assert read_lines([], pytest.fail, WORDS, PREP, turned=pytest.fail) == []
    assert upside_down([], pytest.fail, TURN).shape == (0,)


def test_a_model_and_characters_that_do_not_fit_are_told():
    with pytest.raises(Broken) as caught:
        read_lines([written("12")], recognise, WORDS[:-1], PREP)
    assert caught.value.code == "vision.wrong-head"
    with pytest.raises(BadInput) as caught:
        read_lines([written("12")[:40]], recognise, WORDS, PREP)
    assert caught.value.code == "vision.bad-crop"


def test_a_line_that_is_read_badly_is_turned_if_it_stands_on_its_head_and_reads_better_then():
    good, head, worse = written("1011"), written("01230"), written("4011")
    asked = []

    def turned(crops):
        asked.extend(crops)
        return np.array([0.9, 0.8], np.float32)

    def forward(batch):
        scores = recognise(batch)
        says = (batch[:, 0, 24, : 5 * STEP : STEP] * 127.5 + 127.5).round() // 60
        scores[(says == (0, 1, 2, 3, 0)).all(axis=1)] *= 0.5
        return scores

    found = read_lines([good, head, worse], forward, WORDS, PREP, turned=turned)
    assert [np.array_equal(crop, given) for crop, given in zip(asked, (head, worse), strict=True)] == [True, True]
    assert found[0] == Reading("aa", pytest.approx(0.95), turned=False)
    assert (found[1].text, found[1].turned) == ("cba", True)
    assert (found[2].text, found[2].turned) == ("da", False), "turned it reads no better"


def test_a_line_that_is_not_likely_turned_is_not_read_again():
    calls = []

    def forward(batch):
        calls.append(len(batch))
        return recognise(batch)

    read_lines([written("44")], forward, WORDS, PREP, turned=lambda _: np.array([0.4], np.float32))
    assert calls == [1]


def test_the_classifier_sees_lines_squeezed_or_filled_up_to_its_input():
    seen = []

    def forward(batch):
        seen.append(batch)
        return np.stack([batch[:, 0].mean(axis=(1, 2)), batch[:, 1].mean(axis=(1, 2))], axis=1)

    long, short = np.full((48, 900, 3), 255, np.uint8), np.full((24, 24, 3), 255, np.uint8)
    chances = upside_down([long, short] * 20, forward, TURN)
    assert chances.shape == (40,)
    assert all(batch.shape[1:] == (3, 48, 192) and len(batch) <= 32 for batch in seen)
    assert chances[:2] == pytest.approx([1.0, 0.25])


@given(height=st.integers(1, 60), width=st.integers(1, 3000))
@settings(deadline=None, max_examples=30)
def test_the_classifier_takes_any_crop(height, width):
    assume(height * width < 60_000)
    crop = np.full((height, width, 3), 200, np.uint8)
    assert upside_down([crop], lambda batch: np.zeros((len(batch), 2), np.float32), TURN).tolist() == [0.0]
