"""`adapterscan replay`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from adapterscan.cli.app import app, explained
from adapterscan.cli.inputs import (
    DEFAULT_MAX_DOWNLOAD,
    Probe,
    cores,
    hub_options,
    limit_blas_threads,
    probing_with,
)
from adapterscan.cli.output import Progress, echo


@app.command()
def replay(
    report: Annotated[Path, typer.Argument(help="A JSON report with a finding about behaviour.")],
    finding: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Which finding, counted from 1.  [default: the first about behaviour]",
            show_default=False,
        ),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, max=24, help="How many requests to ask.")] = 8,
    base: Annotated[
        str | None,
        typer.Option(metavar="BASE", help="The base model.  [default: the report's]"),
    ] = None,
    served_as: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What a server calls base + adapter, as for scan.",
            show_default=False,
        ),
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Hub address, as for scan.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only the cache.")] = False,
    cache_dir: Annotated[Path | None, typer.Option(help="Download cache, as for scan.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, mps.")] = "cpu",
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave out what only the adapter says.")
    ] = False,
) -> None:
    """Ask again what a finding says, and show what adapter and base answer. 1: it is so again."""
    with explained():
        limit_blas_threads()
        from adapterscan.replay import ask, claim, transcript
        from adapterscan.sources import open_artifact

        said = claim(report, finding)
        progress = sys.stderr.isatty()
        options = hub_options(endpoint, offline, cache_dir, DEFAULT_MAX_DOWNLOAD, progress)
        probing = probing_with(
            base or said.base, served_as, Probe.QUICK, "10m", device, cores(), options
        )
        assert probing is not None  # noqa: S101 - only without a profile
        tell = Progress(said.ref.text) if progress else None
        artifact = open_artifact(said.ref, options)
        exchanges = list(ask(said, artifact, probing, requests, tell or (lambda _: None)))
        if tell:
            tell.clear()
        echo(f"{line}\n" for line in transcript(exchanges, redacted=redact))
        raise SystemExit(int(any(e.shown for e in exchanges)))
