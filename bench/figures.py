"""What a benchmark hands back: figures with their targets, the parts they are made of, and remarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Setup:
    """How to measure: `quick` takes smaller numbers; `folder` keeps what is made, from run to run."""

    folder: Path
    quick: bool

    def choose(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Target:
    """What was promised, and whether it is so."""

    text: str
    met: bool


def at_least(value: float, least: float) -> Target:
    return Target(f"≥ {least:g}", value >= least)


def at_most(value: float, most: float, unit: str = "") -> Target:
    return Target(f"≤ {most:g}{unit}", value <= most)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, ours, the limit beside it, their ratio, and the target of one of them."""

    what: str
    ours: str
    limit: str = ""
    ratio: float | None = None
    target: Target | None = None

    def __str__(self) -> str:
        said = [f"{self.what}: {self.ours}"]
        if self.limit:
            said.append(f"limit {self.limit}")
        if self.ratio is not None:
            said.append(f"ratio {self.ratio:.2f}")
        if self.target is not None:
            said.append(f"target {self.target.text}: {'met' if self.target.met else 'NOT MET'}")
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a benchmark; `parts` by title, each a table of names and values; remarks as sentences."""

    figures: tuple[Figure, ...]
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
