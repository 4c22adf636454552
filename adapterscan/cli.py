"""The command line: the only place that prints, reads the environment and exits.

Heavy imports stay inside the commands, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from adapterscan import __version__
from adapterscan.errors import AdapterscanError, FileProblem, UsageError

if TYPE_CHECKING:
    from adapterscan.calibration import Member, Reference
    from adapterscan.config import Settings
    from adapterscan.onbase.base import BaseWeights
    from adapterscan.model import Artifact, Ref, Report, Severity
    from adapterscan.probe import ProbeRequest
    from adapterscan.rules import RuleBook
    from adapterscan.sources import HubOptions

EXIT_ERROR = 2
DEFAULT_FAIL_ON = "high"
DEFAULT_MAX_DOWNLOAD = "5GB"

app = typer.Typer(
    name="adapterscan",
    help="Scan LoRA adapters for backdoors, smuggled code and odd weights before you load them.",
    epilog="Exit codes: 0 nothing at or above --fail-on and everything analysed, 1 findings, "
    "2 usage or other error, 3 incomplete: something could not be analysed.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"adapterscan {__version__}")
        raise typer.Exit


class Probe(StrEnum):
    """How much is asked of the model."""

    QUICK = "quick"
    STANDARD = "standard"
    DEEP = "deep"


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Scan LoRA adapters for backdoors, smuggled code and odd weights before you load them."""


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
    format: Annotated[
        Format, typer.Option("--format", "-f", help="What to write.", show_choices=True)
    ] = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the report here, not on standard output."),
    ] = None,
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
        str, typer.Option(help="Time for the probes of one adapter: 90s, 10m, 2h.")
    ] = "10m",
    triggers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Wordings to try as well, one a line; or .toml, see docs/probes.md.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1, mps.")
    ] = "cpu",
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave out of the report what only the adapter says.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, max=64, help="Threads.  [default: one per core]"),
    ] = None,
    color: Annotated[
        bool, typer.Option("--color/--no-color", help="Colour on a terminal; NO_COLOR works too.")
    ] = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all evidence, notes and coverage.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Scan adapters and report what was found and what was not looked at."""
    with _explained():
        _limit_blas_threads()
        from adapterscan.config import load_settings, parse_size
        from adapterscan.sources import HubOptions

        refs, failures = _parse(_expanded(targets), revision)
        settings = load_settings(config, Path.cwd(), _local_trees(refs))
        if settings.ignored and not quiet:
            from adapterscan.text import printable

            typer.echo(f"note: {printable(settings.ignored, 600)}", err=True)
        threshold = _threshold(fail_on, settings)
        size = parse_size(max_download or settings.max_download or DEFAULT_MAX_DOWNLOAD)
        progress = sys.stderr.isatty() and not quiet
        options = HubOptions(
            endpoint=endpoint,
            offline=offline,
            max_download=size,
            progress=progress,
            cache_dir=cache_dir,
        )
        book = _rule_book((*settings.rules, *(rules or ())))
        peers = _peers((*settings.references, *(reference or ())))
        workers = jobs or settings.jobs or _cores()
        probing = _probing(
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
        weights = _base_weights(base, probing, options, whole=whole_base)
        reports, unopened = _scan_all(
            refs, options, book, workers, settings.source, progress, probing, peers, weights
        )
        failures += unopened
        _write(reports, failures, format, output, threshold, color, verbose)


@app.command()
def hook(
    files: Annotated[
        list[Path], typer.Argument(help="Changed files; the folders they lie in are scanned.")
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
    with _explained():
        _refuse_files_named_like_options(sys.argv[1:])
        _limit_blas_threads()
        from adapterscan.config import load_settings
        from adapterscan.model import Ref, SourceKind
        from adapterscan.sources import HubOptions

        folders = _outermost({str(path.parent) for path in files})
        refs = [Ref(folder, SourceKind.FOLDER, folder) for folder in folders]
        settings = load_settings(config, Path.cwd(), _local_trees(refs))
        threshold = _threshold(fail_on, settings)
        book = _rule_book((*settings.rules, *(rules or ())))
        peers = _peers(settings.references)
        reports, failures = _scan_all(
            refs, HubOptions(), book, _cores(), settings.source, False, peers=peers
        )
        _write(reports, failures, Format.TABLE, None, threshold, True, False)


def _refuse_files_named_like_options(arguments: Iterable[str]) -> None:
    """pre-commit hands over file names; `--rules=x` among them must not be obeyed."""
    for argument in arguments:
        if argument.startswith("-") and os.path.lexists(argument):
            raise UsageError(
                f"a file is named like an option: {argument}",
                hint="rename it; no loader needs such a name",
            )


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
    with _explained():
        _limit_blas_threads()
        from adapterscan.config import parse_size
        from adapterscan.replay import ask, claim, transcript
        from adapterscan.sources import HubOptions, open_artifact

        said = claim(report, finding)
        size = parse_size(DEFAULT_MAX_DOWNLOAD)
        progress = sys.stderr.isatty()
        options = HubOptions(
            endpoint=endpoint,
            offline=offline,
            max_download=size,
            progress=progress,
            cache_dir=cache_dir,
        )
        probing = _probing(
            base or said.base, served_as, Probe.QUICK, "10m", device, _cores(), options
        )
        assert probing is not None  # noqa: S101 - only without a profile
        tell = _Progress(said.ref.text) if progress else None
        artifact = open_artifact(said.ref, options)
        exchanges = list(ask(said, artifact, probing, requests, tell or (lambda _: None)))
        if tell:
            tell.clear()
        _echo(f"{line}\n" for line in transcript(exchanges, redacted=redact))
        raise SystemExit(int(any(e.shown for e in exchanges)))


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
    with _explained():
        _limit_blas_threads()
        from tabulate import tabulate

        from adapterscan.calibrate import table
        from adapterscan.calibration import Reference, write_reference
        from adapterscan.config import parse_size
        from adapterscan.sources import HubOptions
        from adapterscan.text import plural, printable

        refs, failures = _parse(_expanded(targets), revision)
        options = HubOptions(
            endpoint=endpoint,
            offline=offline,
            max_download=parse_size(DEFAULT_MAX_DOWNLOAD),
            progress=sys.stderr.isatty() and not quiet,
            cache_dir=cache_dir,
        )
        for text, error in failures:
            typer.echo(f"left out: {printable(text)}: {error.reason}", err=True)
        found = Reference(tuple(_members(refs, options, jobs or _cores())), tuple(note or ()))
        found = Reference().joined(found)  # each weight file once
        if not found.members:
            raise UsageError(
                "no adapter could be measured", hint="name folders or repositories of LoRA weights"
            )
        _save(output, iter([write_reference(found)]))
        _echo([f"{tabulate(table(found), headers='keys')}\n"])
        _echo([f"{plural(len(found.members), 'adapter')} written to {output}\n"])


def _members(refs: Iterable[Ref], options: HubOptions, workers: int) -> Iterator[Member]:
    """Yield the adapters of targets for a reference; say which ones are left out, and why."""
    from adapterscan.calibrate import members
    from adapterscan.calibration import Member
    from adapterscan.sources import open_artifact
    from adapterscan.text import printable

    for ref in refs:
        tell = _Progress(ref.text) if options.progress else None
        try:
            for item in members(
                open_artifact(ref, options), workers=workers, progress=tell or (lambda _: None)
            ):
                if isinstance(item, Member):
                    yield item
                else:
                    typer.echo(f"left out: {printable(item.what)}: {item.reason}", err=True)
        except AdapterscanError as error:
            typer.echo(f"left out: {printable(ref.text)}: {error.reason}", err=True)
        if tell:
            tell.clear()


base_app = typer.Typer(
    help="Profiles of base models, to compare adapters with.", no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip
app.add_typer(base_app, name="base")


@base_app.callback()
def base_root() -> None:
    """Profiles of base models, to compare adapters with."""


@base_app.command("build")
def build_base(
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="A folder, a .gguf file or org/name@commit."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the profile here (FILE.profile, for --base).  [default: the cache, where "
            "scan --base finds it]",
        ),
    ] = None,
    rank: Annotated[
        int, typer.Option(min=10, max=256, help="Leading directions kept of each weight.")
    ] = 32,
    endpoint: Annotated[str | None, typer.Option(help="Hub address, as for scan.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only the cache.")] = False,
    max_download: Annotated[
        str | None, typer.Option(help="Read at most this much from the hub.  [default: 200GB]")
    ] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Download cache, as for scan.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Measure a base once, so that comparing adapters with it reads none of its weights.

    A build that was stopped goes on where it was when it is started again.
    """
    with _explained():
        _limit_blas_threads()
        from adapterscan.config import parse_size
        from adapterscan.onbase.profile import SUFFIX, about
        from adapterscan.onbase.profile_build import build
        from adapterscan.sources import HubOptions
        from adapterscan.sources.base_weights import find_base
        from adapterscan.text import plural, printable, size_text

        if output is not None and output.suffix != SUFFIX:
            raise UsageError(f"a profile is called FILE{SUFFIX}", hint=f"-o {output.stem}{SUFFIX}")
        options = HubOptions(
            endpoint=endpoint, offline=offline, cache_dir=cache_dir,
            max_download=parse_size(max_download or "200GB"),
        )  # fmt: skip
        found = find_base(base, options)
        path = output or found.profile_in(_profiles(), rank)
        kept = found.profile(path.parent) if output is None else None
        if kept is not None and kept.about.count >= rank:
            _echo([f"{printable(found.name)} has a profile already, of {kept.about.count} "
                   f"directions: {path.parent}\n"])  # fmt: skip
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        tell = _Progress(found.name) if sys.stderr.isatty() and not quiet else None
        weights = found.open()
        what = about(weights, found.identity, found.documents, rank)
        left = build(weights, what, path, tell or (lambda _: None))
        if tell:
            tell.clear()
        before = len(what.tensors) - left
        again = f", {before:,} of them before" if before else ""
        size = size_text(path.stat().st_size)
        _echo([f"{plural(len(what.tensors), 'tensor')} of {printable(found.name)} measured{again}: "
               f"{path} ({size})\n"])  # fmt: skip


