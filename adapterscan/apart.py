"""Run work that reads strangers' files in a process of its own, whose time and memory are limited.

The process is a copy of this one (`fork`), so that nothing is imported twice and nothing but events
comes back: lines of JSON, as they happen. Whatever it does, hang, grow or crash, it is ended with
all that it started, and what it told before is here.
Limits: where there is no fork (Windows), `POSSIBLE` is false and there is no such process. It has
the rights of its caller: this holds time and memory, and is no sandbox.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from adapterscan.errors import AdapterscanError, FileProblem, Stopped
from adapterscan.events import LONGEST_LINE, Asking, Emit, Event, Reading, decode, encode
from adapterscan.model import Evidence
from adapterscan.text import printable, size_text

POSSIBLE = hasattr(os, "fork")
#: Where the kernel holds a process to RLIMIT_DATA. Elsewhere it watches itself.
_KERNEL_LIMITS_MEMORY = sys.platform.startswith("linux")
_SHARE = 0.5  # of the time that is left, for one file: one that hangs leaves the others theirs
_GRACE = 30.0  # seconds of a processor beyond its time, after which an orphan ends itself
_START_SECONDS = 1200.0  # to load a model, beside the time to ask it
_PIECE = 1 << 16
_LOOK_SECONDS = 0.05  # between two looks of a process at its own memory
_OVER_MEMORY = 97  # exit code of a process that saw that it needs too much
_TOLD_AT_ONCE = 2000  # events; a system call for each
_TIME, _MEMORY = "raise --timeout", "raise --memory"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may take: seconds, and bytes of private memory; infinity and 0: any."""

    seconds: float = math.inf
    memory: int = 0

    @property
    def any(self) -> bool:
        """Return whether there is one."""
        return self.seconds < math.inf or self.memory > 0


def apart(work: Callable[[Emit], None], limits: Limits, until: float = math.inf) -> Iterator[Event]:
    """Run `work` in a process of its own and yield what it tells.

    All has to end by `until`, of `time.monotonic()`, and one file within half of what is left.
    Raises Stopped where the process comes to no end, and with its words what `work` raises of
    ours. An interruption is passed on while a model is asked, and else ends the process.
    """
    with _Process(work, limits, min(until, time.monotonic() + limits.seconds)) as process:
        for line in process.lines():
            yield process.event(line)


