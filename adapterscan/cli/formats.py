"""What a report can be written as, where each goes, and who renders it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterscan.errors import UsageError

if TYPE_CHECKING:
    from adapterscan.model import Outcome
    from adapterscan.rules.file import Rule


class Format(StrEnum):
    """What a report can be written as."""

    TABLE = "table"
    JSON = "json"
    HTML = "html"
    SARIF = "sarif"
    MARKDOWN = "markdown"
    JUNIT = "junit"
    CSV = "csv"
    CYCLONEDX = "cyclonedx"


#: By the ending of a file's name, the longest first.
_ENDINGS = {
    ".cdx.json": Format.CYCLONEDX, ".sarif.json": Format.SARIF, ".sarif": Format.SARIF,
    ".json": Format.JSON, ".html": Format.HTML, ".htm": Format.HTML,
    ".md": Format.MARKDOWN, ".csv": Format.CSV, ".xml": Format.JUNIT,
    ".txt": Format.TABLE,
}  # fmt: skip

Formats = Annotated[
    list[Format] | None,
    typer.Option(
        "--format", "-f", help="What to write; repeatable.  [default: table, or by the name of -o]",
        show_choices=True, show_default=False,
    ),
]  # fmt: skip
Outputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--output", "-o", help="Write a report here, not on standard output; repeatable.",
        show_default=False,
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing to write. `path` None: on standard output."""

    format: Format
    path: Path | None


@dataclass(frozen=True, slots=True)
class Style:
    """How a person wants the table."""

    colour: bool = True
    verbose: bool = False


def wanted(formats: Sequence[Format], outputs: Sequence[Path]) -> list[Wanted]:
    """Return what goes where.

    A file takes the format that its name ends in, if that was asked for or none is left; else the
    first that is left. One format without a file goes to standard output, and with nothing said
    the table does. Raises UsageError for two without a file, and for two in one.
    """
    left = list(dict.fromkeys(formats))
    if len(set(outputs)) < len(outputs):
        raise UsageError("two reports would go to one file", hint="give each -o another name")
    found = []
    for path in outputs:
        named = next((f for ending, f in _ENDINGS.items() if path.name.endswith(ending)), None)
        chosen = named if named in left or (named and not left) else (left or [Format.TABLE])[0]
        if chosen in left:
            left.remove(chosen)
        found.append(Wanted(chosen, path))
    if len(left) > 1:
        raise UsageError(
            f"only one report fits on standard output, not {' and '.join(left)}",
            hint=f"give all but one a file: --format {left[1]} --output FILE",
        )
    if left or not found:
        found.append(Wanted(left[0] if left else Format.TABLE, None))
    return found


def rendered(one: Wanted, outcome: Outcome, rules: Sequence[Rule], style: Style) -> Iterator[str]:
    """Yield the text of a report in pieces. Only what renders that format is imported."""
    match one.format:
        case Format.TABLE:
            return _table(one, outcome, style)
        case Format.JSON:
            from adapterscan.reporters.json_report import render_json

            return render_json(outcome)
        case Format.HTML:
            from adapterscan.reporters.html import render_html

            return render_html(outcome, rules)
        case Format.SARIF:
            from adapterscan.reporters.sarif import render_sarif

            return render_sarif(outcome, rules, Path.cwd())
        case Format.MARKDOWN:
            from adapterscan.reporters.markdown import render_markdown

            return render_markdown(outcome)
        case Format.JUNIT:
            from adapterscan.reporters.junit import render_junit

            return render_junit(outcome)
        case Format.CSV:
            from adapterscan.reporters.csv_report import render_csv

            return render_csv(outcome)
        case Format.CYCLONEDX:
            from adapterscan.reporters.cyclonedx import render_cyclonedx

            return render_cyclonedx(outcome)


def _table(one: Wanted, outcome: Outcome, style: Style) -> Iterator[str]:
    from adapterscan.reporters.terminal import Page, render_terminal

    on_terminal = one.path is None and sys.stdout.isatty()
    colours = style.colour and on_terminal and not os.environ.get("NO_COLOR")
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    page = Page(width=width, colour=colours, verbose=style.verbose)
    yield render_terminal(outcome, page)