@app.command("rules")
def list_rules(
    rules: Annotated[
        list[Path] | None, typer.Option(help="A folder with more rules; repeatable.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.TABLE,
) -> None:
    """List the rules that judge what detectors measure."""
    with _explained():
        book = _rule_book(rules or ())
        rows = [
            (rule.id, rule.severity.label, rule.confidence.label, rule.title)
            for rule in sorted(book, key=lambda rule: (-rule.severity, rule.id))
        ]
        if format is Format.JSON:
            import json

            keys = ("id", "severity", "confidence", "title")
            typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1))
            return
        from tabulate import tabulate

        typer.echo(tabulate(rows, ["rule", "severity", "confidence", "title"], tablefmt="simple"))
        typer.echo(f"\n{len(rows)} rules. `adapterscan explain RULE` prints the page of one.")


@app.command()
def explain(
    rule: Annotated[str, typer.Argument(help="A rule id, as in a report.")],
    rules: Annotated[
        list[Path] | None, typer.Option(help="A folder with more rules; repeatable.")
    ] = None,
) -> None:
    """Print a rule's page: what it is, why it matters, what to do."""
    with _explained():
        from difflib import get_close_matches

        from adapterscan.rule_pages import rule_page

        book = {item.id: item for item in _rule_book(rules or ())}
        if rule not in book:
            near = get_close_matches(rule.lower(), book, 3)
            hint = f"did you mean {', '.join(near)}?" if near else "see `adapterscan rules`"
            raise UsageError(f"no rule is called {rule!r}", hint=hint)
        typer.echo(rule_page(book[rule]))


