"""Bodies and answers that are compressed on their way: gzip, and what HTTP calls deflate."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from starlette.requests import Request

from relens.errors import BadInput

FAST = 1
"""zlib's level: a third of the time of its usual one, for answers a tenth larger."""
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""What zlib calls the codings of HTTP; its `deflate` is zlib's own form."""
NOT_TAKEN = re.compile(r"q\s*=\s*0(\.0*)?")


def coding_of(request: Request) -> str | None:
    """How a request's body is compressed; None: it is not. BadInput for a coding that is not known."""
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding in {"", "identity"}:
        return None
    if coding not in WINDOWS:
        raise BadInput("rest.encoding", f"a body in {coding[:60]!r} cannot be read", hint="use gzip or deflate")
    return coding


def inflated(data: bytes, coding: str, max_bytes: int, too_large: Callable[[], BadInput]) -> bytes:
    """What was compressed. Raises `too_large` as soon as it is more than that: a megabyte may become a gigabyte.

    BadInput if it is cut off, or not of this coding. gzip may come in pieces, one after the other.
    """
    found = bytearray()
    while True:
        stream = zlib.decompressobj(WINDOWS[coding])
        try:
            found += stream.decompress(data, max_bytes + 1 - len(found))
        except zlib.error as error:
            raise BadInput("rest.encoding-broken", f"the body is not {coding}: {error}") from error
        if len(found) > max_bytes:
            raise too_large()
        data = stream.unused_data
        if not stream.eof or (data and coding == "deflate"):
            how = "goes on" if stream.eof else "ends early"
            raise BadInput("rest.encoding-broken", f"the body is not {coding}: it {how}")
        if not data:
            return bytes(found)


def deflated(data: bytes, coding: str) -> bytes:
    """The bytes compressed, fast rather than small."""
    stream = zlib.compressobj(FAST, zlib.DEFLATED, WINDOWS[coding])
    return stream.compress(data) + stream.flush()


def coding_for(request: Request, *, binary: bool = False) -> str | None:
    """How an answer is compressed: the first coding that the client names and that we have.

    Numbers hardly shrink, and HTTP libraries name all codings that they know: binary tensors are compressed only for
    who names gzip or deflate alone, which is to ask for it.
    """
    accepted = ",".join(request.headers.getlist("accept-encoding")).lower()
    if not accepted:
        return None
    parts = [[word.strip() for word in part.split(";")] for part in accepted.split(",")]
    named = [coding for coding, *options in parts if coding and not any(map(NOT_TAKEN.fullmatch, options))]
    if binary and len(named) > 1:
        return None
    return next((coding for coding in named if coding in WINDOWS), None)
