"""Filters: each has its reason, and one of the user's own can do what it likes without harm to what is beside it."""

from __future__ import annotations

import numpy as np
import pytest

from relens.errors import BadInput, Broken
from relens.recipes import Cropped, Rule
from relens.recipes.filters import Filters, require_function
from relens.values import Box
from relens.vision import encode_jpeg

SHARP = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Limit:
    least: int = 3

def keep(pixels, about):
    return Limit().least == 3
"""


def crop(pixels=SHARP, score=0.9, short_side_px=40, **measures):
    jpeg = encode_jpeg(pixels, quality=95)
    box = Box(0.1, 0.2, 0.3, 0.4)
    return Cropped(box, score, "shoes", jpeg, label="boot", short_side_px=short_side_px, measures=measures)


def own(code, function="keep"):
    return Filters([Rule("own", {"file": "mine.py", "function": function})], {"mine.py": code.encode()})


@pytest.mark.parametrize(
    ("rule", "kept", "dropped"),
    [
        (Rule("short-side", {"min_px": 40}), crop(), crop(short_side_px=39)),
        (Rule("score", {"min": 0.9}), crop(), crop(score=0.89)),
        (Rule("blur", {"min": 0.5}), crop(), crop(np.full((40, 40, 3), 90, np.uint8))),
        (Rule("quality", {"min": 0.5}), crop(quality=0.5), crop(quality=0.4)),
        (Rule("quality", {"min": 0.5}), crop(), crop(quality=0.0)),
    ],
)
def test_a_filter_keeps_what_is_good_enough_and_drops_the_rest_by_its_name(rule, kept, dropped):
    filters = Filters([rule], {})
    assert filters.reason(kept) is None
    assert filters.reason(dropped) == rule.name


def test_the_first_that_has_a_reason_drops_and_the_next_are_not_asked():
    rules = [Rule("score", {"min": 0.5}), Rule("own", {"file": "mine.py", "function": "keep"})]
    filters = Filters(rules, {"mine.py": b"def keep(pixels, about): raise ValueError"})
    assert filters.reason(crop(score=0.4)) == "score"
    with pytest.raises(BadInput):
        filters.reason(crop(score=0.6))


def test_what_compares_objects_with_each_other_is_not_for_one_object():
    assert Filters([Rule("duplicate", {"min_cosine": 0.9})], {}).reason(crop()) is None


def test_a_function_is_told_of_the_object_and_sees_its_crop():
    code = """
def keep(pixels, about):
    return (
        pixels.shape == (40, 40, 3)
        and about == {"box": [0.1, 0.2, 0.3, 0.4], "score": 0.9, "category": "shoes", "label": "boot",
                      "measures": {"quality": 0.7}}
    )
"""
    assert own(code).reason(crop(quality=0.7)) is None


@pytest.mark.parametrize(
    "code",
    [
        "def keep(pixels, about): return pixels.mean() > 0",
        "keep = lambda pixels, about: True",
        "import functools\ndef both(a, pixels, about): return a\nkeep = functools.partial(both, True)",
        "def keep(pixels, about):\n  return sum(int(c) for row in pixels for c in row[:, 0]) > 0",
        DATACLASS,
        "def keep(pixels, about):\n  about['box'].clear()\n  about.clear()\n  return True",
        "class Keep:\n  def __call__(self, pixels, about): return True\nkeep = Keep()",
    ],
)
def test_a_function_may_be_any_python_that_says_true_or_false(code):
    require_function("mine.py", "keep", code.encode())
    one = crop()
    assert own(code).reason(one) is None
    assert one.about["box"] == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ZeroDivisionError('by me')", "ZeroDivisionError: by me"),
        ("assert False", "AssertionError"),
        ("return None", "says None, not True or False"),
        ("pass", "says None, not True or False"),
        ("return 1", "says 1, not True or False"),
        ("return pixels > 3", "not True or False"),
        ("pixels[:] = 0", "read-only"),
        ("exit(3)", "SystemExit: 3"),
        ("return keep(pixels, about)", "RecursionError"),
        ("return about['nothing']", "KeyError"),
    ],
)
def test_a_function_that_fails_is_the_fault_of_this_picture_and_says_how(body, said):
    with pytest.raises(BadInput) as caught:
        own(f"def keep(pixels, about):\n  {body}\n").reason(crop())
    assert caught.value.code == "recipes.filter-failed"
    assert said in caught.value.message
    assert "mine.py: keep" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("body", ["open('/no/such/file')", "raise ConnectionError", "raise MemoryError"])
def test_what_the_machine_did_is_no_fault_of_the_picture(body):
    with pytest.raises(Broken) as caught:
        own(f"def keep(pixels, about):\n  {body}\n").reason(crop())
    assert caught.value.code == "recipes.filter-unavailable"


def test_a_filter_does_not_see_what_another_did_to_the_pixels():
    code = b"def first(pixels, about):\n  copy = pixels.copy()\n  copy[:] = 0\n  return True\n"
    rules = [Rule("own", {"file": "mine.py", "function": "first"}), Rule("blur", {"min": 0.5})]
    assert Filters(rules, {"mine.py": code}).reason(crop()) is None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def keep(pixels, about:", "no Python"),
        ("\0", "no Python"),
        ("\udcff", "no Python"),
        ("def kept(pixels, about): return True", "no function keep"),
        ("", "no function keep"),
    ],
)
def test_a_file_without_the_function_is_refused_before_it_is_run(code, said):
    with pytest.raises(BadInput) as caught:
        require_function("mine.py", "keep", code.encode("utf-8", "surrogateescape"))
    assert caught.value.code == "recipes.bad-filter"
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("keep = 3", "no function keep"),
        ("import no_such_module\ndef keep(pixels, about): return True", "ModuleNotFoundError"),
        ("import sys\nsys.exit(3)\ndef keep(pixels, about): return True", "SystemExit"),
        ("1 / 0\ndef keep(pixels, about): return True", "ZeroDivisionError"),
        ("del keep", "NameError"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused_when_it_is_loaded(code, said):
    with pytest.raises(BadInput) as caught:
        own(code)
    assert caught.value.code == "recipes.bad-filter"
    assert said in caught.value.message
