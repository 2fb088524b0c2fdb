"""docs/benchmarks.md: what was measured is written between two marks, what people say about it stays around them."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.figures import Figure, Report

PATH = Path(__file__).parent.parent / "docs" / "benchmarks.md"
AGAIN = "Measured again by themselves on "
BEGIN, END = "<!-- measured: written by `python -m bench --write` -->", "<!-- end of what was measured -->"


def write(reports: Mapping[str, Report]) -> None:
    """Put a run into the page."""
    before, _, rest = PATH.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    measured = "\n".join([BEGIN, "", *_lines(reports), END])
    PATH.write_text(before + measured + after, encoding="utf-8")


def update(reports: Mapping[str, Report]) -> None:
    """Put some benchmarks, measured by themselves, into the page in place of what it says of them."""
    before, _, rest = PATH.read_text(encoding="utf-8").partition(BEGIN)
    said, _, after = rest.partition(END)
    head, *sections = said.split("\n### ")
    lines = [
        line for line in head.rstrip().splitlines() if not any(line.startswith(f"| `{name}` ") for name in reports)
    ]
    lines += [f"| `{name}` | {_row(figure)} |" for name, report in reports.items() for figure in report.figures]
    again = f"{AGAIN}{dt.datetime.now(tz=dt.UTC).date()}: {', '.join(f'`{name}`' for name in reports)}."
    top = next(number for number, line in enumerate(lines) if line.startswith("| benchmark"))
    lines[top:top] = [again, ""]
    kept = {section.partition("\n")[0]: f"### {section}".rstrip() for section in sections}
    for report in reports.values():
        kept |= {title: "\n".join(_table(title, rows)).rstrip() for title, rows in report.parts.items()}
    PATH.write_text(before + BEGIN + "\n\n".join(["\n".join(lines), *kept.values(), END]) + after, encoding="utf-8")


def machine() -> str:
    """In a line: model of the processor, cores, Python."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def _lines(reports: Mapping[str, Report]) -> Iterator[str]:
    yield f"{dt.datetime.now(tz=dt.UTC).date()}, on {machine()}."
    yield ""
    yield "| benchmark | what | ours | limit | ratio | target |"
    yield "|---|---|---|---|---|---|"
    for name, report in reports.items():
        for figure in report.figures:
            yield f"| `{name}` | {_row(figure)} |"
    yield ""
    for report in reports.values():
        for title, rows in report.parts.items():
            yield from _table(title, rows)


def _row(figure: Figure) -> str:
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    target = "" if figure.target is None else f"{figure.target.text}: {'met' if figure.target.met else '**not met**'}"
    return f"{figure.what} | {figure.ours} | {figure.limit} | {ratio} | {target}"


def _table(title: str, rows: Mapping[str, str]) -> Iterator[str]:
    yield f"### {title}"
    yield ""
    yield "| | |"
    yield "|---|---:|"
    for name, value in rows.items():
        yield f"| {name} | {value} |"
    yield ""
