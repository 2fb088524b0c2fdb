"""Whatever people bring that cannot be used: each is named, told why, and costs nothing else.

Pictures by URL that never answer or lead to private addresses are in `test_import_fetch`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import struct
import time
import zlib

import numpy as np
import onnx
import pytest
import sqlalchemy as sa
from onnx import TensorProto, helper
from PIL import Image

from relens import config
from relens.errors import BadInput, Broken, RelensError
from relens.models import Card, registry
from relens.store import blobs as blob_module
from relens.store.schema import blobs as blob_rows
from relens.store.schema import packs
from relens.testing.homes import DummyHome, books, fill, quarantined
from relens.testing.moments import put_aside, work
from relens.testing.pictures import draw
from relens.values import Preprocessing

STREET = "recipe: street\ndetect: {model: dummy-detector/1, min_score: 0.2}\nembed: dummy/1\n"


# -- pictures -------------------------------------------------------------------------------------------------------


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def a_bomb():
    """A few hundred bytes that claim 12,000 x 12,000 pixels, as a PNG whose header is right."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(500_000))),
        (b"IEND", b""),
    ]
    written = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + written


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def moving():
    frames = [noise(40, 30, seed) for seed in range(3)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def sixteen_bits():
    grey = np.linspace(0, 65_535, 40 * 30).reshape(30, 40).astype(np.uint16)
    return saved(Image.fromarray(grey), "PNG")


REFUSED = {
    "empty.jpg": (b"", "vision.empty"),
    "text.jpg": (b"Dear sir or madam, please find attached\n" * 20, "vision.not-a-picture"),
    "truncated.jpg": (draw(3)[:2000], "vision.broken-picture"),
    "bomb.png": (a_bomb(), "vision.too-large"),
}
TAKEN = {
    "dot.png": saved(noise(1, 1), "PNG"),
    "strip.png": saved(noise(10_000, 10), "PNG"),
    "moving.gif": moving(),
    "cmyk.jpg": saved(noise(64, 48).convert("CMYK"), "JPEG"),
    "sixteen.png": sixteen_bits(),
}


@pytest.mark.parametrize("recipe", ["photos", "street"])
def test_pictures_that_cannot_be_used_are_named_and_the_others_come_in(new_home, folder, recipe):
    home = new_home()
    (home.path / "recipes" / "street.yaml").write_text(STREET)
    (home.path / "relens.yaml").write_text(
        (home.path / "relens.yaml").read_text() + "\nlimits: {max_pixels: 100000000}\n"
    )
    fill(folder, {name: data for name, (data, _) in REFUSED.items()} | TAKEN | {"good.jpg": 1})
    plan = home.run(folder, recipe=recipe)
    assert plan["state"] == "done"
    assert {entry: code for entry, _, code in quarantined(plan)} == {name: code for name, (_, code) in REFUSED.items()}
    read, decoded = books(plan)["read"], books(plan)["decode"]
    assert read[:2] == (10, 10)
    assert (decoded[0], decoded[1], decoded[3]) == (10, 6, 4)
    for name, data in TAKEN.items():
        answer = home.local().search(data, gallery="album", k=3)
        if recipe == "photos":
            best = answer.objects[0].matches[0]
            assert ([item["id"] for item in best.items], best.score > 0.999) == ([name], True)


@pytest.mark.parametrize("name", REFUSED)
def test_a_question_with_such_a_picture_says_what_is_wrong(home, name):
    data, code = REFUSED[name]
    with pytest.raises(BadInput) as caught:
        home.local().recognize(data, recipe="photos")
    assert caught.value.code == code


# -- listings -------------------------------------------------------------------------------------------------------


def test_a_folder_without_a_picture_is_no_import(home, folder):
    (folder / "notes.txt").write_text("nothing to see")
    with pytest.raises(BadInput) as caught:
        home.run(folder)
    assert caught.value.code == "bulk.nothing-to-import"
    assert home.local().plans() == {"plans": []}


def test_names_with_line_breaks_and_bytes_that_are_no_text_come_in_and_can_be_told_apart(home, folder):
    fill(folder, {b"line\nbreak.jpg": 1, b"caf\xe9.jpg": 2, "café.jpg": 3})
    plan = home.run(folder)
    assert books(plan)["seal"][1] == 3
    assert sorted(home.items()) == ["caf%E9.jpg", "café.jpg", "line%0Abreak.jpg"]


def test_a_broken_line_and_a_repeated_id_cost_one_line_each(home, folder):
    fill(folder, {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3})
    listing = folder / "listing.csv"
    listing.write_text('uri,id,price\na.jpg,one,5\nb.jpg,two\nc.jpg,three,cheap\nb.jpg,one,6\nc.jpg,"four,7\n')
    plan = home.run(listing)
    assert books(plan)["read"] == (5, 1, {"duplicate-id": 1}, 3, 0)
    assert {code for _, _, code in quarantined(plan)} == {"bulk.bad-line"}
    assert list(home.items()) == ["one"]


# -- models ---------------------------------------------------------------------------------------------------------


def embedder(shape=(1, 3, 8, 8), dim=4):
    """An ONNX file that gives the mean of each channel, and a fourth number."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Constant", [], ["one"], value_floats=[1.0] * (dim - 3)),
        helper.make_node("Constant", [], ["shape"], value_ints=[1, dim - 3]),
        helper.make_node("Reshape", ["one", "shape"], ["more"]),
        helper.make_node("Concat", ["m", "more"], ["v"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, (1, dim))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def a_card(**changes):
    given = {
        "name": "mean",
        "version": 1,
        "task": "embed",
        "format": "onnx",
        "file": "model.onnx",
        "input": "x",
        "preprocessing": Preprocessing(8, 8, "bilinear", "rgb", "nchw", (127.0,) * 3, (128.0,) * 3),
        "outputs": {"vector": "v"},
        "dim": 4,
        "licence": "none",
        "source": "a test",
    }
    return Card(**given | changes)


@pytest.mark.parametrize(
    ("card", "model", "words"),
    [
        (a_card(), b"", "empty"),
        (a_card(), b"this is no model at all", "cannot be loaded"),
        (a_card(), embedder(shape=(1, 1, 8, 8), dim=4), "the card says"),
        (a_card(dim=5), embedder(), "dim 5"),
        (a_card(input="pixels"), embedder(), "'pixels'"),
        (a_card(outputs={"vector": "w"}), embedder(), "no output w"),
    ],
)
def test_a_model_that_is_none_or_contradicts_its_card_is_not_taken_in(home, card, model, words):
    parts = home.local().parts
    with pytest.raises(RelensError) as caught:
        parts.onboarding.add(card, {"model.onnx": model})
    assert words in str(caught.value)
    assert [one.reference for one in _models(parts)] == ["dummy/1", "dummy-detector/1"]


def _models(parts):
    with parts.catalog.read() as tx:
        return registry.every(tx)


def test_a_model_that_says_something_else_than_it_did_does_not_start(home, monkeypatch):
    parts = home.local().parts
    parts.onboarding.add(a_card(), {"model.onnx": embedder()})
    parts.onboarding.start("mean", 1).close()
    wanted = type(parts.shelf.open("mean", 1)).golden_outputs
    monkeypatch.setattr(
        type(parts.shelf.open("mean", 1)),
        "golden_outputs",
        lambda artifact: {role: values + 0.1 for role, values in wanted(artifact).items()},
    )
    with pytest.raises(Broken) as caught:
        parts.onboarding.start("mean", 1)
    assert caught.value.code == "models.golden-differs"


# -- what lies on the disk ------------------------------------------------------------------------------------------


def blobs_of(home, kind):
    parts = home.local().parts
    with parts.catalog.read() as tx:
        return list(tx.execute(sa.select(blob_rows.c.digest).where(blob_rows.c.kind == kind)).scalars())


def test_a_byte_of_a_segment_that_changed_is_noticed_before_anybody_is_answered(home, folder):
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    path = home.path / "blobs"
    [digest] = blobs_of(home, "segment-data")
    file = path / digest[:2] / digest
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(Broken) as caught:
        home.search(draw(1))
    assert caught.value.code == "vectors.corrupt-segment"
    assert digest[:12] in str(caught.value) or "segment" in str(caught.value)


def test_a_blob_that_is_gone_is_named_and_the_other_answers_go_on(home, folder):
    home.run(fill(folder, {"a.jpg": 1, "b.jpg": 2}))
    best = home.search(draw(1))[0]
    [shard] = blobs_of(home, "shard")
    (home.path / "blobs" / shard[:2] / shard).unlink()
    with pytest.raises(RelensError) as caught:
        home.local().crop(best.id)
    assert (caught.value.code, shard in str(caught.value)) == ("store.missing-blob", True)
    assert home.search(draw(1))[0].id == best.id


def test_a_full_disk_puts_the_work_aside_and_loses_nothing(home, folder, monkeypatch):
    local = home.local()
    plan = local.start_import(fill(folder, {"a.jpg": 1, "b.jpg": 2}), gallery="album").plan

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(blob_module.os, "fsync", full)
        with contextlib.suppress(Broken):
            work(local, plan, until=put_aside(local, plan))
    shown = local.plan(plan)
    assert shown["state"] == "running"
    assert "No space left" in shown["error"]
    with local.parts.catalog.begin() as tx:
        tx.execute(sa.update(packs).values(not_before=0.0))
    local.work(plan)
    assert local.plan(plan)["state"] == "done"
    assert len(home.found()) == 2
    assert list((home.path / "blobs" / "tmp").glob("*")) == []


# -- settings and clocks --------------------------------------------------------------------------------------------


def test_a_setting_that_nobody_knows_names_the_nearest_one(home):
    (home.path / "relens.yaml").write_text("imports:\n  pack_sise: 3\n")
    with pytest.raises(BadInput) as caught:
        config.load(config.find_home(home.path))
    assert (caught.value.code, "imports.pack_size" in caught.value.hint) == ("config.unknown-key", True)


def test_a_clock_that_is_set_back_stops_nothing(folder, monkeypatch, sqlite_files, tmp_path):
    """Times are said by the catalog; on SQLite that is this machine's clock, which goes back by a day here."""
    home = DummyHome(tmp_path / "set-back", sqlite_files.ready())
    first = home.run(fill(folder, {"a.jpg": 1}))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    second = home.run(fill(folder, {"b.jpg": 2}))
    assert (first["state"], second["state"]) == ("done", "done")
    assert second["sequence"] > first["sequence"]
    assert len(home.found()) == 2
    home.close()
