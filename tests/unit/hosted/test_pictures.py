"""Pictures in place of tensors: they become what the model's card says, and what is no picture is named."""

from __future__ import annotations

import io

import numpy as np
import pytest
import yaml
from PIL import Image

from relens.errors import BadInput
from relens.hosted import pictures
from relens.hosted.model import Model, is_of_pictures
from relens.models.card import read_card, space_digest
from relens.models.drafts import Wish, draft_model
from relens.runtimes.graph import Graph
from relens.tensors import TensorInfo
from relens.testing import networks
from relens.testing.pictures import draw
from relens.vision import decode, preprocess


def model_in(folder, data, **card):
    file = folder / "model.onnx"
    file.write_bytes(data)
    if card:
        given = draft_model(file, Wish(infer=True)).card.to_json()
        given["preprocessing"] |= card
        (folder / "card.yaml").write_text(yaml.safe_dump(given))
    return Model(Graph(file), file)


def run(model, images):
    asked = model.given({"images": images}, ())
    return model.graph.run(asked.inputs, asked.wanted)


def batch(*pictures):
    array = np.empty(len(pictures), object)
    array[:] = pictures
    return array


def png(data):
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "PNG")
    return out.getvalue()


def expected(model, prep, *pictures):
    inputs = np.concatenate([preprocess(decode(one).pixels, prep) for one in pictures])
    return run(model, inputs)


@pytest.mark.parametrize("rows", [1, 3])
def test_pictures_give_what_their_preprocessed_numbers_give(tmp_path, rows):
    model = model_in(tmp_path, networks.classifier())
    prep = draft_model(tmp_path / "model.onnx", Wish(infer=True)).card.preprocessing
    pictures = [png(draw(seed)) for seed in range(rows)]
    made = run(model, batch(*pictures))
    np.testing.assert_allclose(made["scores"], expected(model, prep, *pictures)["scores"], atol=1e-6)
    column = run(model, batch(*pictures).reshape(-1, 1))
    np.testing.assert_array_equal(column["scores"], made["scores"])


def test_a_card_beside_the_model_goes_before_what_is_inferred(tmp_path):
    data, picture = networks.classifier(), png(draw(1))
    plain = run(model_in(tmp_path, data), batch(picture))
    model = model_in(tmp_path, data, colour="bgr", fit="stretch")
    prep = read_card((tmp_path / "card.yaml").read_bytes()).preprocessing
    made = run(model, batch(picture))
    assert prep.colour == "bgr"
    np.testing.assert_allclose(made["scores"], expected(model, prep, picture)["scores"], atol=1e-6)
    assert not np.allclose(made["scores"], plain["scores"])


def test_a_jpeg_is_close_to_the_same_picture_without_loss(tmp_path):
    model = model_in(tmp_path, networks.classifier())
    jpeg = draw(1)
    made = [run(model, batch(one))["scores"] for one in (jpeg, png(jpeg))]
    np.testing.assert_allclose(made[0], made[1], atol=0.05)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (batch(draw(1), b"no picture"), "picture 1"),
        (batch(draw(1)[:200]), "picture 0"),
        (batch(), "given was (0,)"),
        (batch(*[draw(1)] * 4).reshape(2, 2), "given was (2, 2)"),
    ],
)
def test_what_is_no_batch_of_pictures_is_named(tmp_path, given, said):
    with pytest.raises(BadInput) as caught:
        run(model_in(tmp_path, networks.classifier()), given)
    assert said in caught.value.message


def test_small_pictures_do_not_become_more_numbers_than_there_is_memory_for(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST_BATCH", 3 * 64 * 64 * 4)
    model = model_in(tmp_path, networks.classifier())
    assert run(model, batch(*[draw(1)] * 4))["scores"].shape == (4, 5)
    with pytest.raises(BadInput, match="5 pictures are more than the 4") as caught:
        run(model, batch(draw(1), *[b"never decoded"] * 4))
    assert caught.value.code == "hosted.too-many-pictures"


def test_a_model_of_numbers_takes_no_pictures(tmp_path):
    with pytest.raises(BadInput) as caught:
        run(model_in(tmp_path, networks.scaler(2)), batch(draw(1)))
    assert caught.value.code == "hosted.no-pictures"


def test_faces_that_are_to_be_aligned_are_not_taken_from_pictures(tmp_path):
    model = model_in(tmp_path, networks.embedder(), align="arcface", fit="stretch")
    with pytest.raises(BadInput) as caught:
        run(model, batch(draw(1)))
    assert caught.value.code == "hosted.aligned"


def test_a_model_with_a_vector_tells_its_space_as_its_card_has_it(tmp_path):
    model = model_in(tmp_path, networks.embedder(), mean=[0.0] * 3)
    card = read_card((tmp_path / "card.yaml").read_bytes())
    assert model.space("digest") == space_digest(card.space("digest"))
    assert model.space("digest") != model.space("other")
    aligned = model_in(tmp_path, networks.embedder(), align="arcface", fit="stretch")
    assert aligned.pictures is None
    assert aligned.space("digest") not in {None, model.space("digest")}


@pytest.mark.parametrize("network", [networks.classifier(), networks.scaler(2)], ids=["classes", "numbers"])
def test_a_model_without_a_vector_has_no_space(tmp_path, network):
    assert model_in(tmp_path, network).space("digest") is None


@pytest.mark.parametrize(
    ("shape", "datatype", "is_so"),
    [
        ((None, 3, 224, 224), "FP32", True),
        ((None, None, None, 3), "FP32", True),
        ((1, 1, 28, 28), "UINT8", True),
        ((None, 16, 7, 7), "FP32", False),
        ((None, 3, 224), "FP32", False),
        ((None, 3, 4, 4), "BYTES", False),
    ],
)
def test_a_batch_of_pictures_has_channels(shape, datatype, is_so):
    assert is_of_pictures((TensorInfo("x", datatype, shape),)) is is_so
