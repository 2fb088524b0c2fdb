"""The command `relens` with all its subcommands, and how it ends."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import typer

from relens.cli import backups, galleries, homes, imports, lists, models, processes, questions, upkeep, windows
from relens.cli.output import FAILED, INTERRUPTED, WRONG_USE, exit_code, say, show_error
from relens.errors import Broken, RelensError

app = typer.Typer(
    name="relens",
    help="Visual recognition and search that you run yourself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _module in (homes, imports, galleries, questions, windows, backups, processes):
    _module.add_to(app)
app.add_typer(models.app, name="model")
app.add_typer(imports.plans, name="plan")
app.add_typer(galleries.app, name="gallery")
app.add_typer(upkeep.segments, name="segment")
app.add_typer(lists.releases, name="release")
app.add_typer(homes.settings, name="config")
app.add_typer(backups.app, name="backup")


CTRL_C = 130
"""What the parser makes of a KeyboardInterrupt in a command."""

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What the parser raises when a command is typed wrongly."""


def main() -> None:
    """Run the command of this process and end it with its exit code."""
    as_json = "--json" in sys.argv
    try:
        code = _run()
    except RelensError as error:
        show_error(error, as_json=as_json)
        sys.exit(exit_code(error))
    except UsageError as error:
        _show_usage(error, as_json=as_json)
        sys.exit(WRONG_USE)
    except (KeyboardInterrupt, typer.Abort):
        say("relens: interrupted; the same command goes on where this one stopped")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(FAILED)
    except OSError as error:
        named = f": {error.filename}" if error.filename else ""
        show_error(Broken("cli.disk", f"{error.strerror or error}{named}"), as_json=as_json)
        sys.exit(FAILED)
    except Exception as error:  # noqa: BLE001 - the last line before the user
        traceback.print_exc()
        hint = "this is a fault of relens: please report it, with what stands above"
        show_error(Broken("cli.failed", f"{type(error).__name__}: {error}", hint=hint), as_json=as_json)
        sys.exit(FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _run() -> Any:
    """What the command gives. An interrupt is one again: the parser makes an exit code of it."""
    code = app(standalone_mode=False)
    if code == CTRL_C:
        raise KeyboardInterrupt
    return code


def _show_usage(error: Any, *, as_json: bool) -> None:
    if as_json:
        hint = "`relens --help` lists the commands, `relens COMMAND --help` their options"
        print(json.dumps({"error": {"code": "cli.usage", "message": error.format_message(), "hint": hint}}))
    else:
        error.show()
