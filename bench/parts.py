"""The bare parts: what the libraries need for the same work, called directly, with nothing around them.

They are the limit beside which relens is measured. Each does what a careful script would do: the same sizes, filters,
qualities and session options, no checks, no errors, no records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnxruntime
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from bench.clock import Chain
from relens.models import Artifact
from relens.recipes import Recipe
from relens.values import Preprocessing

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def import_chain(recipe: Recipe, artifact: Artifact, crops: BinaryIO) -> Chain:
    """From the path of a picture to the bytes of its vector; the crop is appended to a file."""
    *to_crop, from_crop = _crop_steps(recipe)
    return (
        ("read and SHA-256", read),
        *to_crop,
        ("append the crop to a file", appender(crops)),
        from_crop,
        *_embed_steps(artifact),
        ("vector to float16", to_half),
    )


def search_chain(recipe: Recipe, artifact: Artifact, vectors: Floats, k: int) -> Chain:
    """From the bytes of a picture to rows, by way of the crop."""
    return (*_crop_steps(recipe), *_embed_steps(artifact), ("search", searcher(vectors, k)))


def direct_chain(artifact: Artifact, vectors: Floats, k: int) -> Chain:
    """From the bytes of a picture to rows, straight into the model."""
    resize_px = artifact.card.preprocessing.resize_px
    return (("decode", decoder(resize_px)), *_embed_steps(artifact), ("search", searcher(vectors, k)))


def _crop_steps(recipe: Recipe) -> Chain:
    return (
        ("decode", decoder(recipe.short_side_px)),
        (f"resize to {recipe.short_side_px} px", shrinker(recipe.short_side_px)),
        ("encode the crop", encoder(recipe.quality)),
        ("decode the crop", decode_whole),
    )


def _embed_steps(artifact: Artifact) -> Chain:
    prep = artifact.card.preprocessing
    return ((f"resize, cut and normalise to {prep.size_px} px", preparer(prep)), ("inference", embedder(artifact)))


def read(path: Path) -> bytes:
    """Read and hash."""
    data = path.read_bytes()
    hashlib.sha256(data).hexdigest()
    return data


def decoder(short_side_px: int) -> Callable[[bytes], Pixels]:
    """Decodes at the least of 1, 1/2, 1/4, 1/8 whose shorter side has so many pixels."""

    def decode(data: bytes) -> Pixels:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=short_side_px, min_width=short_side_px, min_factor=2
        )
        return pixels

    return decode


def shrinker(short_side_px: int) -> Callable[[Pixels], Pixels]:
    """Resizes to this shorter side, antialiased."""

    def shrink(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        share = short_side_px / min(height, width)
        size = round(width * share), round(height * share)
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))

    return shrink


def encoder(quality: int) -> Callable[[Pixels], bytes]:
    def encode(pixels: Pixels) -> bytes:
        return bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="444"))

    return encode


def decode_whole(data: bytes) -> Pixels:
    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    return pixels


def preparer(prep: Preprocessing) -> Callable[[Pixels], Floats]:
    """The centre square of the resized picture as the model's input, in one call of Pillow and a line of numpy."""
    mean, std = np.float32(prep.mean[0]), np.float32(prep.std[0])
    size = (prep.size_px, prep.size_px)

    def prepare(pixels: Pixels) -> Floats:
        height, width = pixels.shape[:2]
        side = min(height, width) * prep.size_px / prep.resize_px
        left, top = (width - side) / 2, (height - side) / 2
        square = Image.fromarray(pixels).resize(size, FILTERS[prep.resample], box=(left, top, left + side, top + side))
        values = np.asarray(square).transpose(2, 0, 1)[np.newaxis].astype(np.float32)
        values -= mean
        values /= std
        return values

    return prepare


def embedder(artifact: Artifact) -> Callable[[Floats], Floats]:
    """Runs the model for scores and vector; gives the vector."""
    return _runner(artifact, "vector", "scores")


def scorer(artifact: Artifact) -> Callable[[Floats], Floats]:
    """Runs the model for scores alone."""
    return _runner(artifact, "scores")


def _runner(artifact: Artifact, *roles: str) -> Callable[[Floats], Floats]:
    """Runs the model for these; gives the first. With the options that `OnnxRuntime` sets."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(str(artifact.model_file), options, providers=["CPUExecutionProvider"])
    card = artifact.card
    tensors = [card.outputs[role] for role in roles]

    def run(values: Floats) -> Floats:
        first: Floats = session.run(tensors, {card.input: values})[0][0]
        return first

    return run


def appender(file: BinaryIO) -> Callable[[bytes], bytes]:
    def append(data: bytes) -> bytes:
        file.write(data)
        return data

    return append


def to_half(vector: Floats) -> bytes:
    """As it is stored."""
    return (vector / np.linalg.norm(vector)).astype(np.float16).tobytes()


def searcher(vectors: Floats, k: int) -> Callable[[Floats], NDArray[np.intp]]:
    """The k best rows of unit vectors, best first."""

    def search(query: Floats) -> NDArray[np.intp]:
        scores = vectors @ (query / np.linalg.norm(query))
        best = np.argpartition(scores, -k)[-k:]
        return best[np.argsort(-scores[best])]

    return search
