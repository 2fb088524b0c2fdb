"""Models from elsewhere: files, `https://` and `hf://` addresses, each with the SHA-256 that it must have.

What was fetched is compared with its digest before anybody sees it; what was fetched in part is kept, and the next
try goes on from there. Nothing that is fetched is executed.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx

from relens.errors import BadInput, Broken, Missing, RelensError
from relens.values import DIGEST_LENGTH

MAX_BYTES = 8 << 30
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
TRIES = 4
MAX_REDIRECTS = 5

HF_ENDPOINT = "HF_ENDPOINT"
HF_DEFAULT = "https://huggingface.co"

_HF = re.compile(r"hf://(?P<owner>[^/@#\s]+)/(?P<repo>[^/@#\s]+)/(?P<path>[^@#\s]+?)(@(?P<revision>[^#\s]+))?")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_GOES_ON = 206
_PAST_THE_END = 416
_NOT_OURS = frozenset({401, 403, 404, 410, 451})


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's file comes from: what was written, the address to ask, its SHA-256, and the file's name."""

    written: str
    url: str
    sha256: str
    name: str


def is_address(given: str) -> bool:
    """Whether this is an address, and not a file."""
    return "://" in given


def read_source(given: str) -> Source:
    """A source from `https://host/path#sha256=…` or `hf://owner/repo/path@revision#sha256=…`.

    `hf://` means the public file of that repository, at `main` if no revision is named, on the server of the
    environment's HF_ENDPOINT. BadInput for another scheme, or without a digest: an address alone may give something
    else tomorrow. `http://` is taken from this machine only.
    """
    address, _, fragment = given.partition("#")
    sha256 = fragment.removeprefix("sha256=").lower()
    if not fragment.startswith("sha256=") or not re.fullmatch(rf"[0-9a-f]{{{DIGEST_LENGTH}}}", sha256):
        raise BadInput(
            "models.no-digest",
            f"{given} names no digest: what it gives could be another file tomorrow",
            hint=f"get the file once, take `sha256sum` of it, and write {address}#sha256=DIGEST",
        )
    url = _hf_url(address) if address.startswith("hf://") else address
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise BadInput(
            "models.bad-source",
            f"{given}: models come by https:// or hf://, not {parts.scheme or 'this'}://",
            hint="a file of this machine is named by its path",
        )
    if not parts.hostname:
        raise BadInput("models.bad-source", f"{given} names no server")
    return Source(given, url, sha256, unquote(parts.path.rpartition("/")[2]) or "model")


def fetch_source(source: Source, folder: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """The file of a source, in `folder`, named by its digest; fetched only if it is not there yet.

    What breaks off is gone on with, here up to four times, and by the next call. Missing if the server has no such
    file or gives it to nobody; Broken if it cannot be reached, or breaks off again and again; BadInput for more than
    `max_bytes`, or for bytes of another digest, which are thrown away.
    """
    whole, part = folder / source.sha256, folder / f"{source.sha256}.part"
    if whole.is_file() and _digest(whole) == source.sha256:
        return whole
    folder.mkdir(parents=True, exist_ok=True)
    goes_on = part.exists()
    for left in reversed(range(TRIES)):
        try:
            _fetch(source, part, max_bytes)
            break
        except (httpx.HTTPError, _BrokenOff) as error:
            if not left:
                raise _unreachable(source, error, part) from error
    found = _digest(part)
    if found != source.sha256:
        part.unlink()
        if goes_on:  # what was kept may be what is wrong
            return fetch_source(source, folder, max_bytes=max_bytes)
        raise BadInput(
            "models.wrong-digest",
            f"{source.url} has SHA-256 {found}, not {source.sha256}",
            hint="the file was replaced or changed on its way: compare with its publisher, then name the right digest",
        )
    part.replace(whole)
    return whole


class _BrokenOff(Exception):
    """The server ended early, or was too busy."""


def _fetch(source: Source, part: Path, max_bytes: int) -> None:
    """Bring the rest of the file into `part`."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    with (
        httpx.Client(timeout=timeout, follow_redirects=True, max_redirects=MAX_REDIRECTS) as client,
        client.stream("GET", source.url, headers=headers) as answer,
    ):
        if answer.status_code == _PAST_THE_END:  # all of it is there, or something else: its digest will tell
            return
        _require_file(source, answer)
        start = have if answer.status_code == _GOES_ON else 0
        length = answer.headers.get("content-length", "")
        total = start + int(length) if length.isdigit() else None
        _require_size(source, total or 0, max_bytes)
        with part.open("r+b" if start else "wb") as out:
            out.seek(start)
            for chunk in answer.iter_raw():
                _require_size(source, out.tell() + len(chunk), max_bytes)
                out.write(chunk)
            out.truncate()
            if total is not None and out.tell() < total:
                raise _BrokenOff(f"{out.tell()} of {total} bytes came")


def _require_file(source: Source, answer: httpx.Response) -> None:
    if answer.is_success:
        return
    said = f"{answer.status_code} {answer.reason_phrase}"
    if answer.status_code in _NOT_OURS:
        raise Missing(
            "models.no-source",
            f"{source.url} gives no file: {said}",
            hint="is the address right, and public? A file that needs a login is fetched by hand and named by its path",
        )
    raise _BrokenOff(said)


def _require_size(source: Source, size: int, most: int) -> None:
    if size > most:
        raise BadInput(
            "models.too-large", f"{source.url} is {size:,} bytes or more; {most:,} are taken", hint="is it a model?"
        )


def _unreachable(source: Source, error: Exception, part: Path) -> RelensError:
    have = part.stat().st_size if part.exists() else 0
    kept = f"{have:,} bytes are kept, the same command goes on from there; " if have else ""
    return Broken(
        "models.not-fetched",
        f"{source.url} could not be fetched: {str(error) or type(error).__name__}",
        hint=f"{kept}without a network, bring the file over and name its path",
    )


def _hf_url(address: str) -> str:
    matched = _HF.fullmatch(address)
    if matched is None:
        raise BadInput(
            "models.bad-source", f"{address} is no such address", hint="write hf://owner/repo/path@revision#sha256=…"
        )
    endpoint = os.environ.get(HF_ENDPOINT, "").rstrip("/") or HF_DEFAULT
    owner, repo, path, revision = (matched[key] for key in ("owner", "repo", "path", "revision"))
    return f"{endpoint}/{owner}/{repo}/resolve/{quote(revision or 'main', safe='')}/{quote(path)}"


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
