"""Scan in a process of its own: whatever a file does to it, the report is written.

A file that hangs, grows or crashes the process is named as not analysed. What was found before
stays, and the others are read by another process, which leaves that file out.
Limits: what goes wrong when all files were read ends the work on that target: what they would have
shown together is lost, what was seen of each is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from adapterscan.apart import POSSIBLE, Limits, apart
from adapterscan.desk import Desk
from adapterscan.detectors import BUILT_IN, Detector
from adapterscan.errors import Stopped
from adapterscan.events import Closed, Opened, Reading
from adapterscan.model import Artifact, File, FileRecord, Report, Skipped
from adapterscan.rules.book import RuleBook
from adapterscan.scan import ScanOptions, observe, opening, scan, tell
from adapterscan.text import plural

if TYPE_CHECKING:
    from adapterscan.probe import ProbeRequest

ATTEMPTS = 4  # processes for one target: each but the first leaves one more file out
DEFAULT_SECONDS = 600.0
SECONDS_PER_BYTE = 2e-6
LEAST_SECONDS = 0.5  # to try once more with
BASE_SECONDS = 7200.0  # more, where a base is read, which may be far away
DEFAULT_MEMORY = 1 << 30
BASE_MEMORY = 4 << 30  # with a base, or for several adapters at once
THREAD_MEMORY = 16 << 20  # more for each thread: its stack counts


def limits_for(
    artifacts: Iterable[Artifact],
    options: ScanOptions,
    *,
    seconds: float | None,
    memory: int | None,
    several: bool = False,
) -> Limits:
    """Return the limits for reading `artifacts`; None: what suits their size and the task.

    `several`: they are held beside each other.
    """
    if seconds is None:
        there = (file for item in artifacts for file in item.files)
        seconds = DEFAULT_SECONDS + sum(map(_stored, there)) * SECONDS_PER_BYTE
        seconds += BASE_SECONDS if options.base is not None else 0.0
    if memory is None:
        memory = BASE_MEMORY if several or options.base is not None else DEFAULT_MEMORY
        memory += options.workers * THREAD_MEMORY
    return Limits(seconds, memory)


def _stored(file: File) -> int:
    """Return the bytes that a disk holds of a file: one with holes can claim any size."""
    try:
        found = file.local.stat() if file.local else None
    except OSError:
        return 0
    return min(file.size, getattr(found, "st_blocks", file.size) * 512) if found else 0


def scan_apart(
    artifact: Artifact,
    rules: RuleBook,
    limits: Limits,
    *,
    detectors: Sequence[Detector] = BUILT_IN,
    options: ScanOptions,
    probing: ProbeRequest | None = None,
    config_file: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Return what `scan` would, within `limits`; without any, and where there is no fork, it is."""
    given = partial(observe, detectors=detectors, options=options, probing=probing)
    if not POSSIBLE or not limits.any:
        report = scan(
            artifact, rules, detectors=detectors, options=options, probing=probing,
            config_file=config_file, progress=progress,
        )  # fmt: skip
        return report if POSSIBLE or not limits.any else _unlimited(report)
    desk, target = Desk(rules, config_file), _Target(artifact)
    desk.hear(opening(artifact, detectors, options, probing))  # the process may not come so far
    until = time.monotonic() + limits.seconds
    for attempt in range(ATTEMPTS):
        try:
            for event in apart(lambda emit: given(target.left, emit), limits, until):
                tell(event, progress)
                match event:
                    case Closed():
                        return desk.close()
                    case Reading(path):
                        target.reach(path)
                    case Opened() if attempt:
                        pass
                    case FileRecord():  # the desk keeps the first of each
                        desk.hear(event)
                    case _ if target.new:
                        desk.hear(event)
        except Stopped as stopped:
            for item in target.leave_out(stopped):
                desk.hear(item)
            if target.over or time.monotonic() + LEAST_SECONDS > until:
                break
    for item in target.rest(desk):
        desk.hear(item)
    return desk.close()


class _Target:
    """An artifact, what is left of it, and how far the processes came that read it."""

    def __init__(self, artifact: Artifact) -> None:
        self.left = self._artifact = artifact
        self._now: str | None = None  # None before the first file, "" behind the last
        self._heard: set[str | None] = set()
        self._reached: set[str | None] = {None}
        self._blamed = ""

    @property
    def new(self) -> bool:
        """Return whether what is told now was not told by an earlier process."""
        return self._now not in self._heard

    @property
    def over(self) -> bool:
        """Return whether another process would come no further: no file was to blame."""
        return not self._blamed

    def reach(self, path: str) -> None:
        """Note which file is being read."""
        self._now = path
        self._reached.add(path)

    def leave_out(self, stopped: Stopped) -> Iterator[Skipped | FileRecord]:
        """Leave out the file that was being read; yield what is to be said of it."""
        path, self._blamed = self._now, self._now or ""
        if not path:
            what = "what the files say together" if path == "" else self._artifact.name
            yield Skipped(what, stopped.reason, True, stopped.hint)
            return
        said = Skipped(path, stopped.reason, True, stopped.hint, "reading")
        gone = next(file for file in self._artifact.files if file.path == path)
        yield said
        yield FileRecord(path, gone.size, gone.kind, None, "not analysed", None)
        without = replace(gone, local=None, parts=None, not_fetched=stopped.reason)
        files = (without if file.path == path else file for file in self.left.files)
        problems = (*self.left.problems, said)
        self.left = replace(self.left, files=tuple(files), problems=problems)
        self._heard, self._now = set(self._reached), None

    def rest(self, desk: Desk) -> Iterator[Skipped | FileRecord]:
        """Yield what is to be said of the files that no process came to."""
        paths = set(desk.lacks(file.path for file in self._artifact.files))
        unread = [file for file in self._artifact.files if file.path in paths]
        for file in unread:
            status = "listed only" if file.local is None else "not analysed"
            yield FileRecord(file.path, file.size, file.kind, None, status, None)
        missed = [file.path for file in unread if file.local is not None]
        if missed:
            yield Skipped(
                f"{plural(len(missed), 'file')} after it ({', '.join(missed[:3])}"
                f"{', …' if len(missed) > 3 else ''})",
                "not read: no time was left, or the process that reads ended before it", True,
                "remove what was not analysed, then scan again",
            )  # fmt: skip


def _unlimited(report: Report) -> Report:
    note = Skipped(
        "time and memory", "not limited: this system cannot copy a process", failed=False,
        hint="what a single file can claim is limited all the same (docs/limits.md)",
    )  # fmt: skip
    skipped = (*report.coverage.skipped, note)
    return replace(report, coverage=replace(report.coverage, skipped=skipped))
