"""Run one scanner's command line on many files: started once, then a process for each file.

Started with the scanner's own interpreter, so only the standard library is here. Arguments: the
entry point (`module:function`), seconds for one file, then the command with FILE where the path
goes. Paths come on standard input, one JSON text a line; a result goes out as JSON for each. The
first path is scanned before that, unanswered, so that what is imported late is imported once.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

UNCAUGHT = 70
_MOST_OUTPUT = 20_000_000
_MOST_MEMORY = 4 << 30


def main() -> None:
    """Answer each path with what the command did: exit code, seconds, what it printed."""
    entry, limit, *command = sys.argv[1:]
    module, _, function = entry.partition(":")
    run = getattr(importlib.import_module(module), function)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    warm = [json.loads(sys.stdin.readline()) if part == "FILE" else part for part in command]
    _warm(run, warm)
    for line in sys.stdin:
        path = json.loads(line)
        argv = [path if part == "FILE" else part for part in command]
        with tempfile.TemporaryFile() as said:
            began = time.monotonic()
            ended = _child(run, argv, said.fileno(), float(limit))
            took = time.monotonic() - began
            said.seek(0)
            text = said.read(_MOST_OUTPUT).decode("utf-8", "replace")
        print(json.dumps({"ended": ended, "seconds": round(took, 3), "output": text}), file=out)
        out.flush()


def _warm(run: Callable[[], object], argv: list[str]) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.argv = argv
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        try:
            _code(run)
        except Exception as error:
            print(error, file=sys.stderr)  # it will fail again, and be told, in its own process


def _child(run: Callable[[], object], argv: list[str], said: int, limit: float) -> str:
    """Return "exit N", "signal N" or "timeout"."""
    child = os.fork()
    if not child:
        _command(run, argv, said)
    until = time.monotonic() + limit
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return f"exit {code}" if code >= 0 else f"signal {-code}"
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _command(run: Callable[[], object], argv: list[str], said: int) -> None:
    """Be the command: never return. An exception that it lets out gives `UNCAUGHT`."""
    code = UNCAUGHT
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        for stream in (1, 2):
            os.dup2(said, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = argv
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            code = _code(run)
            os.chdir(Path(scratch).parent)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def _code(run: Callable[[], object]) -> int:
    try:
        code = run()
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
