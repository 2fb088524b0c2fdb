"""Descriptions travel between processes as they are: every digit, every byte."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relens.recipes import Cropped, Described
from relens.serving import Description
from relens.serving.questions import pack_answer, read_answer
from relens.values import Box, Label, PictureInfo, Vector

SHARES = st.floats(0, 0.5)
POINTS = st.lists(st.tuples(SHARES, SHARES), max_size=5).map(tuple)


@st.composite
def objects(draw):
    numbers = np.random.default_rng(draw(st.integers(0, 99))).normal(size=draw(st.integers(1, 40)))
    vector = Vector("space", (numbers / np.linalg.norm(numbers)).astype(np.float32))
    crop = Cropped(
        box=Box(draw(SHARES), draw(SHARES), 0.1 + draw(SHARES) / 2, 1 / 3),
        score=draw(st.floats(0, 1)),
        category=draw(st.text(max_size=4)),
        jpeg=draw(st.binary(max_size=300)),
        cut=Box(0.0, 0.0, 1.0, draw(st.floats(0.1, 1))),
        landmarks=draw(POINTS),
        polygon=draw(POINTS),
        label=draw(st.text(max_size=4)),
        measures={"sharpness": draw(st.floats(0, 1))},
        short_side_px=draw(st.integers(0, 999)),
    )
    labels = tuple(Label(name, number, 1 / 3) for number, name in enumerate(draw(st.lists(st.text(max_size=3)))))
    text = draw(st.none() | st.text(max_size=9))
    return crop, Described(labels, draw(st.sampled_from([vector, None])), {"age": draw(st.floats(0, 99))}, text)


@given(found=st.lists(objects(), max_size=4))
def test_a_description_comes_back_as_it_was(found):
    info = PictureInfo("ab" * 32, 640, 480)
    before = Description("lens", info, tuple(found), {"blur": 2}, {"decode": 1.5})
    header, body = pack_answer(before)
    after = read_answer("describe", json.loads(json.dumps(header)), body)
    assert [without_vector(one) for one in after.objects] == [without_vector(one) for one in before.objects]
    assert [vector_of(one) for one in after.objects] == [vector_of(one) for one in before.objects]
    assert (after.lens, after.picture, after.dropped, after.timings_ms) == ("lens", info, {"blur": 2}, {"decode": 1.5})


def without_vector(one):
    crop, said = one
    return crop, said.labels, said.attributes, said.text


def vector_of(one):
    vector = one[1].vector
    return None if vector is None else (vector.space, vector.values.tolist())
