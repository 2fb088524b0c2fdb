"""Pictures as arrays: bytes to pixels, pixels to a model's input, and where the model looked.

Pure functions. A picture is (height, width, 3) uint8 RGB, upright; nothing changes the array that it was given, and
what is returned may be that same array. Files, models and the catalog are other parts' concern.
"""

from relens.vision.cam import class_activation_map, overlay, subject_box
from relens.vision.decode import Decoded, decode, encode_jpeg
from relens.vision.header import Limits, check_header, read_header
from relens.vision.preprocess import normalise, placement, preprocess, seen_box
from relens.vision.resize import shrink

__all__ = [
    "Decoded",
    "Limits",
    "check_header",
    "class_activation_map",
    "decode",
    "encode_jpeg",
    "normalise",
    "overlay",
    "placement",
    "preprocess",
    "read_header",
    "seen_box",
    "shrink",
    "subject_box",
]
