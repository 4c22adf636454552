"""`--timeout` and `--memory`: what reading strangers' files may take, in a process of its own."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from adapterscan.cli.app import EXIT_ERROR
from adapterscan.errors import Stopped

if TYPE_CHECKING:
    from adapterscan.apart import Limits
    from adapterscan.config import Settings
    from adapterscan.events import Emit

OFF = "off"
Timeout = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Stop reading a target after this long: 90s, 10m, off; one file may take half of it. "
        " [default: 10m and 2 s for each MB; with --base 2h more]",
        show_default=False,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Give up on a file that needs more memory: 2GB, off.  [default: 1 GiB; with --base, "
        "or for several adapters at once, 4 GiB]",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller allows: seconds and bytes; None: what suits the task; inf and 0: any."""

    seconds: float | None = None
    memory: int | None = None


def asked(timeout: str | None, memory: str | None, settings: Settings | None = None) -> Asked:
    """Return what options say, else settings. Raises BadConfig."""
    from adapterscan.config import parse_seconds, parse_size

    timeout = timeout or (settings.timeout if settings else None)
    memory = memory or (settings.memory if settings else None)
    return Asked(
        None if timeout is None else math.inf if timeout == OFF else parse_seconds(timeout),
        None if memory is None else 0 if memory == OFF else parse_size(memory),
    )


def in_process(body: Callable[[Emit], int], limits: Limits) -> int:
    """Run a command's body, which writes its own output, within `limits`; return its exit code.

    The body tells which file it reads. Raises Stopped, which names that file, and what the body
    raises of ours.
    """
    from adapterscan.apart import POSSIBLE, apart
    from adapterscan.events import Doing, Reading

    if not POSSIBLE or not limits.any:
        return body(lambda _: None)

    def work(emit: Emit) -> None:
        try:
            code = body(emit)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader went away (`| head`)
            code = EXIT_ERROR
        emit(Doing(str(code)))

    file, code = "", ""
    try:
        for event in apart(work, limits):
            match event:
                case Reading(path):
                    file = path
                case Doing(text):
                    code = text
    except Stopped as stopped:
        raise Stopped(f"{file or 'reading'} {stopped.reason}", hint=stopped.hint) from None
    return int(code)
