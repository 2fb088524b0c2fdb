"""What is asked of an engine, and how questions and answers travel in frames.

Questions carry pictures as bytes, answers are small JSON values; a description has its crops and vectors in the body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from relens.narrowing import EVERYTHING, NO_HINTS, Hints, Where
from relens.serving.descriptions import Description
from relens.values import Recognition, SearchAnswer

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

    def rest(self, idle_s: float) -> None:
        """Let go of what nobody has asked for so long."""

    def close(self) -> None: ...


def pack_answer(answer: Answer) -> tuple[dict[str, Any], bytes]:
    """An answer as the JSON and the body of a frame."""
    return answer.to_frame() if isinstance(answer, Description) else (answer.to_json(), b"")


def read_answer(use: str, given: dict[str, Any], body: bytes = b"") -> Answer:
    """The inverse of `pack_answer`."""
    if use == "describe":
        return Description.from_frame(given, body)
    return Recognition.from_json(given) if use == "recognize" else SearchAnswer.from_json(given)
