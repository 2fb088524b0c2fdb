"""How requests that name no version are divided among versions: by weight, and the same caller always to the same one.

What is said here is how it is to be; which versions answer just now, and how they do, is `traffic`'s concern.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from relens.errors import BadInput

BITS = 52
"""Of a digest that are used: so many fit into a float with a half added, strictly between 0 and 1."""
SPREAD = 1 << BITS


@dataclass(frozen=True, slots=True)
class Rollback:
    """When a canary gets no more requests.

    errors    more than this share of its last `requests` failed; None: they do not count
    latency   95 % of `requests` answers took more than so many times as long as those of the stable version in the
              same time; None: that does not count
    """

    errors: float | None = 0.05
    latency: float | None = None
    requests: int = 200


@dataclass(frozen=True, slots=True)
class Split:
    """Which versions share the requests of a model. A version is named by a label or by its number.

    weights   name to weight. The first one is the stable version, which canaries are compared with and return to
    shadow    is asked too what another version has answered, and its answers are compared and dropped

    BadInput for weights that are none, and for a shadow that is the stable version.
    """

    weights: Mapping[str, float]
    shadow: str | None = None
    rollback: Rollback = field(default_factory=Rollback)

    def __post_init__(self) -> None:
        given = list(self.weights.values())
        if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not sum(given) > 0:
            raise BadInput(
                "serving.bad-split",
                f"the weights are {', '.join(f'{weight:g}' for weight in given) or 'none'}",
                hint="numbers from 0, one of them larger",
            )
        if self.shadow == self.stable:
            raise BadInput("serving.bad-split", f"{self.stable} is the stable version, and cannot be the shadow")

    @property
    def stable(self) -> str:
        return next(iter(self.weights))


def pick(weights: Mapping[str, float], key: str | None, source: random.Random) -> str:
    """One of these names, each with a share as its weight, of which one at least is not 0.

    key  the same key is given the same name; when weights change or a name goes, no more keys move than must.
         None: by chance

    Weighted rendezvous hashing: Resch, "New Hashing Algorithms for Data Storage" (SNIA, 2015).
    """
    if key is None:
        return source.choices(list(weights), list(weights.values()))[0]
    return max(weights, key=lambda name: weights[name] / -math.log(_point(name, key)))


def _point(name: str, key: str) -> float:
    """Where a name and a key meet, between 0 and 1: evenly spread, and always the same."""
    digest = hashlib.blake2b(f"{name}\0{key}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest) >> (64 - BITS)) + 0.5) / SPREAD
