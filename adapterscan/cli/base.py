"""`adapterscan base build`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from adapterscan.cli.app import app, explained
from adapterscan.cli.inputs import (
    hub_options,
    limit_blas_threads,
    profiles,
)
from adapterscan.cli.output import Progress, echo, writing
from adapterscan.errors import UsageError

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
        if kept is not None and kept.about.count >= rank:
            echo([f"{printable(found.name)} has a profile already, of {kept.about.count} "
                   f"directions: {path.parent}\n"])  # fmt: skip
            return
        tell = Progress(found.name) if sys.stderr.isatty() and not quiet else None
        weights = found.open()
        require_readable(weights)
        what = about(weights, found.identity, found.documents, rank)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            left = build(weights, what, path, tell or (lambda _: None))
        if tell:
            tell.clear()
        before = len(what.tensors) - left
        again = f", {before:,} of them before" if before else ""
        size = size_text(path.stat().st_size)
        echo([f"{plural(len(what.tensors), 'tensor')} of {printable(found.name)} measured{again}: "
               f"{path} ({size})\n"])  # fmt: skip
