"""The command `relens` with all its subcommands, and how it ends."""

from __future__ import annotations

import sys

import click
import typer

from relens.cli import homes, imports, lists, models, processes, questions
from relens.cli.output import FAILED, INTERRUPTED, WRONG_USE, exit_code, say, show_error
from relens.errors import RelensError

app = typer.Typer(
    name="relens",
    help="Visual recognition and search that you run yourself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (homes, imports, questions, processes):
    module.add_to(app)
app.add_typer(models.app, name="model")
app.add_typer(imports.plans, name="plan")
app.add_typer(lists.galleries, name="gallery")
app.add_typer(lists.releases, name="release")
app.add_typer(homes.settings, name="config")


def main() -> None:
    """Run the command of this process and end it with its exit code."""
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False)
    except RelensError as error:
        show_error(error, as_json=as_json)
        sys.exit(exit_code(error))
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message())
        sys.exit(WRONG_USE)
    except click.ClickException as error:
        error.show()
        sys.exit(WRONG_USE)
    except (KeyboardInterrupt, click.Abort):
        say("relens: interrupted; the same command goes on where this one stopped")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(FAILED)
    sys.exit(code if isinstance(code, int) else 0)
