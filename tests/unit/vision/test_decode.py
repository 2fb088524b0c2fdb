import re
from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from relens.errors import BadInput
from relens.vision import Decoded, Limits, decode, encode_jpeg
from relens.vision.resize import resize

LOSSLESS = [
    ("PNG", {}),
    ("WEBP", {"lossless": True, "exact": True}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]


def refusal(data, **options):
    with pytest.raises(BadInput) as caught:
        decode(data, **options)
    return caught.value


@pytest.mark.parametrize(("name", "options"), LOSSLESS)
def test_what_a_lossless_format_holds_comes_back_exactly(photo, save, name, options):
    picture = photo(61, 40)
    decoded = decode(save(picture, name, **options))
    assert np.array_equal(decoded.pixels, picture)
    assert (decoded.width, decoded.height, decoded.format) == (61, 40, name.lower())


def test_every_format_and_mode_gives_upright_rgb(samples):
    for name, data in samples.items():
        decoded = decode(data)
        assert isinstance(decoded, Decoded), name
        assert decoded.pixels.dtype == np.uint8, name
        assert decoded.pixels.shape == (decoded.height, decoded.width, 3), name
        assert decoded.pixels.flags.c_contiguous, name
        assert decoded.pixels.flags.writeable, name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True}), *LOSSLESS[::3]])
def test_every_orientation_is_turned_upright(photo, save, name, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(photo(60, 40))
    picture.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(picture)
    decoded = decode(save(Image.fromarray(photo(60, 40)), name, exif=exif, **options))
    assert (decoded.width, decoded.height) == upright.size
    assert decoded.pixels.shape == (upright.height, upright.width, 3)
    assert np.abs(decoded.pixels.astype(int) - np.asarray(upright)).mean() < 8


def test_a_grey_jpeg_is_repeated_into_three_channels(photo, save):
    pixels = decode(save(Image.fromarray(photo(40, 30)).convert("L"), "JPEG")).pixels
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (220, 30, 40), (10, 200, 90), (20, 60, 230)])
def test_a_cmyk_jpeg_shows_the_colours_that_were_put_in(save, colour):
    cmyk = Image.new("RGB", (32, 32), colour).convert("CMYK")
    pixels = decode(save(cmyk, "JPEG", quality=95)).pixels
    assert np.abs(pixels.astype(int) - colour).max() <= 4


def test_a_cmyk_jpeg_agrees_with_pillow(photo, save):
    data = save(Image.fromarray(photo(64, 48)).convert("CMYK"), "JPEG", quality=90)
    reference = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data).pixels - reference).max() <= 2


def test_a_cmyk_tiff_is_converted_too(save):
    pixels = decode(save(Image.new("RGB", (8, 8), (10, 200, 90)).convert("CMYK"), "TIFF")).pixels
    assert np.abs(pixels.astype(int) - (10, 200, 90)).max() <= 2


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_rounded_not_clipped(save, name):
    wide = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    pixels = decode(save(wide, name)).pixels
    assert np.array_equal(pixels[..., 0], np.rint(wide / 257).astype(np.uint8))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_sixteen_bit_colour_is_scaled_to_within_a_level(png):
    wide = np.random.default_rng(1).integers(0, 65_536, (5, 7, 3), dtype=np.uint16)
    pixels = decode(png(7, 5, (16, 2), [row.astype(">u2").tobytes() for row in wide])).pixels
    assert np.abs(pixels - wide / 257).max() <= 1


def test_sixteen_bit_tiff_whose_zero_is_white_is_inverted(save):
    wide = np.array([[0, 65_535, 257]], dtype=np.uint16)
    data = save(wide, "TIFF", tiffinfo={262: 0})
    assert decode(data).pixels[0, :, 0].tolist() == [255, 0, 254]


def test_samples_of_thirty_two_bits_are_refused(save):
    error = refusal(save(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "TIFF"))
    assert error.code == "vision.broken-picture"
    assert "8 or 16 bits" in error.message


