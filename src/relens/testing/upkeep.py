"""What stays the same of a home that is backed up, restored, upgraded or cleaned: its answers, and that it is sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relens.testing.homes import DummyHome
from relens.testing.pictures import draw
from relens.wiring import checkup

SEEDS = (1, 3, 9)


class OpenedHome(DummyHome):
    """A home that is there already."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = []


def answers(home: DummyHome, gallery: str = "album") -> dict[str, Any]:
    """What people see of a gallery: objects with their ids, what searches find and with which scores."""
    found = {seed: [(match.id, match.score) for match in home.search(draw(seed), gallery, k=20)] for seed in SEEDS}
    return {"contents": home.contents(gallery), "found": found, "gallery": home.local().gallery(gallery)}


def problems(home: DummyHome) -> list[dict[str, Any]]:
    """What a thorough look finds wrong."""
    findings = checkup.examine(home.local().parts, deep=True, say=lambda _text: None)
    return [finding for finding in findings if not finding["ok"]]


def untold(_done: int, _total: int) -> None:
    """For who does not want to know how far it is."""
