"""`adapterscan calibrate`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterscan.cli.app import EXIT_ERROR, app, explained
from adapterscan.cli.inputs import (
    DEFAULT_MAX_DOWNLOAD,
    cores,
    hub_options,
    limit_blas_threads,
)
from adapterscan.cli.output import Progress, echo, write_file
from adapterscan.cli.targets import expanded, parse_targets
from adapterscan.errors import AdapterscanError, UsageError

if TYPE_CHECKING:
    from adapterscan.calibration import Member
    from adapterscan.model import Ref, Skipped
    from adapterscan.sources import HubOptions


@app.command()
def calibrate(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET…", help="Adapters that you trust, as for scan.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    note: Annotated[
        list[str] | None,
        typer.Option(help="Where they are from, for whoever reads the file; repeatable."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch for hub targets.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Hub address, as for scan.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only the cache.")] = False,
    cache_dir: Annotated[Path | None, typer.Option(help="Download cache, as for scan.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, max=64, help="Threads.  [default: one per core]"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Make a reference of adapters that you trust: statistics, no weights."""
    with explained():
        limit_blas_threads()
        from tabulate import tabulate

        from adapterscan.calibrate import table
        from adapterscan.calibration import Reference, write_reference
        from adapterscan.scan import EXIT_INCOMPLETE
        from adapterscan.text import plural

        refs, failures = parse_targets(expanded(targets), revision)
        options = hub_options(
            endpoint, offline, cache_dir, DEFAULT_MAX_DOWNLOAD, sys.stderr.isatty() and not quiet
        )
        for text, error in failures:
            _leave_out(text, error.reason)
        left_out: list[Skipped] = []
        measured = tuple(_members(refs, options, jobs or cores(), failures, left_out))
        found = Reference().joined(Reference(measured, tuple(note or ())))  # each file once
        if not found.members:
            raise UsageError(
                "no adapter could be measured", hint="name folders or repositories of LoRA weights"
            )
        write_file(output, iter([write_reference(found)]))
        echo([f"{tabulate(table(found), headers='keys')}\n"])
        written, again = len(found.members), len(measured) - len(found.members)
        of = f"{written} of " if again else ""
        verb = "has" if again == 1 else "have"
        why = f"; {again} {verb} the weights of another" if again else ""
        echo([f"{of}{plural(len(measured), 'adapter')} written to {output}{why}\n"])
        raise SystemExit(EXIT_ERROR if failures else EXIT_INCOMPLETE if left_out else 0)


def _members(
    refs: Iterable[Ref],
    options: HubOptions,
    workers: int,
    failures: list[tuple[str, AdapterscanError]],
    left_out: list[Skipped],
) -> Iterator[Member]:
    """Yield the adapters of targets for a reference; say which ones are left out, and why.

    The lists get what could not be opened, and what could not be measured.
    """
    from adapterscan.calibrate import members
    from adapterscan.calibration import Member
    from adapterscan.sources import open_artifact

    for ref in refs:
        tell = Progress(ref.text) if options.progress else None
        try:
            for item in members(
                open_artifact(ref, options), workers=workers, progress=tell or (lambda _: None)
            ):
                if isinstance(item, Member):
                    yield item
                else:
                    left_out.append(item)
                    _leave_out(ref.text, f"{item.what}: {item.reason}")
        except AdapterscanError as error:
            failures.append((ref.text, error))
            _leave_out(ref.text, error.reason)
        if tell:
            tell.clear()


def _leave_out(target: str, why: str) -> None:
    from adapterscan.text import printable

    typer.echo(f"left out: {printable(target)}: {printable(why, 600)}", err=True)
