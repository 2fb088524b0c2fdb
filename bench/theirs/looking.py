"""JPEG in, classes out, as it is written for a server that runs Python: decode, resize, cut, normalise, run, sort.

`plain` is what most people write: Pillow, whole. `careful` is what relens does: libjpeg decodes at half or quarter
size where that is enough, and one call resizes the square that is wanted.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

SIZE_PX, RESIZE_PX, MEAN, STD = 224, 256, np.float32(127), np.float32(128)
BEST = 5


def open_session(model: str) -> onnxruntime.InferenceSession:
    """With the options that relens sets: one thread, no spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def plain(data: bytes) -> Any:
    """(1, 3, 224, 224) float32."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    share = RESIZE_PX / min(picture.size)
    resized = picture.resize((round(picture.width * share), round(picture.height * share)), Image.Resampling.BICUBIC)
    left, top = (resized.width - SIZE_PX) // 2, (resized.height - SIZE_PX) // 2
    return _normalised(np.asarray(resized.crop((left, top, left + SIZE_PX, top + SIZE_PX))))


def careful(data: bytes) -> Any:
    """The same, with less work."""
    import simplejpeg  # noqa: PLC0415 - not where it is not measured

    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=RESIZE_PX, min_width=RESIZE_PX, min_factor=2)
    height, width = pixels.shape[:2]
    side = min(height, width) * SIZE_PX / RESIZE_PX
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    square = Image.fromarray(pixels).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC, box=box)
    return _normalised(np.asarray(square))


def _normalised(pixels: Any) -> Any:
    return (pixels.transpose(2, 0, 1)[np.newaxis].astype(np.float32) - MEAN) / STD


WAYS: dict[str, Callable[[bytes], Any]] = {"plain": plain, "careful": careful}


class Looker:
    """A model with its names, and how pictures become its input."""

    def __init__(self, folder: str, way: str) -> None:
        self._session = open_session(str(Path(folder) / "model.onnx"))
        self._names = json.loads((Path(folder) / "labels.json").read_text())
        self._prepare = WAYS[way]
        self._input = self._session.get_inputs()[0].name

    def look(self, data: bytes) -> list[dict[str, Any]]:
        """The best names of a picture with their scores."""
        [scores] = self._session.run(["scores"], {self._input: self._prepare(data)})
        best = np.argsort(-scores[0])[:BEST]
        return [{"name": self._names[index], "score": float(scores[0][index])} for index in best]
