"""A model becomes int8: a version with a space and a report of its own, which nothing uses by itself; or nothing."""

from __future__ import annotations

import dataclasses
import json

import pytest

from relens.errors import BadInput, Conflict, Missing
from relens.models import registry
from relens.models.infer import infer_card
from relens.quantization import Bounds
from relens.testing import networks, street
from relens.testing.homes import DummyHome, fill
from relens.testing.pictures import draw, write_pictures

ANYTHING = Bounds(min_cosine=0, min_agreement=0)


def bring(local, data, *, labels=(), **changes):
    """A model that came in by an inferred card."""
    card = dataclasses.replace(infer_card(data, name="looks", labels=labels or None).card, **changes)
    files = {card.file: data}
    if card.labels is not None:
        files[card.labels] = json.dumps(list(labels)).encode()
    return local.parts.onboarding.add(card, files)


@pytest.fixture
def local(sqlite_files, tmp_path):
    """A home on SQLite; what reads galleries takes `home`, which is on PostgreSQL too."""
    made = DummyHome(tmp_path / "alone", sqlite_files.ready())
    yield made.local()
    made.close()


@pytest.fixture
def looks(local):
    return bring(local, networks.embedder())


def versions(local):
    """Versions of the model, on the shelf and in the catalog."""
    with local.parts.catalog.read() as tx:
        known = [one.version for one in registry.every(tx, "looks")]
    shelf = [version for name, version in local.parts.shelf.versions() if name == "looks"]
    assert shelf == known
    return known


def test_a_version_with_a_space_and_a_report_of_its_own(local, looks, folder):
    write_pictures(folder, 90)
    fill(folder, {"broken.jpg": b"\xff\xd8\xff no more", "again.jpg": draw(0)})
    told = []
    made = local.quantize("looks", folder, pictures=92, report=lambda done, total: told.append((done, total)))
    assert (made["name"], made["version"], made["precision"], made["made"]) == ("looks", 2, "int8", True)
    assert made["labels"] == []
    fidelity = made["fidelity"]
    assert fidelity["of"] == {"model": "looks/1", "digest": looks.digest}
    assert fidelity["pictures"] == {
        "source": f"folder {folder.name}",
        "calibrated": 68,
        "compared": 22,
        "held_out": True,
        "few": False,
        "skipped": 2,
    }
    assert 0.99 < fidelity["cosine"]["worst"] < 1
    assert fidelity["bytes"]["fp32"] == looks.model_file.stat().st_size
    assert told[-1] == (92, 92)
    assert local.model("looks/2")["fidelity"] == fidelity
    assert "fidelity" not in local.model("looks/1")

    artifact = local.parts.onboarding.verify("looks", 2)  # golden pictures repeat
    assert artifact.space != looks.space
    assert f"int8 of looks/1 ({looks.digest[:12]}), calibrated with 68 pictures" in artifact.card.source
    assert dataclasses.replace(artifact.card, version=1, precision="fp32", source=looks.card.source) == looks.card
    (artifact.folder / "golden" / "fidelity.json").write_text("{}")
    with pytest.raises(Exception, match=r"golden/fidelity\.json"):
        local.parts.onboarding.verify("looks", 2)


def test_a_name_goes_on_to_mean_what_it_meant(local, looks, folder):
    local.quantize("looks", write_pictures(folder, 4))
    with local.parts.catalog.read() as tx:
        assert registry.resolve(tx, "looks").version == 1
        assert registry.resolve(tx, "looks/stable").version == 1


def test_the_same_again_is_the_version_that_is_there_and_other_pictures_are_another_one(local, looks, folder):
    write_pictures(folder, 8)
    first = local.quantize("looks", folder)
    again = local.quantize("looks/1", folder)
    assert (again["made"], again["digest"], again["fidelity"]) == (False, first["digest"], first["fidelity"])
    assert versions(local) == [1, 2]
    assert local.quantize("looks", folder, pictures=4)["version"] == 3


def test_too_few_pictures_are_told(local, looks, folder):
    told = local.quantize("looks", write_pictures(folder, 3))["fidelity"]["pictures"]
    assert (told["calibrated"], told["compared"], told["held_out"], told["few"]) == (3, 3, False, True)


def test_what_is_too_far_from_the_original_does_not_come_in(local, looks, folder):
    with pytest.raises(Conflict) as caught:
        local.quantize("looks", write_pictures(folder, 8), bounds=Bounds(min_cosine=1))
    assert caught.value.code == "models.low-fidelity"
    assert "the mean cosine is 0.99" in caught.value.message
    assert versions(local) == [1]


def test_who_interrupts_leaves_nothing_behind(local, looks, folder):
    def interrupt(done, _total):
        if done == 7:  # the first that is compared
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.quantize("looks", write_pictures(folder, 8), report=interrupt)
    assert versions(local) == [1]
    assert [path.name for path in (local.parts.home.models / "looks").iterdir()] == ["1"]


