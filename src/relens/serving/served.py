"""Models that are served as they are: which versions there are, what goes in and comes out, and the seam to the doors.

A model has versions, each in an engine of its own; labels name versions that are loaded. Doors speak TensorFlow
Serving's protocol or the Open Inference Protocol and translate to this; nothing here knows a transport.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from relens.errors import BadInput, RelensError
from relens.tensors import Array, TensorInfo, Tensors

PICTURES = "pictures"
"""What protocols call the way in for pictures: a signature of TensorFlow Serving, a property of a model."""

STICKY = "x-relens-sticky"
"""The header, or key of metadata, in which callers say who asks."""

State = Literal["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]

Swap = Literal["availability", "resource"]


@dataclass(frozen=True, slots=True)
class Named:
    """A model, and which of its versions is meant: that number (from 1), that label, or whichever answers now.

    sticky    who asks, in the caller's own words: of versions among which requests are split, the same one answers
    chosen    whether the version is one that `ModelServer.choose` has chosen
    priority  1 is run first, then 2; 0, and more than the model has, is the middle one of its priorities
    """

    model: str
    version: int | None = None
    label: str | None = None
    sticky: str | None = None
    chosen: bool = False
    priority: int = 0

    def with_priority(self, priority: int) -> Named:
        """The same, with this priority."""
        return replace(self, priority=priority) if priority else self

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}/{self.version}"
        return self.model if self.label is None else f"{self.model}@{self.label}"


@dataclass(frozen=True, slots=True)
class Policy:
    """Which versions of a model are served: these, or the newest so many (None: all; 0: none)."""

    latest: int | None = 1
    specific: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.latest is not None and self.latest < 0:
            raise BadInput("serving.bad-policy", f"latest is {self.latest}", hint="a number of versions from 0")

    def choose(self, versions: Sequence[int]) -> set[int]:
        """Of versions that could be served, those that are."""
        if self.specific:
            return set(self.specific) & set(versions)
        return set(sorted(versions, reverse=True)[: self.latest])


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a model is served.

    policy  which versions
    labels  label to version; a label names one while that is available
    waiting requests that its engine may have unanswered; None: as the server is set up
    swap    "availability": a version goes when those that are wanted answer, and both need memory meanwhile;
            "resource": it goes first, and nothing answers until the next one is loaded
    levels  how many priorities requests may have
    """

    policy: Policy = Policy()
    labels: Mapping[str, int] = field(default_factory=dict)
    swap: Swap = "availability"
    waiting: int | None = None
    levels: int = 1

    def level(self, priority: int) -> int:
        """The level, from 1, that a request with this priority has."""
        return priority if 1 <= priority <= self.levels else (self.levels + 1) // 2

    def room(self, most: int, level: int) -> int:
        """How many of `most` requests may be there before one of this level: each leaves a part to those above it."""
        return max(1, most * (self.levels - level + 1) // self.levels)


@dataclass(frozen=True, slots=True)
class Share:
    """What part a version has in the requests that name no version.

    share     of them that it gets now, 0 to 1
    answered  how many it has answered
    failed    how many it failed, which another version was asked then, or nobody any more
    why       why it gets none although it is to have some; empty if that is not so
    since     seconds since 1970, from when that is so
    shadow    as a shadow: how many requests by what came of them
    """

    share: float
    answered: int = 0
    failed: int = 0
    why: str = ""
    since: float | None = None
    shadow: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"share": round(self.share, 4), "answered": self.answered, "failed": self.failed}
        if self.why:
            told |= {"why": self.why, "since": self.since}
        return told | ({"shadow": dict(self.shadow)} if self.shadow else {})


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """How a version is.

    error         why it ended, or why loading it failed last
    waiting       requests that its engine has not answered
    memory_bytes  resident memory of its engine; 0 if that is not known
    traffic       its part in requests that name no version; None if they are not split
    """

    version: int
    state: State
    error: RelensError | None = None
    waiting: int = 0
    memory_bytes: int = 0
    traffic: Share | None = None

    def to_json(self) -> dict[str, Any]:
        error = {} if self.error is None else self.error.to_json()
        said = {"version": self.version, "state": self.state, "waiting": self.waiting}
        traffic = {} if self.traffic is None else {"traffic": self.traffic.to_json()}
        return {**said, "memory_bytes": self.memory_bytes, **traffic, **error}


