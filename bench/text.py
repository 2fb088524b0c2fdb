"""A page of text, found and read: beside the bare inference of the same tensors.

A page is A4 at 150 dpi with two columns of made-up words in Pillow's own font. What the two networks are given is noted
while the page is read, and then run again with nothing around it.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench import homes, pictures
from bench.clock import Chain, in_turn, mean_of_steps
from bench.figures import Figure, Report, Setup, at_least, milliseconds
from relens import wiring
from relens.errors import RelensError
from relens.models import ppocr
from relens.recipes import LoadedModel
from relens.values import Floats, Pixels
from relens.vision.lines import find_lines, text_input
from relens.vision.order import reading_order
from relens.vision.text import read_lines, rectify

RECIPE = "text"
LEAST = 0.9
PAGE, FONT_PX, LEADING, MARGIN = (1240, 1754), 26, 38, 80
WORDS, LETTERS = 5, (2, 9)

Forward = Callable[[Floats], Floats]


def measure(setup: Setup) -> Report:
    home = _home(setup)
    detect, read = _models(home)
    pages = [page(number) for number in range(setup.choose(2, 1))]
    noted: list[tuple[LoadedModel, Floats]] = []
    lines = [reader(_noting(detect, noted), _noting(read, noted), detect, read)(one) for one in pages]
    ours, spent = reader(_plain(detect), _plain(read), detect, read), len(pages)
    local = wiring.open_local(home)
    jpegs = [pictures.to_jpeg(one) for one in pages]
    try:
        times = in_turn(
            {
                "bare": lambda: [model.session.run(tensor) for model, tensor in noted],
                "ours": lambda: [ours(one) for one in pages],
                "recipe": lambda: [local.recognize(one, recipe=RECIPE) for one in jpegs],
            },
            setup.choose(5, 1),
        )
    finally:
        local.close()
    each = {name: seconds / spent for name, seconds in times.items()}
    count = sum(map(len, lines)) / len(pages)
    figures = (
        _figure(f"a page of {count:.0f} lines, found and read", each["ours"], each["bare"], LEAST),
        _figure("the same by the recipe `text`, from a JPEG", each["recipe"], each["bare"], None),
    )
    chain = steps(_plain(detect), _plain(read), detect, read)
    rows = {name: milliseconds(seconds) for name, seconds in mean_of_steps(chain, pages).items()}
    return Report(figures, {"A page of text": rows})


def page(number: int) -> Pixels:
    """Two columns of made-up words, (height, width, 3)."""
    words = random.Random(number)
    image = Image.new("RGB", PAGE, (252, 250, 245))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_PX)
    column = (PAGE[0] - 3 * MARGIN) // 2
    for left in (MARGIN, 2 * MARGIN + column):
        for top in range(MARGIN, PAGE[1] - MARGIN, LEADING):
            said = ["".join(words.choices("etaoinshrdlucmfgypbvk", k=words.randint(*LETTERS))) for _ in range(WORDS)]
            draw.text((left, top), " ".join(said), font=font, fill=(20, 20, 30))
    return np.asarray(image)


def steps(find: Forward, say: Forward, detect: LoadedModel, read: LoadedModel) -> Chain:
    """From a page to its readings."""
    card, reads = detect.artifact.card, read.artifact.card.preprocessing

    def placed(given: tuple[Pixels, Floats]) -> tuple[Pixels, Sequence[Any]]:
        found = find_lines(given[1], card.decode)
        return given[0], [found[number] for number in reading_order(found, aspect=PAGE[0] / PAGE[1])]

    return (
        ("the detector's input", lambda pixels: (pixels, text_input(pixels, card.preprocessing, card.decode))),
        ("detection", lambda given: (given[0], find(given[1]))),
        ("lines out of the map, in order", placed),
        ("lines cut out", lambda given: [rectify(given[0], line.polygon, reads.height) for line in given[1]]),
        ("reading, inference included", lambda crops: read_lines(crops, say, read.labels, reads)),
    )


def reader(find: Forward, say: Forward, detect: LoadedModel, read: LoadedModel) -> Callable[[Pixels], Any]:
    chain = [step for _, step in steps(find, say, detect, read)]
    return lambda pixels: functools.reduce(lambda value, step: step(value), chain, pixels)


def _plain(model: LoadedModel) -> Forward:
    (role,) = model.artifact.card.outputs
    return lambda tensor: model.session.run(tensor)[role]


def _noting(model: LoadedModel, noted: list[tuple[LoadedModel, Floats]]) -> Forward:
    run = _plain(model)

    def forward(tensor: Floats) -> Floats:
        noted.append((model, tensor))
        return run(tensor)

    return forward


def _figure(what: str, ours: float, bare: float, least: float | None) -> Figure:
    ratio = bare / ours
    limit = f"{milliseconds(bare)} bare inference"
    target = None if least is None else at_least(ratio, least)
    return Figure(what, f"{milliseconds(ours)}, {1 / ours:.2f} a second and core", limit, ratio, target)


def _home(setup: Setup) -> Path:
    """A home with the models of the recipe, made once."""
    path = setup.folder / "text"
    try:
        _models(path)
    except RelensError:
        homes.run("init", home=path)
        homes.run("model", "fetch", "text", home=path)
    return path


def _models(home: Path) -> tuple[LoadedModel, LoadedModel]:
    """The detector and the reader."""
    parts = wiring.open_parts(home)
    try:
        detect, read = (parts.onboarding.start(*version) for version in ppocr.VERSIONS[:2])
    finally:
        parts.catalog.close()
    return detect, read