def test_labels_and_agreement_of_a_classifier(local, folder):
    names = ("a", "b", "c", "d", "e")
    bring(local, networks.classifier(), labels=names)
    made = local.quantize("looks", write_pictures(folder, 8), bounds=ANYTHING)
    assert made["fidelity"]["agreement"]["of"] == "the best name"
    assert local.parts.shelf.open("looks", 2).labels() == list(names)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        pytest.param({"precision": "int8"}, "already", id="int8"),
        pytest.param({"precision": "fp16"}, "fp16", id="fp16"),
        pytest.param({"shape": (3, 64, 64)}, "does not follow", id="no picture"),
    ],
)
def test_what_cannot_be_made_int8_says_why(local, folder, changes, word):
    bring(local, networks.embedder(), **changes)
    with pytest.raises(BadInput, match=word):
        local.quantize("looks", write_pictures(folder, 1))
    assert versions(local) == [1]


def test_other_formats_and_models_without_weights_are_refused(local, folder):
    write_pictures(folder, 2)
    with pytest.raises(BadInput, match="its format is dummy"):
        local.quantize("dummy", folder)
    with pytest.raises(Missing):
        local.quantize("nothing", folder)
    pooled = infer_card(networks.embedder(), name="looks").card
    bring(local, networks.pooler(), dim=3, outputs={"vector": "vector"}, preprocessing=pooled.preprocessing)
    with pytest.raises(BadInput, match="no convolutions"):
        local.quantize("looks", folder)


def test_pictures_that_are_not_there_or_cannot_be_used(local, looks, tmp_path, folder):
    with pytest.raises(Missing, match="no gallery and no folder"):
        local.quantize("looks", tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no picture in"):
        local.quantize("looks", folder)
    fill(folder, {"a.jpg": b"broken", "b.png": b""})
    with pytest.raises(BadInput, match="of 2 pictures of folder pictures none can be used"):
        local.quantize("looks", folder)
    aligned = dataclasses.replace(looks.card.preprocessing, align="dlib-25")
    bring(local, networks.embedder(seed=1), name="face", preprocessing=aligned)
    with pytest.raises(BadInput, match="landmarks"):
        local.quantize("face", folder)


def show_street(home, folder, recipe):
    """A gallery of six pictures, with a red, a green and a blue object each; blue has no category."""
    (home.path / "recipes" / "street.yaml").write_text(recipe)
    fill(folder, {f"{n}.png": street.cells(street.RED, street.GREEN, street.BLUE, seed=n) for n in range(6)})
    home.run(folder, gallery="street", recipe="street")


def test_a_model_of_one_category_is_calibrated_with_its_objects_alone(home, folder):
    local = home.local()
    bring(local, networks.embedder())
    show_street(home, folder, street.RECIPE + "branches:\n  cold: {embed: looks/1, classify: none}\n")
    with local.parts.catalog.read() as tx:
        model = registry.resolve(tx, "looks")
    cold = [look().mean(axis=(2, 3))[0] for look in local.sample("street", model, 100).looks]
    assert len(cold) == 6
    assert all(green > max(red, blue) for red, green, blue in cold)


def test_the_crops_of_a_gallery_calibrate_as_its_pipeline_shows_them(home, folder):
    local = home.local()
    show_street(home, folder, street.RECIPE)
    looks = bring(local, networks.embedder())
    seen = dataclasses.replace(looks.card.preprocessing, see="box")
    with local.parts.catalog.read() as tx:
        model = registry.resolve(tx, "looks")
    whole = local.sample("street", model, 100)
    boxes = local.sample(
        "street", dataclasses.replace(model, card=dataclasses.replace(model.card, preprocessing=seen)), 100
    )
    assert (whole.source, len(whole.looks)) == ("gallery street", 12)
    assert whole.looks[0]().shape == boxes.looks[0]().shape
    margin = [look().reshape(3, -1).min() for look in (whole.looks[0], boxes.looks[0])]
    assert margin[1] > margin[0]  # what is dark lies around the box
    made = local.quantize("looks", "street", bounds=ANYTHING)
    assert made["fidelity"]["pictures"]["calibrated"] == 9
    assert len(local.sample("street", model, 5).looks) == 5


def test_a_detector_is_calibrated_with_originals_and_only_with_those(home, folder):
    local = home.local()
    fill(folder, {f"{n}.png": street.cells((255, 0, 0), seed=n) for n in range(5)})
    home.run(folder, gallery="crops")
    bring(local, networks.yolo(side_px=160), labels=networks.SIGNS)
    with pytest.raises(Conflict) as caught:
        local.quantize("looks", "crops")
    assert caught.value.code == "gateway.nothing-kept"
    local.create_gallery("whole", retention="originals")
    home.run(folder, gallery="whole")
    made = local.quantize("looks", "whole", bounds=ANYTHING)
    assert (made["task"], made["fidelity"]["agreement"]["of"]) == ("detect", "findings")
    assert made["fidelity"]["agreement"]["found"]["fp32"] > 0


def test_a_gallery_that_keeps_nothing_says_so(home, folder):
    local = home.local()
    bring(local, networks.embedder())
    local.create_gallery("nothing", retention="none")
    home.run(write_pictures(folder, 3), gallery="nothing")
    with pytest.raises(Conflict, match="it keeps none"):
        local.quantize("looks", "nothing")
