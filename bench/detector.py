"""A detector by card: letterbox, inference, boxes and what overlaps left out, beside the bare inference.

The network has the size and the shape of output of a small YOLO for 320 px, and random weights: what it finds means
nothing, and there is enough of it that boxes have to be compared.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench import pictures
from bench.clock import in_turn
from bench.figures import Figure, Report, Setup, at_least, microseconds
from relens.models import Artifact, Card
from relens.recipes import Finding, LoadedModel
from relens.recipes.detectors import detector
from relens.runtimes import ModelSpec, OnnxRuntime
from relens.values import Preprocessing
from relens.vision import decode, preprocess

LEAST = 0.85
SIDE_PX, CLASSES = 320, 80
WIDTHS = (32, 64, 128, 256)  # 1.1 billion multiplications in all: a YOLO of 3 million weights has as many at 320 px
CELLS = (SIDE_PX // 8) ** 2 + (SIDE_PX // 16) ** 2 + (SIDE_PX // 32) ** 2


def measure(setup: Setup) -> Report:
    decoded = [decode(data).pixels for data in pictures.jpegs(setup.choose(16, 4))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(network())
        card = _card()
        session = OnnxRuntime().load(
            ModelSpec("onnx", path, card.input, card.input_shape, dict(card.outputs), card.precision)
        )
    names = tuple(f"class {number}" for number in range(CLASSES))
    model = LoadedModel(Artifact(card, "", Path(), ""), session, names, None)
    detect = detector(model, Finding(min_score=0.5))
    inputs = [preprocess(pixels, card.preprocessing) for pixels in decoded]
    found = sum(len(detect(pixels)) for pixels in decoded) / len(decoded)
    times = in_turn(
        {
            "ours": lambda: [detect(pixels) for pixels in decoded],
            "bare": lambda: [session.run(one) for one in inputs],
            "letterbox and normalise": lambda: [preprocess(pixels, card.preprocessing) for pixels in decoded],
        },
        setup.choose(9, 3),
    )
    each = {name: seconds / len(decoded) for name, seconds in times.items()}
    ratio = each["bare"] / each["ours"]
    figure = Figure(
        f"a detector by card, {SIDE_PX} px, of a decoded VGA picture",
        microseconds(each["ours"]),
        f"{microseconds(each['bare'])} bare inference",
        ratio,
        at_least(ratio, LEAST),
    )
    rest = each["ours"] - each["bare"] - each["letterbox and normalise"]
    rows = {
        "letterbox and normalise": microseconds(each["letterbox and normalise"]),
        "inference": microseconds(each["bare"]),
        f"{CELLS} cells to {found:.0f} objects": microseconds(max(rest, 0.0)),
    }
    return Report((figure,), {"A detector by card": rows})


def network() -> bytes:
    """An ONNX file: (1, 3, 320, 320) to (1, 4 + 80, 2100), as YOLOv8 and its successors give it."""
    random = np.random.default_rng(0)
    nodes, constants, value, channels = [], [], "images", 3

    def conv(name: str, given: str, width: int, *, size: int, stride: int, before: int, act: bool) -> str:
        scale = (2 / (before * size * size)) ** 0.5
        weights = random.normal(0, scale, (width, before, size, size)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"{name}_w"))
        pads = [size // 2] * 4
        nodes.append(helper.make_node("Conv", [given, f"{name}_w"], [f"{name}_c"], strides=[stride] * 2, pads=pads))
        if act:
            nodes.append(helper.make_node("Relu", [f"{name}_c"], [f"{name}_r"]))
        return f"{name}_r" if act else f"{name}_c"

    flat = []
    for number, width in enumerate((16, *WIDTHS)):
        value = conv(f"down{number}", value, width, size=3, stride=2, before=channels, act=True)
        for layer in range(4 if number else 0):
            value = conv(f"same{number}_{layer}", value, width, size=3, stride=1, before=width, act=True)
        channels = width
        if number >= 2:
            head = conv(f"head{number}", value, 4 + CLASSES, size=1, stride=1, before=channels, act=False)
            constants.append(numpy_helper.from_array(np.array([1, 4 + CLASSES, -1]), f"shape{number}"))
            nodes.append(helper.make_node("Reshape", [head, f"shape{number}"], [f"flat{number}"]))
            flat.append(f"flat{number}")
    nodes.append(helper.make_node("Concat", flat, ["all"], axis=2))
    # Boxes somewhere in the picture; scores of which a few in a hundred cells pass.
    constants += [
        numpy_helper.from_array(np.array([4, CLASSES]), "parts"),
        numpy_helper.from_array(np.float32(SIDE_PX), "side"),
        numpy_helper.from_array(np.float32(3.0), "bias"),
        numpy_helper.from_array(np.float32(0.5), "half"),
    ]
    nodes += [
        helper.make_node("Split", ["all", "parts"], ["raw_boxes", "raw_scores"], axis=1),
        helper.make_node("Sigmoid", ["raw_boxes"], ["shares"]),
        helper.make_node("Mul", ["shares", "side"], ["whole"]),
        helper.make_node("Mul", ["whole", "half"], ["boxes"]),
        helper.make_node("Sub", ["raw_scores", "bias"], ["lower"]),
        helper.make_node("Sigmoid", ["lower"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["detections"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, SIDE_PX, SIDE_PX))],
        [helper.make_tensor_value_info("detections", TensorProto.FLOAT, (1, 4 + CLASSES, CELLS))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _card() -> Card:
    return Card(
        name="random",
        version=1,
        task="detect",
        format="onnx",
        file="model.onnx",
        input="images",
        preprocessing=Preprocessing(
            SIDE_PX, SIDE_PX, "bilinear", "rgb", "nchw", (0.0,) * 3, (255.0,) * 3, fit="letterbox"
        ),
        outputs={"detections": "detections"},
        labels="labels.json",
        decode={"kind": "yolo", "variant": "classes"},
        licence="none",
        source="made here",
    )
