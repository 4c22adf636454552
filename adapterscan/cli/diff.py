"""`adapterscan diff`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterscan.cli.app import app, explained
from adapterscan.cli.inputs import (
    DEFAULT_FAIL_ON,
    DEFAULT_MAX_DOWNLOAD,
    cores,
    hub_options,
    limit_blas_threads,
    rule_book,
    threshold_of,
)
from adapterscan.cli.limits import Asked
from adapterscan.cli.output import Plain, echo, write_file
from adapterscan.cli.scan import scan_all
from adapterscan.errors import UsageError

if TYPE_CHECKING:
    from adapterscan.model import Report
    from adapterscan.rules.book import RuleBook
    from adapterscan.sources import HubOptions


@app.command()
def diff(
    old: Annotated[
        str,
        typer.Argument(help="A JSON report, or a target as for scan: org/name@commit, a folder."),
    ],
    new: Annotated[str, typer.Argument(help="The same of the later state.")],
    format: Annotated[Plain, typer.Option("--format", "-f", help="What to write.")] = Plain.TABLE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it here.", show_default=False)
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 if a finding of this severity or worse appeared or is about more. "
            f" [default: {DEFAULT_FAIL_ON}]",
            show_default=False,
        ),
    ] = None,
    rules: Annotated[
        list[Path] | None, typer.Option(help="A folder with more rules; repeatable.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Hub address, as for scan.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only the cache.")] = False,
    cache_dir: Annotated[Path | None, typer.Option(help="Download cache, as for scan.")] = None,
) -> None:
    """Tell what changed between two states of one adapter: findings, files, modules, coverage."""
    with explained():
        limit_blas_threads()
        from adapterscan.change import changed
        from adapterscan.config import Settings
        from adapterscan.reporters.change_report import render_change, render_change_json
        from adapterscan.scan import EXIT_FINDINGS, EXIT_INCOMPLETE

        threshold = threshold_of(fail_on, Settings())
        book = rule_book(rules or ())
        options = hub_options(endpoint, offline, cache_dir, DEFAULT_MAX_DOWNLOAD, False)
        change = changed(*(_state(text, book, options) for text in (old, new)))
        pieces = render_change(change) if format is Plain.TABLE else render_change_json(change)
        if output is None:
            echo(pieces)
        else:
            write_file(output, pieces)
        if change.worse(threshold):
            raise SystemExit(EXIT_FINDINGS)
        raise SystemExit(0 if change.new.coverage.complete else EXIT_INCOMPLETE)


def _state(text: str, book: RuleBook, options: HubOptions) -> Report:
    """Return the report that a file holds, or that of a scan. Raises AdapterscanError."""
    from adapterscan.report_file import read_report
    from adapterscan.sources import parse_ref

    if text.endswith(".json") and Path(text).is_file():
        reports = read_report(Path(text)).reports
        if len(reports) != 1:
            raise UsageError(
                f"{text} is about {len(reports)} targets, and two states of one are compared",
                hint="scan one target for each report",
            )
        return reports[0]
    found, failures = scan_all(
        [parse_ref(text)], options, book, cores(), None, False, limits=Asked()
    )
    for _, error in failures:
        raise error
    return found[0]
