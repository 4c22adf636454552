"""`adapterscan report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapterscan.cli.app import app, explained
from adapterscan.cli.formats import Formats, Outputs, Style, wanted
from adapterscan.cli.inputs import rule_book
from adapterscan.cli.output import write_outcome


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="A report that --format json wrote.")],
    format: Formats = None,
    output: Outputs = None,
    rules: Annotated[
        list[Path] | None,
        typer.Option(help="A folder with more rules, to explain findings; repeatable."),
    ] = None,
    color: Annotated[
        bool, typer.Option("--color/--no-color", help="Colour on a terminal; NO_COLOR works too.")
    ] = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all evidence, notes and coverage.")
    ] = False,
) -> None:
    """Write a JSON report in other formats. Nothing is scanned; ends as the scan ended."""
    with explained():
        from adapterscan.report_file import not_ours, read_report

        places = wanted(format or (), output or ())
        outcome = read_report(file)
        book, style = tuple(rule_book(rules or ())), Style(color, verbose)
        try:
            write_outcome(outcome, places, book, style)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
            raise not_ours(file) from None  # facts of another shape than ours
        raise SystemExit(outcome.exit_code)