def main() -> None:
    """Run the command line; the entry point of the `adapterscan` script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was found before is reported
    gc.disable()  # modules are no garbage; `_collect_garbage` ends this before anything is read
    try:
        app(prog_name="adapterscan")
    except KeyboardInterrupt:  # before a command began
        _stop("interrupted: no report was written", "run it again", 130)
    except Exception as error:  # ours: exit code 1 means findings, so it must not be 1
        _stop(
            f"{type(error).__name__}: {error}",
            "this is a defect of adapterscan: please report it with the command",
            EXIT_ERROR,
        )
    finally:
        gc.freeze()  # everything goes with the process: looking for cycles first takes 0.06 s


def _collect_garbage() -> None:
    """Turn collection on again, sparing what was imported: it stays until the end."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


class _explained:
    """Turn errors into one line on standard error and exit code 2; an interruption into 130.

    Left to typer, an interruption ends without a word, and a defect of ours or a closed pipe with
    exit code 1, which means findings.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AdapterscanError):
            _stop(error.reason, error.hint, EXIT_ERROR)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            reason = f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
            _stop(
                reason, "nothing was written there; make room or choose another place", EXIT_ERROR
            )
        if isinstance(error, KeyboardInterrupt):
            _stop("interrupted: no report was written", "run it again", 130)
        if isinstance(error, BrokenPipeError):
            # The reader went away (`| head`); keep Python from complaining once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(EXIT_ERROR) from None
        if isinstance(error, Exception) and not isinstance(error, typer.Exit | typer.Abort):
            reason = f"{type(error).__name__}: {error}"
            _stop(reason, "this is a defect of adapterscan: please report it", EXIT_ERROR)


def _stop(reason: str, hint: str, code: int) -> NoReturn:
    from adapterscan.text import printable

    typer.echo(f"adapterscan: {printable(reason, 600)}", err=True)
    if hint:
        typer.echo(f"  → {printable(hint, 600)}", err=True)
    raise SystemExit(code)


def _expanded(targets: Iterable[str]) -> Iterator[str]:
    """Replace `-` by the lines of standard input; blank lines and # comments are skipped."""
    for target in targets:
        if target != "-":
            yield target
            continue
        for line in sys.stdin.buffer:  # a line that is not UTF-8 is one bad target, not the end
            text = os.fsdecode(line).strip()
            if text and not text.startswith("#"):
                yield text


