"""How commands speak: JSON or text on stdout, progress on stderr, errors that say what to do, honest exit codes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.live import Live

from relens.errors import BadInput, Conflict, Denied, Missing, RelensError

DONE, FAILED, WRONG_USE, REFUSED, PARTLY, INTERRUPTED = 0, 1, 2, 3, 4, 75

LINE_EVERY_S = 10.0

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="The home: a folder. Default: RELENS_HOME, else ./relens", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]

# Errors whose cause is how the command was typed, although their family says otherwise.
WRONG_USE_CODES = frozenset({"config.no-home", "bulk.no-source", "cli.no-file", "recipes.missing"})

# Bad input that is no wrong use: what a picture or a model is shows only when it is looked at.
FAILED_CODES = ("vision.", "models.", "enrolment.nothing-found")


def exit_code(error: RelensError) -> int:
    """The exit code of an error that ends a command."""
    if error.code in WRONG_USE_CODES:
        return WRONG_USE
    if isinstance(error, BadInput):
        return FAILED if error.code.startswith(FAILED_CODES) else WRONG_USE
    return REFUSED if isinstance(error, Conflict | Denied) else FAILED


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def show(value: Any, *, as_json: bool, text: Callable[[], str]) -> None:
    """Print a command's data: the JSON value, or its text."""
    print(json.dumps(value, ensure_ascii=False) if as_json else text(), flush=True)


def show_error(error: RelensError, *, as_json: bool) -> None:
    """Print what went wrong and what to do: as JSON on stdout, or as text on stderr."""
    if as_json:
        print(json.dumps(error.to_json(), ensure_ascii=False), flush=True)
        return
    say(f"relens: {error.message}")
    if error.hint:
        say(f"  {error.hint}")


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Columns of text, as wide as they must be."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def facts(value: Mapping[str, Any]) -> str:
    """What a thing is, part by part, a line each."""
    lines = []
    for key, shown in value.items():
        if key == "checks":
            lines += [f"{'check':10} {'ok' if c['ok'] else 'FAILED'}: {c['name']}: {c['detail']}" for c in shown]
        elif key.endswith("_at") and isinstance(shown, int | float):
            lines.append(f"{key:10} {when(shown)}")
        elif isinstance(shown, dict):
            lines.append(f"{key:10} " + ", ".join(f"{name}={part}" for name, part in shown.items()))
        else:
            lines.append(f"{key:10} {', '.join(map(str, shown)) if isinstance(shown, list) else shown}")
    return "\n".join(lines)


def when(seconds: float | None) -> str:
    """Local date and time of seconds since 1970."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def recipe_named(given: str) -> str | Path:
    """What people type for a recipe: a name of the home, or a file if it ends in .yaml."""
    return Path(given) if given.endswith((".yaml", ".yml")) else given


def read_picture(path: Path) -> bytes:
    """The bytes of a picture file; `-` is stdin. Missing if it cannot be read."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise Missing("cli.no-file", f"cannot read {path}: {error.strerror}") from error


class Meter:
    """How much is done, on stderr: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, unit: str, size: float) -> None:
        self._unit = unit
        self._size = size
        self._live = Live(console=Console(file=sys.stderr), transient=True) if sys.stderr.isatty() else None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, done: int, total: int) -> None:
        text = f"{done / self._size:.0f} of {total / self._size:.0f} {self._unit}"
        if self._live is not None:
            self._live.update(text)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            say(text)
