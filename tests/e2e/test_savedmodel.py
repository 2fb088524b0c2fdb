"""A Keras model, exported as TensorFlow Serving wants it, served here: the same requests give the same numbers.

TensorFlow is large, so this is asked for: `pip install -e '.[dev,tensorflow]'` and RELENS_TEST_TENSORFLOW=1.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest

from relens.models.savedmodel import convert

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("RELENS_TEST_TENSORFLOW"),
        reason="TensorFlow: RELENS_TEST_TENSORFLOW=1 and relens[tensorflow]",
    ),
]

MAKE = """
import sys
import keras, numpy, tensorflow as tf

keras.utils.set_random_seed(1)
picture = keras.Input((32, 32, 3), name="picture")
x = keras.layers.Rescaling(1 / 127.5, -1)(picture)
x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
x = keras.layers.BatchNormalization()(keras.layers.DepthwiseConv2D(3, padding="same")(x))
vector = keras.layers.Dense(16)(keras.layers.GlobalAveragePooling2D()(x))
scores = keras.layers.Dense(3, activation="softmax")(vector)
model = keras.Model({"picture": picture}, {"vector": vector, "scores": scores})
model.export(sys.argv[1] + "/boots/7", verbose=False)
given = numpy.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
made = tf.saved_model.load(sys.argv[1] + "/boots/7").signatures["serving_default"](picture=tf.constant(given))
numpy.savez(sys.argv[1] + "/asked.npz", given=given, **{name: one.numpy() for name, one in made.items()})


class Served(tf.Module):
    def __init__(self):
        self.model = model

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def decoding(self, image_bytes):
        def decoded(one):
            return tf.image.resize(tf.io.decode_jpeg(one, channels=3), (32, 32))

        pictures = tf.map_fn(decoded, image_bytes, fn_output_signature=tf.TensorSpec((32, 32, 3)))
        return {"scores": self.model({"picture": pictures})["scores"]}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
    def dice(self, x):
        return {"y": x + tf.random.uniform(tf.shape(x))}


served = Served()
tf.saved_model.save(served, sys.argv[1] + "/others", {"serving_default": served.decoding, "dice": served.dice})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`boots/7` and `others` with signatures that cannot become ONNX; `asked.npz` has what `boots/7` gives."""
    made = tmp_path_factory.mktemp("saved")
    subprocess.run([sys.executable, "-c", MAKE, str(made)], check=True, capture_output=True)
    return made


@contextlib.contextmanager
def serving(models):
    """A client of a server of these models, once `boots` answers."""
    command = [sys.executable, "-m", "relens.cli", "up", "--models", str(models), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    url = next(line.split()[-3].rstrip(",") for line in process.stderr if "until ctrl-C" in line)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            deadline = time.monotonic() + 60
            while "AVAILABLE" not in client.get("/v1/models/boots").text:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        assert process.wait(30) == 0


def relens(*words, code=0, **environment):
    command = [sys.executable, "-m", "relens.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def test_a_converted_model_answers_its_old_clients_with_the_same_numbers(folder):
    made = json.loads(relens("model", "convert", folder / "boots", "-o", folder / "served/boots", "--json").stdout)
    [report] = made["models"]
    assert report["compared"]["runs"] == 11
    assert 0 <= report["compared"]["difference"] < 1e-5
    asked = np.load(folder / "asked.npz")
    with serving(folder / "served") as client:
        told = client.get("/v1/models/boots/metadata").json()["metadata"]["signature_def"]["signature_def"]
        assert set(told["serving_default"]["inputs"]) == {"picture"}
        assert set(told["serving_default"]["outputs"]) == {"scores", "vector"}
        shape = told["serving_default"]["inputs"]["picture"]["tensor_shape"]["dim"]
        assert [int(one["size"]) for one in shape] == [-1, 32, 32, 3]
        body = {"instances": [{"picture": one} for one in asked["given"].tolist()]}
        answer = client.post("/v1/models/boots/versions/7:predict", json=body)
        assert answer.status_code == 200, answer.text
        for name in ("scores", "vector"):
            found = np.array([one[name] for one in answer.json()["predictions"]], np.float32)
            np.testing.assert_allclose(found, asked[name], atol=1e-5 * np.abs(asked[name]).max())


def test_a_saved_model_comes_in_as_a_model_of_the_home_and_again_changes_nothing(folder, tmp_path):
    home = {"RELENS_HOME": str(tmp_path / "home")}
    relens("init", **home)
    words = ["model", "add", folder / "boots" / "7", "--infer", "--yes", "--set", "licence=MIT", "--json"]
    first, second = (json.loads(relens(*words, **home).stdout) for _ in range(2))
    assert first["digest"] == second["digest"]
    assert (first["name"], first["version"], first["task"]) == ("boots", 1, "classify+embed")
    assert "converted from a TensorFlow SavedModel" in first["card"]["source"]
    assert first["card"]["preprocessing"]["std"] == [1.0, 1.0, 1.0]
    relens("model", "verify", "boots/1", **home)


def test_the_same_model_becomes_the_same_file(folder):
    assert convert(folder / "boots" / "7") == convert(folder / "boots" / "7")


@pytest.mark.parametrize(
    ("signature", "code", "error", "said"),
    [
        ("serving_default", 1, "models.cannot-convert", "DecodeJpeg"),
        ("nothing", 1, "models.no-signature", "dice, serving_default"),
        ("dice", 3, "models.not-the-same", "differs from the original by y"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(folder, signature, code, error, said):
    words = ["model", "convert", folder / "others", "-o", folder / "x.onnx", "--signature", signature, "--json"]
    told = json.loads(relens(*words, code=code).stdout)["error"]
    assert told["code"] == error
    assert said in told["message"]
    assert told["hint"]
    assert not (folder / "x.onnx").exists()
