import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relens.errors import BadInput
from relens.vision import shrink
from relens.vision.resize import resize


def bilinear_in_full_precision(pixels, width, height):
    """The reference: a triangle filter as wide as the reduction, without rounding between the two directions."""
    across, down = triangle(pixels.shape[1], width), triangle(pixels.shape[0], height)
    return np.einsum("hy,yxc,wx->hwc", down, pixels.astype(float), across, optimize=True)


def triangle(n_in, n_out):
    scale = n_in / n_out
    centres = (np.arange(n_out)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(n_in) + 0.5 - centres) / max(scale, 1))
    return weights / weights.sum(axis=1, keepdims=True)


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    short_side_px=st.integers(1, 150),
    long_side_px=st.integers(1, 150),
)
def test_a_shrunk_picture_is_within_both_bounds_and_keeps_its_proportions(
    photo, width, height, short_side_px, long_side_px
):
    picture = photo(width, height)
    small = shrink(picture, short_side_px, long_side_px=long_side_px)
    h, w = small.shape[:2]
    assert 1 <= min(h, w) <= short_side_px
    assert max(h, w) <= long_side_px
    assert w <= width
    assert h <= height
    share = min(1, short_side_px / min(width, height), long_side_px / max(width, height))
    assert w == pytest.approx(max(1, width * share), abs=0.5)
    assert h == pytest.approx(max(1, height * share), abs=0.5)
    assert (small is picture) == (share == 1)


def test_what_is_small_enough_is_returned_as_it_is(photo):
    picture = photo(60, 40)
    assert shrink(picture, 40) is picture
    assert shrink(picture, 39) is not picture


def test_a_strip_is_bounded_by_its_longer_side(photo):
    assert shrink(photo(10_000, 10), 320).shape == (4, 4096, 3)
    assert shrink(photo(1, 9000), 320, long_side_px=100).shape == (100, 1, 3)


@pytest.mark.parametrize(("size", "short_side_px", "least_db"), [((640, 480), 320, 54), ((1600, 1200), 120, 46)])
def test_shrinking_is_near_to_a_filter_in_full_precision(photo, psnr, size, short_side_px, least_db):
    width, height = size
    noise = np.random.default_rng(7).integers(-20, 20, (height, width, 3))
    picture = np.clip(photo(width, height) + noise, 0, 255).astype(np.uint8)
    small = shrink(picture, short_side_px)
    reference = bilinear_in_full_precision(picture, small.shape[1], small.shape[0])
    assert psnr(small, reference) > least_db


def test_shrinking_does_not_alias():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    within = shrink(stripes, 90)[:, 1:-1].astype(int)
    assert np.abs(within - 127).max() <= 5


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_resize_gives_exactly_the_size_asked_for_with_pillows_filter(photo, resample):
    picture = photo(60, 40)
    for size in [(30, 40), (200, 7), (1, 1)]:
        expected = Image.fromarray(picture).resize(size, Image.Resampling[resample.upper()])
        assert np.array_equal(resize(picture, *size, resample=resample), np.asarray(expected))


def test_the_given_picture_is_not_changed(photo):
    picture = photo(60, 40)
    shrink(picture, 10)
    resize(picture, 100, 100, resample="bicubic")
    assert np.array_equal(picture, photo(60, 40))


def test_sides_below_one_pixel_are_refused(photo):
    for call in (lambda p: shrink(p, 0), lambda p: resize(p, 5, 0, resample="bilinear")):
        with pytest.raises(BadInput) as caught:
            call(photo(4, 4))
        assert caught.value.code == "vision.bad-size"
