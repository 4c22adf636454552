"""`adapterscan compare`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterscan.cli.app import EXIT_ERROR, app, collect_garbage, explained
from adapterscan.cli.inputs import (
    DEFAULT_MAX_DOWNLOAD,
    cores,
    hub_options,
    limit_blas_threads,
)
from adapterscan.cli.limits import Memory, Timeout, asked, in_process
from adapterscan.cli.output import Drawn, Progress, echo, write_file
from adapterscan.cli.targets import expanded, parse_targets
from adapterscan.errors import AdapterscanError, UsageError

if TYPE_CHECKING:
    from adapterscan.events import Emit
    from adapterscan.model import Artifact, Ref, Skipped
    from adapterscan.sources import HubOptions
    from adapterscan.together.fingerprint import Fingerprint
    from adapterscan.together.side_by_side import Part


@app.command()
def compare(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="Adapters, as for scan.")
    ],
    known: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Fingerprints to compare with, as --save writes them; repeatable.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep fingerprints of the targets here.", show_default=False
        ),
    ] = None,
    format: Annotated[Drawn, typer.Option("--format", "-f", help="What to write.")] = Drawn.TABLE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it here.", show_default=False)
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Revision for hub targets that name none.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Hub address, as for scan.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only the cache.")] = False,
    cache_dir: Annotated[Path | None, typer.Option(help="Download cache, as for scan.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, max=64, help="Threads.  [default: one per core]"),
    ] = None,
    timeout: Timeout = None,
    memory: Memory = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Name all modules that were changed.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Tell how adapters are related: copies, copies with changes, one run, one initialisation."""
    with explained():
        limit_blas_threads()
        from adapterscan.scan import ScanOptions
        from adapterscan.supervised import limits_for
        from adapterscan.together.fingerprint import read_fingerprints

        prints = [item for path in known or () for item in read_fingerprints(path)]
        allowed = asked(timeout, memory)
        refs, failures = parse_targets(expanded(targets), revision)
        progress = sys.stderr.isatty() and not quiet
        options = hub_options(endpoint, offline, cache_dir, DEFAULT_MAX_DOWNLOAD, progress)
        artifacts = _opened(refs, options, failures)
        workers = jobs or cores()
        limits = limits_for(
            artifacts, ScanOptions(workers), seconds=allowed.seconds, memory=allowed.memory,
            several=True,
        )  # fmt: skip
        tell = Progress("compare") if progress else None

        def body(emit: Emit) -> int:
            parts, skipped = _parts(artifacts, workers, emit)
            return _compared(
                parts, skipped, prints, failures, save, output, format, tell, verbose=verbose
            )

        raise SystemExit(in_process(body, limits))


def _compared(
    parts: Sequence[Part],
    skipped: list[Skipped],
    prints: Sequence[Fingerprint],
    failures: Sequence[tuple[str, AdapterscanError]],
    save: Path | None,
    output: Path | None,
    format: Drawn,
    tell: Progress | None,
    *,
    verbose: bool,
) -> int:
    """Compare and write; return the exit code."""
    from adapterscan.model import Skipped
    from adapterscan.reporters.comparison import render_json, render_table
    from adapterscan.scan import EXIT_INCOMPLETE
    from adapterscan.text import plural, size_text
    from adapterscan.together.fingerprint import written
    from adapterscan.together.lineage import comparisons, fingerprint

    if len(parts) < 1 + (not prints and save is None) and not failures and not skipped:
        raise UsageError(
            "there is nothing to compare it with",
            hint="name two adapters, or fingerprints with --known FILE",
        )
    own = [fingerprint(part, skipped.append) for part in parts if prints or save]
    found = list(comparisons(parts, prints, own, skipped.append, tell or (lambda _: None)))
    if tell:
        tell.clear()
    if save:
        write_file(save, written(own))
    unread = [Skipped(text, error.reason, True, error.hint) for text, error in failures]
    unread += dict.fromkeys(skipped)
    table = format is Drawn.TABLE
    if format is Drawn.HTML:
        from adapterscan.reporters.html import render_lineage

        pieces = render_lineage(found, unread)
    elif table:
        pieces = render_table(found, unread, verbose=verbose)
    else:
        pieces = render_json(found, unread)
    if found or unread or not table:  # with --save alone there is nothing to show
        write_file(output, pieces) if output else echo(pieces)
    if save and table:
        size = size_text(save.stat().st_size)
        echo([f"{plural(len(own), 'fingerprint')} written to {save} ({size})\n"])
    return EXIT_ERROR if failures else EXIT_INCOMPLETE if skipped else 0


def _opened(
    refs: Iterable[Ref], options: HubOptions, failures: list[tuple[str, AdapterscanError]]
) -> list[Artifact]:
    """Return the targets; `failures` gets what could not be opened."""
    from adapterscan.sources import open_artifact

    collect_garbage()
    artifacts = []
    for ref in refs:
        try:
            artifacts.append(open_artifact(ref, options))
        except AdapterscanError as error:
            failures.append((ref.text, error))
    return artifacts


def _parts(
    artifacts: Sequence[Artifact], workers: int, emit: Emit
) -> tuple[list[Part], list[Skipped]]:
    """Return the adapters of all targets, and what could not be read; tell which file is read."""
    from adapterscan.events import Reading
    from adapterscan.together.lineage import parts_of
    from adapterscan.together.side_by_side import Part, short_names

    parts: list[Part] = []
    skipped: list[Skipped] = []
    for name, artifact in zip(short_names(artifacts), artifacts, strict=True):
        for item in parts_of(
            name, artifact, workers=workers, progress=lambda path: emit(Reading(path))
        ):
            if isinstance(item, Part):
                parts.append(item)
            else:
                skipped.append(item)
    emit(Reading(""))
    return parts, skipped
