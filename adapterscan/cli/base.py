"""`adapterscan base build`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterscan.cli.app import app, explained
from adapterscan.cli.inputs import (
    cores,
    hub_options,
    limit_blas_threads,
    profiles,
)
from adapterscan.cli.output import Progress, echo, writing
from adapterscan.errors import UsageError

if TYPE_CHECKING:
    from adapterscan.onbase.directions import Asked
    from adapterscan.onbase.matrix import F32
    from adapterscan.sources.hub_options import HubOptions

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
    refusal: Annotated[
        bool,
        typer.Option(
            "--refusal",
            help="Run the base too, and keep which direction its refusals hang on: abliterated "
            "adapters show beside that. Needs the probe extra and the whole base.",
        ),
    ] = False,
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
    with explained():
        limit_blas_threads()
        from adapterscan.onbase.profile import SUFFIX, about
        from adapterscan.onbase.profile_build import build, require_readable
        from adapterscan.sources.base_weights import find_base
        from adapterscan.text import plural, printable, size_text

        if output is not None and output.suffix != SUFFIX:
            raise UsageError(f"a profile is called FILE{SUFFIX}", hint=f"-o {output.stem}{SUFFIX}")
        options = hub_options(endpoint, offline, cache_dir, max_download or "200GB", False)
        found = find_base(base, options)
        path = output or found.profile_in(profiles(), rank)
        kept = found.profile(path.parent) if output is None else None
        if kept is not None and kept.about.count >= rank and not (refusal and not kept.about.asked):
            echo([f"{printable(found.name)} has a profile already, of {kept.about.count} "
                   f"directions: {path.parent}\n"])  # fmt: skip
            return
        tell = Progress(found.name) if sys.stderr.isatty() and not quiet else None
        weights = found.open()
        require_readable(weights)
        asked, vectors = _asked(base, options, tell) if refusal else (None, None)
        what = about(weights, found.identity, found.documents, rank, asked)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            left = build(weights, what, path, tell or (lambda _: None), vectors)
        if tell:
            tell.clear()
        before = len(what.tensors) - left
        again = f", {before:,} of them before" if before else ""
        size = size_text(path.stat().st_size)
        echo([f"{plural(len(what.tensors), 'tensor')} of {printable(found.name)} measured{again}: "
               f"{path} ({size})\n"])  # fmt: skip


def _asked(base: str, options: HubOptions, tell: Callable[[str], None] | None) -> tuple[Asked, F32]:
    """Run the base and return what it declines by. Raises RunnerProblem and NotApplicable."""
    from adapterscan.declining import ask
    from adapterscan.runners.host import RunnerOptions, require_libraries, require_memory
    from adapterscan.sources.base import open_base

    require_libraries()
    found = open_base(base, options)
    runner = RunnerOptions(threads=cores(), memory=require_memory(found.bytes))
    return ask(found.path, runner, tell or (lambda _: None))
