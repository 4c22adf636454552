"""`adapterscan hook`: for pre-commit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterscan.cli.app import app, explained
from adapterscan.cli.formats import wanted
from adapterscan.cli.inputs import (
    DEFAULT_FAIL_ON,
    cores,
    limit_blas_threads,
    peers_of,
    rule_book,
    threshold_of,
)
from adapterscan.cli.limits import asked
from adapterscan.cli.output import write
from adapterscan.cli.scan import scan_all
from adapterscan.cli.targets import local_trees, outermost
from adapterscan.errors import UsageError

if TYPE_CHECKING:
    from adapterscan.model import Report


@app.command()
def hook(
    files: Annotated[
        list[Path], typer.Argument(help="Changed files; the adapters they belong to are scanned.")
    ],
    fail_on: Annotated[
        str | None,
        typer.Option(
            help=f"Stop the commit at this severity or worse.  [default: {DEFAULT_FAIL_ON}]",
            show_default=False,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    rules: Annotated[
        list[Path] | None, typer.Option(help="A folder with more rules; repeatable.")
    ] = None,
) -> None:
    """Scan the adapter folders that changed files belong to (for pre-commit)."""
    with explained():
        _refuse_files_named_like_options(sys.argv[1:])
        limit_blas_threads()
        from adapterscan.config import load_settings
        from adapterscan.model import Ref, SourceKind
        from adapterscan.sources import HubOptions

        refs = [
            Ref(place, SourceKind.FOLDER, place)
            if Path(place).is_dir()
            else Ref(place, SourceKind.FILE, os.path.join(".", place))  # noqa: PTH118 - keeps the .
            for place in outermost({str(_belongs_to(path)) for path in files})
        ]
        settings = load_settings(config, Path.cwd(), local_trees(refs))
        threshold = threshold_of(fail_on, settings)
        book = rule_book((*settings.rules, *(rules or ())))
        peers = peers_of(settings.references)
        reports, failures = scan_all(
            refs, HubOptions(), book, cores(), settings.source, False, peers=peers,
            limits=asked(None, None, settings),
        )  # fmt: skip
        reports = [_expected(report) for report in reports]
        write(
            reports, failures, threshold, wanted((), ()), book, suppressions=settings.suppressions
        )


def _belongs_to(file: Path) -> Path:
    """Return the nearest adapter folder that a changed file lies in; without one, the file alone.

    A folder without `adapter_config.json` can be a whole project, with environments in it.
    Raises UsageError for a file that is not there.
    """
    if not os.path.lexists(file):
        raise UsageError(f"no such file: {file}", hint="check the spelling")
    owners = (folder for folder in file.parents if (folder / "adapter_config.json").is_file())
    return next(owners, file)


def _expected(report: Report) -> Report:
    """Return a report without the remark that a file alone, of no weights, holds no adapter.

    That remark bears the target's name, which has a folder; all others bear the file's.
    """
    from adapterscan.model import FileKind, SourceKind
    from adapterscan.sources.kinds import file_kind

    if report.source is not SourceKind.FILE or file_kind(report.name) is FileKind.WEIGHTS:
        return report
    kept = tuple(item for item in report.coverage.skipped if item.what != report.name)
    return replace(report, coverage=replace(report.coverage, skipped=kept))


def _refuse_files_named_like_options(arguments: Iterable[str]) -> None:
    """pre-commit hands over file names; `--rules=x` among them must not be obeyed."""
    for argument in arguments:
        if argument.startswith("-") and os.path.lexists(argument):
            raise UsageError(
                f"a file is named like an option: {argument}",
                hint="rename it; no loader needs such a name",
            )