@dataclass(frozen=True, slots=True)
class Served:
    """An available version.

    inputs    in the model's order, as outputs
    labels    class names by index, if it has any
    pictures  name of the input that takes pictures as well, (n) BYTES in place of its tensor; None: no input does
    space     of its vectors, by its card; None if it gives none, or that is not known
    """

    model: str
    version: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    backend: str
    labels: tuple[str, ...] = ()
    pictures: str | None = None
    space: str | None = None


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a version gave: outputs by name, in the order that was asked for, and milliseconds by phase (`run`, …)."""

    model: str
    version: int
    outputs: Mapping[str, Array]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Looked:
    """How a picture is looked at.

    names      how many names an object has, at most
    min_score  findings of a detector under it are none
    vector     whether the model's vector is told, as attribute `vector`; of a model that says nothing else it always is
    """

    names: int = 5
    min_score: float = 0.5
    vector: bool = False


@dataclass(frozen=True, slots=True)
class Recognized:
    """What a version says of a picture. `found` has `picture` and `objects`, as `values.Recognition.to_json` does."""

    model: str
    version: int
    found: Mapping[str, Any]
    timings_ms: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "version": self.version, **self.found, "timings_ms": dict(self.timings_ms)}


class ModelServer(Protocol):
    """Serves models by name. Its methods are called on an event loop and never block it."""

    def models(self) -> list[str]:
        """Every model that has a version, by name."""

    def versions(self, model: str) -> list[VersionStatus]:
        """Every version of a model that is known, newest first. Missing if there is no such model."""

    def labels(self, model: str) -> Mapping[str, int]:
        """Label to version."""

    def choose(self, named: Named) -> Named:
        """Which version is to answer one request, where versions share those of a model: the same name, `chosen`.

        What names a version or label, and models that are not shared, are as given. Doors call it once for each
        request, before `describe`, so that what is described is what is asked. Raises nothing.
        """

    def describe(self, named: Named) -> Served:
        """The version that answers. Missing for a model, version or label that there is not; Busy while it loads."""

    async def infer(
        self, named: Named, inputs: Tensors, *, outputs: Sequence[str] = (), timeout_s: float | None = None
    ) -> Inferred:
        """One forward, by one version.

        inputs     all inputs of the model, by name; numbers of another type than the model's are not converted
        outputs    names of those that are wanted; all if none is named
        timeout_s  how long it may wait to be run; None: as the server is set up

        Errors as of `describe`. BadInput for inputs that the model does not take, or outputs that it does not have;
        Busy, with `retry_after_s`, if too much waits or it was not run in time; Broken if the model fails.
        """

    async def recognize(
        self, named: Named, picture: bytes, looked: Looked, *, timeout_s: float | None = None
    ) -> Recognized:
        """What one version says of the picture in these bytes, by its card.

        Errors as of `infer`. BadInput for bytes that are no picture, and for a model that takes none.
        """

    def configure(self, wanted: Mapping[str, Wanted]) -> None:
        """Serve these models from now on, each so, and no others. Returns at once; versions come and go after.

        Versions and labels are taken from it; `swap`, `waiting` and `levels` stay as the server was set up.
        Missing for a model that there is not, BadInput for a label of a version that is not available: then nothing
        has changed.
        """


def status_of(server: ModelServer) -> list[dict[str, Any]]:
    """Every model with its versions and labels, as JSON."""
    return [
        {
            "model": model,
            "labels": dict(server.labels(model)),
            "versions": [one.to_json() for one in server.versions(model)],
        }
        for model in server.models()
    ]
