"""Homes in this process, with the dummy model, on SQLite and on PostgreSQL."""

import pytest
import structlog

from relens.telemetry import start_logging
from relens.testing.homes import DummyHome


@pytest.fixture(autouse=True)
def _quiet():
    start_logging("error", "json")
    yield
    structlog.reset_defaults()


@pytest.fixture
def new_home(databases, tmp_path):
    """Makes homes, each with a catalog of its own."""
    made = []

    def make(**options):
        made.append(DummyHome(tmp_path / f"home-{len(made)}", databases.ready(), **options))
        return made[-1]

    yield make
    for home in made:
        home.close()


@pytest.fixture
def home(new_home):
    return new_home()


@pytest.fixture
def folder(tmp_path):
    """An empty folder for pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder
