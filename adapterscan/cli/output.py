"""Write: reports and lines, in whatever encoding the terminal has, whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from adapterscan.cli.formats import Style, Wanted, rendered
from adapterscan.errors import AdapterscanError, UsageError

if TYPE_CHECKING:
    from adapterscan.model import Outcome, Report, Severity
    from adapterscan.rules.book import RuleBook
    from adapterscan.rules.file import Rule

#: Our own symbols where an encoding may not have them; what an adapter named stays escaped.
_PLAIN = {"‖ΔW‖": "|dW| ", "ΔW": "dW", "→": "->", "…": "..", "×": "x"}


class Plain(StrEnum):
    """Output formats of what is no report."""

    TABLE = "table"
    JSON = "json"


class Drawn(StrEnum):
    """Output formats of what can be drawn as well."""

    TABLE = "table"
    JSON = "json"
    HTML = "html"


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
    reports: Iterable[Report],
    failures: Iterable[tuple[str, AdapterscanError]],
    threshold: Severity | None,
    places: Sequence[Wanted],
    book: RuleBook,
    style: Style | None = None,
    suppressions: Sequence[Path] = (),
) -> NoReturn:
    """Write what a run gave wherever it is wanted, and end with its exit code.

    `suppressions`: files with findings that were accepted.
    """
    from adapterscan.model import Outcome
    from adapterscan.scan import exit_code

    (found, notes), errors = _accepted(reports, suppressions), tuple(failures)
    code = exit_code(found, threshold, len(errors))
    outcome = Outcome(found, errors, code, threshold, notes)
    write_outcome(outcome, places, tuple(book), style or Style())
    raise SystemExit(outcome.exit_code)


def _accepted(
    reports: Iterable[Report], files: Sequence[Path]
) -> tuple[tuple[Report, ...], tuple[str, ...]]:
    """Return reports with what was accepted marked, and what to say of the files."""
    if not files:
        return tuple(reports), ()
    from datetime import UTC, datetime

    from adapterscan.suppression import read_entries, suppressed

    entries = [entry for path in files for entry in read_entries(path)]
    return suppressed(reports, entries, datetime.now(UTC).date())


def write_outcome(
    outcome: Outcome, places: Sequence[Wanted], rules: Sequence[Rule], style: Style
) -> None:
    """Write an outcome wherever it is wanted, files first: a pipe's reader may go away."""
    for place in sorted(places, key=lambda one: one.path is None):
        pieces = rendered(place, outcome, rules, style)
        if place.path is None:
            echo(pieces)
        else:
            write_file(place.path, pieces)


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
