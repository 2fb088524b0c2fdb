"""Docs that fail the build: every command, option, setting and dependency is written down, and README's blocks hold."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer

from relens import config
from relens.cli.app import app
from relens.rest import create_app

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def commands(group, path: str = "relens"):
    """Every command with its full name, hidden ones included."""
    for name, command in group.commands.items():
        full = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from commands(command, full)
        else:
            yield full, command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name):
    text = (ROOT / "docs" / "commands.md").read_text()
    assert f"`{name}" in text
    for parameter in COMMANDS[name].params:
        for option in parameter.opts:
            if option.startswith("--"):
                assert option in text, f"{name} {option}"


def test_every_setting_is_documented_as_it_is():
    assert config.template() in (ROOT / "docs" / "settings.md").read_text()


def test_every_dependency_has_its_reason():
    text = (ROOT / "docs" / "decisions" / "001-dependencies.md").read_text()
    for dependency in PROJECT["dependencies"]:
        assert re.split(r"[<>=;\[ ]", dependency)[0] in text, dependency


def test_every_endpoint_is_documented():
    text = (ROOT / "docs" / "http.md").read_text()
    paths = create_app(None, max_bytes=1).openapi()["paths"]
    for path in paths:
        assert path.split("{version")[0] in text, path


def test_the_commands_of_the_readme_exist():
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    used = re.findall(r"^relens (?:(?:model|plan|gallery|release|config) )?\w+", "\n".join(blocks), re.MULTILINE)
    assert used
    for command in used:
        assert command in COMMANDS, command
    targets = re.findall(r"^make (\w+)", "\n".join(blocks), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets == ["demo", "test"]
    for target in targets:
        assert f"\n{target}:" in makefile


def test_links_between_documents_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_architecture_is_a_page_to_read_at_once():
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 200
