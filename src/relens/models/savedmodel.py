"""TensorFlow SavedModels: converted to ONNX in a process of its own, and refused if the result is not the same model.

Inputs and outputs keep the names, datatypes and shapes of the signature, so that clients send what they sent before.
TensorFlow and tf2onnx are the extra `[tensorflow]`; this process never imports them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from pathlib import Path
from typing import Any

from relens.errors import FAMILIES, Broken, Conflict, Missing
from relens.models import savedmodel_child
from relens.store.blobs import sync_folder, write_file_durably
from relens.values import digest_of

GRAPH = "saved_model.pb"
SIGNATURE = "serving_default"
MAX_DIFFERENCE = 1e-3
CHILD = Path(savedmodel_child.__file__)

MARK = "converted from a TensorFlow SavedModel"
"""How the sentence begins that a card's source has of a conversion."""

_NUMBERED = re.compile(r"0*([1-9][0-9]{0,17})")
_SAID_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Converted:
    """An ONNX file, and what is known of how it was made.

    report   `signature`, `inputs`, `outputs`, `compared` (`savedmodel_child.compare`), `opset`, versions of
             `tensorflow` and `tf2onnx`, and `digest`: SHA-256 of all files of the SavedModel
    """

    data: bytes
    report: Mapping[str, Any]

    def told(self) -> str:
        """The report in one sentence."""
        report = self.report
        return (
            f"{MARK} ({report['digest'][:12]}, signature {report['signature']}) by tf2onnx {report['tf2onnx']} with "
            f"TensorFlow {report['tensorflow']}, {told_difference(report['compared'])}"
        )


def is_saved_model(folder: Path) -> bool:
    """Whether this is a folder with a SavedModel in it."""
    return (folder / GRAPH).is_file()


def version_of(folder: Path) -> int | None:
    """The version number that a SavedModel's folder is named by, as TensorFlow Serving wants it."""
    found = _NUMBERED.fullmatch(folder.absolute().name)
    return int(found.group(1)) if found else None


def versions_in(source: Path) -> list[Path]:
    """The SavedModel that this folder is, or those of its versions, the newest first.

    Missing if there is neither.
    """
    if is_saved_model(source):
        return [source]
    found = [folder for folder in source.iterdir() if is_saved_model(folder)] if source.is_dir() else []
    numbered = {version: folder for folder in found if (version := version_of(folder)) is not None}
    if not numbered:
        raise Missing(
            "models.no-savedmodel",
            f"{source} is no SavedModel, and no folder of such by version number",
            hint=f"name the folder in which {GRAPH} lies",
        )
    return [numbered[version] for version in sorted(numbered, reverse=True)]


def convert(
    model: Path, *, signature: str = SIGNATURE, max_difference: float = MAX_DIFFERENCE, child: Path | None = None
) -> Converted:
    """A SavedModel as an ONNX file that gives the same on random inputs.

    child   the program that converts; else the one beside this module

    BadInput if it cannot be converted, naming what stands in the way; Conflict if the two differ by more than
    `max_difference` of the largest output; Broken without TensorFlow, and if the conversion dies.
    """
    if not is_saved_model(model):
        raise Missing("models.no-savedmodel", f"{model} is no SavedModel", hint=f"name the folder with {GRAPH}")
    with tempfile.TemporaryDirectory(prefix="relens-savedmodel-") as temporary:
        folder = Path(temporary)
        _run([str(child or CHILD), str(model.absolute()), signature, temporary], folder)
        report = json.loads((folder / savedmodel_child.REPORT).read_bytes())
        _require_same(report["compared"], max_difference)
        return Converted((folder / savedmodel_child.MODEL).read_bytes(), {**report, "digest": _digest(model)})


def told_difference(compared: Mapping[str, Any]) -> str:
    """How far the two models are apart, in words."""
    if not compared["runs"]:
        return f"not compared: the original refuses random inputs ({compared['why']})"
    if not compared["difference"]:
        return "gives the same to the last bit"
    return f"differs by at most {rounded_up(compared['difference'])} of the largest output"


def rounded_up(share: float) -> str:
    """A number with one digit, and no smaller than it is."""
    return f"{float(Context(prec=1, rounding=ROUND_CEILING).create_decimal_from_float(share)):g}"


def put(data: bytes, target: Path) -> None:
    """Write an ONNX file, in one step. Conflict if it is there."""
    if target.exists():
        raise Conflict("models.file-exists", f"{target} is there already", hint="name another file, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file_durably(target, data)


def put_version(data: bytes, folder: Path) -> None:
    """Make a version's folder with an ONNX file, in one step. Conflict if somebody else has just made it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
        write_file_durably(temporary / savedmodel_child.MODEL, data)
        temporary.rename(folder)
        sync_folder(folder.parent)
    except FileExistsError as error:
        raise Conflict("models.file-exists", f"{folder} is there already", hint="a version never changes") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _run(words: list[str], folder: Path) -> None:
    """Run the child to its end, and raise what it says. It ends with us, too."""
    said = folder / "said.txt"
    with said.open("wb") as out:
        # -P: its own folder is none to import from.
        command = [sys.executable, "-P", *words]
        seeded = {**os.environ, "PYTHONHASHSEED": "0"}  # sets have one order
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=seeded)  # noqa: S603
        try:
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
    if code == 0:
        return
    try:
        facts = json.loads((folder / savedmodel_child.ERROR).read_bytes())
    except FileNotFoundError:
        last = " / ".join(said.read_bytes()[-_SAID_BYTES:].decode("utf-8", "replace").splitlines()[-5:])
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise Broken(
            "models.conversion-died",
            f"the conversion ended with {ended}{f', after: {last}' if last else ''}",
            hint="is there memory for several times the model?" if code < 0 else "what it said last is TensorFlow's",
        ) from None
    raise FAMILIES[facts["family"]](facts["code"], facts["message"], hint=facts["hint"])


def _require_same(compared: Mapping[str, Any], max_difference: float) -> None:
    if compared["runs"] and compared["difference"] > max_difference:
        shares = ", ".join(f"{name} {share:.1e}" for name, share in compared["outputs"].items())
        raise Conflict(
            "models.not-the-same",
            f"on {compared['runs']} random inputs the converted model differs from the original by {shares} of the "
            f"largest output; {max_difference:g} is the bound",
            hint="does the model draw random numbers, or compute in 16 bits? "
            "`relens model convert --max-difference` sets the bound. Nothing was written",
        )


def _digest(model: Path) -> str:
    """SHA-256 of all files of a folder, by name."""
    digests = {}
    for path in sorted(model.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digests[os.fspath(path.relative_to(model))] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest_of(digests)
