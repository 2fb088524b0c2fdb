import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relens.values import Preprocessing
from relens.vision import preprocess, seen_box

LITE = Preprocessing(
    size_px=224,
    resize_px=256,
    resample="bicubic",
    colour="rgb",
    layout="nchw",
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
)
UNEVEN = replace(LITE, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
AS_IT_IS = replace(LITE, layout="nhwc", mean=(0.0,) * 3, std=(1.0,) * 3)


def resize_then_crop(pixels, prep):
    """Resize(resize_px) and CenterCrop(size_px) of torchvision on a Pillow picture, across before down."""
    height, width = pixels.shape[:2]
    short, long = sorted((width, height))
    longer = int(prep.resize_px * long / short)
    w, h = (prep.resize_px, longer) if width <= height else (longer, prep.resize_px)
    kernel = Image.Resampling[prep.resample.upper()]
    resized = np.asarray(Image.fromarray(pixels).resize((w, height), kernel).resize((w, h), kernel))
    top, left = round((h - prep.size_px) / 2.0), round((w - prep.size_px) / 2.0)
    return resized[top : top + prep.size_px, left : left + prep.size_px]


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    sizes=st.sampled_from([(224, 256), (32, 32), (64, 73), (5, 300), (1, 1)]),
    resample=st.sampled_from(["bilinear", "bicubic"]),
)
def test_the_square_is_that_of_resize_then_crop(photo, width, height, sizes, resample):
    prep = replace(AS_IT_IS, size_px=sizes[0], resize_px=sizes[1], resample=resample)
    pixels = photo(width, height)
    difference = np.abs(preprocess(pixels, prep)[0] - resize_then_crop(pixels, prep))
    assert difference.max() <= 2
    assert (difference > 1).mean() < 0.001


def test_hard_edges_do_not_depend_on_the_shape_of_the_picture():
    rng = np.random.default_rng(3)
    for width, height in [(100, 160), (160, 100), (60, 400), (400, 60), (334, 500)]:
        noise = (rng.integers(0, 2, (height, width, 1)) * 255).astype(np.uint8).repeat(3, axis=2)
        assert np.abs(preprocess(noise, AS_IT_IS)[0] - resize_then_crop(noise, AS_IT_IS)).max() <= 2


@pytest.mark.parametrize("prep", [LITE, UNEVEN])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_values_are_normalised_per_channel_in_the_models_order_and_layout(photo, prep, colour, layout):
    prep = replace(prep, colour=colour, layout=layout)
    pixels = photo(300, 256)
    square = preprocess(pixels, AS_IT_IS)[0].astype(float)
    square = square if colour == "rgb" else square[..., ::-1]
    expected = (square - prep.mean) / prep.std
    batch = preprocess(pixels, prep)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    assert batch.shape == ((1, 3, 224, 224) if layout == "nchw" else (1, 224, 224, 3))
    assert np.allclose(batch[0], expected.transpose(2, 0, 1) if layout == "nchw" else expected, atol=1e-5)


def test_a_picture_that_fits_already_is_not_resampled(photo):
    prep = replace(AS_IT_IS, size_px=40, resize_px=40)
    pixels = photo(60, 40)
    assert np.array_equal(preprocess(pixels, prep)[0], pixels[:, 10:50])
    assert seen_box(60, 40, prep).to_json() == [round(1 / 6, 6), 0, round(2 / 3, 6), 1]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10_000, 10), (10, 10_000), (1, 20_000)])
def test_extreme_shapes_take_little_memory(width, height):
    pixels = np.full((height, width, 3), 90, np.uint8)
    tracemalloc.start()
    batch = preprocess(pixels, AS_IT_IS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (batch == 90).all()
    assert peak < 3_000_000


@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000), size=st.integers(1, 600), more=st.integers(0, 200))
def test_the_seen_box_is_within_the_picture_and_square_in_its_pixels(width, height, size, more):
    box = seen_box(width, height, replace(LITE, size_px=size, resize_px=size + more))
    assert 0 <= box.x < 1
    assert 0 <= box.y < 1
    assert box.x + box.w <= 1 + 1e-9
    assert box.y + box.h <= 1 + 1e-9
    short = min(width, height)
    assert box.w * width == pytest.approx(short * size / (size + more), rel=0.02, abs=short / (size + more))
    assert box.w * width == pytest.approx(box.h * height, rel=1 / (size + more) + 1e-6)


def test_the_seen_box_marks_what_reaches_the_model():
    pixels = np.zeros((100, 300, 3), np.uint8)
    box = seen_box(300, 100, replace(AS_IT_IS, size_px=100, resize_px=100))
    left, right = round(box.x * 300), round((box.x + box.w) * 300)
    pixels[:, left:right] = 200
    assert (preprocess(pixels, replace(AS_IT_IS, size_px=100, resize_px=100)) == 200).all()
