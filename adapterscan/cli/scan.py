"""`adapterscan scan`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
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
    base_documents,
    base_weights,
    cores,
    hub_options,
    key_of,
    limit_blas_threads,
    peers_of,
    probing_with,
    rule_book,
    threshold_of,
)
from adapterscan.cli.limits import Asked, Memory, Timeout, asked
from adapterscan.cli.output import Progress, write
from adapterscan.cli.targets import expanded, local_trees, parse_targets
from adapterscan.errors import AdapterscanError

if TYPE_CHECKING:
    from adapterscan.calibration import Reference
    from adapterscan.model import Artifact, Ref, Report
    from adapterscan.onbase.base import BaseWeights
    from adapterscan.onbase.documents import BaseDocuments
    from adapterscan.probe import ProbeRequest
    from adapterscan.provenance.signing import Key
    from adapterscan.rules.judging import RuleBook
    from adapterscan.sources import HubOptions


@app.command()
def scan(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="org/name[@revision][:subfolder] on the hub, a folder, a weight file, "
            "or - for a list on standard input.",
            show_default=False,
        ),
    ],
    format: Formats = None,
    output: Outputs = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 at findings of this severity or worse: info, low, medium, high, "
            f"critical, never.  [default: {DEFAULT_FAIL_ON}]",
            show_default=False,
        ),
    ] = None,
    rules: Annotated[
        list[Path] | None,
        typer.Option(help="A folder with more rules; repeatable.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings file. Without it: [tool.adapterscan] in your own pyproject.toml, never "
            "one inside the scanned tree."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Revision for hub targets that name none.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Hub address.  [default: HF_ENDPOINT or the public hub]")
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Adapters to compare with besides ours, as `calibrate` writes them; repeatable.",
            show_default=False,
        ),
    ] = None,
    suppressions: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Findings that were accepted, as `baseline` writes them; repeatable.",
            show_default=False,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only what the hub client has cached.")
    ] = False,
    max_download: Annotated[
        str | None,
        typer.Option(
            help=f"Fetch at most this much for one target.  [default: {DEFAULT_MAX_DOWNLOAD}]",
            show_default=False,
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Download cache.  [default: the hub client's]")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="The base model, to compare the weights with: a folder, a .gguf file or "
            "org/name@commit. With --probe it is run as well, or it is a model that a server has: "
            "http://127.0.0.1:8000/v1#NAME.",
            show_default=False,
        ),
    ] = None,
    whole_base: Annotated[
        bool,
        typer.Option(
            "--whole-base", help="Read the base's weights although a profile of it was built."
        ),
    ] = False,
    served_as: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the server of --base calls base + adapter; or URL#NAME of another. Its key, "
            "if it wants one, is read from ADAPTERSCAN_API_KEY.",
            show_default=False,
        ),
    ] = None,
    probe: Annotated[
        Probe | None,
        typer.Option(
            help="Run the model and look for backdoors; needs --base, and the extra "
            "adapterscan[probe] where no server has the model.",
            show_default=False,
        ),
    ] = None,
    probe_budget: Annotated[
        str | None,
        typer.Option(
            help=f"Time for the probes of one adapter: 90s, 2h.  [default: {DEFAULT_BUDGET}]"
        ),
    ] = None,
    triggers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Wordings to try as well, one a line; or .toml, see docs/probes.md.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the model runs: cuda, cuda:1, mps.  [default: cpu]")
    ] = None,
    verify_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Verify signatures with this public key or signer's certificate (PEM); needs the "
            "extra adapterscan[signing].",
            show_default=False,
        ),
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave out of the report what only the adapter says.")
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
        bool, typer.Option("--verbose", "-v", help="Show all evidence, notes and coverage.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Scan adapters and report what was found and what was not looked at."""
    with explained():
        limit_blas_threads()
        from adapterscan.config import load_settings

        places = wanted(format or (), output or ())
        refs, failures = parse_targets(expanded(targets), revision)
        settings = load_settings(config, Path.cwd(), local_trees(refs))
        if settings.ignored and not quiet:
            from adapterscan.text import printable

            typer.echo(f"note: {printable(settings.ignored, 600)}", err=True)
        threshold = threshold_of(fail_on, settings)
        allowed = asked(timeout, memory, settings)
        progress = sys.stderr.isatty() and not quiet
        options = hub_options(
            endpoint,
            offline,
            cache_dir,
            max_download or settings.max_download or DEFAULT_MAX_DOWNLOAD,
            progress,
        )
        book = rule_book((*settings.rules, *(rules or ())))
        peers = peers_of((*settings.references, *(reference or ())))
        workers = jobs or settings.jobs or cores()
        key = key_of(verify_key or settings.verify_key)
        probing = probing_with(
            base,
            served_as,
            probe,
            probe_budget,
            device,
            workers,
            options,
            redact=redact,
            triggers=triggers,
        )
        weights = base_weights(base, probing, options, whole=whole_base)
        documents = base_documents(base, probing, options)
        reports, unopened = scan_all(
            refs, options, book, workers, settings.source, progress, probing, peers, weights,
            key, documents, limits=allowed,
        )  # fmt: skip
        failures += unopened
        accepted = (*settings.suppressions, *(suppressions or ()))
        write(reports, failures, threshold, places, book, Style(color, verbose), accepted)


def scan_all(
    refs: Iterable[Ref],
    options: HubOptions,
    book: RuleBook,
    workers: int,
    config_file: str | None,
    progress: bool,
    probing: ProbeRequest | None = None,
    peers: Reference | None = None,
    weights: BaseWeights | str | None = None,
    key: Key | None = None,
    documents: BaseDocuments | None = None,
    *,
    limits: Asked,
) -> tuple[list[Report], list[tuple[str, AdapterscanError]]]:
    """Return the reports, and for targets that could not be opened why."""
    from adapterscan.scan import ScanOptions
    from adapterscan.sources import open_artifact
    from adapterscan.supervised import limits_for, scan_apart

    collect_garbage()
    base, why = (None, weights) if isinstance(weights, str) else (weights, "")
    scanning = ScanOptions(workers, peers, base, why, key, documents)
    reports: list[Report] = []
    unopened: list[tuple[str, AdapterscanError]] = []
    for ref in refs:
        try:
            artifact: Artifact = open_artifact(ref, options)
        except AdapterscanError as error:
            unopened.append((ref.text, error))
            continue
        tell = Progress(artifact.name) if progress else None
        report = scan_apart(
            artifact,
            book,
            limits_for((artifact,), scanning, seconds=limits.seconds, memory=limits.memory),
            options=scanning,
            probing=probing,
            config_file=config_file,
            progress=tell or (lambda _: None),
        )
        if tell:
            tell.clear()
        reports.append(report)
    return reports, unopened
