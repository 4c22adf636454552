"""Write: reports and lines, in whatever encoding the terminal has, whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from adapterscan.errors import AdapterscanError, UsageError

if TYPE_CHECKING:
    from adapterscan.model import Report, Severity

#: Our own symbols where an encoding may not have them; what an adapter named stays escaped.
_PLAIN = {"‖ΔW‖": "|dW| ", "ΔW": "dW", "→": "->", "…": "..", "×": "x"}


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"


class Progress:
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


def write(
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
        echo(pieces)
    else:
        write_file(output, pieces)
    raise SystemExit(code)


def echo(pieces: Iterable[str]) -> None:
    """Write to standard output, in whatever encoding it has."""
    with writing("standard output"):
        encoding = sys.stdout.encoding or "utf-8"
        unicode = encoding.lower().startswith("utf")
        for piece in pieces:
            if not piece.isascii():
                for symbol, plain in () if unicode else _PLAIN.items():
                    piece = piece.replace(symbol, plain)
                piece = piece.encode(encoding, "backslashreplace").decode(encoding)
            sys.stdout.write(piece)
        sys.stdout.flush()


@contextmanager
def writing(place: Path | str) -> Iterator[None]:
    """Raise UsageError, with the place that the caller named, where nothing can be written there.

    A pipe whose reader went away is no such place.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(
            f"{place} cannot be written ({error.strerror or error})",
            hint="nothing was written there; make room or choose another place",
        ) from error


def write_file(path: Path, pieces: Iterable[str]) -> None:
    """Write a report whole or not at all; into a device or pipe, never in its place."""
    with writing(path):
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
