"""How versions of one model share its requests just now: which of them answer, which are out, and why.

What is out stays out as long as the same two versions are canary and stable; nothing of it outlives the process.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from relens.errors import Missing, RelensError
from relens.serving.canaries import Canary
from relens.serving.served import ModelServer, Named, Share
from relens.serving.shadows import Shadows
from relens.serving.splits import Split, pick
from relens.telemetry import MODEL_ROLLBACKS

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Part:
    """A version's part: what it has done, how it is judged beside the stable one, and why it is out."""

    answered: int = 0
    failed: int = 0
    canary: Canary | None = None
    why: str = ""
    since: float | None = None


class Sharing:
    """The versions of one model that share its requests. Belongs to one event loop.

    source  of chance
    now     seconds since 1970
    """

    def __init__(
        self, server: ModelServer, model: str, split: Split, *, source: random.Random, now: Callable[[], float]
    ) -> None:
        self.shadows = Shadows(model)
        self._server = server
        self._model = model
        self._split = split
        self._source = source
        self._now = now
        self._stable: int | None = None
        self._named: dict[str, int] = {}  # what each name was last
        self._parts: dict[int, _Part] = {}

    def choose(self, key: str | None) -> int | None:
        """The version that is to answer; None if none of those that share is available."""
        here = self._look()
        weights = self._weights(here)
        return here[pick(weights, key, self._source)] if weights else None

    def stable(self) -> int | None:
        """The stable version, if it is available."""
        return self._look().get(self._split.stable)

    def shadow(self) -> int | None:
        """The version that is asked too, if it is available."""
        return None if self._split.shadow is None else self._available([self._split.shadow]).get(self._split.shadow)

    def is_canary(self, version: int | None) -> bool:
        return version != self._stable and version in self._parts

    def answered(self, version: int, seconds: float) -> None:
        """A version answered, after so long."""
        part = self._parts.get(version)
        if part is None:
            return
        part.answered += 1
        if version == self._stable:
            for other in self._parts.values():
                if other.canary is not None:
                    other.canary.stable_answered(seconds)
        elif part.canary is not None:
            self._judge(version, part, part.canary.answered(seconds))

    def failed(self, version: int) -> None:
        """A canary failed."""
        part = self._parts.get(version)
        if part is None:
            return
        part.failed += 1
        if part.canary is not None:
            self._judge(version, part, part.canary.failed())

    def shares(self) -> Mapping[int, Share]:
        """Version to its share, of those that share, and of the shadow."""
        here = self._look()
        weights = self._weights(here)
        total = sum(weights.values())
        found = {}
        shadow = self.shadow()
        for version in {*here.values(), *([] if shadow is None else [shadow])}:
            share = sum(weight for name, weight in weights.items() if here[name] == version) / (total or 1)
            part = self._parts.get(version, _Part())
            outcomes = self.shadows.outcomes(version)
            found[version] = Share(share, part.answered, part.failed, part.why, part.since, outcomes)
        return found

    def _weights(self, here: Mapping[str, int]) -> dict[str, float]:
        """Of names that may be asked now. What is out, or not available, leaves its part to the others."""
        given = self._split.weights
        open_to_all = {name: given[name] for name, version in here.items() if not self._parts[version].why}
        if any(open_to_all.values()):
            return {name: weight for name, weight in open_to_all.items() if weight}
        return {self._split.stable: 1.0} if self._split.stable in here else {}

    def _look(self) -> dict[str, int]:
        """Names that have weights to the versions that answer just now. Notes who is new."""
        here = self._available(self._split.weights)
        stable = here.get(self._split.stable)
        if stable is not None and stable != self._stable:
            self._stable = stable
            self._parts.clear()
        for name, version in here.items():
            before = self._named.get(name)
            if before is not None and before not in here.values():
                self._parts.pop(before, None)
            self._named[name] = version
        for version in here.values():
            part = self._parts.setdefault(version, _Part())
            if stable is not None and version != stable and part.canary is None:
                part.canary = Canary(self._split.rollback)
                self._require_one_space(version, part, stable)
        return here

    def _available(self, names: Mapping[str, float] | list[str]) -> dict[str, int]:
        """Of names of versions, those that are available."""
        try:
            labels = self._server.labels(self._model)
        except Missing:
            return {}
        found = ((name, self._number(name) if name.isdecimal() else labels.get(name)) for name in names)
        return {name: version for name, version in found if version is not None}

    def _number(self, name: str) -> int | None:
        """A version that is named by its number, if it is available; labels name only what is."""
        try:
            return self._server.describe(Named(self._model, int(name))).version
        except RelensError:
            return None

    def _require_one_space(self, version: int, part: _Part, stable: int) -> None:
        """Put a canary out whose vectors nobody can compare with those of the stable version."""
        one, other = (self._server.describe(Named(self._model, number)).space for number in (stable, version))
        if one is None or other is None or one == other:
            return
        part.why = (
            f"versions {stable} and {version} have vectors of different spaces: clients that compare them would "
            "compare apples and pears"
        )
        part.since = self._now()
        log.error("versions are not split", model=self._model, why=part.why)

    def _judge(self, version: int, part: _Part, why: str | None) -> None:
        if why is None or part.why:
            return
        part.why, part.since = why, self._now()
        MODEL_ROLLBACKS.labels(self._model, str(version)).inc()
        log.error("a canary is rolled back", model=self._model, version=version, stable=self._stable, why=why)
