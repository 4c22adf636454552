"""`adapterscan baseline`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from adapterscan.cli.app import app, explained
from adapterscan.cli.output import echo, write_file
from adapterscan.errors import UsageError


@app.command()
def baseline(
    reports: Annotated[list[Path], typer.Argument(help="Reports that --format json wrote.")],
    reason: Annotated[str, typer.Option(help="Why the findings are accepted.")],
    owner: Annotated[str, typer.Option(help="Who accepts them.")],
    expires: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="The last day that they are accepted.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it here.", show_default=False)
    ] = None,
) -> None:
    """Write suppressions of all findings of a report, for `scan --suppressions`. Read it first."""
    with explained():
        from adapterscan.report_file import read_report
        from adapterscan.suppression import entries_of, written

        if expires.date() < datetime.now(UTC).date():
            raise UsageError(
                f"--expires {expires.date()} is over",
                hint="name the last day that they are accepted",
            )
        found = [report for path in reports for report in read_report(path).reports]
        pieces = written(entries_of(found, reason, owner, expires.date()))
        if output is None:
            echo(pieces)
        else:
            write_file(output, pieces)
