"""Crops: where things are in a picture and in its cut-outs is the same place, and nothing ever lies outside."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from relens.errors import BadInput
from relens.recipes import Cropped, read_recipe
from relens.recipes.crops import box_in_crop, crop_found, in_crop, in_picture, see, seen_of, widened
from relens.values import WHOLE, Box, Detection, Preprocessing
from relens.vision import Decoded, decode

SIDES = st.integers(1, 300)
MARGINS = st.floats(0, 2)


@st.composite
def boxes(draw, least=1e-5):
    """Boxes as detectors give them: within the picture, however thin."""
    (left, right), (top, bottom) = (sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1)))) for _ in "xy")
    assume(right - left > least and bottom - top > least)
    return Box(left, top, right - left, bottom - top)


def recipe(margin=0.0, short_side_px=64):
    crop = {"margin": margin, "short_side_px": short_side_px}
    return read_recipe(yaml.safe_dump({"recipe": "m", "detect": {"model": "d/1"}, "crop": crop}).encode(), source="m")


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Decoded(pixels, width, height, "png")


def prep(**given_):
    return Preprocessing(32, 40, "bilinear", "rgb", "nchw", (127.5,) * 3, (127.5,) * 3, **given_)


def close(one: Box, other: Box, across: float, down: float) -> bool:
    """Whether two boxes are the same to this much of the picture's sides."""
    edges = zip(
        (one.x, one.y, one.x + one.w, one.y + one.h),
        (other.x, other.y, other.x + other.w, other.y + other.h),
        (across, down) * 2,
        strict=True,
    )
    return all(abs(a - b) <= off for a, b, off in edges)


@given(box=boxes(), width=SIDES, height=SIDES, margin=MARGINS)
@example(box=Box(0.999, 0.999, 0.001, 0.001), width=1, height=1, margin=0.0)
@example(box=Box(0.0, 0.0, 1.0, 1.0), width=300, height=1, margin=2.0)
@example(box=Box(0.5, 0.5, 1e-4, 1e-4), width=300, height=300, margin=0.0)
def test_a_crop_shows_its_object_and_lies_within_the_picture(box, width, height, margin):
    crop = crop_found(picture(width, height), Detection(box, 0.9), "all", recipe(margin))
    cut = crop.cut
    pixels = decode(crop.jpeg).pixels
    assert min(pixels.shape[:2]) <= 64
    assert pixels.shape[0] <= max(1, round(cut.h * height))
    assert pixels.shape[1] <= max(1, round(cut.w * width))
    for side, size in ((cut.x, width), (cut.y, height), (cut.w, width), (cut.h, height)):
        assert side * size == pytest.approx(round(side * size))  # along whole pixels
    # All of the object but half a pixel on each side; of a thinner one, the pixel that it lies in or next to.
    assert cut.x * width <= box.x * width + 0.5 + 1e-9
    assert (cut.x + cut.w) * width >= (box.x + box.w) * width - 0.5 - 1e-9
    assert cut.y * height <= box.y * height + 0.5 + 1e-9
    assert (cut.y + cut.h) * height >= (box.y + box.h) * height - 0.5 - 1e-9


@given(box=boxes(), width=SIDES, height=SIDES, margin=MARGINS)
def test_a_box_of_the_picture_is_the_same_box_of_its_crop(box, width, height, margin):
    crop = crop_found(picture(width, height), Detection(box, 0.9), "all", recipe(margin))
    inner = box_in_crop(crop)
    assert close(in_picture(inner, crop), box, 1 / width, 1 / height)
    if margin * max(box.w * width, box.h * height) >= 1:  # then no pixel of it is cut off, but at the border
        assert close(in_picture(inner, crop), box, 1e-6, 1e-6)
    assert close(in_picture(WHOLE, crop), crop.cut, 1e-12, 1e-12)


