"""The cascade with networks that see a drawn sign instead of faces: a white square in a black frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relens.errors import BadInput
from relens.vision import faces
from relens.vision.boxes import iou
from relens.vision.faces import detect_faces

MARKS = ((0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.35, 0.75), (0.65, 0.75))


def signs(width, height, *places):
    """Grey, with a sign of each size at each place (left, top, side): a frame of a sixth, black, around white."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    for left, top, side in places:
        frame = round(side / 6)
        pixels[top : top + side, left : left + side] = 0
        pixels[top + frame : top + side - frame, left + frame : left + side - frame] = 255
    return pixels


def likeness(windows):
    """(…, side, side) of 0 to 255: how much brighter the middle is than the frame, 0 to 1."""
    side = windows.shape[-1]
    frame = side // 6
    inner = windows[..., frame:-frame, frame:-frame]
    rest = windows.sum(axis=(-1, -2)) - inner.sum(axis=(-1, -2))
    edge = rest / (side**2 - inner.shape[-1] ** 2)
    return np.clip((inner.mean(axis=(-1, -2)) - edge) / 255, 0, 1).astype(np.float32)


def propose(pixels):
    """As P-Net: an answer for each window of 12 px, every second one; where its pooling reaches beyond, one more."""
    grey = np.pad(pixels.mean(axis=1), ((0, 0), (0, 1), (0, 1)), mode="edge")
    rows, columns = (-(-(side - 2) // 2) - 4 for side in pixels.shape[2:])
    windows = np.lib.stride_tricks.sliding_window_view(grey, (12, 12), axis=(1, 2))[:, ::2, ::2][:, :rows, :columns]
    scores = likeness(windows)[:, None]
    return {"scores": scores, "boxes": np.zeros((len(pixels), 4, rows, columns), np.float32)}


def refine(pixels):
    """As R-Net: where in the cut-out the sign lies, and the surer the more exactly it fills it."""
    off = np.array([where(one.mean(axis=0)) for one in pixels], np.float32).reshape(-1, 4)
    return {"scores": np.clip(1 - np.abs(off).max(axis=1, keepdims=True), 0, 1), "boxes": off}


def where(grey):
    """How far the edges of the sign are from those of the cut-out; far off if none is seen whole."""
    side = len(grey)
    down, across = np.nonzero(grey > 170)
    if not len(down) or min(down.min(), across.min()) == 0 or max(down.max(), across.max()) == side - 1:
        return 1, 1, 1, 1
    left, top, right, bottom = across.min(), down.min(), across.max() + 1, down.max() + 1
    frame = (right - left + bottom - top) / 8  # a sixth of the sign is a quarter of its middle
    return (left - frame) / side, (top - frame) / side, (right + frame) / side - 1, (bottom + frame) / side - 1


def finish(pixels):
    across, down = zip(*MARKS, strict=True)
    return refine(pixels) | {"landmarks": np.tile(np.array([*across, *down], np.float32), (len(pixels), 1))}


def detect(pixels, **options):
    usual = {"propose": propose, "refine": refine, "finish": finish, "thresholds": (0.3, 0.6, 0.7)}
    return detect_faces(pixels, **(usual | options))


def corners(found, width, height):
    edges = [(d.box.x, d.box.y, d.box.x + d.box.w, d.box.y + d.box.h) for d in found]
    return np.array(edges).reshape(-1, 4) * [width, height, width, height]


PLACES = ((20, 30, 40), (150, 20, 90), (40, 140, 64), (230, 180, 24))


def test_each_sign_is_found_once_at_its_place_and_nothing_else():
    found = detect(signs(320, 240, *PLACES))
    wanted = np.array([(left, top, left + side, top + side) for left, top, side in PLACES], float)
    overlaps = iou(wanted, corners(found, 320, 240))
    assert overlaps.shape == (4, 4)
    assert (overlaps.max(axis=1) > 0.8).all()


def test_the_surest_come_first_and_scores_are_those_of_the_last_network():
    found = detect(signs(320, 240, *PLACES))
    scores = [d.score for d in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0.7 < score <= 1 for score in scores)


def test_landmarks_lie_where_the_last_network_says_in_what_it_was_shown():
    [found] = detect(signs(320, 240, (100, 80, 60)), finish=lambda pixels: finish(pixels) | nowhere(pixels))
    shares = [((x - found.box.x) / found.box.w, (y - found.box.y) / found.box.h) for x, y in found.landmarks]
    np.testing.assert_allclose(shares, MARKS, atol=1e-6)


def nowhere(pixels):
    return {"boxes": np.zeros((len(pixels), 4), np.float32)}


def test_the_last_network_moves_boxes_and_not_landmarks():
    pixels = signs(320, 240, (100, 80, 60))

    def moved(given):
        return finish(given) | {"boxes": np.tile(np.array([0.1, 0.2, -0.1, 0.0], np.float32), (len(given), 1))}

    [before] = detect(pixels, finish=lambda given: finish(given) | nowhere(given))
    [after] = detect(pixels, finish=moved)
    box = before.box
    wanted = [box.x + box.w * 0.1, box.y + box.h * 0.2, box.w * 0.8, box.h * 0.8]
    np.testing.assert_allclose(after.box.to_json(), wanted, atol=2e-6)
    assert after.landmarks == before.landmarks


def test_the_last_network_sees_the_box_as_it_was_refined():
    def elsewhere(pixels):
        return refine(pixels) | {"boxes": np.tile(np.array([0.5, 0, 0.5, 0], np.float32), (len(pixels), 1))}

    pixels = signs(320, 240, (100, 80, 60))
    assert len(detect(pixels)) == 1
    assert detect(pixels, refine=elsewhere) == [], "half a sign is none"


def test_boxes_and_landmarks_that_reach_beyond_the_picture_are_cut_off():
    def outwards(pixels):
        sides = {"boxes": np.tile(np.array([-9, 0, 0, 9], np.float32), (len(pixels), 1))}
        return finish(pixels) | sides | {"landmarks": finish(pixels)["landmarks"] * 20 - 10}

    [found] = detect(signs(200, 150, (60, 40, 48)), finish=outwards)
    assert found.box.x == 0
    assert found.box.y + found.box.h == 1
    assert all(x in (0, 1) or y in (0, 1) for x, y in found.landmarks if (x, y) != found.landmarks[2])


def test_smaller_signs_are_found_only_when_asked_for():
    pixels = signs(160, 120, (10, 10, 24), (60, 30, 60))
    assert len(detect(pixels, min_face_px=20)) == 2
    assert len(detect(pixels, min_face_px=40)) == 1


def test_no_more_than_were_asked_for_the_surest():
    pixels = signs(320, 240, *PLACES)
    assert detect(pixels, max_faces=2) == detect(pixels)[:2]


def test_a_picture_without_signs_has_none():
    assert detect(np.full((100, 100, 3), 200, np.uint8)) == []


@pytest.mark.parametrize("size", [(1, 1), (10_000, 10), (10, 10_000), (19, 19), (20, 3000), (13, 11)])
def test_tiny_and_narrow_pictures_do_no_harm(size):
    width, height = size
    for d in detect(np.zeros((height, width, 3), np.uint8), thresholds=(0, 0, 0), max_faces=5):
        assert d.box.w > 0


def test_windows_are_never_made_smaller_than_the_first_network_sees():
    """One pixel as the least face would enlarge the picture twelvefold."""
    seen = []

    def watch(pixels):
        seen.append(pixels.shape[2:])
        return propose(pixels)

    detect(signs(64, 48, (10, 10, 30)), propose=watch, min_face_px=1)
    assert max(width for _, width in seen) == 64


def test_a_picture_seen_in_bands_gives_the_same_as_in_one_piece(monkeypatch):
    pixels = signs(320, 240, *PLACES)
    in_bands = detect(pixels)
    heights = []

    def watch(given):
        heights.append(given.shape[2])
        return propose(given)

    monkeypatch.setattr(faces, "BAND_PX", 1 << 30)
    assert detect(pixels, propose=watch) == in_bands
    assert heights[0] == 144, "12 of 20 pixels, all rows at once"


@pytest.mark.parametrize("height", range(12, 60))
def test_bands_hold_every_window_once(height, monkeypatch):
    monkeypatch.setattr(faces, "BAND_PX", 0)
    monkeypatch.setattr(faces, "LEAST_BAND_ROWS", 16)
    rng = np.random.default_rng(height)
    picture = rng.integers(0, 256, (height, 30, 3), dtype=np.uint8)
    whole = propose(faces._input(picture[None]))["scores"][0, 0]
    found = {}
    for top, rows in faces._bands(picture):
        for row, scores in enumerate(propose(faces._input(rows[None]))["scores"][0, 0], start=top // 2):
            assert row not in found or np.array_equal(found[row], scores)
            found[row] = scores
    assert sorted(found) == list(range(len(whole)))
    last = len(whole) - 1 if height % 2 else len(whole)  # the stand-in pads an odd end, as each band would
    np.testing.assert_array_equal([found[row] for row in range(last)], whole[:last])


def test_cut_outs_come_in_batches_and_no_more_than_are_allowed(monkeypatch):
    """Networks that see faces everywhere: what is looked at stays bounded."""
    monkeypatch.setattr(faces, "PROPOSED", 50)
    monkeypatch.setattr(faces, "REFINED", 20)
    looks = {"refine": [], "finish": []}

    def everywhere(name, network):
        def see(pixels):
            looks[name].append(len(pixels))
            return network(pixels) | {"scores": np.ones((len(pixels), 1), np.float32)}

        return see

    def proposes(pixels):
        out = propose(pixels)
        rng = np.random.default_rng(0)
        return out | {"scores": 0.7 + 0.3 * rng.random(out["scores"].shape, np.float32)}

    found = detect(
        np.zeros((200, 300, 3), np.uint8),
        propose=proposes,
        refine=everywhere("refine", refine),
        finish=everywhere("finish", finish),
        max_faces=1,
    )
    assert len(found) == 1
    assert max(looks["refine"] + looks["finish"]) <= faces.BATCH
    assert sum(looks["refine"]) <= 50 + 20
    assert sum(looks["finish"]) <= 20 + 5


def nonsense(seed, value):
    """Networks that say anything, `value` at times."""
    rng = np.random.default_rng(seed)

    def some(*shape):
        numbers = rng.normal(0, 1, shape).astype(np.float32)
        return np.where(rng.random(shape) < 0.1, np.float32(value), numbers)

    def proposes(pixels):
        rows, columns = (-(-(side - 2) // 2) - 4 for side in pixels.shape[2:])
        return {"scores": rng.random((1, 1, rows, columns), np.float32), "boxes": some(1, 4, rows, columns)}

    def looks(pixels):
        n = len(pixels)
        return {"scores": rng.random((n, 1), np.float32), "boxes": some(n, 4), "landmarks": some(n, 10).clip(-9, 9)}

    return {"propose": proposes, "refine": looks, "finish": looks}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    seed=st.integers(0, 1000),
    value=st.sampled_from([0.0, 50.0, -1e9, np.inf, -np.inf]),
)
def test_whatever_networks_say_boxes_and_landmarks_lie_within_the_picture(width, height, seed, value):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = detect_faces(pixels, **nonsense(seed, value), thresholds=(0.5, 0.3, 0.3), max_faces=20)
    assert len(found) <= 20
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    for d in found:
        assert 0 <= d.box.x < d.box.x + d.box.w <= 1 + 1e-9
        assert 0 <= d.box.y < d.box.y + d.box.h <= 1 + 1e-9
        assert len(d.landmarks) == 5
        assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in d.landmarks)


@pytest.mark.parametrize("step", [0.0, 1.0, 1.5, -0.7, np.nan])
def test_sizes_that_would_never_end_are_refused(step):
    with pytest.raises(BadInput) as caught:
        detect(signs(64, 48), scale_step=step)
    assert caught.value.code == "vision.bad-scale"


def test_the_picture_is_not_changed():
    pixels = signs(160, 120, (20, 20, 40))
    before = pixels.copy()
    detect(pixels)
    np.testing.assert_array_equal(pixels, before)
