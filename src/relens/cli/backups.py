"""`backup`, `restore` and `gc`: a home that can be had again, and that does not grow for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from relens import wiring
from relens.backup import BackupFolder, verify
from relens.cli.output import DONE, FAILED, HomeOption, JsonOption, Meter, say, show, table, when
from relens.errors import Missing
from relens.wiring.restoring import restore_copy, restore_home


class _Backups(TyperGroup):
    """`relens backup DIR` is short for `relens backup make DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] != "--help" and args[0] not in self.commands:
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_Backups, help="Backups: all that a home needs to answer the same again.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(help="The folder of backups.", show_default=False)]


def add_to(typer_app: typer.Typer) -> None:
    typer_app.command()(restore)
    typer_app.command()(gc)


@app.command()
def make(folder: FolderArgument, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Add a backup of the home to a folder, while it serves. Only what is not there yet is copied."""
    parts = wiring.open_parts(home)
    parts.start_logging(quiet=True)
    with Meter("MB", 1e6) as meter:
        value = parts.in_process().back_up(folder, report=meter.update)
    show(value, as_json=as_json, text=lambda: _made_text(value))
    return DONE


@app.command("verify")
def verify_backups(
    folder: FolderArgument,
    backup: Annotated[str | None, typer.Option("--backup", help="Only this one. Default: all of the folder.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Read every byte of the backups in a folder against its digest. Ends with 1 if something is wrong."""
    opened = BackupFolder(folder)
    names = opened.names() if backup is None else [opened.open(backup).name]
    if not names:
        opened.open()
    with Meter("MB", 1e6) as meter:
        verdicts = verify(opened, names, meter.update)
    ok = all(verdict.ok for verdict in verdicts)
    found = [{"name": one.name, "ok": one.ok, "problems": list(one.problems)} for one in verdicts]
    value = {"ok": ok, "folder": str(opened.path), "backups": found}
    rows = [[one.name, "ok" if one.ok else "WRONG", "; ".join(one.problems[:3])] for one in verdicts]
    show(value, as_json=as_json, text=lambda: table(rows, ["backup", "verdict", "problems"]))
    return DONE if ok else FAILED


def restore(
    folder: Annotated[
        Path, typer.Argument(help="The folder of backups, or a copy of a catalog (.jsonl.gz).", show_default=False)
    ],
    backup: Annotated[str | None, typer.Option("--backup", help="Which one. Default: the newest.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Restore a backup into an empty home: the same ids, sequences, answers. Broken off, the same command goes on."""
    if folder.is_file():
        return _restore_copy(folder, home, as_json=as_json)
    if not folder.is_dir():
        raise Missing("backup.no-folder", f"there is no folder {folder}")
    if left_out := BackupFolder(folder).open(backup).left_out:
        say(f"secrets are in no backup; set them in relens.yaml or the environment: {', '.join(left_out)}")
    with Meter("MB", 1e6) as meter:
        restored, found = restore_home(folder, home, backup, meter.update)
    value = {
        "home": str(restored.path),
        "backup": found.name,
        "made_at": found.made_at,
        "sequences": dict(found.sequences),
        "left_out": list(found.left_out),
    }
    text = f"{restored.path} is as it was at {when(found.made_at)} (backup {found.name})"
    show(value, as_json=as_json, text=lambda: text)
    return DONE


def _restore_copy(file: Path, home: Path | None, *, as_json: bool) -> int:
    restored, dumped = restore_copy(file, home)
    value = {"home": str(restored.path), "copy": str(file), "rows": sum(dumped.rows.values())}
    show(value, as_json=as_json, text=lambda: f"the catalog of {restored.path} has {value['rows']} rows of {file}")
    return DONE


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    older_than_h: Annotated[
        float, typer.Option("--older-than", min=0, metavar="HOURS", help="Keep blobs that are younger.")
    ] = 1.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Collect garbage: superseded views, contents of removed galleries, and blobs that nothing names."""
    parts = wiring.open_parts(home)
    parts.start_logging(quiet=True)
    with Meter("blobs", 1) as meter:
        value = parts.in_process().collect_garbage(
            older_than_s=older_than_h * 3600, dry_run=dry_run, report=meter.update
        )
    show(value, as_json=as_json, text=lambda: _collected_text(value))
    return DONE


def _made_text(value: dict[str, Any]) -> str:
    copied = value["copied"]
    lines = [f"backup {value['backup']}: {value['blobs']} blobs, {value['bytes'] / 1e6:.1f} MB"]
    lines.append(f"copied: {copied['blobs']} blobs, {copied['bytes'] / 1e6:.1f} MB; the rest was there")
    if value["left_out"]:
        lines.append(f"left out, because they are secrets: {', '.join(value['left_out'])}")
    return "\n".join(lines)


def _collected_text(value: dict[str, Any]) -> str:
    names = ("views", "segments", "indexes", "galleries", "objects", "blobs")
    counts = ", ".join(f"{value[name]} {name}" for name in names)
    line = f"{'would go' if value['dry_run'] else 'gone'}: {counts} ({value['bytes'] / 1e6:.1f} MB)"
    return line + (f"\n{value['young']} blobs that nothing names stay: young, or pinned" if value["young"] else "")