@given(box=boxes(), inner=boxes(least=1e-3), width=SIDES, height=SIDES)
def test_a_box_of_a_crop_is_the_same_box_of_the_picture(box, inner, width, height):
    crop = crop_found(picture(width, height), Detection(box, 0.9), "all", recipe())
    found = in_picture(inner, crop)
    [(left, top), (right, bottom)] = in_crop(((found.x, found.y), (found.x + found.w, found.y + found.h)), crop)
    assert (left, top) == pytest.approx((inner.x, inner.y), abs=1e-6)
    assert (right, bottom) == pytest.approx((inner.x + inner.w, inner.y + inner.h), abs=1e-6)


@given(box=boxes(), points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=5), width=SIDES, height=SIDES)
def test_points_of_the_picture_are_the_same_points_of_a_crop(box, points, width, height):
    crop = crop_found(picture(width, height), Detection(box, 0.9), "all", recipe())
    there = in_crop(tuple(points), crop)
    back = [(crop.cut.x + x * crop.cut.w, crop.cut.y + y * crop.cut.h) for x, y in there]
    assert np.allclose(back, points, atol=1e-9) if points else not back


@given(box=boxes(), margin=MARGINS, width=SIDES, height=SIDES)
def test_a_box_is_widened_within_the_picture_alone(box, margin, width, height):
    wide = widened(box, margin, width, height)
    reach = margin * max(box.w * width, box.h * height)
    assert wide.x <= box.x
    assert wide.y <= box.y
    assert wide.w >= box.w * (1 - 1e-9)
    assert wide.h >= box.h * (1 - 1e-9)
    assert wide.w * width <= box.w * width + 2 * reach + 1e-6
    assert wide.h * height <= box.h * height + 2 * reach + 1e-6


@given(
    box=boxes(),
    margin=MARGINS,
    width=SIDES,
    height=SIDES,
    look=st.fixed_dictionaries(
        {
            "fit": st.sampled_from(["cut", "stretch", "letterbox"]),
            "see": st.sampled_from(["crop", "box"]),
            "margin": st.floats(0, 1),
        }
    ),
)
def test_a_model_is_given_a_whole_input_of_any_object(box, margin, width, height, look):
    crop = crop_found(picture(width, height), Detection(box, 0.9), "all", recipe(margin))
    pixels = decode(crop.jpeg).pixels
    assert see(pixels, crop, prep(**look)).shape == (1, 3, 32, 32)
    seen = seen_of(pixels, crop, prep(**look))
    if look["fit"] == "letterbox":
        assert seen is None
    else:
        cut = crop.cut
        assert seen is not None
        assert close(seen, Box(max(seen.x, cut.x), max(seen.y, cut.y), seen.w, seen.h), 1e-6, 1e-6)
        assert seen.x + seen.w <= cut.x + cut.w + 1e-6
        assert seen.y + seen.h <= cut.y + cut.h + 1e-6


def test_what_a_model_sees_is_what_is_said_to_be_seen():
    """A bright spot in a dark picture lies in the input where `seen_of` says."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[90:110, 150:170] = 255
    crop = crop_found(
        Decoded(pixels, 300, 200, "png"), Detection(Box(0.4, 0.3, 0.4, 0.4), 1.0), "all", recipe(0.1, 320)
    )
    shown = decode(crop.jpeg).pixels
    for look in ({"fit": "stretch"}, {"fit": "stretch", "see": "box"}, {"fit": "cut"}, {"fit": "cut", "see": "box"}):
        bright = see(shown, crop, prep(**look))[0, 0] > 0
        down, across = (float(places.mean() + 0.5) / 32 for places in np.nonzero(bright))
        seen = seen_of(shown, crop, prep(**look))
        assert seen.x + across * seen.w == pytest.approx(160 / 300, abs=0.01), look
        assert seen.y + down * seen.h == pytest.approx(100 / 200, abs=0.01), look


def test_a_model_that_aligns_wants_landmarks():
    crop = Cropped(WHOLE, 1.0, "all", b"")
    with pytest.raises(BadInput) as caught:
        see(np.zeros((9, 9, 3), np.uint8), crop, prep(align="dlib-25"))
    assert caught.value.code == "recipes.no-landmarks"
    assert seen_of(np.zeros((9, 9, 3), np.uint8), crop, prep(align="dlib-25")) is None
