"""What is asked of an engine, and how questions and answers travel: length-prefixed frames over a socket pair.

A frame is two big-endian 32-bit lengths, a JSON header and a body of bytes. Questions carry pictures as bytes, answers
are small JSON values; a description has its crops and vectors in the body.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from relens.errors import FAMILIES, Broken, RelensError
from relens.narrowing import EVERYTHING, NO_HINTS, Hints, Where
from relens.serving.descriptions import Description
from relens.values import Recognition, SearchAnswer

LENGTHS = struct.Struct(">II")

Answer = Recognition | SearchAnswer | Description


@dataclass(frozen=True, slots=True)
class Question:
    """A picture's bytes with what is asked of it, under one release.

    must_see   the gallery sequence that the answer must have seen
    timeout_s  how long it may wait; what has not begun by then is not run
    where      which objects may answer
    hints      what is known of the thing, for the recipe's rules of ranking
    threshold  cosine under which nothing matches; None: that of the lens, if it has one
    """

    use: Literal["recognize", "search", "describe"]
    release: str
    data: bytes
    k: int = 10
    include: tuple[str, ...] = ()
    must_see: int = 0
    timeout_s: float = 30.0
    where: Where = EVERYTHING
    hints: Hints = NO_HINTS
    threshold: float | None = None

    def header(self) -> dict[str, Any]:
        """Everything but the picture."""
        return {
            "use": self.use,
            "release": self.release,
            "k": self.k,
            "include": list(self.include),
            "must_see": self.must_see,
            "timeout_s": self.timeout_s,
            "where": self.where.to_json(),
            "hints": self.hints.to_json(),
            "threshold": self.threshold,
        }

    @staticmethod
    def from_frame(header: dict[str, Any], body: bytes) -> Question:
        given = {key: value for key, value in header.items() if key != "id"}
        read = {
            "include": tuple(header["include"]),
            "where": Where.from_json(header["where"]),
            "hints": Hints.from_json(header["hints"]),
        }
        return Question(**{**given, **read}, data=body)


class Answerer(Protocol):
    """Whoever answers questions for a lens: engines in processes of their own, or one in this process."""

    def ask(self, lens: str, question: Question) -> Answer:
        """Answer under the question's release, which must be one of that lens."""

    def running(self) -> list[dict[str, Any]]:
        """What runs now: one JSON object an engine."""

    def close(self) -> None: ...


def pack_answer(answer: Answer) -> tuple[dict[str, Any], bytes]:
    """An answer as the JSON and the body of a frame."""
    return answer.to_frame() if isinstance(answer, Description) else (answer.to_json(), b"")


def read_answer(use: str, given: dict[str, Any], body: bytes = b"") -> Answer:
    """The inverse of `pack_answer`."""
    if use == "describe":
        return Description.from_frame(given, body)
    return Recognition.from_json(given) if use == "recognize" else SearchAnswer.from_json(given)


def error_to_header(error: RelensError) -> dict[str, Any]:
    """An error as part of a frame's header."""
    state = {key: value for key, value in vars(error).items() if key not in {"code", "message", "hint"}}
    return {
        "family": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "state": state,
    }


def error_from_header(given: dict[str, Any]) -> RelensError:
    """The inverse of `error_to_header`."""
    error = FAMILIES.get(given["family"], Broken)(given["code"], given["message"], hint=given["hint"])
    vars(error).update(given["state"])
    return error


def send_frame(connection: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    """Send one frame, whole. Not to be called by two threads at once."""
    encoded = json.dumps(header, separators=(",", ":")).encode()
    connection.sendall(b"".join([LENGTHS.pack(len(encoded), len(body)), encoded, body]))


def receive_frame(connection: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """The next frame; None if the other side has ended."""
    lengths = _receive(connection, LENGTHS.size)
    if lengths is None:
        return None
    header_length, body_length = LENGTHS.unpack(lengths)
    header = _receive(connection, header_length)
    body = _receive(connection, body_length) if body_length else b""
    if header is None or body is None:
        return None
    return json.loads(header), bytes(body)


def _receive(connection: socket.socket, length: int) -> bytearray | None:
    data = bytearray(length)
    view = memoryview(data)
    received = 0
    while received < length:
        count = connection.recv_into(view[received:])
        if count == 0:
            return None
        received += count
    return data