def _parse(
    targets: Iterable[str], revision: str | None
) -> tuple[list[Ref], list[tuple[str, AdapterscanError]]]:
    from adapterscan.sources import parse_ref

    refs: list[Ref] = []
    failures: list[tuple[str, AdapterscanError]] = []
    for text in targets:
        try:
            refs.append(parse_ref(text, revision=revision))
        except AdapterscanError as error:
            failures.append((text, error))
    if not refs and not failures:
        raise UsageError("no targets", hint="name a hub repository, a folder or a file")
    return refs, failures


def _local_trees(refs: Iterable[Ref]) -> list[Path]:
    from adapterscan.model import SourceKind

    trees = []
    for ref in refs:
        if ref.kind is not SourceKind.HUB:
            path = Path(ref.location).expanduser().resolve()
            trees.append(path.parent if ref.kind is SourceKind.FILE else path)
    return trees


def _outermost(folders: Iterable[str]) -> list[str]:
    """Drop folders that lie inside another one of the list: it is scanned with it."""
    kept: list[Path] = []
    for folder in sorted(map(Path, folders), key=lambda path: len(path.parts)):
        if not any(folder.is_relative_to(other) for other in kept):
            kept.append(folder)
    return [str(folder) for folder in kept]


def _threshold(option: str | None, settings: Settings) -> Severity | None:
    from adapterscan.config import parse_severity

    if option is not None:
        return parse_severity(option)
    if settings.never_fail:
        return None
    return settings.fail_on if settings.fail_on is not None else parse_severity(DEFAULT_FAIL_ON)


def _rule_book(folders: Iterable[Path]) -> RuleBook:
    from adapterscan.rules import load_rules

    return load_rules(tuple(folders))


def _peers(files: Sequence[Path]) -> Reference | None:
    """Return the adapters to compare with: ours and those of files; None: ours."""
    if not files:
        return None
    from adapterscan.calibration import Reference, built_in, read_reference

    return reduce(Reference.joined, map(read_reference, files), built_in())


def _limit_blas_threads() -> None:
    """Before NumPy loads: our own threads share the cores, BLAS must not start more."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


def _busy() -> int:
    """Return how many cores other programs keep busy, on average over a minute."""
    return round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0


def _scan_all(
    refs: Iterable[Ref],
    options: HubOptions,
    book: RuleBook,
    workers: int,
    config_file: str | None,
    progress: bool,
    probing: ProbeRequest | None = None,
    peers: Reference | None = None,
    weights: BaseWeights | str | None = None,
) -> tuple[list[Report], list[tuple[str, AdapterscanError]]]:
    """Return the reports, and for targets that could not be opened why."""
    from adapterscan.scan import ScanOptions
    from adapterscan.scan import scan as run
    from adapterscan.sources import open_artifact

    _collect_garbage()
    base, why = (None, weights) if isinstance(weights, str) else (weights, "")
    reports: list[Report] = []
    unopened: list[tuple[str, AdapterscanError]] = []
    for ref in refs:
        try:
            artifact: Artifact = open_artifact(ref, options)
        except AdapterscanError as error:
            unopened.append((ref.text, error))
            continue
        tell = _Progress(artifact.name) if progress else None
        report = run(
            artifact,
            book,
            options=ScanOptions(workers, peers, base, why),
            probing=probing,
            config_file=config_file,
            progress=tell or (lambda _: None),
        )
        if tell:
            tell.clear()
        reports.append(report)
    return reports, unopened


def _probing(
    base: str | None,
    served_as: str | None,
    profile: Probe | None,
    budget: str,
    device: str,
    threads: int,
    options: HubOptions,
    *,
    redact: bool = False,
    triggers: Path | None = None,
) -> ProbeRequest | None:
    """Return what to probe with, or None where nobody asked for it.

    What can be known before any work starts is said here: the extra, the base, the memory.
    """
    if profile is None:
        if served_as is not None or triggers is not None:
            raise UsageError(
                "--served-as and --triggers are for probes",
                hint="add --probe quick, or leave them out",
            )
        return None
    if base is None:
        raise UsageError(
            "--probe compares the adapter with its base model",
            hint="give it with --base: a folder, a .gguf file or org/name@commit",
        )
    if (served := base.startswith(("http://", "https://"))) != (served_as is not None):
        raise UsageError(
            "base and adapter must come from a server both, or neither",
            hint="--base http://127.0.0.1:8000/v1#BASE --served-as ADAPTER, by the server's names",
        )
    from adapterscan.config import parse_seconds
    from adapterscan.probe import ProbeRequest
    from adapterscan.probes.own import read_wordings
    from adapterscan.probing import PROFILES
    from adapterscan.runners.host import RunnerOptions, require_libraries, require_memory
    from adapterscan.sources.base import open_base

    seconds = parse_seconds(budget)
    own = read_wordings(triggers) if triggers else ()
    if served:
        from adapterscan.runners.endpoint import parse_served
        from adapterscan.runners.http_json import KEY_VARIABLE

        models = parse_served(base, served_as or "", os.environ.get(KEY_VARIABLE, ""))
        return ProbeRequest(
            models, models.base.text, PROFILES[profile.value], RunnerOptions(), seconds, own, redact
        )
    threads = max(1, threads - _busy())  # a thread that waits for its core holds up the others
    require_libraries()
    found = open_base(base, options)
    memory = require_memory(found.bytes) if device == "cpu" else 0
    runner = RunnerOptions(device, threads, memory=memory, call_seconds=max(seconds, 60.0))
    return ProbeRequest(
        found.path, found.name, PROFILES[profile.value], runner, seconds, own, redact
    )


def _base_weights(
    base: str | None, probing: ProbeRequest | None, options: HubOptions, *, whole: bool
) -> BaseWeights | str | None:
    """Return the base's weights to compare with: those that are probed, where they lie here.

    What can be probed and not compared is no error: then why.
    """
    if base is None or (probing is not None and probing.served):
        return None
    from adapterscan.sources.base_weights import open_base_weights, weights_of

    if probing is not None and isinstance(probing.base, Path):
        try:
            return weights_of(probing.base, probing.base_name)
        except FileProblem as problem:
            return str(problem)
    return open_base_weights(base, options, None if whole else _profiles())


def _profiles() -> Path:
    """Return the folder where profiles of bases are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "adapterscan" / "bases"


