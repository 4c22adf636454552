"""The application itself: what every command runs in, and how it ends."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from adapterscan import __version__
from adapterscan.errors import AdapterscanError, FileProblem, Stopped

EXIT_ERROR, EXIT_INCOMPLETE = 2, 3

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


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"adapterscan {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Scan LoRA adapters for backdoors, smuggled code and odd weights before you load them."""


def main() -> None:
    """Run the command line; the entry point of the `adapterscan` script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was found before is reported
    gc.disable()  # modules are no garbage; `collect_garbage` ends this before anything is read
    try:
        app(prog_name="adapterscan")
    except KeyboardInterrupt:  # before a command began
        stop("interrupted: no report was written", "run it again", 130)
    except Exception as error:  # ours: exit code 1 means findings, so it must not be 1
        stop(
            f"{type(error).__name__}: {error}",
            "this is a defect of adapterscan: please report it with the command",
            EXIT_ERROR,
        )
    finally:
        gc.freeze()  # everything goes with the process: looking for cycles first takes 0.06 s


def collect_garbage() -> None:
    """Turn collection on again, sparing what was imported: it stays until the end."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


class explained:
    """Turn errors into one line on standard error and exit code 2; an interruption into 130.

    Left to typer, an interruption ends without a word, and a defect of ours or a closed pipe with
    exit code 1, which means findings.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AdapterscanError):
            named = isinstance(error, FileProblem)  # its reason alone does not say of which file
            code = EXIT_INCOMPLETE if isinstance(error, Stopped) else EXIT_ERROR
            stop(str(error) if named else error.reason, error.hint, code)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            place = f"{error.filename}: " if error.filename else ""
            stop(f"{place}{error.strerror or error}", "check the spelling", EXIT_ERROR)
        if isinstance(error, KeyboardInterrupt):
            stop("interrupted: no report was written", "run it again", 130)
        if isinstance(error, BrokenPipeError):
            # The reader went away (`| head`); keep Python from complaining once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(EXIT_ERROR) from None
        if isinstance(error, Exception) and not isinstance(error, typer.Exit | typer.Abort):
            reason = f"{type(error).__name__}: {error}"
            stop(reason, "this is a defect of adapterscan: please report it", EXIT_ERROR)


def stop(reason: str, hint: str, code: int) -> NoReturn:
    from adapterscan.text import printable

    typer.echo(f"adapterscan: {printable(reason, 600)}", err=True)
    if hint:
        typer.echo(f"  → {printable(hint, 600)}", err=True)
    raise SystemExit(code)
