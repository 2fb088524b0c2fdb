"""Finding the faces in a VGA group photo, part by part, beside the bare forwards of the three networks.

The photo is made of one portrait that comes with scikit-image: twelve times, mirrored, brighter and darker, larger and
smaller. P-Net's cost goes with the area and with the square of the scale, that of R- and O-Net with how much looks
like a face: a crowd costs more than twelve.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from bench.clock import in_turn
from bench.figures import Figure, Report, Setup, at_least, milliseconds
from relens.errors import Missing
from relens.models import faces as models
from relens.models.mtcnn import build_onnx
from relens.models.wheels import Wheel, read_archive, read_wheel
from relens.runtimes import ModelSpec, OnnxRuntime
from relens.vision import faces

PORTRAIT = Wheel(
    "scikit-image",
    "0.26.0",
    {"skimage/data/astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"},
)
VGA = (640, 480)
ACROSS, DOWN = 4, 3
BUST = (60, 0, 380, 320)  # of the portrait: head and shoulders
LEAST_PER_S = 15.0
SHAPES: Mapping[str, tuple[int | None, ...]] = {
    "propose": (3, None, None),
    "refine": (3, 24, 24),
    "finish": (3, 48, 48),
}
NAMES = {"propose": "P-Net", "refine": "R-Net", "finish": "O-Net"}

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Network = Callable[[Floats], Mapping[str, Floats]]


def measure(setup: Setup) -> Report:
    folder = setup.folder / "faces"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        networks, photo = _networks(folder), group_photo(folder)
    except Missing as error:
        return Report((), remarks=(f"faces skipped: {error}",))
    seen, found = _seen(photo, networks)
    forwards = {NAMES[name]: _repeat(networks[name], seen[name]) for name in networks}
    works = {"detection": lambda: faces.detect_faces(photo, **networks), **forwards}
    spent = in_turn(works, setup.choose(21, 7))
    bare = sum(spent[name] for name in forwards)
    per_s = 1 / spent["detection"]
    figure = Figure(
        f"find the {found} faces of a VGA group photo, per core and second",
        f"{per_s:.1f}",
        f"{1 / bare:.1f} forwards alone",
        bare / spent["detection"],
        at_least(per_s, LEAST_PER_S),
    )
    counts = {name: sum(map(len, given)) for name, given in seen.items()}
    return Report((figure,), {"Finding the faces of a VGA group photo": _parts(photo, networks, spent, counts)})


def group_photo(folder: Path) -> Pixels:
    """640 x 480, twelve faces of some 35 to 60 px."""
    path = folder / "portrait.png"
    if not path.exists():
        path.write_bytes(next(iter(read_wheel(PORTRAIT, None).values())))
    portrait = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    photo = Image.new("RGB", VGA)
    width, height = VGA[0] // ACROSS, VGA[1] // DOWN
    left, top, right, bottom = BUST
    for place in range(ACROSS * DOWN):
        wider = 15 * (place % 4)  # the further away, the smaller
        bust = portrait.crop((left - wider, top, right + wider, bottom + 2 * wider)).resize((width, height))
        bust = bust.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if place % 2 else bust
        bust = ImageEnhance.Brightness(bust).enhance(0.7 + 0.05 * place)
        photo.paste(bust, (place % ACROSS * width, place // ACROSS * height))
    return np.asarray(photo)


def _networks(folder: Path) -> dict[str, Network]:
    """The three networks of the model `mtcnn`, fetched once."""
    paths = {name: folder / f"{name}.onnx" for name in models.NETWORKS}
    if not all(path.exists() for path in paths.values()):
        published = {Path(name).name: data for name, data in read_archive(models.MTCNN, None).items()}
        for name, path in paths.items():
            path.write_bytes(build_onnx(published[models.NETWORKS[name]], name))
    return {name: _session(path, name) for name, path in paths.items()}


def _session(path: Path, name: str) -> Network:
    roles = ("scores", "boxes", "landmarks") if name == "finish" else ("scores", "boxes")
    spec = ModelSpec("onnx", path, "pixels", SHAPES[name], {role: role for role in roles}, "fp32")
    return OnnxRuntime().load(spec).run


def _seen(photo: Pixels, networks: Mapping[str, Network]) -> tuple[dict[str, list[Floats]], int]:
    """Every input that each network is given, and how many faces are found."""
    seen: dict[str, list[Floats]] = {name: [] for name in networks}

    def keeping(name: str, network: Network) -> Network:
        def run(given: Floats) -> Mapping[str, Floats]:
            seen[name].append(given)
            return network(given)

        return run

    found = faces.detect_faces(photo, **{name: keeping(name, network) for name, network in networks.items()})
    return seen, len(found)


def _repeat(network: Network, inputs: list[Floats]) -> Callable[[], None]:
    def run() -> None:
        for given in inputs:
            network(given)

    return run


def _parts(
    photo: Pixels, networks: Mapping[str, Network], spent: Mapping[str, float], counts: Mapping[str, int]
) -> dict[str, str]:
    """Milliseconds of each part. What is between the networks is timed in a run of its own."""
    between: Counter[str] = Counter()
    rounds = 5
    with _watched(between, {"_pyramid": "sizes of the picture", "_cut_out": "cut-outs", "nms": "choice among boxes"}):
        for _ in range(rounds):
            faces.detect_faces(photo, **networks)
    rows = {name: seconds / rounds for name, seconds in between.items()}
    rows |= {f"P-Net, {counts['propose']} bands": spent["P-Net"]}
    rows |= {f"{NAMES[name]}, {counts[name]} cut-outs": spent[NAMES[name]] for name in ("refine", "finish")}
    rows["the rest: boxes, inputs"] = spent["detection"] - sum(rows.values())
    return {name: milliseconds(seconds) for name, seconds in rows.items()} | {
        "detection": milliseconds(spent["detection"])
    }


@contextmanager
def _watched(spent: Counter[str], names: Mapping[str, str]) -> Iterator[None]:
    """CPU seconds of functions of the module, generators to their end."""

    def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*given: Any, **options: Any) -> Any:
            start = time.process_time()
            result = function(*given, **options)
            result = list(result) if isinstance(result, Iterator) else result
            spent[name] += time.process_time() - start
            return result

        return run

    originals = {function: getattr(faces, function) for function in names}
    for function, name in names.items():
        setattr(faces, function, timed(originals[function], name))
    try:
        yield
    finally:
        for function, original in originals.items():
            setattr(faces, function, original)
