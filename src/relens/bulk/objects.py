"""Objects of S3 and of stores that speak as it does, through fsspec.

Credentials come from where AWS's own tools take them; the endpoint from them too, or from the setting. A key is written
in a URI as it is: `s3://bucket/any key.jpg`. What is refused for the credentials is Broken, not a picture's fault.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import IO, Any, cast

from relens.config import Fetch
from relens.errors import BadInput, Broken, RelensError

SCHEME = "s3://"
# Answers of a store that say nothing about the object.
_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AccountProblem", "InvalidSecurity"}
)
_LIBRARIES = frozenset({"botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec"})
_EMPTY = frozenset({"InvalidRange", "416"})


class Objects:
    """Reads objects. One per process; safe to use from many threads."""

    def __init__(self, settings: Fetch) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._opened: Any = None

    def read(self, uri: str, offset: int = 0, length: int | None = None, *, max_bytes: int) -> bytes:
        """An object or a range of it. BadInput if it is not there, is not ours to read or is larger than the limit."""
        wanted = max_bytes + 1 if length is None else length
        with _errors(uri):
            try:
                data = cast("bytes", self._files().cat_file(_path(uri), start=offset, end=offset + wanted))
            except OSError as error:
                if _code(error) not in _EMPTY:
                    raise
                data = b""
        if len(data) > max_bytes:
            raise BadInput("vision.too-large", f"more than {max_bytes} bytes; the limit (limits.max_bytes)")
        return data

    def names(self, uri: str) -> Iterator[str]:
        """URIs of all objects below a prefix, in the order of their names."""
        with _errors(uri):
            found = self._files().find(_path(uri))
        for name in found:
            yield SCHEME + name

    @contextlib.contextmanager
    def open(self, uri: str) -> Iterator[IO[bytes]]:
        """An object as a file that can be read and sought in."""
        with _errors(uri), self._files().open(_path(uri), "rb") as file:
            yield file

    def _files(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = _connect(self._settings)
            return self._opened


def _connect(settings: Fetch) -> Any:
    try:
        import fsspec  # noqa: PLC0415 - an extra, and slow to import
        import s3fs  # noqa: F401, PLC0415
    except ImportError as error:
        raise Broken(
            "fetch.no-s3", f"S3 cannot be read: {error}", hint="pip install 'relens[s3]' where the workers run"
        ) from error
    return fsspec.filesystem(
        "s3",
        endpoint_url=settings.s3_endpoint or None,
        use_listings_cache=False,
        config_kwargs={
            "connect_timeout": settings.connect_timeout_s,
            "read_timeout": settings.timeout_s,
            "retries": {"max_attempts": settings.retries + 1},
        },
    )


def _path(uri: str) -> str:
    path = uri[len(SCHEME) :]
    if not path.partition("/")[0]:
        raise BadInput("fetch.bad-url", f"{uri} names no bucket", hint="s3://bucket/key")
    return path


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Errors of the store, as what they mean here: what it answered of one object is that object's fault."""
    try:
        yield
    except RelensError:
        raise
    except Exception as error:
        module, name = type(error).__module__.partition(".")[0], type(error).__name__
        if isinstance(error, UnicodeError) or name == "ParamValidationError":
            raise BadInput("fetch.bad-url", f"{uri!r} names no object: {error}") from error
        if _is_answer(error) and _code(error) not in _CREDENTIALS:
            raise BadInput("fetch.status", f"{uri} cannot be read: {error}") from error
        if isinstance(error, OSError) or module in _LIBRARIES:
            raise _unavailable(uri, error) from error
        raise


def _unavailable(uri: str, error: Exception) -> Broken:
    return Broken(
        "fetch.s3-unavailable",
        f"the store of {uri} cannot be read: {str(error) or type(error).__name__}",
        hint="check AWS_ACCESS_KEY_ID and its like, fetch.s3_endpoint and the network; the plan goes on by itself",
    )


def _is_answer(error: Exception) -> bool:
    """Whether the store said no (4xx), rather than nothing or that it is in trouble."""
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return isinstance(error, FileNotFoundError | PermissionError) or 400 <= status < 500  # noqa: PLR2004


def _code(error: Exception) -> str:
    """The store's own code for an error."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def _response(error: Exception) -> dict[str, Any]:
    """What the store sent, which s3fs keeps with the cause."""
    response: dict[str, Any] = getattr(error.__cause__ or error, "response", None) or {}
    return response
