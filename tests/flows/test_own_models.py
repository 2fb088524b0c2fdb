"""Models of one's own: what comes in runs, what does not fit is refused by name, and nothing of it stays."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from relens import wiring
from relens.errors import BadInput, Broken, Conflict, Missing
from relens.models import registry
from relens.models.drafts import Wish, draft_model, require_agreement
from relens.onboarding import Onboarding
from relens.runtimes import Dummy, ModelSpec, OnnxRuntime, write_dummy
from relens.testing import networks
from relens.testing.remotes import FakeServer

LABELS = "".join(f"name {number}\n" for number in range(5))


@pytest.fixture
def parts(tmp_path):
    wiring.make_home(tmp_path / "home")
    opened = wiring.open_parts(tmp_path / "home")
    yield opened
    opened.catalog.close()


@pytest.fixture
def bring(parts, tmp_path):
    """Brings a model in as the command does: bytes or a folder, and what the user says of it."""

    def bring_in(model, **wish):
        path = model
        if isinstance(model, bytes):
            path = tmp_path / "model.onnx"
            path.write_bytes(model)
        draft = draft_model(path, Wish(**wish))
        require_agreement(draft)
        card = draft.card if draft.numbered else parts.onboarding.numbered(draft.card, draft.files)
        return parts.onboarding.add(card, draft.files)

    return bring_in


def refused(parts, call, code, *words):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.code == code
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint
    assert parts.shelf.versions() == []
    with parts.catalog.read() as tx:
        assert registry.every(tx) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"PyTorch model, see the wiki\n" * 9, "it is text"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." * 20, "do not follow the format"),
    ],
)
@pytest.mark.parametrize("infer", [True, False])
def test_a_file_that_is_no_model_is_refused_for_what_it_is(parts, bring, data, words, infer):
    bring(networks.embedder(), infer=True, name="other")
    card = parts.shelf.folder("other", 1) / "card.yaml"
    wish = {"infer": True} if infer else {"card": card, "name": "wrong"}
    with pytest.raises(BadInput) as caught:
        bring(data, **wish)
    assert caught.value.code == "models.not-onnx"
    assert words in caught.value.message
    assert parts.shelf.versions() == [("other", 1)]


def test_a_card_that_contradicts_the_model_is_refused_with_every_contradiction(parts, bring):
    wrong = ("input=pixels", "dim=512", "preprocessing.size_px=48", "preprocessing.resize_px=48")
    refused(
        parts,
        lambda: bring(networks.embedder(), infer=True, changes=wrong),
        "models.contradiction",
        "set input to images",
        "set dim to 32",
    )
    refused(
        parts,
        lambda: bring(networks.embedder(), infer=True, changes=wrong[2:]),
        "models.contradiction",
        "3 x 48 x 48",
    )


def test_labels_that_are_not_as_many_as_the_classes_are_refused(parts, bring, tmp_path):
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    refused(
        parts,
        lambda: bring(networks.classifier(), infer=True, labels=tmp_path / "names.txt", changes=("task=classify",)),
        "models.bad-card",
    )
    (tmp_path / "card.yaml").write_bytes(draft_of(tmp_path, networks.classifier()).card.to_yaml())
    refused(
        parts,
        lambda: bring(networks.classifier(), card=tmp_path / "card.yaml", labels=tmp_path / "names.txt"),
        "models.contradiction",
        "2 labels are given, the model scores 5 classes",
    )


def draft_of(folder, data, **wish):
    (folder / "draft.onnx").write_bytes(data)
    return draft_model(folder / "draft.onnx", Wish(infer=True, **wish))


def test_a_model_whose_golden_pictures_give_no_numbers_does_not_come_in(parts, bring):
    refused(
        parts, lambda: bring(networks.embedder(broken=True), infer=True), "models.not-finite", "vector of the golden"
    )


def test_logits_that_are_taken_for_scores_do_not_come_in(parts, bring, tmp_path):
    (tmp_path / "names.txt").write_text(LABELS)
    wish = {"infer": True, "labels": tmp_path / "names.txt"}
    logits = networks.classifier(activation="")
    assert draft_of(tmp_path, logits, labels=tmp_path / "names.txt").card.kind == "softmax"
    refused(
        parts,
        lambda: bring(logits, **wish, changes=("decode.kind=none",)),
        "models.contradiction",
        "set decode.kind to softmax",
    )
    relu = networks.classifier(activation="Relu")
    refused(parts, lambda: bring(relu, **wish, changes=("decode.kind=none",)), "models.no-scores", "not 0 to 1")


def test_a_decode_that_nobody_can_follow_does_not_come_in(parts, bring):
    for change, word in {
        "decode.box=round": "'round'",
        "decode.strides=[8, 16]": "cells",
        "decode.nms=3": "3 is no word",
        "decode.landmarks=many": "'many' is no whole number",
        "decode.anchors=9": "decode.anchors is unknown",
        "decode.strides=[0]": "cannot be followed",
    }.items():
        refused(parts, lambda one=change: bring(networks.yolo(), infer=True, changes=(one,)), "models.bad-card", word)


@pytest.mark.parametrize(
    "change", ["name=../../x", "version=one", "file=../card", "file=card.yaml", "labels=/etc/passwd"]
)
def test_a_card_cannot_name_what_is_outside_its_folder(parts, bring, change):
    refused(parts, lambda: bring(networks.classifier(), infer=True, changes=(change,)), "models.bad-card")


def test_the_same_model_again_is_the_same_version_and_another_one_the_next(bring):
    first = bring(networks.embedder(), infer=True, name="looks")
    assert bring(networks.embedder(), infer=True, name="looks") == first
    second = bring(networks.embedder(seed=1), infer=True, name="looks")
    assert (first.reference, second.reference) == ("looks/1", "looks/2")
    assert second.space != first.space
    with pytest.raises(Conflict):
        bring(networks.embedder(seed=2), infer=True, name="looks", version=1)


def test_a_card_beside_the_model_is_found_and_one_that_is_nowhere_is_asked_for(bring, tmp_path):
    path = tmp_path / "looks.onnx"
    path.write_bytes(networks.embedder())
    with pytest.raises(BadInput) as caught:
        bring(path)
    assert caught.value.code == "models.no-card"
    (tmp_path / "looks.onnx.card.yaml").write_bytes(
        draft_of(tmp_path, networks.embedder(), name="looks").card.to_yaml()
    )
    assert bring(path).reference == "looks/1"
    with pytest.raises(Missing):
        bring(tmp_path / "nothing.onnx")


def test_a_file_that_the_card_names_and_nobody_has_is_missing(bring, tmp_path):
    (tmp_path / "card.yaml").write_bytes(draft_of(tmp_path, networks.classifier()).card.to_yaml())
    with pytest.raises(Missing, match=r"labels\.json"):
        bring(networks.classifier(), card=tmp_path / "card.yaml")


PYTHON = """\
import numpy as np