@pytest.mark.parametrize(("name", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_what_is_transparent_lies_on_white(save, name, options):
    layer = np.zeros((4, 3, 4), np.uint8)
    layer[:, 0] = [200, 0, 100, 0]
    layer[:, 1] = [200, 0, 100, 255]
    layer[:, 2] = [200, 0, 100, 51]
    pixels = decode(save(layer, name, **options)).pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1].tolist() == [200, 0, 100]
    assert pixels[0, 2].tolist() == [244, 204, 224]


def test_a_colour_or_palette_entry_declared_transparent_lies_on_white_too(save, png, chunk):
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    assert decode(save(indexed, "PNG", transparency=0)).pixels.tolist() == [[[255] * 3, [40, 50, 60]]]
    assert decode(save(indexed, "GIF", transparency=1)).pixels.tolist() == [[[10, 20, 30], [255] * 3]]
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    assert decode(save(grey, "PNG", transparency=7)).pixels[..., 0].tolist() == [[255, 9]]
    wide = png(2, 1, (16, 0), [bytes([0, 7, 0x40, 0])], extra=chunk(b"tRNS", bytes([0, 7])))
    assert decode(wide).pixels[..., 0].tolist() == [[255, 64]]


def test_an_animation_gives_its_first_frame(photo, save):
    first, second = Image.new("RGB", (20, 10), (250, 0, 0)), Image.new("RGB", (20, 10), (0, 0, 250))
    for name in ("GIF", "PNG"):
        pixels = decode(save(first, name, save_all=True, append_images=[second])).pixels
        assert np.abs(pixels.astype(int) - (250, 0, 0)).max() <= 2, name
    pixels = decode(save(first, "WEBP", save_all=True, append_images=[second], lossless=True)).pixels
    assert pixels[0, 0].tolist() == [250, 0, 0]


def test_pictures_of_one_pixel_and_long_strips_are_decoded(save):
    for width, height in [(1, 1), (2, 2), (3, 1), (10_000, 10), (10, 10_000)]:
        picture = np.full((height, width, 3), 90, np.uint8)
        picture[:, : width // 2] = 200
        for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
            pixels = decode(save(picture, name, quality=95)).pixels
            assert np.abs(pixels.astype(int) - picture).mean() < 12, (name, width, height)


def test_tiny_jpegs_are_decoded_at_full_scale(save):
    picture = np.array([[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]], np.uint8)
    assert np.abs(decode(save(picture, "JPEG", quality=100)).pixels.astype(int) - picture).max() < 8


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9, 0.97])
def test_a_file_that_is_cut_off_is_refused(samples, share):
    for name, data in samples.items():
        if name == "gif animated" and share > 0.4:
            continue  # its first frame is whole
        assert refusal(data[: int(len(data) * share)]).code == "vision.broken-picture", name


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "jpeg cmyk", "jpeg grey", "png", "png alpha"])
def test_a_jpeg_or_png_that_lacks_its_last_byte_is_refused(samples, name):
    assert refusal(samples[name][:-1]).code == "vision.broken-picture"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_a_hole_or_an_early_end_is_refused_not_half_grey(photo, save, progressive):
    data = save(photo(400, 300), "JPEG", quality=90, progressive=progressive)
    middle = len(data) // 2
    assert refusal(data[:middle] + data[middle + 2000 :]).code == "vision.broken-picture"
    assert refusal(data[:middle] + b"\xff\xd9").code == "vision.broken-picture"
    assert refusal(data[: int(len(data) * 0.6)], short_side_px=30).code == "vision.broken-picture"


def test_bytes_behind_the_end_of_a_jpeg_do_not_matter(samples):
    whole = decode(samples["jpeg"]).pixels
    assert np.array_equal(decode(samples["jpeg"] + b"a video, for example").pixels, whole)


def test_a_flipped_bit_in_the_pixels_of_a_png_is_noticed(samples):
    data = bytearray(samples["png"])
    data[data.index(b"IDAT") + 40] ^= 1
    assert refusal(bytes(data)).code == "vision.broken-picture"


def test_a_jpeg_whose_codec_finds_another_size_is_refused(monkeypatch, samples):
    wrong = np.zeros((45, 66, 3), np.uint8)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: wrong)
    assert "another size" in refusal(samples["jpeg"]).message


def test_a_progressive_jpeg_with_hundreds_of_scans_is_refused(samples):
    data = samples["jpeg progressive"]
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert refusal(data[:-2] + scan * 200 + data[-2:]).code == "vision.progressive-too-large"
    assert decode(data + b"\xff\xda" * 200).width == 67, "what only looks like scans does not count"


