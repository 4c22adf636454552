"""`adapterscan merge`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterscan.cli.app import app, collect_garbage, explained
from adapterscan.cli.formats import Formats, Outputs, Style, wanted
from adapterscan.cli.inputs import (
    DEFAULT_BUDGET,
    DEFAULT_FAIL_ON,
    DEFAULT_MAX_DOWNLOAD,
    Probe,
    cores,
    hub_options,
    limit_blas_threads,
    peers_of,
    probing_with,
    rule_book,
    threshold_of,
)
from adapterscan.cli.limits import Asked, Memory, Timeout, asked
from adapterscan.cli.output import Progress, write
from adapterscan.cli.targets import expanded, local_trees, parse_targets
from adapterscan.errors import AdapterscanError, UsageError

if TYPE_CHECKING:
    from adapterscan.calibration import Reference
    from adapterscan.combination import MergeRequest
    from adapterscan.model import Artifact, Ref, Report
    from adapterscan.probe import ProbeRequest
    from adapterscan.rules.judging import RuleBook
    from adapterscan.sources import HubOptions


@app.command()
def merge(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET TARGET...", help="Adapters of one base, as for scan."),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="W,W,…",
            help="A weight for each adapter.  [default: 1 each]",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="As PEFT combines them: cat (the exact sum, and what adapters do that are active "
            "together), svd, linear, ties, dare_linear, dare_ties, magnitude_prune."
        ),
    ] = "cat",
    density: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of factors that methods with pruning keep.",
            show_default=False,
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Rank of svd.  [default: the largest]", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what dare prunes.")] = 0,
    save: Annotated[
        Path | None,
        typer.Option(help="Keep the combination as an adapter, in this new folder."),
    ] = None,
    format: Formats = None,
    output: Outputs = None,
    fail_on: Annotated[
        str | None,
        typer.Option(help=f"As for scan.  [default: {DEFAULT_FAIL_ON}]", show_default=False),
    ] = None,
    rules: Annotated[
        list[Path] | None, typer.Option(help="A folder with more rules; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file, as for scan.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Revision for hub targets that name none.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Hub address, as for scan.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only the cache.")] = False,
    max_download: Annotated[str | None, typer.Option(help="As for scan.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Download cache, as for scan.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="The base model, for --probe: a folder, a .gguf file or org/name@commit.",
            show_default=False,
        ),
    ] = None,
    probe: Annotated[
        Probe | None,
        typer.Option(
            help="Run the combination and look for backdoors; needs --base.", show_default=False
        ),
    ] = None,
    probe_budget: Annotated[
        str | None,
        typer.Option(help=f"Time for the probes: 90s, 2h.  [default: {DEFAULT_BUDGET}]"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the model runs: cuda, mps.  [default: cpu]")
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave out what only the adapters say.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, max=64, help="Threads.  [default: one per core]"),
    ] = None,
    timeout: Timeout = None,
    memory: Memory = None,
    color: Annotated[
        bool, typer.Option("--color/--no-color", help="Colour on a terminal; NO_COLOR works too.")
    ] = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all modules, evidence and coverage.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Scan adapters that are meant to be combined: each of them, and what they are together."""
    with explained():
        limit_blas_threads()
        from adapterscan.config import load_settings

        places = wanted(format or (), output or ())
        refs, failures = parse_targets(expanded(targets), revision)
        count = len(refs) + len(failures)
        if base is not None and probe is None:
            raise UsageError(
                "--base is for --probe here",
                hint="add --probe quick; to compare the sum: merge --save DIR, then scan DIR "
                "--base BASE",
            )
        request = _merge_request(count, weights, method, density, rank, seed, save)
        settings = load_settings(config, Path.cwd(), local_trees(refs))
        threshold = threshold_of(fail_on, settings)
        book = rule_book((*settings.rules, *(rules or ())))
        style = Style(color, verbose)
        if failures:  # the sum of the others is not what was asked for
            write([], failures, threshold, places, book, style)
        progress = sys.stderr.isatty() and not quiet
        options = hub_options(
            endpoint,
            offline,
            cache_dir,
            max_download or settings.max_download or DEFAULT_MAX_DOWNLOAD,
            progress,
        )
        workers = jobs or settings.jobs or cores()
        probing = probing_with(
            base, None, probe, probe_budget, device, workers, options, redact=redact
        )
        reports, unopened = _merged(
            refs,
            options,
            book,
            workers,
            settings.source,
            progress,
            probing,
            request,
            peers_of(settings.references),
            asked(timeout, memory, settings),
        )
        write(reports, unopened, threshold, places, book, style)


def _merge_request(
    count: int,
    weights: str | None,
    method: str,
    density: float | None,
    rank: int | None,
    seed: int,
    save: Path | None,
) -> MergeRequest:
    """Return how to combine. Raises UsageError for what does not go together."""
    from adapterscan.combination import MergeRequest
    from adapterscan.config import parse_weights
    from adapterscan.together.combining import METHODS, PRUNING, Method

    if count < 2:
        raise UsageError("one adapter is no combination", hint="name two or more")
    if method not in METHODS:
        raise UsageError(f"no method is called {method!r}", hint=f"use one of {', '.join(METHODS)}")
    if density is not None and (method not in PRUNING or not density):
        raise UsageError(
            "--density is a share above 0, for methods that prune", hint=", ".join(sorted(PRUNING))
        )
    if method in PRUNING and density is None:
        raise UsageError(f"{method} prunes factors", hint="say how many stay: --density 0.5")
    if rank is not None and method != "svd":
        raise UsageError("--rank is for --method svd", hint="the other methods decide it")
    if save is not None and (save.exists() and (not save.is_dir() or any(save.iterdir()))):
        raise UsageError(f"{save} is not empty", hint="name a new folder for the combination")
    found = parse_weights(weights, count)
    return MergeRequest(found, Method(method, density or 1.0, rank or 0, seed), save)


def _merged(
    refs: Sequence[Ref],
    options: HubOptions,
    book: RuleBook,
    workers: int,
    config_file: str | None,
    progress: bool,
    probing: ProbeRequest | None,
    request: MergeRequest,
    peers: Reference | None,
    limits: Asked,
) -> tuple[list[Report], list[tuple[str, AdapterscanError]]]:
    """Return the reports of the parts and of the combination, and why there are not more."""
    from adapterscan.scan import ScanOptions
    from adapterscan.sources import open_artifact
    from adapterscan.supervised import limits_for
    from adapterscan.supervised_merge import merge_apart

    collect_garbage()
    reports: list[Report] = []
    unopened: list[tuple[str, AdapterscanError]] = []
    artifacts: list[Artifact] = []
    for ref in refs:
        try:
            artifacts.append(open_artifact(ref, options))
        except AdapterscanError as error:
            unopened.append((ref.text, error))
    if unopened:
        return reports, unopened
    tell = Progress("merge") if progress else None
    scanning = ScanOptions(workers, peers)
    try:
        for report in merge_apart(
            artifacts,
            book,
            request,
            limits_for(
                artifacts, scanning, seconds=limits.seconds, memory=limits.memory, several=True
            ),
            options=scanning,
            probing=probing,
            config_file=config_file,
            progress=tell or (lambda _: None),
        ):
            reports.append(report)
    except AdapterscanError as error:
        unopened.append((" + ".join(ref.text for ref in refs), error))
    if tell:
        tell.clear()
    return reports, unopened