class _Process:
    """The other process, from its start to its end."""

    def __init__(self, work: Callable[[Emit], None], limits: Limits, until: float) -> None:
        self._limits = limits
        self._until = self._deadline = until
        self._file = False  # whether one is being read
        self._asking = self._over = False
        self._scratch = tempfile.mkdtemp(prefix="adapterscan-")
        self._reader, writer = os.pipe()
        sys.stdout.flush()
        try:
            self._pid = os.fork()
        except OSError as error:
            os.close(self._reader)
            os.close(writer)
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise Stopped(
                f"no process could be started ({error.strerror})",
                hint="free some memory or processes, or scan without limits: "
                "--timeout off --memory off",
            ) from error
        if self._pid == 0:
            os.close(self._reader)
            _work(work, writer, limits, self._scratch)
        os.close(writer)
        with contextlib.suppress(OSError):  # it does the same, and may be gone
            os.setpgid(self._pid, self._pid)

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, with all that it started, and what it left behind."""
        self._end()
        os.close(self._reader)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def lines(self) -> Iterator[bytes]:
        """Yield whole lines as they come. Raises Stopped unless the last one says that it was."""
        held = bytearray()
        while piece := self._piece():
            *ends, rest = piece.split(b"\n")
            for end in ends:
                if not (line := bytes(held) + end):
                    return
                held.clear()
                yield line
            held += rest
            if len(held) > LONGEST_LINE:
                raise _nonsense()
        raise self._died()

    def event(self, line: bytes) -> Event:
        """Return the event of a line. Raises the error that it tells of."""
        try:
            event = decode(line)
        except ValueError:
            raise self._told(line) from None
        match event:
            case Reading(path):
                now, self._file = time.monotonic(), path != ""
                self._deadline = now + (self._until - now) * (_SHARE if path else 1.0)
            case Asking(seconds):
                self._asking = True
                self._deadline = time.monotonic() + 2 * seconds + _START_SECONDS
        return event

    def _piece(self) -> bytes:
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self._late()
            try:
                wait = None if left == math.inf else left
                if select.select([self._reader], [], [], wait)[0]:
                    return os.read(self._reader, _PIECE)
            except KeyboardInterrupt:
                if not self._asking:
                    raise
                os.kill(self._pid, signal.SIGINT)  # what was found is still told

    def _end(self) -> int:
        """Kill the process and its children; return how it ended, negative for a signal."""
        if self._over:
            return 0
        self._over = True
        with contextlib.suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)  # before it had a group of its own
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _late(self) -> Stopped:
        if self._asking:
            return Stopped(
                "took far more than the time for probes and was stopped",
                hint="scan it without --probe, and please report it: this should not be possible",
            )
        part = "half of what was left of " if self._file else ""
        return Stopped(
            f"took more than {part}{self._limits.seconds:,.4g} s and was stopped",
            hint=f"honest adapters take seconds: treat it as hostile, or {_TIME}",
        )

    def _died(self) -> Stopped:
        self._over = True
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        with contextlib.suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)  # what it started
        if code == _OVER_MEMORY:
            return over_memory(self._limits.memory)
        if code >= 0:
            how = f"with exit code {code}"
        else:
            how = f"by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"{code}"
        lack = ", often for lack of memory" if code == -signal.SIGKILL else ""
        return Stopped(
            f"ended the process that read it ({how}{lack})",
            hint="treat it as hostile, and please report it: this should not be possible",
        )

    def _told(self, line: bytes) -> AdapterscanError:
        try:
            match json.loads(line):
                case ["raised", str(reason), str(hint)]:
                    return AdapterscanError(reason, hint=hint)
                case ["memory"]:
                    return over_memory(self._limits.memory)
        except (ValueError, RecursionError):
            pass
        return _nonsense()


def over_memory(limit: int) -> Stopped:
    """Return the error for work that needs more than `limit` bytes of memory."""
    most = f"more than {size_text(limit)} of memory" if limit else "more memory than there is"
    return Stopped(
        f"needed {most} and was stopped",
        hint=f"honest adapters need less than 200 MB: treat it as hostile, or {_MEMORY}",
    )


def _nonsense() -> Stopped:
    return Stopped(
        "made the process that read it tell nonsense",
        hint="treat it as hostile, and please report it: this should not be possible",
    )


def lift_limits() -> None:
    """Lift the limit of memory that was put on the process that started this one."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _work(work: Callable[[Emit], None], writer: int, limits: Limits, scratch: str) -> NoReturn:
    """Be the other process: work, tell, and leave without a look back."""
    code = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        tempfile.tempdir = scratch
        _limit(limits)
        gc.freeze()
        with open(writer, "w", encoding="ascii", buffering=_PIECE) as out:
            _tell(work, out.write, out.flush)
        code = 0
    except BaseException as error:  # the one who waits is gone, or there is no memory to tell it
        code = _OVER_MEMORY if isinstance(error, MemoryError) else 1
    finally:
        os._exit(code)


def _limit(limits: Limits) -> None:
    """Hold this process to its limits, also when nobody waits for it any more."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _end_in(limits.seconds)
    if not limits.memory:
        return
    if _KERNEL_LIMITS_MEMORY:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = limits.memory if hard == resource.RLIM_INFINITY else min(limits.memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    else:
        threading.Thread(target=watch_memory, args=(limits.memory,), daemon=True).start()


def _end_in(seconds: float) -> None:
    """Have the kernel end this process, a while after the one who waits should have done it."""
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE if seconds < math.inf else 0)


def watch_memory(limit: int) -> NoReturn:
    """End this process as soon as it has held more than `limit` bytes: where no kernel does."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
    while resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit <= limit:
        time.sleep(_LOOK_SECONDS)
    os._exit(_OVER_MEMORY)


def _tell(
    work: Callable[[Emit], None], write: Callable[[str], object], flush: Callable[[], None]
) -> None:
    """Do the work and write what it tells: at once, but for floods of facts."""
    told = 0

    def emit(event: Event) -> None:
        nonlocal told
        if isinstance(event, Asking):
            _end_in(2 * event.seconds + _START_SECONDS)
        write(f"{encode(event)}\n")
        told += 1
        if told < _TOLD_AT_ONCE or not isinstance(event, Evidence):
            flush()

    try:
        work(emit)
        write("\n")
    except AdapterscanError as error:
        named = isinstance(error, FileProblem)  # its reason alone does not say of which file
        write(f"{json.dumps(['raised', str(error) if named else error.reason, error.hint])}\n")
    except MemoryError:
        write('["memory"]\n')
    except Exception as error:
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            write('["memory"]\n')  # a thread's stack is memory, too
        else:
            reason = printable(f"{type(error).__name__}: {error}", 600)
            hint = "this is a defect of adapterscan: please report it with the command"
            write(f"{json.dumps(['raised', reason, hint])}\n")
    flush()