def test_lack_of_memory_is_not_taken_for_a_broken_picture(monkeypatch, samples):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(simplejpeg, "decode_jpeg", full)
    with pytest.raises(MemoryError):
        decode(samples["jpeg"])


@pytest.mark.parametrize("name", ["png", "tiff raw", "gif", "webp"])
def test_pillows_own_limit_on_pixels_neither_warns_nor_refuses(samples, name, recwarn):
    assert Image.MAX_IMAGE_PIXELS is None
    decode(samples[name], limits=Limits(max_pixels=10**9))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("short_side_px", "expected"),
    [(None, (600, 800)), (600, (600, 800)), (301, (600, 800)), (300, (300, 400)), (150, (150, 200)), (1, (75, 100))],
)
def test_a_jpeg_is_decoded_at_a_half_a_quarter_or_an_eighth_when_that_is_enough(photo, save, short_side_px, expected):
    decoded = decode(save(photo(800, 600), "JPEG"), short_side_px=short_side_px)
    assert decoded.pixels.shape[:2] == expected
    assert (decoded.width, decoded.height) == (800, 600)


def test_a_turned_jpeg_is_scaled_by_its_shorter_side_too(photo, save):
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(save(photo(803, 601), "JPEG", exif=exif), short_side_px=150)
    assert decoded.pixels.shape == (201, 151, 3)
    assert (decoded.width, decoded.height) == (601, 803)


def test_a_scaled_decode_looks_like_a_full_one_resized(photo, save, psnr):
    data = save(photo(800, 600), "JPEG", quality=92)
    full = decode(data).pixels
    for short_side_px in (300, 150):
        scaled = decode(data, short_side_px=short_side_px).pixels
        height, width = scaled.shape[:2]
        assert psnr(scaled, resize(full, width, height, resample="bilinear")) > 30


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["444", "422", "420"]),
    short_side_px=st.none() | st.integers(1, 90),
)
def test_an_encoded_picture_decodes_to_its_size(photo, size, quality, subsampling, short_side_px):
    picture = photo(*size)
    data = encode_jpeg(picture, quality=quality, subsampling=subsampling)
    decoded = decode(data, short_side_px=short_side_px)
    assert (decoded.width, decoded.height) == size
    if short_side_px is None or min(size) < 2 * short_side_px:
        assert decoded.pixels.shape == picture.shape
    else:
        assert decoded.pixels.shape != picture.shape
        assert min(decoded.pixels.shape[:2]) >= short_side_px


def test_encoding_is_deterministic_and_takes_views(photo):
    picture = photo(50, 40)
    once = encode_jpeg(picture, quality=88)
    assert once == encode_jpeg(picture.copy(), quality=88)
    view = picture[:, ::-1]
    frozen = np.ascontiguousarray(view)
    frozen.flags.writeable = False
    assert encode_jpeg(view, quality=88) == encode_jpeg(frozen, quality=88) != once


def test_a_higher_quality_is_nearer_to_the_picture(photo, psnr):
    picture = photo(200, 150)
    near = [psnr(decode(encode_jpeg(picture, quality=q)).pixels, picture) for q in (50, 80, 95)]
    assert near == sorted(near)
    assert near[-1] > 35


@pytest.mark.parametrize(
    ("picture", "quality"),
    [
        (np.zeros((0, 5, 3), np.uint8), 90),
        (np.zeros((5, 5), np.uint8), 90),
        (np.zeros((5, 5, 3), np.float32), 90),
        (np.zeros((1, 70_000, 3), np.uint8), 90),
        (np.zeros((5, 5, 3), np.uint8), 0),
        (np.zeros((5, 5, 3), np.uint8), 101),
    ],
)
def test_what_no_jpeg_can_hold_is_refused(picture, quality):
    with pytest.raises(BadInput) as caught:
        encode_jpeg(picture, quality=quality)
    assert caught.value.code == "vision.not-encodable"


def test_messages_are_for_people(samples):
    for name, data in samples.items():
        error = refusal(data[: len(data) // 3])
        assert re.match(rf"this {name.split()[0].upper()} cannot be read: \S", error.message), error.message
        assert " at 0x" not in error.message