def run(x):
    return {"vector": x.mean(axis=(2, 3)) @ np.ones((3, 4)) + x[:, 0, :4, 0]}
"""


def python_model(folder):
    given = yaml.safe_load(draft_of(folder, networks.embedder(dim=4), name="own").card.to_yaml())
    given |= {"format": "python", "file": "model.yaml"}
    model = folder / "own"
    model.mkdir()
    (model / "card.yaml").write_text(yaml.safe_dump(given))
    (model / "model.yaml").write_text("entry: network:run\nlock: requirements.lock\n")
    (model / "requirements.lock").write_text("# nothing but numpy\n")
    (model / "network.py").write_text(PYTHON)
    (model / ".git").mkdir()
    (model / ".git" / "config").write_text("no part of the model")
    return model


def test_a_folder_of_python_code_comes_in_with_its_lock_file_in_the_manifest(parts, bring, tmp_path):
    artifact = bring(python_model(tmp_path))
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    assert {"network.py", "requirements.lock", "model.yaml", "card.yaml"} <= set(manifest)
    assert ".git/config" not in manifest
    loaded = parts.onboarding.start("own", 1, digest=artifact.digest)
    assert loaded.session.backend == "python"
    assert not (artifact.folder / "__pycache__").exists()
    loaded.close()
    (artifact.folder / "network.py").write_text(PYTHON.replace("4", "4 "))
    with pytest.raises(Broken, match=r"network.py is not what the manifest names"):
        parts.onboarding.start("own", 1)


def test_code_that_dies_on_the_golden_pictures_does_not_come_in(parts, bring, tmp_path):
    model = python_model(tmp_path)
    (model / "network.py").write_text("import os\n\n\ndef run(x):\n    os.abort()\n")
    with pytest.raises(Broken, match="SIGABRT"):
        bring(model)
    assert parts.shelf.versions() == []


@pytest.fixture
def server(tmp_path):
    running = FakeServer()
    write_dummy(tmp_path / "dummy", seed=1, vector_dim=16, classes=5, cells=4)
    spec = ModelSpec("dummy", tmp_path / "dummy", "images", (3, 64, 64), {"vector": "vector"}, "fp32")
    running.serve("looks", spec, Dummy().load(spec))
    yield running
    running.stop()


def remote_model(folder, server):
    given = yaml.safe_load(draft_of(folder, networks.embedder(dim=16), name="far").card.to_yaml())
    (folder / "far.card.yaml").write_text(yaml.safe_dump(given | {"format": "remote", "file": "remote.json"}))
    (folder / "far").write_text(json.dumps({"url": server.url, "protocol": "oip", "model": "looks"}))
    return folder / "far"


def test_a_model_on_another_server_comes_in_and_is_known_by_its_golden_pictures(parts, bring, tmp_path, server):
    artifact = bring(remote_model(tmp_path, server))
    assert parts.in_process().model("far/1")["backend"]["device"] == "remote"
    write_dummy(tmp_path / "dummy", seed=2, vector_dim=16, classes=5, cells=4)
    spec, _ = server.models["looks"]
    server.serve("looks", spec, Dummy().load(spec))
    with pytest.raises(Broken) as caught:
        parts.onboarding.start("far", 1, digest=artifact.digest)
    assert caught.value.code == "models.golden-differs"


def test_what_runs_a_model_instead_of_what_is_written_down(parts, tmp_path):
    class Quick(OnnxRuntime):
        name = "quick"

        def load(self, spec, *, threads=1):
            raise Broken("runtimes.load-failed", f"{threads} threads and no Gemm for {spec.format}")

    draft = draft_of(tmp_path, networks.embedder(), name="looks")
    onboarding = replace(parts.onboarding, backends=(Quick(), OnnxRuntime()))
    artifact = Onboarding.add(onboarding, draft.card, draft.files)
    shown = parts.in_process().model(artifact.reference)["backend"]
    assert (shown["name"], shown["device"], shown["fallback"]) == (
        "onnxruntime",
        "cpu",
        "quick: 1 threads and no Gemm for onnx",
    )
    only = replace(parts.onboarding, backends=(Quick(),))
    with pytest.raises(Broken, match="no Gemm"):
        only.start("looks", 1)


def test_numbers_of_a_small_regressor_are_read_at_the_door(parts, bring):
    """Its one number for each picture is a tensor (n, 1)."""
    artifact = bring(networks.embedder(dim=1), infer=True, changes=("decode.scale=10", "decode.offset=5"))
    assert (artifact.card.task, artifact.card.outputs) == ("regress", {"value": "vector"})
    assert np.isfinite(artifact.golden_outputs()["value"]).all()