class _Progress:
    """One line on standard error that says what is being done."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, path: str) -> None:
        from adapterscan.text import printable

        width = shutil.get_terminal_size().columns - 1
        line = f"{printable(self.name, 40)}: {printable(path, 80)}"[:width]
        typer.echo(f"\r\x1b[2K{line}", err=True, nl=False)

    def clear(self) -> None:
        """Remove the line."""
        typer.echo("\r\x1b[2K", err=True, nl=False)


def _write(
    reports: list[Report],
    failures: list[tuple[str, AdapterscanError]],
    format: Format,
    output: Path | None,
    threshold: Severity | None,
    color: bool,
    verbose: bool,
) -> NoReturn:
    from adapterscan.scan import exit_code

    code = exit_code(reports, threshold, len(failures))
    if format is Format.JSON:
        from adapterscan.reporters.json_report import render_json

        pieces = render_json(reports, exit_code=code, fail_on=threshold, errors=failures)
    else:
        from adapterscan.reporters.terminal import Page, render_terminal

        on_terminal = output is None and sys.stdout.isatty()
        colours = color and on_terminal and not os.environ.get("NO_COLOR")
        width = min(120, shutil.get_terminal_size((100, 24)).columns)
        page = Page(width=width, colour=colours, verbose=verbose)
        text = render_terminal(reports, page, exit_code=code, fail_on=threshold, errors=failures)
        pieces = iter([text])
    if output is None:
        _echo(pieces)
    else:
        _save(output, pieces)
    raise SystemExit(code)


#: Our own symbols where an encoding may not have them; what an adapter named stays escaped.
_PLAIN = {"‖ΔW‖": "|dW| ", "ΔW": "dW", "→": "->", "…": "..", "×": "x"}


def _echo(pieces: Iterable[str]) -> None:
    """Write to standard output, in whatever encoding it has."""
    encoding = sys.stdout.encoding or "utf-8"
    unicode = encoding.lower().startswith("utf")
    for piece in pieces:
        if not piece.isascii():
            for symbol, plain in () if unicode else _PLAIN.items():
                piece = piece.replace(symbol, plain)
            piece = piece.encode(encoding, "backslashreplace").decode(encoding)
        sys.stdout.write(piece)
    sys.stdout.flush()


def _save(path: Path, pieces: Iterable[str]) -> None:
    """Write a report whole or not at all; into a device or pipe, never in its place."""
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as out:
            out.writelines(pieces)
        return
    path = path.resolve()  # a link keeps pointing where it did
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as out:
            out.writelines(pieces)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
