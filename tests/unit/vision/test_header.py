import struct

import pytest
import simplejpeg
from PIL import Image

from relens.errors import BadInput
from relens.vision import Limits, check_header, decode, read_header
from relens.vision.header import Header

SOF0, SOF2, SOF9 = 0xC0, 0xC2, 0xC9


def jpeg_that_claims(width, height, frame=SOF0, before=b"", bits=8):
    """A JPEG up to its first scan, with nothing in it."""
    sof = struct.pack(">BBHBHHB", 0xFF, frame, 17, bits, height, width, 3) + bytes.fromhex("011100021100031100")
    sos = bytes.fromhex("ffda000c03010002000300003f00")
    return b"\xff\xd8" + before + sof + sos


def refusal(data, **limits):
    with pytest.raises(BadInput) as caught:
        decode(data, limits=Limits(**limits))
    return caught.value


def test_every_format_is_told_by_its_first_bytes(samples):
    for name, data in samples.items():
        assert read_header(data).format == name.split()[0]


def test_the_header_says_size_and_orientation_before_anything_is_decoded(samples):
    turned = {name for name, data in samples.items() if read_header(data).orientation == 6}
    assert {"jpeg", "png", "webp", "tiff raw", "tiff tiff_lzw"} <= turned
    for name, data in samples.items():
        header = read_header(data)
        assert (header.width, header.height) == (67, 45)
        assert header.upright == ((45, 67) if name in turned else (67, 45))


@pytest.mark.parametrize(("orientation", "upright"), [(1, (30, 20)), (4, (30, 20)), (5, (20, 30)), (8, (20, 30))])
def test_orientations_from_five_on_swap_width_and_height(orientation, upright):
    assert Header("jpeg", 30, 20, orientation).upright == upright


def test_a_small_jpeg_that_claims_a_huge_picture_is_refused_before_decoding(monkeypatch):
    data = jpeg_that_claims(12_000, 12_000)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("it was decoded"))
    error = refusal(data)
    assert len(data) < 691
    assert error.code == "vision.too-large"
    assert "12000x12000 = 144,000,000 pixels" in error.message
    assert "100,000,000" in error.message
    assert "limits.max_pixels" in error.hint


def test_a_progressive_jpeg_has_a_limit_of_its_own():
    assert read_header(jpeg_that_claims(6000, 5000)).progressive is False
    assert read_header(jpeg_that_claims(6000, 5000, SOF2)).progressive is True
    assert read_header(jpeg_that_claims(6000, 5000, SOF9)).progressive is True, "arithmetic coding costs as much"
    error = refusal(jpeg_that_claims(6000, 5000, SOF2))
    assert error.code == "vision.progressive-too-large"
    assert "limits.max_progressive_pixels" in error.hint


def test_an_animated_webp_has_the_same_limit(samples):
    assert read_header(samples["webp animated"]).progressive is True
    assert read_header(samples["webp"]).progressive is False
    error = refusal(samples["webp animated"], max_progressive_pixels=67 * 45 - 1)
    assert error.code == "vision.progressive-too-large"
    assert "animated WebP" in error.message


def test_pixels_bytes_and_sides_at_the_limit_pass_and_beyond_it_do_not(samples):
    data = samples["png"]
    header = read_header(data)
    check_header(header, len(data), Limits(max_bytes=len(data), max_pixels=67 * 45, min_side_px=45))
    for limits, code in [
        ({"max_bytes": len(data) - 1}, "vision.too-large"),
        ({"max_pixels": 67 * 45 - 1}, "vision.too-large"),
        ({"min_side_px": 46}, "vision.too-small"),
    ]:
        error = refusal(data, **limits)
        assert error.code == code
        assert f"limits.{next(iter(limits))}" in error.hint


def test_a_limit_below_one_is_an_error_of_its_own():
    with pytest.raises(BadInput, match="at least 1"):
        Limits(max_pixels=0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "vision.empty"),
        (b"this is a text that somebody named cat.jpg", "vision.not-a-picture"),
        (b"BMW is a make of cars, and no bitmap", "vision.not-a-picture"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "vision.not-a-picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "vision.not-a-picture"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "vision.not-a-picture"),
        (b"\xff\xd8\xff", "vision.broken-picture"),
        (b"\x89PNG\r\n\x1a\n", "vision.broken-picture"),
        (b"GIF89a", "vision.broken-picture"),
        (b"II*\0", "vision.broken-picture"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "vision.broken-picture"),
        (jpeg_that_claims(0, 10), "vision.broken-picture"),
        (jpeg_that_claims(10, 10, bits=12), "vision.broken-picture"),
    ],
)
def test_what_is_no_picture_and_what_is_a_broken_one_have_different_codes(data, code):
    with pytest.raises(BadInput) as caught:
        read_header(data)
    assert caught.value.code == code
    assert caught.value.hint


def test_the_marker_walk_passes_fill_bytes_notes_and_other_app_segments():
    xmp = b"\xff\xe1\0\x10http://ns.ado"[: 2 + 16].ljust(2 + 16, b"\0")
    before = b"\xff\xff\xff" + b"\xe0\0\x04ab" + xmp + b"\xff\xfe\0\x05abc" + b"\xff\x01"
    header = read_header(jpeg_that_claims(31, 17, before=before))
    assert (header.width, header.height, header.orientation) == (31, 17, 1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_in_either_byte_order(order, orientation):
    exif = exif_block(order, orientation)
    app1 = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
    assert read_header(jpeg_that_claims(3, 2, before=app1)).orientation == orientation


@pytest.mark.parametrize("orientation", [0, 9, 255, 65_535])
def test_an_orientation_that_does_not_exist_counts_as_upright(orientation):
    exif = exif_block("<", orientation)
    app1 = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
    assert read_header(jpeg_that_claims(3, 2, before=app1)).orientation == 1


def test_the_orientation_of_a_png_may_stand_behind_its_pixels(png, chunk):
    rows = [bytes(9)] * 2
    exif = chunk(b"eXIf", exif_block(">", 8))
    assert read_header(png(3, 2, (8, 2), rows, after=exif)).orientation == 8
    assert decode(png(3, 2, (8, 2), rows, after=exif)).pixels.shape == (3, 2, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * 5_000_000,
        b"\xff\xd8" + b"\xff\xe5\0\x02" * 1_000_000,
        b"\xff\xd8" + b"\xff\xe5\0\0" * 1000,
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 9, 9) + bytes(9) + bytes(12) * 100_000,
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10) + b"abcd\0\0\0\0" * 100_000,
    ],
)
def test_a_walk_through_endless_empty_parts_is_given_up(data):
    with pytest.raises(BadInput) as caught:
        read_header(data)
    assert caught.value.code == "vision.broken-picture"


@pytest.mark.parametrize("side", [16_383, 16_384])
def test_a_webp_that_claims_its_greatest_size_is_refused_by_its_header(side):
    canvas = (side - 1).to_bytes(3, "little") * 2
    assert refusal(b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + canvas + bytes(40)).code == "vision.too-large"


def test_pillow_has_the_plugins_that_are_used():
    Image.init()
    assert {"PNG", "WEBP", "BMP", "GIF", "TIFF"} <= set(Image.OPEN)


def exif_block(order, orientation):
    """A TIFF directory of two entries."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 2)
    other = struct.pack(order + "HHIHH", 0x0100, 3, 1, 640, 0)
    return start + other + struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
